//! What the fronts hold: propose, read, watch, status. Cheap to clone; no lock of it can cross an await.

use proto::ids::{LogIndex, NodeId, Revision, Term, V2Index};
use proto::time::Timestamp;
use store::{Command, Outcome, View};

use crate::watch::Hub;

/// The result of a proposal, with the place in the log where it was applied.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the store decided.
    pub outcome: Outcome,
    /// Index of the entry.
    pub index: LogIndex,
    /// Term of the entry.
    pub term: Term,
    /// The newest revision right after the entry.
    pub revision: Revision,
    /// The newest v2 index right after the entry.
    pub v2_index: V2Index,
}

/// Why there is no outcome. Texts are etcd's (keyspace rules, section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The queue or the uncommitted log is full; it certainly did not happen.
    #[error("etcdserver: too many requests")]
    Overloaded,
    /// No leader was known until the deadline; it certainly did not happen.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The deadline passed; it may have happened.
    #[error("etcdserver: request timed out")]
    TimedOut,
    /// Leadership was lost before the outcome was known; it may have happened.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    Uncertain,
    /// The quota is used up; it certainly did not happen.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm is up; it certainly did not happen.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// This node is stopping; it certainly did not happen.
    #[error("etcdserver: server stopped")]
    Stopping,
    /// One entry would be larger than the log takes; it certainly did not happen.
    #[error("etcdserver: request is too large")]
    TooLarge,
}

/// Why a linearizable read could not be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Too many reads wait already.
    #[error("etcdserver: too many requests")]
    Overloaded,
    /// No leader was known until the deadline.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The deadline passed without a quorum's confirmation.
    #[error("etcdserver: request timed out")]
    TimedOut,
    /// This node is stopping.
    #[error("etcdserver: server stopped")]
    Stopping,
}

/// A node's role in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks for votes (also before it really does).
    Candidate,
    /// Leads.
    Leader,
}

/// Where this node stands; a copy, updated after each turn of the raft thread.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The present term.
    pub term: Term,
    /// The present role.
    pub role: Role,
    /// The leader known; [`NodeId::NONE`] when none is.
    pub leader: NodeId,
    /// The newest committed entry known.
    pub committed: LogIndex,
    /// The newest applied entry.
    pub applied: LogIndex,
    /// Whether this node is a learner.
    pub is_learner: bool,
    /// Bytes of live data and of superseded data.
    pub live_bytes: u64,
    /// See `live_bytes`.
    pub superseded_bytes: u64,
}

/// The way to the replica.
#[derive(Clone)]
pub struct Handle {
    _private: (),
}

impl Handle {
    /// Proposes a command and waits until it is applied here, at most the request timeout
    /// (5 s and two election timeouts).
    ///
    /// # Errors
    /// [`ProposeError`]; `TimedOut` and `Uncertain` mean that it may have happened.
    #[expect(
        clippy::unused_async,
        clippy::needless_pass_by_value,
        reason = "filled in with the driver"
    )]
    pub async fn propose(&self, _command: Command) -> Result<Answer, ProposeError> {
        todo!()
    }

    /// Renews a lease, together with all others that ask within 500 ms; the full ttl in seconds, or 0 when there
    /// is no such lease or it is ending.
    ///
    /// # Errors
    /// As [`Handle::propose`].
    #[expect(clippy::unused_async, reason = "filled in with the driver")]
    pub async fn keep_alive(&self, _lease: i64) -> Result<i64, ProposeError> {
        todo!()
    }

    /// Waits until everything acknowledged before this call is applied here (ReadIndex): a [`Handle::view`]
    /// afterwards is linearizable.
    ///
    /// # Errors
    /// [`ReadError`].
    #[expect(clippy::unused_async, reason = "filled in with the driver")]
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        todo!()
    }

    /// Reads at the applied state. Keep the closure short (at most 1,000 records): the raft thread waits for it.
    pub fn view<R>(&self, _read: impl FnOnce(&View<'_>) -> R) -> R {
        todo!()
    }

    /// Where this node stands.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Cluster time as far as this node can tell; for showing ttl, never for deciding.
    pub fn now(&self) -> Timestamp {
        todo!()
    }

    /// Where changes are announced.
    pub fn hub(&self) -> &Hub {
        todo!()
    }

    /// Ends when the node begins to stop: streams close upon it.
    #[expect(clippy::unused_async, reason = "filled in with the driver")]
    pub async fn stopping(&self) {
        todo!()
    }
}
