//! The hub: offers each change to the subscribers that it may concern.
//!
//! [`Hub::publish`] runs in the raft thread, so it does little: it sorts a batch of changes by topic, hands each
//! subscriber of a topic one shared slice, and wakes the streams after its lock is free. It never waits for a
//! subscriber. One mutex guards the index; it is taken once per batch, and for moments by (un)subscribing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use proto::ids::Revision;
use proto::key::KeyRange;
use store::Change;

use super::seat::{Attached, Bell, Seat, lock};
use super::topics::Topics;

/// What a subscriber wants to hear of. The hub may deliver more than asked (a whole change when one of its
/// writes matches); the stream filters.
#[derive(Clone, Debug)]
pub enum Interest {
    /// v3: changes that write or delete a key in this range.
    Keys(KeyRange),
    /// v2: changes with an event that this watch may see: at the path, below it when recursive, or a
    /// directory's removal that took the path along.
    Path {
        /// Clean path.
        path: String,
        /// Also everything below.
        recursive: bool,
    },
}

/// What a subscription gives next.
#[derive(Debug)]
pub enum Next {
    /// A change that matches.
    Change(Arc<Change>),
    /// The subscriber was too slow, or the store was replaced by a snapshot: what followed the last change
    /// was not queued. v3 goes back to history, v2 closes. Nothing but this comes from then on.
    Lagged,
}

/// The hub.
pub struct Hub {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    /// Invariant: stored after everything up to it was offered; never goes back.
    published: AtomicI64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    topics: Topics,
    /// Open subscriptions and their topic, by seat.
    open: HashMap<u64, u64>,
    last_seat: u64,
    /// Streams that wait for [`Hub::published`] to reach a revision: few, and gone with the next batch.
    waiting: Vec<(Revision, Bell, u64)>,
}

impl Hub {
    /// A hub of a store that stands at this revision.
    pub fn new(revision: Revision) -> Self {
        let published = AtomicI64::new(revision.get());
        Self {
            shared: Arc::new(Shared {
                published,
                state: Mutex::default(),
            }),
        }
    }

    /// Announces changes, in order. Called by the raft thread after they are in history.
    pub fn publish(&self, changes: &[Arc<Change>]) {
        let Some(last) = changes.last() else { return };
        debug_assert!(
            changes.is_sorted_by(|a, b| a.revision < b.revision),
            "revisions rise"
        );
        let mut state = lock(&self.shared.state);
        let mut wakers = state.offer(changes);
        self.shared.advance(last.revision, &mut state, &mut wakers);
        drop(state);
        wake(wakers);
    }

    /// Everything up to here was offered to the subscribers (for progress notifications). Never goes back.
    pub fn published(&self) -> Revision {
        Revision::new(self.shared.published.load(Ordering::Acquire))
    }

    /// Rings once everything up to this revision was offered; at once if it already was.
    pub fn ring_when_published(&self, revision: Revision, bell: &Bell, token: u64) {
        let mut state = lock(&self.shared.state);
        let waker = if self.published() >= revision {
            bell.ring(token)
        } else {
            state.waiting.push((revision, bell.clone(), token));
            None
        };
        drop(state);
        wake(waker);
    }

    /// The store was replaced: every subscription becomes lagged.
    pub fn interrupt(&self, revision: Revision) {
        let mut state = lock(&self.shared.state);
        let mut wakers: Vec<Waker> = state
            .topics
            .clear()
            .iter()
            .filter_map(|seat| seat.cut())
            .collect();
        self.shared.advance(revision, &mut state, &mut wakers);
        drop(state);
        wake(wakers);
    }

    /// Begins to receive the changes after this revision. Call it inside a view closure, with that view's revision.
    pub fn subscribe(&self, interest: Interest, after: Revision) -> Subscription {
        let bell = Bell::new();
        let attached = self.attach(interest, after, &bell, 0);
        Subscription { attached, bell }
    }

    /// As [`Hub::subscribe`], for a stream of many subscriptions: the bell gives the token when this one has
    /// something.
    pub fn attach(&self, interest: Interest, after: Revision, bell: &Bell, token: u64) -> Attached {
        let mut state = lock(&self.shared.state);
        state.last_seat += 1;
        let seat = Arc::new(Seat::new(state.last_seat, after, bell.clone(), token));
        let topic = state.topics.join(interest, Arc::clone(&seat));
        state.open.insert(seat.id, topic);
        Attached::new(seat, Arc::clone(&self.shared))
    }

    /// How many subscriptions are open.
    pub fn subscribers(&self) -> usize {
        lock(&self.shared.state).open.len()
    }
}

impl State {
    fn offer(&mut self, changes: &[Arc<Change>]) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let mut lagging = Vec::new();
        self.topics.sort(changes, |batch, seat| {
            let offered = seat.offer(batch);
            wakers.extend(offered.waker);
            if offered.is_lagging {
                lagging.push(seat.id);
            }
        });
        for seat in lagging {
            self.leave_topic(seat);
        }
        wakers
    }

    /// A lagging seat stays open until its subscriber drops it, but costs the raft thread nothing more.
    fn leave_topic(&mut self, seat: u64) {
        if let Some(topic) = self.open.get(&seat) {
            self.topics.leave(*topic, seat);
        }
    }
}

impl Shared {
    fn advance(&self, revision: Revision, state: &mut State, wakers: &mut Vec<Waker>) {
        let before = self.published.fetch_max(revision.get(), Ordering::AcqRel);
        let published = Revision::new(before.max(revision.get()));
        state.waiting.retain(|(awaited, bell, token)| {
            let is_reached = *awaited <= published;
            if is_reached {
                wakers.extend(bell.ring(*token));
            }
            !is_reached
        });
    }

    pub(super) fn leave(&self, seat: &Seat) {
        let mut state = lock(&self.state);
        state.leave_topic(seat.id);
        state.open.remove(&seat.id);
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// A live subscription; dropping it ends it.
pub struct Subscription {
    attached: Attached,
    bell: Bell,
}

impl Subscription {
    /// Waits for the next change. Cancel-safe.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.attached.take() {
                return next;
            }
            self.bell.rung().await;
        }
    }
}

#[cfg(test)]
mod tests;
