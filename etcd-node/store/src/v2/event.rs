//! v2 events: what a v2 write answers, what the window keeps and what v2 watchers receive.

use bytes::Bytes;
use proto::ids::V2Index;
use proto::time::Timestamp;

use crate::mvcc::{DirectoryRecord, Record};

/// What happened, in v2's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A read.
    Get,
    /// Written whatever stood there.
    Set,
    /// Written where nothing stood.
    Create,
    /// Written where something stood.
    Update,
    /// Written under a condition.
    CompareAndSwap,
    /// Removed.
    Delete,
    /// Removed under a condition.
    CompareAndDelete,
    /// Removed by time.
    Expire,
}

impl Action {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Create => "create",
            Self::Update => "update",
            Self::CompareAndSwap => "compareAndSwap",
            Self::Delete => "delete",
            Self::CompareAndDelete => "compareAndDelete",
            Self::Expire => "expire",
        }
    }
}

/// A node as v2 shows it: a file, or a directory with the children that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The path; `/` for the root, whose key the wire leaves out.
    pub key: String,
    /// The value of a file. None for directories, and for the node of a delete or an expiry.
    pub value: Option<Bytes>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it ends; none = permanent. From its own TTL or from the key's lease.
    pub expires_at: Option<Timestamp>,
    /// Seconds left when this was rendered, rounded up (negative = overdue); none = permanent. The wire leaves out 0.
    pub ttl: Option<i64>,
    /// Children, sorted by key; empty when not listed.
    pub nodes: Vec<Self>,
    /// Zero for the root.
    pub modified_index: V2Index,
    /// Zero for the root.
    pub created_index: V2Index,
}

/// One v2 event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub action: Action,
    /// The node after it.
    pub node: Node,
    /// The node before it, where v2 shows one.
    pub prev_node: Option<Node>,
    /// The index that this event took; for a read the index at that time.
    pub index: V2Index,
    /// A refresh takes an index and a window slot and wakes nobody.
    pub is_refresh: bool,
}

/// Seconds left at this time, rounded up; negative when overdue, towards zero as the originals count.
pub(crate) fn seconds_left(expires_at: Timestamp, now: Timestamp) -> i64 {
    const NANOS_PER_SECOND: u64 = 1_000_000_000;
    let overdue = now.as_nanos().saturating_sub(expires_at.as_nanos()) / NANOS_PER_SECOND;
    let seconds = expires_at.seconds_since_rounded_up(now);
    let signed = |seconds: u64| i64::try_from(seconds).expect("the calendar has fewer seconds");
    signed(seconds) - signed(overdue)
}

/// A file as v2 shows it.
pub(crate) fn file(path: &str, record: &Record, expires_at: Option<Timestamp>, now: Timestamp) -> Node {
    Node {
        key: path.to_owned(),
        value: Some(record.value.clone()),
        dir: false,
        expires_at,
        ttl: expires_at.map(|expires_at| seconds_left(expires_at, now)),
        nodes: Vec::new(),
        modified_index: record.modified_index,
        created_index: record.created_index,
    }
}

/// A directory as v2 shows it, without its children.
pub(crate) fn directory(path: &str, record: &DirectoryRecord, now: Timestamp) -> Node {
    Node {
        key: path.to_owned(),
        value: None,
        dir: true,
        expires_at: record.expires_at,
        ttl: record.expires_at.map(|expires_at| seconds_left(expires_at, now)),
        nodes: Vec::new(),
        modified_index: record.modified_index,
        created_index: record.created_index,
    }
}

/// The event of a node that went: its key and indexes, no value and no time.
pub(crate) fn removal(action: Action, prev_node: Node, index: V2Index) -> Event {
    let node = Node {
        key: prev_node.key.clone(),
        dir: prev_node.dir,
        modified_index: index,
        created_index: prev_node.created_index,
        ..Node::default()
    };
    Event {
        action,
        node,
        prev_node: Some(prev_node),
        index,
        is_refresh: false,
    }
}
