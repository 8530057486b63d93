//! The hub: offers each change to the subscribers that it may concern.

use std::sync::Arc;

use proto::ids::Revision;
use proto::key::KeyRange;
use store::Change;

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
    /// was not queued. v3 goes back to history, v2 closes.
    Lagged,
}

/// The hub.
pub struct Hub {
    _private: (),
}

impl Hub {
    /// Announces changes, in order. Called by the raft thread after they are in history.
    pub fn publish(&self, _changes: &[Arc<Change>]) {
        todo!()
    }

    /// Everything up to here was offered to the subscribers (for progress notifications).
    pub fn published(&self) -> Revision {
        todo!()
    }

    /// The store was replaced: every subscription becomes lagged.
    pub fn interrupt(&self, _revision: Revision) {
        todo!()
    }

    /// Begins to receive the changes after this revision. Call it inside a view closure, with that view's revision.
    pub fn subscribe(&self, _interest: Interest, _after: Revision) -> Subscription {
        todo!()
    }

    /// How many subscriptions are open.
    pub fn subscribers(&self) -> usize {
        todo!()
    }
}

/// A live subscription; dropping it ends it.
pub struct Subscription {
    _private: (),
}

impl Subscription {
    /// Waits for the next change. Cancel-safe.
    #[expect(clippy::unused_async, reason = "filled in with the hub")]
    pub async fn next(&mut self) -> Next {
        todo!()
    }
}
