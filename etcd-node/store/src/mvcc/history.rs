//! The log of changes from the compacted revision on: what watches replay, and what collection walks.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::ids::Revision;

use super::sizes::{self, Sizes};
use crate::{Change, KeyWrite, v2};

/// One revision: its change, and the directories that got a version by it.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) change: Arc<Change>,
    pub(crate) directories: Vec<Arc<str>>,
}

/// Changes larger than this are freed in slices.
const FREED_AT_ONCE_MAX: usize = 256;

/// Changes of consecutive revisions, the newest the visible one.
#[derive(Debug)]
pub(crate) struct History {
    moments: VecDeque<Moment>,
    /// The revision that the first moment has or, without one, the next will have.
    first: Revision,
    sizes: Sizes,
    /// What is left of dropped changes that were too large to free at once.
    trash: Vec<Trash>,
}

#[derive(Debug)]
struct Trash {
    writes: Vec<KeyWrite>,
    events: Vec<Arc<v2::Event>>,
}

impl History {
    pub(crate) fn new(first: Revision) -> Self {
        Self {
            moments: VecDeque::new(),
            first,
            sizes: Sizes::default(),
            trash: Vec::new(),
        }
    }

    pub(crate) fn first(&self) -> Revision {
        self.first
    }

    /// The revision of the next change.
    pub(crate) fn next(&self) -> Revision {
        let length = i64::try_from(self.moments.len()).expect("a length in memory");
        Revision::new(self.first.get() + length)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The change of this revision, while it is kept.
    pub(crate) fn get(&self, revision: Revision) -> Option<&Moment> {
        let offset = revision.get().checked_sub(self.first.get())?;
        self.moments.get(usize::try_from(offset).ok()?)
    }

    /// Changes from this revision on, in order.
    pub(crate) fn since(&self, revision: Revision) -> impl Iterator<Item = &Moment> {
        let offset = (revision.get() - self.first.get()).max(0);
        self.moments
            .iter()
            .skip(usize::try_from(offset).expect("an offset into memory"))
    }

    pub(crate) fn push(&mut self, moment: Moment) {
        assert_eq!(moment.change.revision, self.next(), "history has no gaps");
        self.sizes.supersede(sizes::change(&moment.change));
        self.moments.push_back(moment);
    }

    /// Drops the changes below this revision.
    pub(crate) fn forget_before(&mut self, floor: Revision) {
        while self.first < floor
            && let Some(moment) = self.moments.pop_front()
        {
            self.first = self.first.next();
            self.sizes.superseded -= sizes::change(&moment.change);
            if let Some(change) = Arc::into_inner(moment.change)
                && change.writes.len() + change.events.len() > FREED_AT_ONCE_MAX
            {
                self.trash.push(Trash {
                    writes: change.writes,
                    events: change.events,
                });
            }
        }
    }

    /// Frees what is left of dropped changes, about this many parts; whether there is more.
    pub(crate) fn empty_trash(&mut self, parts_max: usize) -> bool {
        if let Some(trash) = self.trash.last_mut() {
            trash
                .writes
                .truncate(trash.writes.len().saturating_sub(parts_max));
            trash
                .events
                .truncate(trash.events.len().saturating_sub(parts_max));
            if trash.writes.is_empty() && trash.events.is_empty() {
                self.trash.pop();
            }
        }
        !self.trash.is_empty()
    }
}
