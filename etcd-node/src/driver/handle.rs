//! What the fronts hold: propose, read, watch, status. Cheap to clone; no lock of it can cross an await.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use proto::ids::{LogIndex, NodeId, Revision, Term, V2Index};
use proto::log::{MemberChange, Proposal};
use proto::peer::propose_response::Verdict;
use proto::peer::{RaftMessage, RaftSnapshotMetadata};
use proto::time::Timestamp;
use store::{Command, Outcome, Store, View};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::keep_alive::{KeepAlives, RenewalQueue};
use crate::replica::Stop;
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Proposals of this node that wait for their outcome.
    pub pending: usize,
}

/// What somebody asks of the raft thread.
pub enum Order {
    /// A command of a client.
    Propose {
        /// The command.
        command: Box<Command>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<Answer, ProposeError>>,
    },
    /// A linearizable read.
    Read {
        /// Where the permission goes.
        reply: oneshot::Sender<Result<(), ReadError>>,
    },
    /// A proposal that another member hands to us as leader.
    Forwarded {
        /// The proposal.
        proposal: Box<Proposal>,
        /// Where the verdict goes.
        reply: oneshot::Sender<Verdict>,
    },
    /// What became of a proposal handed to the leader; none = nobody can tell.
    ForwardEnded {
        /// The proposal.
        proposal: Box<Proposal>,
        /// The leader's word.
        verdict: Option<Verdict>,
    },
    /// A Raft message of a proven sender.
    Message {
        /// The sender.
        sender: NodeId,
        /// The message.
        message: Box<RaftMessage>,
    },
    /// A checkpoint that arrived, is durable, and was read back.
    Snapshot {
        /// The sender.
        sender: NodeId,
        /// The message that it belongs to.
        message: Box<RaftMessage>,
        /// The state.
        store: Box<Store>,
    },
    /// How the sending of a checkpoint ended.
    SnapshotSent {
        /// Who should have it.
        to: NodeId,
        /// Whether it has.
        is_done: bool,
    },
    /// A member cannot be reached.
    Unreachable {
        /// Who.
        to: NodeId,
    },
    /// A checkpoint is complete on disk.
    CheckpointDone {
        /// Where it stands.
        metadata: RaftSnapshotMetadata,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A checkpoint could not be written.
    CheckpointFailed,
    /// A membership change; only a leader can.
    Member {
        /// What to change.
        change: Box<MemberChange>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<Answer, ProposeError>>,
    },
    /// Hand leadership over.
    TransferLeadership,
    /// The log made progress on disk: look at once.
    Wake,
    /// End the raft thread.
    Stop,
}

/// The one lock of the node: the store, written by the raft thread alone.
pub(super) struct StoreCell(RwLock<Store>);

impl StoreCell {
    pub(super) fn new(store: Store) -> Self {
        Self(RwLock::new(store))
    }

    /// A panic while the lock is held ends the process, so a poisoned lock is never seen; its content is whole.
    pub(super) fn read<R>(&self, read: impl FnOnce(&Store) -> R) -> R {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn write<R>(&self, write: impl FnOnce(&mut Store) -> R) -> R {
        write(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) struct Shared {
    pub(super) orders: SyncSender<Order>,
    pub(super) store: StoreCell,
    /// Counts replacements of the store by received checkpoints.
    pub(super) generation: AtomicU64,
    pub(super) hub: Hub,
    pub(super) status: watch::Sender<Status>,
    pub(super) renewals: RenewalQueue,
    pub(super) stopping: CancellationToken,
    /// Why the raft thread ended by itself.
    pub(super) stopped: watch::Sender<Option<Arc<Stop>>>,
}

/// The way to the replica.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// Proposes a command and waits until it is applied here, at most the request timeout
    /// (5 s and two election timeouts).
    ///
    /// # Errors
    /// [`ProposeError`]; `TimedOut` and `Uncertain` mean that it may have happened.
    pub async fn propose(&self, command: Command) -> Result<Answer, ProposeError> {
        let (reply, outcome) = oneshot::channel();
        self.order(Order::Propose {
            command: Box::new(command),
            reply,
        })?;
        // The thread ended without a word, as it does when the log fails: nobody can tell.
        outcome.await.unwrap_or(Err(ProposeError::Uncertain))
    }

    /// Renews a lease, together with all others that ask within 500 ms; the full ttl in seconds, or 0 when there
    /// is no such lease or it is ending.
    ///
    /// # Errors
    /// As [`Handle::propose`].
    pub async fn keep_alive(&self, lease: i64) -> Result<i64, ProposeError> {
        KeepAlives::ask(&self.shared.renewals, lease).await
    }

    /// Waits until everything acknowledged before this call is applied here (ReadIndex): a [`Handle::view`]
    /// afterwards is linearizable.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let (reply, permission) = oneshot::channel();
        match self.shared.orders.try_send(Order::Read { reply }) {
            Ok(()) => permission.await.unwrap_or(Err(ReadError::Stopping)),
            Err(TrySendError::Full(_)) => Err(ReadError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(ReadError::Stopping),
        }
    }

    /// Reads at the applied state. Keep the closure short (at most 1,000 records): the raft thread waits for it.
    pub fn view<R>(&self, read: impl FnOnce(&View<'_>) -> R) -> R {
        self.shared.store.read(|store| read(&store.view()))
    }

    /// Where this node stands.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Announces each change of the status.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Cluster time as far as this node can tell; for showing ttl, never for deciding.
    pub fn now(&self) -> Timestamp {
        let stamp = self.view(|view| view.stamp());
        wall_clock().max(stamp)
    }

    /// Where changes are announced.
    pub fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// Ends when the node begins to stop: streams close upon it.
    pub async fn stopping(&self) {
        self.shared.stopping.cancelled().await;
    }

    /// Changes the membership, on the leader.
    ///
    /// # Errors
    /// `NoLeader` when this node does not lead, `Overloaded` while another change is under way.
    pub async fn change_membership(&self, change: MemberChange) -> Result<Answer, ProposeError> {
        let (reply, outcome) = oneshot::channel();
        self.order(Order::Member {
            change: Box::new(change),
            reply,
        })?;
        // The thread ended without a word, as it does when the log fails: nobody can tell.
        outcome.await.unwrap_or(Err(ProposeError::Uncertain))
    }

    /// Takes in what a peer handed to us as leader.
    pub async fn accept_forwarded(&self, proposal: Proposal) -> Verdict {
        let (reply, verdict) = oneshot::channel();
        match self.order(Order::Forwarded {
            proposal: Box::new(proposal),
            reply,
        }) {
            Ok(()) => verdict.await.unwrap_or(Verdict::Stopping),
            Err(ProposeError::Overloaded) => Verdict::Overloaded,
            Err(_) => Verdict::Stopping,
        }
    }

    /// Hands an order to the raft thread without waiting.
    ///
    /// # Errors
    /// `Overloaded` when its queue is full, `Stopping` when it has ended. Peers' messages may be dropped: raft
    /// sends again.
    pub fn order(&self, order: Order) -> Result<(), ProposeError> {
        self.shared.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => ProposeError::Overloaded,
            TrySendError::Disconnected(_) => ProposeError::Stopping,
        })
    }

    /// Waits until the raft thread has ended by itself, and says why.
    pub async fn stopped(&self) -> Arc<Stop> {
        let mut stopped = self.shared.stopped.subscribe();
        loop {
            if let Some(reason) = stopped.borrow_and_update().clone() {
                return reason;
            }
            if stopped.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// What the machine believes the time to be.
pub(super) fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
