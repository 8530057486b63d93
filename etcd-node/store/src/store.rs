//! The store itself: the one function that applies an entry, and what its owner asks between entries.

use proto::ids::{ClusterId, LogIndex, Revision};
use proto::time::Timestamp;

use crate::command::{Entry, Position};
use crate::members::Member;
use crate::{Progress, View};

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
pub struct Store {
    _private: (),
}

impl Store {
    /// A fresh store: revision 1, v2 index 3, the founding members.
    pub fn found(_founding: Founding) -> Self {
        todo!()
    }

    /// Applies one committed entry. The whole path of change: nothing else writes.
    ///
    /// # Panics
    /// When the position is not the one after the last, or an entry is still under way.
    pub fn apply(&mut self, _position: Position, _entry: Entry) -> Progress {
        todo!()
    }

    /// Goes on with the entry under way, touching at most `records_max` records.
    pub fn resume(&mut self, _records_max: usize) -> Progress {
        todo!()
    }

    /// Frees at most `records_max` compacted versions that no pin needs; whether there is more to do.
    /// Not part of the replicated state.
    pub fn collect(&mut self, _records_max: usize) -> bool {
        todo!()
    }

    /// Reads between entries.
    pub fn view(&self) -> View<'_> {
        todo!()
    }

    /// What has ended by this time, earliest first, at most `max` items.
    pub fn due(&self, _now: Timestamp, _max: usize) -> Due {
        todo!()
    }

    /// The sizes.
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// The revision to compact to now under the retention rule (keyspace rules, section 5: at most one hour and
    /// at most 256 MiB of superseded data, but at least 10,000 revisions); none = nothing to do.
    pub fn compaction_target(&self, _now: Timestamp) -> Option<Revision> {
        todo!()
    }

    /// The newest applied entry.
    pub fn position(&self) -> Position {
        todo!()
    }

    /// The newest applied entry's index.
    pub fn applied(&self) -> LogIndex {
        self.position().index
    }
}
