//! Leases of the v3 API: granted, kept alive, ended; each with the keys attached to it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::time::Timestamp;

use crate::budget::Budget;
use crate::digest::{Tag, unsigned};
use crate::mvcc::{Edit, Keyspace};
use crate::v2::Action;

/// The longest time to live in seconds; etcd's.
pub const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// The shortest time to live in seconds: what etcd grants at least with its default timing.
pub const TTL_SECONDS_MIN: i64 = 2;

/// What can be known of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its id.
    pub id: i64,
    /// The time to live that was granted, in seconds.
    pub granted_ttl: i64,
    /// When it ends unless renewed.
    pub expires_at: Timestamp,
    /// The keys attached to it, in order; only when asked for.
    pub keys: Vec<Bytes>,
}

/// One lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Seconds, between the two bounds.
    pub(crate) ttl: i64,
    pub(crate) expires_at: Timestamp,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// All leases.
///
/// Invariant: `queue` holds exactly (`expires_at`, id) of each lease.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    map: BTreeMap<i64, Lease>,
    queue: BTreeSet<(Timestamp, i64)>,
}

impl Leases {
    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.map.get(&id)
    }

    pub(crate) fn count(&self) -> u64 {
        self.map.len() as u64
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.map.iter().map(|(id, lease)| (*id, lease))
    }

    /// The first lease with an id above this one.
    pub(crate) fn after(&self, id: Option<i64>) -> Option<i64> {
        let lower = id.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.map
            .range((lower, std::ops::Bound::Unbounded))
            .next()
            .map(|(id, _)| *id)
    }

    /// When a lease ends; none = there is no such lease.
    pub(crate) fn expires_at(&self, id: i64) -> Option<Timestamp> {
        if id == 0 {
            None
        } else {
            self.map.get(&id).map(|lease| lease.expires_at)
        }
    }

    /// A new lease; its time to live is within the bounds and its id is free.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64, expires_at: Timestamp) {
        assert!(
            (TTL_SECONDS_MIN..=TTL_SECONDS_MAX).contains(&ttl),
            "a lease of {ttl} seconds"
        );
        let before = self.map.insert(
            id,
            Lease {
                ttl,
                expires_at,
                keys: BTreeSet::new(),
            },
        );
        assert!(before.is_none(), "lease {id} exists already");
        self.queue.insert((expires_at, id));
    }

    /// Moves a lease's end to its full time from this stamp, never back.
    pub(crate) fn extend(&mut self, id: i64, stamp: Timestamp) -> Option<(i64, Timestamp)> {
        let lease = self.map.get_mut(&id)?;
        let end = end_of(lease.ttl, stamp).max(lease.expires_at);
        if end != lease.expires_at {
            self.queue.remove(&(lease.expires_at, id));
            self.queue.insert((end, id));
            lease.expires_at = end;
        }
        Some((lease.ttl, end))
    }

    /// Removes a lease whose keys are gone.
    pub(crate) fn end(&mut self, id: i64) {
        if let Some(lease) = self.map.remove(&id) {
            assert!(lease.keys.is_empty(), "lease {id} ends with keys attached");
            self.queue.remove(&(lease.expires_at, id));
        }
    }

    pub(crate) fn attach(&mut self, id: i64, key: Bytes) {
        let lease = self
            .map
            .get_mut(&id)
            .expect("a key is attached to a lease that was found");
        lease.keys.insert(key);
    }

    /// Attaches a restored key; false when there is no such lease.
    pub(crate) fn attach_restored(&mut self, id: i64, key: &Bytes) -> bool {
        self.map
            .get_mut(&id)
            .is_some_and(|lease| lease.keys.insert(key.clone()))
    }

    pub(crate) fn detach(&mut self, id: i64, key: &Bytes) {
        let lease = self.map.get_mut(&id).expect("a lease outlives its keys");
        let was_attached = lease.keys.remove(key);
        assert!(was_attached, "a key with lease {id} is attached to it");
    }

    /// Leases that have ended by this time, earliest first.
    pub(crate) fn due(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, i64)> {
        self.queue.range(..=(now, i64::MAX)).copied()
    }
}

/// When a time to live that begins at this stamp ends; the calendar's end at the latest.
pub(crate) fn end_of(ttl: i64, stamp: Timestamp) -> Timestamp {
    let seconds = u64::try_from(ttl).expect("a granted time to live is positive");
    stamp
        .checked_add_seconds(seconds)
        .unwrap_or(Timestamp::from_nanos(u64::MAX))
}

/// The end of a lease under way: its keys go in order, in one revision; then the lease does.
#[derive(Debug)]
pub(crate) struct Ending {
    id: i64,
    action: Action,
}

impl Ending {
    /// Begins; v2 sees its keys go by this action.
    pub(crate) fn new(id: i64, action: Action) -> Self {
        Self { id, action }
    }

    /// Goes on; true = complete.
    pub(crate) fn step(&mut self, keyspace: &mut Keyspace, edit: &mut Edit, budget: &mut Budget) -> bool {
        while let Some(key) = keyspace
            .leases
            .get(self.id)
            .and_then(|lease| lease.keys.first())
            .cloned()
        {
            if !budget.take() {
                return false;
            }
            keyspace
                .remove_shown(edit, &key, self.action)
                .expect("a key of a lease is live");
        }
        edit.digest.numbers(Tag::LeaseEnded, [unsigned(self.id)]);
        edit.ended_leases.push(self.id);
        true
    }
}
