//! How far back history must go: readings taken now and then, by which a compaction target is found.
//!
//! At most one hour and at most 256 MiB of superseded data are kept (keyspace rules, section 5). The hour
//! yields to the newest 10,000 revisions; the bytes yield to nothing, because memory does not.

use std::collections::VecDeque;
use std::time::Duration;

use proto::ids::Revision;
use proto::time::Timestamp;

const AGE_MAX: Duration = Duration::from_hours(1);
const SUPERSEDED_BYTES_MAX: u64 = 256 * 1024 * 1024;
const REVISIONS_MIN: i64 = 10_000;

/// Readings lie at most this far apart while revisions are made, by time and by bytes: that is how much
/// earlier than at its bound history may be cut.
const READING_EVERY: Duration = Duration::from_secs(30);
const READING_BYTES: u64 = 4 * 1024 * 1024;

/// Where the keyspace stood at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) stamp: Timestamp,
    pub(crate) revision: Revision,
    /// All bytes that were ever superseded up to that revision.
    pub(crate) superseded_ever: u64,
}

/// Readings from the compacted revision on, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retention {
    readings: VecDeque<Reading>,
    /// After the newest entry that made a revision; becomes a reading once it is far enough from the last.
    latest: Option<Reading>,
}

impl Retention {
    /// Takes over the readings of a checkpoint.
    pub(crate) fn restore(readings: impl IntoIterator<Item = Reading>) -> Self {
        Self {
            readings: readings.into_iter().collect(),
            latest: None,
        }
    }

    pub(crate) fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.readings.iter().chain(&self.latest)
    }

    /// Notes where the keyspace stands after an entry that made a revision.
    pub(crate) fn note(&mut self, now: Reading) {
        if let Some(latest) = self.latest.replace(now) {
            let is_far = self.readings.back().is_none_or(|last| {
                latest.stamp.saturating_since(last.stamp) >= READING_EVERY
                    || latest.superseded_ever - last.superseded_ever >= READING_BYTES
            });
            if is_far {
                self.readings.push_back(latest);
            }
        }
    }

    /// Drops readings that compaction has passed.
    pub(crate) fn forget_before(&mut self, compacted: Revision) {
        while self
            .readings
            .front()
            .is_some_and(|reading| reading.revision < compacted)
        {
            self.readings.pop_front();
        }
    }

    /// The revision up to which history is too old or too large at this time.
    pub(crate) fn target(&self, now: Timestamp) -> Option<Revision> {
        let latest = self.latest.as_ref().or(self.readings.back())?;
        let too_old = self
            .readings()
            .take_while(|reading| now.saturating_since(reading.stamp) + READING_EVERY >= AGE_MAX)
            .last()
            .map(|reading| reading.revision.get().min(latest.revision.get() - REVISIONS_MIN));
        let first = self.readings().next()?;
        let kept = |reading: &Reading| latest.superseded_ever - reading.superseded_ever;
        let too_large = if kept(first) > SUPERSEDED_BYTES_MAX {
            self.readings()
                .find(|reading| kept(reading) <= SUPERSEDED_BYTES_MAX)
                .map(|found| found.revision.get())
        } else {
            None
        };
        let target = too_old.into_iter().chain(too_large).max()?;
        (target > 0).then(|| Revision::new(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO.checked_add_seconds(seconds).unwrap()
    }

    fn reading(seconds: u64, revision: i64, bytes: u64) -> Reading {
        Reading {
            stamp: at(seconds),
            revision: Revision::new(revision),
            superseded_ever: bytes,
        }
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut retention = Retention::default();
        for minute in 0..120 {
            retention.note(reading(
                minute * 60,
                1_000_000 + i64::try_from(minute).unwrap() * 10_000,
                0,
            ));
        }
        let target = retention.target(at(119 * 60)).unwrap();
        assert_eq!(target.get(), 1_000_000 + 59 * 10_000);
        assert_eq!(
            retention.target(at(59 * 60)),
            None,
            "everything is younger than an hour"
        );
    }

    #[test]
    fn the_hour_yields_to_the_newest_revisions() {
        let mut retention = Retention::default();
        for minute in 0..120 {
            retention.note(reading(minute * 60, 100 * i64::try_from(minute).unwrap() + 1, 0));
        }
        assert_eq!(
            retention.target(at(500 * 60)).unwrap().get(),
            119 * 100 + 1 - 10_000
        );
    }

    #[test]
    fn the_bytes_yield_to_nothing() {
        let mut retention = Retention::default();
        for step in 0..400 {
            retention.note(reading(
                step,
                i64::try_from(step).unwrap() + 2,
                step * 1024 * 1024,
            ));
        }
        let target = retention.target(at(400)).unwrap();
        let kept = 399 - (u64::try_from(target.get()).unwrap() - 2);
        assert!((250..=256).contains(&kept), "{kept} MiB are kept");
    }

    #[test]
    fn what_nobody_writes_to_grows_old_too() {
        let mut retention = Retention::default();
        retention.note(reading(0, 20_000, 0));
        retention.note(reading(1, 20_500, 0));
        assert_eq!(retention.target(at(3500)), None);
        assert_eq!(retention.target(at(3601)).unwrap().get(), 10_500);
    }
}
