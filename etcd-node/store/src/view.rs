//! Reading the store at a revision.

use std::sync::Arc;

use proto::ids::{LogIndex, Revision, V2Index};
use proto::time::Timestamp;

use crate::lease::LeaseInfo;
use crate::members::Members;
use crate::{Change, Store, v2};

/// The history does not reach back far enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The revision up to which history is gone.
    pub revision: Revision,
}

/// The store between two entries: everything here belongs to one moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    #[expect(dead_code, reason = "filled in with the bodies")]
    store: &'a Store,
}

impl View<'_> {
    /// The newest revision.
    pub fn revision(&self) -> Revision {
        todo!()
    }
    /// The revision up to which history is compacted; zero = nothing is.
    pub fn compacted(&self) -> Revision {
        todo!()
    }
    /// The newest v2 index.
    pub fn v2_index(&self) -> V2Index {
        todo!()
    }
    /// The newest applied log entry.
    pub fn applied(&self) -> LogIndex {
        todo!()
    }
    /// The newest stamp that was applied: a lower bound of cluster time.
    pub fn stamp(&self) -> Timestamp {
        todo!()
    }
    /// The members.
    pub fn members(&self) -> &Members {
        todo!()
    }
    /// One lease, with its keys if asked for.
    pub fn lease(&self, _id: i64, _with_keys: bool) -> Option<LeaseInfo> {
        todo!()
    }
    /// All lease ids, ascending.
    pub fn lease_ids(&self) -> Vec<i64> {
        todo!()
    }
    /// Changes from this revision on, in order, at most `changes_max`.
    ///
    /// # Errors
    /// When `from` is at or below the compacted revision.
    pub fn changes_since(&self, _from: Revision, _changes_max: usize) -> Result<Vec<Arc<Change>>, Compacted> {
        todo!()
    }
    /// v2 events from this index on, in order, at most `events_max`; refreshes included.
    ///
    /// # Errors
    /// When the window begins after `from`.
    pub fn events_since(&self, _from: V2Index, _events_max: usize) -> Result<Vec<Arc<v2::Event>>, v2::Outdated> {
        todo!()
    }
    /// Hash of everything applied so far (keyspace rules, section 9).
    pub fn hash(&self) -> u64 {
        todo!()
    }
    /// Active alarms as (member, alarm number of the v3 API).
    pub fn alarms(&self) -> Vec<(u64, i32)> {
        todo!()
    }
}
