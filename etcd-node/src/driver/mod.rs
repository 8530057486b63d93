//! The shell of the replica: the raft thread, the one lock, and the handle that everybody else holds.
//!
//! The raft thread owns the [`crate::replica::Replica`]. It drains its queue, hands everything to the replica,
//! performs the effects, and applies what is committed for at most [`raft_thread::TURN_MAX`] per turn, so that
//! ticks never wait behind traffic.

mod checkpoints;
mod handle;
mod keep_alive;
mod raft_thread;
mod traffic;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use daemon::tasks::Tasks;
use proto::ids::NodeId;
use proto::log::Proposal;
use proto::peer::{RaftMessage, RaftSnapshotMetadata};
use store::Store;
use store::members::Members;
use tokio::sync::watch;

pub use checkpoints::{CheckpointFiles, Policy, ReadBackError, read_back, write_whole};
pub use handle::{Answer, Handle, Order, ProposeError, ReadError, Role, Status};
use handle::{Shared, StoreCell};
use keep_alive::KeepAlives;
use raft_thread::{LogEnd, RaftThread};
use traffic::Traffic;

use crate::metrics::Metrics;
use crate::replica::{Recovered, Replica, Settings};
use crate::wal::thread::LogThread;
use crate::watch::Hub;

/// Orders that wait for the raft thread; a full queue refuses at once. A turn takes all of them.
const ORDERS_MAX: usize = 16_384;

/// What carries messages to other members. It must never block: what cannot be sent is dropped, raft repeats.
pub trait Transport: Send {
    /// Sends Raft messages. A snapshot message names a checkpoint that the transport reads from disk.
    fn send(&mut self, messages: Vec<RaftMessage>);
    /// Hands a proposal to the leader once, and reports with [`Order::ForwardEnded`].
    fn forward(&mut self, leader: NodeId, proposal: Proposal);
    /// The members changed.
    fn members_changed(&mut self, members: &Members);
}

/// A started node's inside.
pub struct Driver {
    /// For everybody.
    pub handle: Handle,
    thread: std::thread::JoinHandle<()>,
}

/// What a driver is made of. Its handle exists before the thread, because the transport needs it.
pub struct Parts {
    handle: Handle,
    orders: Receiver<Order>,
    keep_alives: KeepAlives,
}

/// What the thread needs beside the parts.
pub struct Start {
    /// How the replica behaves.
    pub settings: Settings,
    /// What the disk holds.
    pub recovered: Recovered,
    /// The log, open.
    pub log: crate::wal::Log,
    /// Where checkpoints go.
    pub checkpoints: CheckpointFiles,
    /// When they are due.
    pub policy: Policy,
    /// To other members.
    pub transport: Box<dyn Transport>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
}

impl Parts {
    /// The handle over a restored or founded store. Nothing runs yet.
    pub fn new(store: Store, tasks: &Tasks) -> Self {
        let (orders, orders_in) = sync_channel(ORDERS_MAX);
        let (renewals, keep_alives) = KeepAlives::new();
        let revision = store.view().revision();
        let shared = Shared {
            orders,
            store: StoreCell::new(store),
            generation: std::sync::atomic::AtomicU64::new(0),
            hub: Hub::new(revision),
            status: watch::Sender::new(Status::default()),
            renewals,
            stopping: tasks.stop().clone(),
            stopped: watch::Sender::new(None),
        };
        Self {
            handle: Handle {
                shared: Arc::new(shared),
            },
            orders: orders_in,
            keep_alives,
        }
    }

    /// What the transport and the fronts hold.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the raft thread and the log's.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self, start: Start, tasks: &Tasks) -> std::io::Result<Driver> {
        let end = LogEnd::default();
        let fsyncs = start.metrics.wal_fsync.clone();
        let on_sync = Box::new(move |took: Duration| fsyncs.observe(took.as_secs_f64()));
        let log = LogThread::spawn(
            start.log.writer,
            end.report_hook(self.handle.clone()),
            Some(on_sync),
        )?;
        let replica = Replica::new(start.settings, start.recovered, &raft_thread::logger());
        tasks.spawn("keep-alives", self.keep_alives.run(self.handle.clone()));
        let thread = RaftThread {
            handle: self.handle.clone(),
            orders: self.orders,
            replica,
            log,
            end,
            checkpoints: checkpoints::Checkpoints::new(start.checkpoints, start.policy),
            transport: start.transport,
            traffic: Traffic::new(Arc::clone(&start.metrics)),
            metrics: start.metrics,
            waiters: raft_thread::Waiters::default(),
            started: std::time::Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("raft".to_owned())
            .spawn(move || thread.run())?;
        Ok(Driver {
            handle: self.handle,
            thread,
        })
    }
}

impl Driver {
    /// Ends the raft thread: everybody who waits is answered, the log is closed cleanly.
    ///
    /// # Panics
    /// When the thread panicked.
    pub fn stop(self) {
        // The queue may be full for a moment, and the thread may have ended by itself: both are fine.
        let _ended = self.handle.shared.orders.send(Order::Stop);
        self.thread.join().expect("the raft thread panicked");
    }
}

/// Where a checkpoint stands, in words of the log.
pub(crate) fn position(metadata: &RaftSnapshotMetadata) -> crate::wal::LogPosition {
    crate::wal::LogPosition {
        index: proto::ids::LogIndex::new(metadata.index),
        term: proto::ids::Term::new(metadata.term),
    }
}
