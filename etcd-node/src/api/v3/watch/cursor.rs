//! Where one watch stands between history and the live changes. Pure: the session asks and obeys.
//!
//! ```text
//!            start <= now                        slice was not full: subscribed in the same view
//! created ──────────────▶ Behind ─────────────────────────────────────────────▶ Live
//!    │                      ▲ │ history has passed `next`: cancelled              │
//!    └── start 0 or future ─┼─┼──────────────────────────────────────────────────▶│
//!                           └─┴──────────── queue overflowed, store replaced ◀────┘
//! ```

use proto::ids::Revision;

/// Where a watch begins, as the request says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the next change (0 on the wire).
    Now,
    /// With this revision; past or future.
    At(Revision),
}

impl Start {
    /// Reads `start_revision`; none = negative, which is refused.
    pub(super) fn read(start_revision: i64) -> Option<Self> {
        match start_revision {
            0 => Some(Self::Now),
            1.. => Some(Self::At(Revision::new(start_revision))),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Reads history.
    Behind,
    /// Receives what the hub offers.
    Live,
}

/// The place of one watch.
#[derive(Debug)]
pub(super) struct Cursor {
    /// Everything before this was delivered, or was before the start. Never goes back.
    next: Revision,
    /// Where the watch begins; no progress is told before it is reached.
    start: Revision,
    phase: Phase,
}

/// One reading of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// The newest revision in it, matching or not; none = it was empty.
    pub(super) last: Option<Revision>,
    /// Whether it held as many changes as were asked for: there may be more.
    pub(super) is_full: bool,
    /// The store's revision when it was read.
    pub(super) revision: Revision,
}

impl Cursor {
    /// A watch that is created while the store stands at `revision`. When the cursor is live, the session
    /// subscribes after `revision` within the same view.
    pub(super) fn new(start: Start, revision: Revision) -> Self {
        let start = match start {
            Start::Now => revision.next(),
            Start::At(start) => start,
        };
        let phase = if start > revision {
            Phase::Live
        } else {
            Phase::Behind
        };
        Self {
            next: start,
            start,
            phase,
        }
    }

    /// The revision to read history from.
    pub(super) fn next(&self) -> Revision {
        self.next
    }

    /// Whether it receives live changes; else it has history to read.
    pub(super) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// A slice of history was read and handed on. The session subscribes after its revision, in the view that
    /// read it, exactly when it is not full.
    pub(super) fn replayed(&mut self, slice: Slice) {
        assert!(!self.is_live(), "only a watch behind reads history");
        let reached = if slice.is_full {
            slice.last.unwrap_or(Revision::ZERO)
        } else {
            slice.revision
        };
        self.next = self.next.max(reached.next());
        self.phase = if slice.is_full { Phase::Behind } else { Phase::Live };
    }

    /// Whether a live change is new to this watch; it counts as delivered then.
    pub(super) fn takes(&mut self, revision: Revision) -> bool {
        let is_new = revision >= self.next;
        if is_new {
            self.next = revision.next();
        }
        is_new
    }

    /// Live changes were lost: back to history.
    pub(super) fn lagged(&mut self) {
        self.phase = Phase::Behind;
    }

    /// Whether a progress notification at this revision is true, once everything offered up to it was taken.
    pub(super) fn may_tell(&self, published: Revision) -> bool {
        self.is_live() && self.start <= published.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: i64) -> Revision {
        Revision::new(revision)
    }

    #[test]
    fn where_a_watch_begins() {
        // (start_revision, store's revision) → (next, live)
        let table = [
            (0, 10, 11, true),
            (1, 10, 1, false),
            (10, 10, 10, false),
            (11, 10, 11, true),
            (500, 10, 500, true),
        ];
        for (start, revision, next, is_live) in table {
            let cursor = Cursor::new(Start::read(start).unwrap(), at(revision));
            assert_eq!(
                (cursor.next(), cursor.is_live()),
                (at(next), is_live),
                "start {start}"
            );
        }
        assert_eq!(Start::read(-1), None);
        assert_eq!(Start::read(i64::MIN), None);
    }

    #[test]
    fn history_is_read_slice_by_slice_until_it_is_not_full() {
        let mut cursor = Cursor::new(Start::At(at(3)), at(20));
        cursor.replayed(Slice {
            last: Some(at(7)),
            is_full: true,
            revision: at(20),
        });
        assert_eq!((cursor.next(), cursor.is_live()), (at(8), false));
        cursor.replayed(Slice {
            last: Some(at(21)),
            is_full: false,
            revision: at(21),
        });
        assert_eq!((cursor.next(), cursor.is_live()), (at(22), true));
    }

    #[test]
    fn live_changes_are_taken_once_and_not_before_the_start() {
        let mut cursor = Cursor::new(Start::At(at(12)), at(10));
        let taken: Vec<bool> = [11, 12, 12, 13, 11, 15]
            .into_iter()
            .map(|revision| cursor.takes(at(revision)))
            .collect();
        assert_eq!(taken, [false, true, false, true, false, true]);
    }

    #[test]
    fn a_lagging_watch_goes_back_to_where_it_was() {
        let mut cursor = Cursor::new(Start::Now, at(10));
        assert!(cursor.takes(at(14)));
        cursor.lagged();
        assert_eq!((cursor.next(), cursor.is_live()), (at(15), false));
        cursor.replayed(Slice {
            last: None,
            is_full: false,
            revision: at(14),
        });
        assert_eq!(
            (cursor.next(), cursor.is_live()),
            (at(15), true),
            "nothing was there, nothing is skipped"
        );
    }

    #[test]
    fn a_future_start_survives_a_lag() {
        let mut cursor = Cursor::new(Start::At(at(100)), at(10));
        cursor.lagged();
        cursor.replayed(Slice {
            last: None,
            is_full: false,
            revision: at(40),
        });
        assert_eq!(cursor.next(), at(100));
        assert!(!cursor.takes(at(99)) && cursor.takes(at(100)));
    }

    #[test]
    fn progress_is_told_only_live_and_from_the_start_on() {
        let mut cursor = Cursor::new(Start::At(at(12)), at(10));
        assert!(
            !cursor.may_tell(at(10)),
            "revision 11 is not this watch's business"
        );
        assert!(
            cursor.may_tell(at(11)),
            "the next change may be its first: nothing before it is missing"
        );
        cursor.lagged();
        assert!(!cursor.may_tell(at(50)));
        assert!(Cursor::new(Start::Now, at(10)).may_tell(at(10)));
        assert!(!Cursor::new(Start::At(at(10)), at(10)).may_tell(at(10)));
    }
}
