//! A leader's tenure: the clock that it stamps with, and what it must not propose twice.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::time::Timestamp;

/// The two clocks of this machine, read by the shell once per turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Since some fixed moment of this process; never goes back.
    pub monotonic: Duration,
    /// What the machine believes the time to be; may jump.
    pub wall: Timestamp,
}

/// One tenure of this node as leader.
#[derive(Debug)]
pub(super) struct Tenure {
    /// Its term.
    pub(super) term: u64,
    /// Set when the first entry of the term is applied: only then is the newest stamp of all earlier leaders known.
    opened: Option<Opened>,
    /// Leases whose end is proposed and not applied yet: they are not renewed any more.
    pub(super) ending_leases: BTreeSet<i64>,
    /// An expiry command is in the log and not applied yet.
    pub(super) is_expiring: bool,
    /// A compaction command is in the log and not applied yet.
    pub(super) is_compacting: bool,
}

#[derive(Clone, Copy, Debug)]
struct Opened {
    anchor: Timestamp,
    since: Duration,
}

impl Tenure {
    /// Elected, and not sure yet what time it is.
    pub(super) fn new(term: u64) -> Self {
        Self {
            term,
            opened: None,
            ending_leases: BTreeSet::new(),
            is_expiring: false,
            is_compacting: false,
        }
    }

    /// Fixes the anchor of cluster time: the wall clock is read once (keyspace rules, section 3).
    pub(super) fn open(&mut self, newest_stamp: Timestamp, clock: Clock) {
        assert!(self.opened.is_none(), "a tenure opens once");
        self.opened = Some(Opened {
            anchor: newest_stamp.max(clock.wall),
            since: clock.monotonic,
        });
    }

    /// Whether proposals are accepted.
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Cluster time; none before the tenure is open.
    pub(super) fn now(&self, clock: Clock) -> Option<Timestamp> {
        let opened = self.opened?;
        opened
            .anchor
            .checked_add(clock.monotonic.saturating_sub(opened.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_time_ignores_jumps_of_the_wall_clock_and_never_precedes_older_stamps() {
        let second = Duration::from_secs(1);
        let mut tenure = Tenure::new(3);
        let start = Clock {
            monotonic: second,
            wall: Timestamp::from_nanos(5),
        };
        assert_eq!(tenure.now(start), None);
        tenure.open(Timestamp::from_nanos(100), start);
        let later = Clock {
            monotonic: second + Duration::from_nanos(7),
            wall: Timestamp::ZERO,
        };
        assert_eq!(tenure.now(later), Some(Timestamp::from_nanos(107)));
    }
}
