//! Durations as Go writes them: `30s`, `1m30s`, `1.5h`, `250ms`, `0`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a sequence of numbers with units.
    #[error("invalid duration {0:?}: write numbers with units, as in \"30s\", \"1m30s\" or \"250ms\"")]
    Syntax(String),
    /// Less than nothing.
    #[error("duration {0:?} is negative")]
    Negative(String),
    /// More than this machine counts.
    #[error("duration {0:?} is too long")]
    TooLong(String),
}

/// Nanoseconds per unit; the longer names first, so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration as Go's `time.ParseDuration` does, refusing negative ones.
///
/// # Errors
/// When the text is not a duration, is negative, or is longer than about 292 years (Go's own limit).
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let syntax = || DurationError::Syntax(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(syntax());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, after) = one_term(rest).ok_or_else(syntax)?;
        let sum = nanos.and_then(|nanos| total.checked_add(nanos));
        total = sum
            .filter(|sum| *sum <= i64::MAX as u64)
            .ok_or_else(|| DurationError::TooLong(text.to_owned()))?;
        rest = after;
    }
    if negative && total > 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    Ok(Duration::from_nanos(total))
}

/// One number with its unit, in nanoseconds (none when that overflows), and what follows it.
fn one_term(text: &str) -> Option<(Option<u64>, &str)> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(number_end);
    let (name, nanos_each) = UNITS.iter().find(|(name, _)| unit_of(rest) == *name)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: Option<u64> = if whole.is_empty() {
        Some(0)
    } else {
        whole.parse().ok()
    };
    let nanos = whole.and_then(|whole| whole.checked_mul(*nanos_each));
    let nanos = nanos.and_then(|nanos| nanos.checked_add(fraction_nanos(fraction, *nanos_each)));
    Some((nanos, &rest[name.len()..]))
}

/// The letters up to the next number.
fn unit_of(text: &str) -> &str {
    let end = text
        .find(|c: char| c.is_ascii_digit() || c == '.')
        .unwrap_or(text.len());
    &text[..end]
}

/// What the digits after the point are worth, rounded down.
fn fraction_nanos(digits: &str, nanos_each: u64) -> u64 {
    let mut scale = nanos_each;
    let mut nanos = 0;
    for digit in digits.bytes() {
        scale /= 10;
        nanos += u64::from(digit - b'0') * scale;
    }
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        let cases = [
            ("0", Duration::ZERO),
            ("30s", Duration::from_secs(30)),
            ("1m30s", Duration::from_secs(90)),
            ("1.5h", Duration::from_secs(5400)),
            ("250ms", Duration::from_millis(250)),
            ("3us", Duration::from_micros(3)),
            ("3µs", Duration::from_micros(3)),
            (".5s", Duration::from_millis(500)),
            ("1.s", Duration::from_secs(1)),
            ("+1h1m1s1ms1us1ns", Duration::from_nanos(3_661_001_001_001)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(expected), "of {text:?}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "-", "30", "s", "1.2.3s", "30 s", "1x", ".s", "30S"] {
            assert_eq!(
                parse(text),
                Err(DurationError::Syntax(text.to_owned())),
                "of {text:?}"
            );
        }
        assert_eq!(parse("-1s"), Err(DurationError::Negative("-1s".to_owned())));
        assert_eq!(
            parse("9999999h"),
            Err(DurationError::TooLong("9999999h".to_owned()))
        );
        assert_eq!(
            parse("99999999999999999999s"),
            Err(DurationError::TooLong("99999999999999999999s".to_owned()))
        );
    }
}
