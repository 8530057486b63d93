//! The two threads of a log: one drains its queue, writes all of it as one frame with one fsync, and reports;
//! the other prepares and releases segments. Nothing here waits for a reply from the thread that submits.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proto::ids::LogIndex;
use proto::peer::LogFrame;
use tracing::{error, warn};

use super::writer::SyncHook;
use super::{Keeper, LogPosition, WalError, Writer};

/// Jobs that wait for the disk at most. The replica makes one per turn and keeps fewer outstanding; a full queue
/// means that the disk has stalled, and the replica must stop taking proposals.
pub const QUEUE_JOBS_MAX: usize = 1024;
/// One frame takes no further job once it has this many bytes: a larger write delays its own report.
const BATCH_BYTES: usize = 8 << 20;
/// How often the writer looks for space on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// How often the helper tries again what the disk refused.
const HELPER_RETRY: Duration = Duration::from_secs(1);

/// What one turn of the replica wants on disk.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Grows from job to job; reported when the job is durable. Raft's ready number fits.
    pub number: u64,
    /// Set when a received checkpoint, durable already, replaces the log: written before the frame.
    pub restart: Option<LogPosition>,
    /// Entries and hard state.
    pub frame: LogFrame,
}

/// What the log's threads tell.
#[derive(Debug)]
pub enum Report {
    /// This job and all before it are durable.
    Persisted {
        /// The job's number.
        number: u64,
    },
    /// The disk is full and no spare segment is left. Jobs wait, nothing is lost, and the thread tries again; told
    /// once until something is persisted.
    Full {
        /// What the writer said.
        error: WalError,
    },
    /// The disk is too full to prepare a spare segment; what is ready still serves. Told once until one is made.
    SpareMissing {
        /// What the helper said.
        error: WalError,
        /// Spare segments that are ready.
        spares_ready: usize,
    },
    /// Nothing more is written: the process must end, and no job that was not reported may be promised.
    Failed {
        /// What happened.
        error: WalError,
    },
}

/// Called in the log's threads, in the order of the jobs; must not block.
pub type ReportHook = Box<dyn Fn(Report) + Send + Sync>;

/// A job that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The disk has stalled.
    #[error("the queue of the log is full ({QUEUE_JOBS_MAX} waiting)")]
    Full(Box<Job>),
    /// The log failed or was closed.
    #[error("the log takes nothing more")]
    Stopped(Box<Job>),
}

enum Order {
    Write(Job),
    CaughtUp,
    Close,
}

/// What the helper is asked for; newer wishes replace older ones, so it needs no queue.
#[derive(Debug, Default)]
struct Wishes {
    wished: Mutex<Wished>,
    changed: Condvar,
    /// Tells the writer too: one that waits for space gives up.
    is_closing: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wished {
    /// Spares are missing.
    prepare: bool,
    /// Segments below this entry may go.
    release: Option<LogIndex>,
}

/// The running threads of a log.
#[derive(Debug)]
pub struct LogThread {
    handle: LogHandle,
    keeper: Keeper,
    writer: JoinHandle<Result<(), WalError>>,
    helper: JoinHandle<()>,
}

/// Gives work to the threads of a log; clones give to the same.
#[derive(Clone, Debug)]
pub struct LogHandle {
    orders: SyncSender<Order>,
    wishes: Arc<Wishes>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write(_) => "Write",
            Self::CaughtUp => "CaughtUp",
            Self::Close => "Close",
        })
    }
}

impl LogThread {
    /// Starts the threads. `on_sync` is told how long each fsync of a frame took.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(mut writer: Writer, on_report: ReportHook, on_sync: Option<SyncHook>) -> io::Result<Self> {
        if let Some(on_sync) = on_sync {
            writer.set_sync_hook(on_sync);
        }
        let on_report: Arc<dyn Fn(Report) + Send + Sync> = Arc::from(on_report);
        let wishes = Arc::new(Wishes::default());
        let (orders, orders_in) = sync_channel(QUEUE_JOBS_MAX);
        let keeper = writer.keeper();
        let helper = Helper {
            keeper: keeper.clone(),
            wishes: Arc::clone(&wishes),
            on_report: Arc::clone(&on_report),
            is_full: false,
        };
        let write_loop = WriteLoop {
            writer,
            keeper: keeper.clone(),
            orders: orders_in,
            wishes: Arc::clone(&wishes),
            on_report,
            is_full: false,
        };
        let writer = thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || write_loop.run())?;
        let helper = thread::Builder::new()
            .name("wal-helper".to_owned())
            .spawn(move || helper.run())?;
        wishes.prepare();
        Ok(Self {
            handle: LogHandle { orders, wishes },
            keeper,
            writer,
            helper,
        })
    }

    /// What gives work to these threads.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }

    /// Writes what is queued, closes the log cleanly and ends the threads. Jobs submitted meanwhile are refused or
    /// lost unreported.
    ///
    /// # Errors
    /// The error that ended the writer, now or earlier.
    ///
    /// # Panics
    /// When a thread of the log panicked.
    pub fn close(self) -> Result<(), WalError> {
        let Self {
            handle,
            keeper,
            writer,
            helper,
        } = self;
        handle.wishes.close();
        keeper.stop();
        // A closed channel means that the thread has ended; join tells why.
        let _ended = handle.orders.send(Order::Close);
        let closed = writer.join().expect("the log's thread panicked");
        helper.join().expect("the log's helper panicked");
        closed
    }
}

impl LogHandle {
    /// Queues a job; never waits.
    ///
    /// # Errors
    /// The job comes back when the queue is full or the log has stopped.
    pub fn submit(&self, job: Job) -> Result<(), SubmitError> {
        self.orders
            .try_send(Order::Write(job))
            .map_err(|error| match error {
                TrySendError::Full(Order::Write(job)) => SubmitError::Full(Box::new(job)),
                TrySendError::Disconnected(Order::Write(job)) => SubmitError::Stopped(Box::new(job)),
                TrySendError::Full(_) | TrySendError::Disconnected(_) => {
                    unreachable!("what is sent comes back")
                }
            })
    }

    /// Writes down that a node that had cut a torn tail has caught up. Whether the order was taken; when not, the
    /// queue is full and it is to be given again.
    pub fn caught_up(&self) -> bool {
        self.orders.try_send(Order::CaughtUp).is_ok()
    }

    /// Releases segments that only hold what is older than this entry, in the helper thread (see
    /// [`Keeper::release`]).
    pub fn release(&self, up_to: LogIndex) {
        self.wishes.release(up_to);
    }
}

impl Wishes {
    fn wished(&self) -> MutexGuard<'_, Wished> {
        self.wished.lock().expect("no holder of this lock panics")
    }

    fn prepare(&self) {
        let mut wished = self.wished();
        if !wished.prepare {
            wished.prepare = true;
            self.changed.notify_all();
        }
    }

    fn release(&self, up_to: LogIndex) {
        let mut wished = self.wished();
        wished.release = wished.release.max(Some(up_to));
        self.changed.notify_all();
    }

    fn close(&self) {
        let _wished = self.wished();
        self.is_closing.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Waits for wishes and takes them; none when the log closes.
    fn take(&self) -> Option<Wished> {
        let none = |wished: &mut Wished| *wished == Wished::default() && !self.is_closing();
        let mut wished = self
            .changed
            .wait_while(self.wished(), none)
            .expect("no holder of this lock panics");
        if self.is_closing() {
            None
        } else {
            Some(std::mem::take(&mut wished))
        }
    }

    /// Waits a while, or until the log closes or something is released.
    fn pause(&self, duration: Duration) {
        let nothing = |wished: &mut Wished| wished.release.is_none() && !self.is_closing();
        let waited = self.changed.wait_timeout_while(self.wished(), duration, nothing);
        drop(waited.expect("no holder of this lock panics"));
    }
}

struct WriteLoop {
    writer: Writer,
    keeper: Keeper,
    orders: Receiver<Order>,
    wishes: Arc<Wishes>,
    on_report: Arc<dyn Fn(Report) + Send + Sync>,
    is_full: bool,
}

impl WriteLoop {
    fn run(mut self) -> Result<(), WalError> {
        match self.drain() {
            Ok(()) => self.writer.close(),
            Err(error) => {
                error!(%error, "the log has failed");
                // The caller of close learns the same in other words; the report carries the error itself.
                let first = error.to_string();
                (self.on_report)(Report::Failed { error });
                Err(WalError::Stopped { first })
            }
        }
    }

    /// Writes until an order to close, or until nobody can give orders.
    fn drain(&mut self) -> Result<(), WalError> {
        while let Ok(order) = self.orders.recv() {
            let mut last = None;
            let mut is_closing = self.stage(order, &mut last)?;
            while !is_closing && self.writer.staged_bytes() < BATCH_BYTES {
                let Ok(order) = self.orders.try_recv() else { break };
                is_closing = self.stage(order, &mut last)?;
            }
            self.commit()?;
            if let Some(number) = last {
                (self.on_report)(Report::Persisted { number });
            }
            if self.keeper.lacks_spares() {
                self.wishes.prepare();
            }
            if is_closing {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the order was to close.
    fn stage(&mut self, order: Order, last: &mut Option<u64>) -> Result<bool, WalError> {
        match order {
            Order::Write(job) => {
                if let Some(position) = job.restart {
                    self.writer.restart(position);
                }
                self.writer.append(&job.frame)?;
                *last = Some(job.number);
                Ok(false)
            }
            Order::CaughtUp => {
                self.writer.stage_caught_up();
                Ok(false)
            }
            Order::Close => Ok(true),
        }
    }

    /// Commits; while the disk is full, waits for a spare segment.
    fn commit(&mut self) -> Result<(), WalError> {
        loop {
            match self.writer.commit() {
                Ok(_) => {
                    self.is_full = false;
                    return Ok(());
                }
                Err(error @ WalError::NoSpace { .. }) if !self.wishes.is_closing() => {
                    if !self.is_full {
                        self.is_full = true;
                        warn!(%error, "the log waits for space");
                        (self.on_report)(Report::Full { error });
                    }
                    self.keeper.wait_for_spare(FULL_RETRY);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

struct Helper {
    keeper: Keeper,
    wishes: Arc<Wishes>,
    on_report: Arc<dyn Fn(Report) + Send + Sync>,
    is_full: bool,
}

impl Helper {
    fn run(mut self) {
        let mut release = None;
        while let Some(wished) = self.wishes.take() {
            release = wished.release.max(release);
            let is_released = self.release(release);
            if is_released {
                release = None;
            }
            let is_prepared = self.prepare();
            if !is_released || !is_prepared {
                self.wishes.pause(HELPER_RETRY);
                self.wishes.prepare();
            }
        }
    }

    /// Whether nothing is left to release.
    fn release(&self, up_to: Option<LogIndex>) -> bool {
        let Some(up_to) = up_to else { return true };
        match self.keeper.release(up_to) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, %up_to, "old segments of the log stay for now");
                false
            }
        }
    }

    /// Whether enough spares are ready.
    fn prepare(&mut self) -> bool {
        match self.keeper.prepare() {
            Ok(()) => {
                self.is_full = false;
                true
            }
            Err(_) if self.wishes.is_closing() => true,
            Err(error) => {
                if !self.is_full {
                    self.is_full = true;
                    let spares_ready = self.keeper.spares_ready();
                    warn!(%error, spares_ready, "no spare segment of the log can be prepared");
                    (self.on_report)(Report::SpareMissing { error, spares_ready });
                }
                false
            }
        }
    }
}
