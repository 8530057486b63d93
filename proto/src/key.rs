//! Ranges of keys in the v3 grammar.

use std::ops::Bound;

use bytes::Bytes;

/// The `range_end` that means "every key from the start on".
pub const TO_THE_END: &[u8] = &[0];

/// A v3 pair (key, `range_end`) with its three meanings told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// `range_end` is empty: this key alone.
    One(Bytes),
    /// `[start, end)`.
    Span {
        /// First key of the range.
        start: Bytes,
        /// First key after the range. An end at or before the start makes the range empty.
        end: Bytes,
    },
    /// `range_end` is one zero byte: every key at or after this one.
    From(Bytes),
}

impl KeyRange {
    /// Reads the pair as the v3 API means it.
    pub fn new(key: Bytes, range_end: Bytes) -> Self {
        if range_end.is_empty() {
            Self::One(key)
        } else if range_end.as_ref() == TO_THE_END {
            Self::From(key)
        } else {
            Self::Span {
                start: key,
                end: range_end,
            }
        }
    }

    /// Everything that starts with this prefix.
    pub fn prefix(prefix: &[u8]) -> Self {
        match prefix_end(prefix) {
            Some(end) => Self::Span {
                start: Bytes::copy_from_slice(prefix),
                end,
            },
            None => Self::From(Bytes::copy_from_slice(prefix)),
        }
    }

    /// Whether the key lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_ref() == key,
            Self::Span { start, end } => start.as_ref() <= key && key < end.as_ref(),
            Self::From(start) => start.as_ref() <= key,
        }
    }

    /// Whether no key can lie inside.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Span { start, end } if start >= end)
    }

    /// The bounds for an ordered map. Ask [`Self::is_empty`] first: ordered maps panic on a falling range.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Self::One(key) => (Bound::Included(key.as_ref()), Bound::Included(key.as_ref())),
            Self::Span { start, end } => (Bound::Included(start.as_ref()), Bound::Excluded(end.as_ref())),
            Self::From(start) => (Bound::Included(start.as_ref()), Bound::Unbounded),
        }
    }

    /// The pair as the wire says it.
    pub fn into_pair(self) -> (Bytes, Bytes) {
        match self {
            Self::One(key) => (key, Bytes::new()),
            Self::Span { start, end } => (start, end),
            Self::From(start) => (start, Bytes::from_static(TO_THE_END)),
        }
    }
}

/// The first key after all keys with this prefix; none when the prefix is empty or all `0xff`.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Bytes::from(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_is_the_first_key_after_the_prefix() {
        assert_eq!(prefix_end(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn the_three_meanings_of_a_range() {
        let one = KeyRange::new(Bytes::from_static(b"a"), Bytes::new());
        assert!(one.contains(b"a") && !one.contains(b"aa"));
        let span = KeyRange::new(Bytes::from_static(b"a"), Bytes::from_static(b"c"));
        assert!(span.contains(b"bz") && !span.contains(b"c"));
        let from = KeyRange::new(Bytes::from_static(b"b"), Bytes::from_static(b"\0"));
        assert!(from.contains(b"zz") && !from.contains(b"a"));
        assert!(KeyRange::new(Bytes::from_static(b"b"), Bytes::from_static(b"a")).is_empty());
    }
}
