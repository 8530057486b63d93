//! Raft in numbers: who leads and since when, what is proposed, committed, applied, lost.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use proto::ids::NodeId;
use proto::time::Timestamp;

use crate::driver::Status;

/// A leader and since when it is one, as seen from here.
#[derive(Clone, Copy, Debug)]
pub struct Leader {
    /// Who.
    pub id: NodeId,
    /// For durations.
    pub since: Instant,
    /// For people.
    pub since_wall: Timestamp,
}

/// See the help text of each.
pub struct ServerMetrics {
    pub(super) has_leader: Gauge,
    pub(super) is_leader: Gauge,
    pub(super) is_learner: Gauge,
    leader_changes_seen: Counter,
    proposals_committed: Counter,
    proposals_applied: Counter,
    proposals_pending: Gauge,
    /// Proposals of this node that got no outcome.
    pub proposals_failed: Counter,
    leader: Mutex<Option<Leader>>,
}

impl ServerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self {
            has_leader: Gauge::default(),
            is_leader: Gauge::default(),
            is_learner: Gauge::default(),
            leader_changes_seen: Counter::default(),
            proposals_committed: Counter::default(),
            proposals_applied: Counter::default(),
            proposals_pending: Gauge::default(),
            proposals_failed: Counter::default(),
            leader: Mutex::new(None),
        };
        registry.register(
            "etcd_server_has_leader",
            "1 when a leader is known",
            this.has_leader.clone(),
        );
        registry.register(
            "etcd_server_is_leader",
            "1 when this node leads",
            this.is_leader.clone(),
        );
        registry.register(
            "etcd_server_is_learner",
            "1 while this node does not vote",
            this.is_learner.clone(),
        );
        let changes = this.leader_changes_seen.clone();
        registry.register(
            "etcd_server_leader_changes_seen",
            "Changes of the leader seen by this node",
            changes,
        );
        let committed = this.proposals_committed.clone();
        registry.register(
            "etcd_server_proposals_committed",
            "Index of the newest committed entry",
            committed,
        );
        let applied = this.proposals_applied.clone();
        registry.register(
            "etcd_server_proposals_applied",
            "Index of the newest applied entry",
            applied,
        );
        let pending = this.proposals_pending.clone();
        registry.register(
            "etcd_server_proposals_pending",
            "Proposals waiting for their outcome",
            pending,
        );
        let failed = this.proposals_failed.clone();
        registry.register(
            "etcd_server_proposals_failed",
            "Proposals that got no outcome",
            failed,
        );
        this
    }

    /// Another leader was seen (never [`NodeId::NONE`]: that a leader is missing is no change of the leader).
    pub fn leader_changed(&self, id: NodeId) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_wall = Timestamp::ZERO.checked_add(since_epoch).unwrap_or_default();
        let leader = Leader {
            id,
            since: Instant::now(),
            since_wall,
        };
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(leader);
        self.leader_changes_seen.inc();
    }

    /// The newest leader seen, though it may be gone.
    pub fn leader(&self) -> Option<Leader> {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn show_progress(&self, status: &Status) {
        self.proposals_committed
            .inner()
            .store(status.committed.get(), Ordering::Relaxed);
        self.proposals_applied
            .inner()
            .store(status.applied.get(), Ordering::Relaxed);
        self.proposals_pending
            .set(i64::try_from(status.pending).unwrap_or(i64::MAX));
    }
}
