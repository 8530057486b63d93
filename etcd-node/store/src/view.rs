//! Reading the store at a revision.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{LogIndex, Revision, V2Index};
use proto::time::Timestamp;

use crate::lease::LeaseInfo;
use crate::members::Members;
use crate::mvcc::Keyspace;
use crate::{Change, Store, v2};

/// The history does not reach back far enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The revision that was last compacted to: the oldest that can be read, and at which a watch can begin.
    pub revision: Revision,
}

/// The store between two entries: everything here belongs to one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    store: &'a Store,
}

impl<'a> View<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    pub(crate) fn keyspace(&self) -> &'a Keyspace {
        &self.store.keyspace
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.store.keyspace.revision
    }

    /// The revision that was last compacted to; zero = nothing is. Below it nothing can be read.
    pub fn compacted(&self) -> Revision {
        self.store.keyspace.compacted.unwrap_or(Revision::ZERO)
    }

    /// The newest v2 index.
    pub fn v2_index(&self) -> V2Index {
        self.store.keyspace.v2_index
    }

    /// The newest applied log entry.
    pub fn applied(&self) -> LogIndex {
        self.store.position.index
    }

    /// The newest stamp that was applied: a lower bound of cluster time.
    pub fn stamp(&self) -> Timestamp {
        self.store.stamp
    }

    /// The members.
    pub fn members(&self) -> &'a Members {
        &self.store.members
    }

    /// One lease, with its keys if asked for.
    pub fn lease(&self, id: i64, with_keys: bool) -> Option<LeaseInfo> {
        let lease = self.store.keyspace.leases.get(id)?;
        let keys = if with_keys {
            self.lease_keys(id, &lease.keys)
        } else {
            Vec::new()
        };
        Some(LeaseInfo {
            id,
            granted_ttl: lease.ttl,
            expires_at: lease.expires_at,
            keys,
        })
    }

    /// The keys of a lease as they were before the entry under way.
    fn lease_keys(&self, id: i64, newest: &BTreeSet<Bytes>) -> Vec<Bytes> {
        let Some(running) = &self.store.running else {
            return newest.iter().cloned().collect();
        };
        let touched: BTreeSet<&Bytes> = running.writes().map(|write| &write.key).collect();
        let revision = self.revision();
        let had = |key: &Bytes| {
            self.store
                .keyspace
                .keys
                .at(key, revision)
                .is_some_and(|record| record.lease == id)
        };
        let untouched = newest.iter().filter(|key| !touched.contains(key));
        let restored = touched.iter().copied().filter(|key| had(key));
        let keys: BTreeSet<&Bytes> = untouched.chain(restored).collect();
        keys.into_iter().cloned().collect()
    }

    /// All lease ids, ascending.
    pub fn lease_ids(&self) -> Vec<i64> {
        self.store.keyspace.leases.iter().map(|(id, _)| id).collect()
    }

    /// Changes from this revision on, in order, at most `changes_max`.
    ///
    /// # Errors
    /// When `from` is below the compacted revision; the change of that revision itself is kept, as etcd's
    /// watches may begin exactly there.
    pub fn changes_since(&self, from: Revision, changes_max: usize) -> Result<Vec<Arc<Change>>, Compacted> {
        let keyspace = self.keyspace();
        if let Some(compacted) = keyspace.compacted
            && from < compacted
        {
            return Err(Compacted { revision: compacted });
        }
        let moments = keyspace.history.since(from).take(changes_max);
        Ok(moments.map(|moment| Arc::clone(&moment.change)).collect())
    }

    /// v2 events from this index on, in order, at most `events_max`; refreshes included.
    ///
    /// # Errors
    /// When the window begins after `from`.
    pub fn events_since(
        &self,
        from: V2Index,
        events_max: usize,
    ) -> Result<Vec<Arc<v2::Event>>, v2::Outdated> {
        self.store.keyspace.window.since(from, events_max)
    }

    /// Hash of everything applied so far (keyspace rules, section 9).
    pub fn hash(&self) -> u64 {
        self.store.digest.value()
    }

    /// Active alarms as (member, alarm number of the v3 API), in order.
    pub fn alarms(&self) -> Vec<(u64, i32)> {
        self.store.alarms.iter().copied().collect()
    }
}
