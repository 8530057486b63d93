//! v2 events: what a v2 write answers, what the window keeps and what v2 watchers receive.

use bytes::Bytes;
use proto::ids::V2Index;
use proto::time::Timestamp;

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
