//! Cluster time: what the leader stamps into the log. Everything that expires does so by it.

use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A point of cluster time: nanoseconds since the Unix epoch, good until the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);

    /// This many nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This much later; none when beyond the calendar.
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add(nanos).map(Self)
    }

    /// This many seconds later; none when beyond the calendar.
    pub fn checked_add_seconds(self, seconds: u64) -> Option<Self> {
        let nanos = seconds.checked_mul(NANOS_PER_SECOND)?;
        self.0.checked_add(nanos).map(Self)
    }

    /// How much later this is than the other; zero when it is not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds from the other to this, rounded up; zero when it is past. What etcd shows as `ttl`.
    pub fn seconds_since_rounded_up(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0).div_ceil(NANOS_PER_SECOND)
    }

    /// RFC 3339 in UTC with up to nine fractional digits and no trailing zeros, as etcd prints `expiration`.
    pub fn to_rfc3339(self) -> String {
        let seconds = self.0 / NANOS_PER_SECOND;
        let nanos = self.0 % NANOS_PER_SECOND;
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let of_day = seconds % 86_400;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if nanos > 0 {
            let fraction = format!(".{nanos:09}");
            text.push_str(fraction.trim_end_matches('0'));
        }
        text.push('Z');
        text
    }
}

/// Year, month and day of a count of days since 1970-01-01, in the proleptic Gregorian calendar
/// (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_what_etcd_prints() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_780_000_000_000_000_000, "2026-05-28T20:26:40Z"),
            (1_780_000_000_527_610_145, "2026-05-28T20:26:40.527610145Z"),
            (1_780_000_000_500_000_000, "2026-05-28T20:26:40.5Z"),
        ];
        for (nanos, text) in cases {
            assert_eq!(Timestamp::from_nanos(nanos).to_rfc3339(), text);
        }
    }

    #[test]
    fn ttl_is_rounded_up() {
        let now = Timestamp::from_nanos(1_000_000_000);
        assert_eq!(
            Timestamp::from_nanos(1_000_000_001).seconds_since_rounded_up(now),
            1
        );
        assert_eq!(
            Timestamp::from_nanos(6_000_000_000).seconds_since_rounded_up(now),
            5
        );
        assert_eq!(Timestamp::from_nanos(0).seconds_since_rounded_up(now), 0);
    }

    #[test]
    fn a_ttl_beyond_the_calendar_has_no_end() {
        assert_eq!(Timestamp::from_nanos(1).checked_add_seconds(u64::MAX), None);
    }
}
