//! The running hash of everything applied (keyspace rules, section 9).
//!
//! hash(n+1) = H(hash(n), index, canonical change): folded field by field in operation order, so that
//! neither the size of slices nor the layout of memory can enter. XXH3 finds damage and bugs, not attackers.

use twox_hash::XxHash3_64;

/// What kind of thing is folded, so that no two sequences of things fold alike.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tag {
    Founded = 1,
    Entry,
    Put,
    Delete,
    Directory,
    DirectoryGone,
    Event,
    LeaseGranted,
    LeaseEnded,
    LeaseExtended,
    Compacted,
    Member,
    Alarm,
}

/// A running hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) const START: Self = Self(0);

    pub(crate) fn from_value(value: u64) -> Self {
        Self(value)
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }

    /// Folds numbers in.
    pub(crate) fn numbers<const N: usize>(&mut self, tag: Tag, numbers: [u64; N]) {
        const WORDS_MAX: usize = 12;
        const { assert!(N < WORDS_MAX) };
        let mut bytes = [0_u8; WORDS_MAX * 8];
        bytes[..8].copy_from_slice(&(tag as u64).to_le_bytes());
        for (place, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.0 = XxHash3_64::oneshot_with_seed(self.0, &bytes[..8 * (N + 1)]);
    }

    /// Folds bytes in. Their length is folded by the hash itself.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0 = XxHash3_64::oneshot_with_seed(self.0, bytes);
    }
}

/// A signed number as the digest takes it.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::from_le_bytes(number.to_le_bytes())
}
