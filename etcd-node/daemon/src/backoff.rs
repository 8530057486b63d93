//! Waiting longer after each failure, and never in step with others.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Exponential waits between `floor` and `ceiling`, each shortened by up to half at random, so that many
/// clients that failed together do not come back together. The same seed gives the same waits.
#[derive(Clone, Debug)]
pub struct Backoff {
    floor: Duration,
    ceiling: Duration,
    /// Failures since the last success.
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Waits from `floor` on, doubling up to `ceiling`.
    ///
    /// # Panics
    /// If the floor is zero or above the ceiling.
    pub fn new(floor: Duration, ceiling: Duration, seed: u64) -> Self {
        assert!(!floor.is_zero(), "a wait of nothing is a busy loop");
        assert!(
            floor <= ceiling,
            "the first wait {floor:?} is above the longest {ceiling:?}"
        );
        Self {
            floor,
            ceiling,
            failures: 0,
            random: seed,
        }
    }

    /// How long to wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self
            .floor
            .checked_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let full = doubled.unwrap_or(self.ceiling).min(self.ceiling);
        self.failures = self.failures.saturating_add(1);
        let thousandths = u32::try_from(self.next_random() % 501).expect("at most 500");
        full - full / 1000 * thousandths
    }

    /// Forgets the failures: the next wait is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last [`Self::reset`].
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// One step of splitmix64: a sequence good enough to spread waits.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A seed that differs from process to process and from call to call.
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling_within_their_jitter() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2), seed);
            for full_ms in [100, 200, 400, 800, 1600, 2000, 2000] {
                let wait = backoff.next_wait();
                let full = Duration::from_millis(full_ms);
                assert!(
                    wait >= full / 2 && wait <= full,
                    "{wait:?} of {full:?} with seed {seed}"
                );
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits_and_another_one_others() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(60), seed);
            std::iter::repeat_with(|| backoff.next_wait())
                .take(40)
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        assert_ne!(random_seed(), random_seed());
    }

    #[test]
    fn a_success_makes_the_next_wait_short_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(60), 1);
        for _ in 0..100 {
            backoff.next_wait();
        }
        backoff.reset();
        assert_eq!(backoff.failures(), 0);
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
