//! Revisions that somebody still reads: collection goes no further than the lowest of them.
//!
//! Pins are local to a node and no part of the replicated state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::ids::Revision;

/// All pins of one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    // A mutex, because readers let go of their pins wherever they happen to be dropped. It guards a few
    // map operations and nothing else is ever locked with it.
    counts: Arc<Mutex<BTreeMap<Revision, usize>>>,
}

impl Pins {
    /// Keeps what a reader at this revision needs until the pin is dropped.
    pub(crate) fn pin(&self, revision: Revision) -> Pin {
        *self.lock().entry(revision).or_default() += 1;
        Pin {
            revision,
            pins: self.clone(),
        }
    }

    /// The lowest pinned revision.
    pub(crate) fn lowest(&self) -> Option<Revision> {
        self.lock().keys().next().copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Revision, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's hold on a revision.
#[derive(Debug)]
pub(crate) struct Pin {
    revision: Revision,
    pins: Pins,
}

impl Pin {
    /// Whether this pin holds in the store with these pins: a store that a snapshot replaced is another one.
    pub(crate) fn belongs_to(&self, pins: &Pins) -> bool {
        Arc::ptr_eq(&self.pins.counts, &pins.counts)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut counts = self.pins.lock();
        let count = counts
            .get_mut(&self.revision)
            .expect("a pin is counted until it is dropped");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_pin_counts_until_its_last_holder_lets_go() {
        let pins = Pins::default();
        let first = pins.pin(Revision::new(5));
        let second = pins.pin(Revision::new(5));
        let _third = pins.pin(Revision::new(9));
        drop(first);
        assert_eq!(pins.lowest(), Some(Revision::new(5)));
        drop(second);
        assert_eq!(pins.lowest(), Some(Revision::new(9)));
    }
}
