//! One subscriber's place: a bounded queue that the raft thread fills without ever waiting, and a bell that
//! tells the stream which of its queues have something.
//!
//! A stream may hold thousands of subscriptions; it waits on one [`Bell`] instead of polling them all.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use proto::ids::Revision;
use store::Change;

use super::Next;
use super::hub::Shared;

/// How many changes wait for one subscriber at most. etcd's watch channels hold 128; one turn of the raft
/// thread rarely makes more, and whoever is slower goes back to history, where the changes are kept anyway.
pub const QUEUE_CHANGES_MAX: usize = 128;

/// Locks even if a holder panicked: every value behind these locks is whole between two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says which of a stream's subscriptions have something to take.
#[derive(Clone, Default)]
pub struct Bell {
    state: Arc<Mutex<Rung>>,
}

#[derive(Default)]
struct Rung {
    /// In the order of ringing. At most one for each seat at rest, so no longer than the stream's seats.
    tokens: VecDeque<u64>,
    waker: Option<Waker>,
}

impl Bell {
    /// A bell that nobody rings yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until a seat rings and gives the token it was attached with. A token may come although its seat is
    /// empty or gone by now. Cancel-safe; for one waiting task at a time.
    pub async fn rung(&self) -> u64 {
        poll_fn(|context| {
            let mut state = lock(&self.state);
            match state.tokens.pop_front() {
                Some(token) => Poll::Ready(token),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Rings; the caller wakes the stream when it holds no lock any more.
    #[must_use]
    pub(super) fn ring(&self, token: u64) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.tokens.push_back(token);
        state.waker.take()
    }
}

/// The hub's end of a subscription.
pub(super) struct Seat {
    pub(super) id: u64,
    after: Revision,
    token: u64,
    bell: Bell,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    runs: VecDeque<Run>,
    /// Changes in all runs; at most [`QUEUE_CHANGES_MAX`].
    length: usize,
    /// Something after the queued changes was not queued. Never taken back: the subscriber starts anew.
    is_lagging: bool,
    /// The token stands in the bell, or its holder is about to empty the queue.
    is_rung: bool,
}

/// The part of one published batch that fitted.
struct Run {
    changes: Arc<[Arc<Change>]>,
    next: usize,
    end: usize,
}

impl Run {
    fn front(&self) -> Option<&Arc<Change>> {
        self.changes[..self.end].get(self.next)
    }
}

/// What an offer did.
pub(super) struct Offered {
    /// Wake it once no lock is held.
    pub(super) waker: Option<Waker>,
    /// The seat takes nothing any more.
    pub(super) is_lagging: bool,
}

impl Seat {
    pub(super) fn new(id: u64, after: Revision, bell: Bell, token: u64) -> Self {
        Self {
            id,
            after,
            token,
            bell,
            queue: Mutex::default(),
        }
    }

    /// Queues what is new and fits.
    pub(super) fn offer(&self, changes: &Arc<[Arc<Change>]>) -> Offered {
        let next = changes.partition_point(|change| change.revision <= self.after);
        if next == changes.len() {
            return Offered {
                waker: None,
                is_lagging: false,
            };
        }
        let mut queue = lock(&self.queue);
        debug_assert!(!queue.is_lagging, "a lagging seat has left its topic");
        let end = changes.len().min(next + (QUEUE_CHANGES_MAX - queue.length));
        if end > next {
            queue.length += end - next;
            queue.runs.push_back(Run {
                changes: Arc::clone(changes),
                next,
                end,
            });
        }
        queue.is_lagging = end < changes.len();
        Offered {
            waker: self.ring(&mut queue),
            is_lagging: queue.is_lagging,
        }
    }

    /// Nothing that happens from now on will be queued.
    pub(super) fn cut(&self) -> Option<Waker> {
        let mut queue = lock(&self.queue);
        queue.is_lagging = true;
        self.ring(&mut queue)
    }

    fn ring(&self, queue: &mut Queue) -> Option<Waker> {
        if std::mem::replace(&mut queue.is_rung, true) {
            None
        } else {
            self.bell.ring(self.token)
        }
    }
}

impl Queue {
    fn pop(&mut self, until: Revision) -> Option<Arc<Change>> {
        let run = self.runs.front_mut()?;
        let change = Arc::clone(run.front()?);
        if change.revision > until {
            return None;
        }
        run.next += 1;
        if run.next == run.end {
            self.runs.pop_front();
        }
        self.length -= 1;
        Some(change)
    }
}

/// A subscription that shares a stream's [`Bell`]; dropping it ends it.
pub struct Attached {
    seat: Arc<Seat>,
    hub: Arc<Shared>,
}

impl Attached {
    pub(super) fn new(seat: Arc<Seat>, hub: Arc<Shared>) -> Self {
        Self { seat, hub }
    }

    /// What waits, oldest first; none = nothing now, and the bell rings when there is something again.
    /// Whoever was called by the bell takes until none (or [`Next::Lagged`]) comes.
    pub fn take(&mut self) -> Option<Next> {
        let mut queue = lock(&self.seat.queue);
        if let Some(change) = queue.pop(Revision::new(i64::MAX)) {
            return Some(Next::Change(change));
        }
        if queue.is_lagging {
            return Some(Next::Lagged);
        }
        queue.is_rung = false;
        None
    }

    /// What waits up to this revision; [`Next::Lagged`] when something up to it may have been lost. Leaves the
    /// bell as it is, so it may be called without having been rung.
    pub fn take_until(&mut self, revision: Revision) -> Option<Next> {
        let mut queue = lock(&self.seat.queue);
        if let Some(change) = queue.pop(revision) {
            return Some(Next::Change(change));
        }
        // What is queued comes before what was lost.
        (queue.is_lagging && queue.length == 0).then_some(Next::Lagged)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.hub.leave(&self.seat);
    }
}
