//! The store itself: what its owner asks between entries. How an entry is applied stands in `apply.rs`.

use std::collections::BTreeSet;

use proto::ids::{ClusterId, LogIndex, Revision};
use proto::time::Timestamp;

use crate::View;
use crate::apply::Running;
use crate::command::Position;
use crate::digest::{Digest, Tag};
use crate::members::{Member, Members};
use crate::mvcc::Keyspace;
use crate::v2::V2_INDEX_FOUNDED;

/// What a founded cluster starts from: the base checkpoint that joiners receive.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Its first members, all voters.
    pub members: Vec<Member>,
    /// Where the log begins: index 1, term 1.
    pub position: Position,
}

/// What is due: the content of an `Expire` command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// v2 nodes by (expiry, path).
    pub nodes: Vec<(Timestamp, String)>,
    /// Leases by (expiry, id).
    pub leases: Vec<i64>,
}

/// Sizes that the leader's housekeeping looks at, in bytes with overhead counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Newest versions of all keys and directories.
    pub live_bytes: u64,
    /// Superseded versions and the log of changes.
    pub superseded_bytes: u64,
    /// Number of live keys.
    pub keys: u64,
    /// Number of leases.
    pub leases: u64,
}

/// The state machine.
#[derive(Debug)]
pub struct Store {
    pub(crate) keyspace: Keyspace,
    pub(crate) members: Members,
    /// (member, number of the alarm in the v3 API).
    pub(crate) alarms: BTreeSet<(u64, i32)>,
    /// The newest applied entry.
    pub(crate) position: Position,
    /// The newest stamp applied; a leader's stamp that lies before it counts as it.
    pub(crate) stamp: Timestamp,
    pub(crate) digest: Digest,
    /// The entry under way: nothing of it is visible.
    pub(crate) running: Option<Box<Running>>,
}

impl Store {
    /// A fresh store: revision 1, v2 index 3, the founding members.
    pub fn found(founding: Founding) -> Self {
        let mut digest = Digest::START;
        digest.numbers(
            Tag::Founded,
            [founding.cluster.get(), founding.position.index.get()],
        );
        let mut members = Members {
            cluster: founding.cluster,
            ..Members::default()
        };
        for member in founding.members {
            digest.numbers(Tag::Member, [member.id.get()]);
            let before = members.present.insert(member.id, member);
            assert!(before.is_none(), "two founding members have one id");
        }
        Self {
            keyspace: Keyspace::new(V2_INDEX_FOUNDED),
            members,
            alarms: BTreeSet::new(),
            position: founding.position,
            stamp: Timestamp::ZERO,
            digest,
            running: None,
        }
    }

    /// Frees at most `records_max` compacted versions that no pin needs; whether there is more to do now.
    /// Not part of the replicated state.
    pub fn collect(&mut self, records_max: usize) -> bool {
        self.keyspace.collect(records_max)
    }

    /// Reads between entries; while one is under way, what was visible before it.
    pub fn view(&self) -> View<'_> {
        View::new(self)
    }

    /// What has ended by this time, earliest first, at most `max` items of each kind.
    pub fn due(&self, now: Timestamp, max: usize) -> Due {
        let nodes = self
            .keyspace
            .due_nodes
            .iter()
            .take_while(|(expires_at, ..)| *expires_at <= now)
            .take(max);
        let text = |path: &[u8]| String::from_utf8(path.to_vec()).expect("what v2 ends is a clean path");
        Due {
            nodes: nodes
                .map(|(expires_at, path, _)| (*expires_at, text(path)))
                .collect(),
            leases: self
                .keyspace
                .leases
                .due(now)
                .take(max)
                .map(|(_, id)| id)
                .collect(),
        }
    }

    /// The sizes.
    pub fn usage(&self) -> Usage {
        let (keys, directories) = (self.keyspace.keys.sizes(), self.keyspace.directories.sizes());
        Usage {
            live_bytes: keys.live + directories.live,
            superseded_bytes: keys.superseded
                + directories.superseded
                + self.keyspace.history.sizes().superseded,
            keys: self.keyspace.keys.live(),
            leases: self.keyspace.leases.count(),
        }
    }

    /// The revision to compact to now under the retention rule (keyspace rules, section 5): at most one hour,
    /// but at least the newest 10,000 revisions, and never more than 256 MiB of superseded data; none =
    /// nothing to do.
    pub fn compaction_target(&self, now: Timestamp) -> Option<Revision> {
        let target = self.keyspace.retention.target(now)?;
        let is_new = self.keyspace.compacted.is_none_or(|compacted| target > compacted);
        is_new.then_some(target)
    }

    /// The newest applied entry.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The newest applied entry's index.
    pub fn applied(&self) -> LogIndex {
        self.position().index
    }
}
