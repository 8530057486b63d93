//! How many checks passed and failed, as test runners tell it.

use std::ops::AddAssign;

/// A count of checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// A step that is one check, and holds.
    pub(crate) const ONE: Self = Self { passed: 1, failed: 0 };
    /// A step that is one check, and does not hold.
    pub(crate) const FAILURE: Self = Self { passed: 0, failed: 1 };

    /// Adds up the summaries in the output of `cargo test`, `cargo nextest` or `cargo xtask check`.
    pub(crate) fn of_tests(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            // `test result: ok. 3 passed; 0 failed; ...` and `Summary [  1.2s] 3 tests run: 3 passed, 0 skipped`
            let summary = line
                .split_once("test result:")
                .or_else(|| line.split_once("run:").filter(|(before, _)| is_summary(before)));
            if let Some((_, counts)) = summary {
                tally.passed += count(counts, "passed");
                tally.failed += count(counts, "failed") + count(counts, "timed");
            }
        }
        tally
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

fn is_summary(before: &str) -> bool {
    before.contains("Summary [") || before == "checks "
}

/// The number in front of a word.
fn count(counts: &str, word: &str) -> u64 {
    let words: Vec<_> = counts
        .split([' ', ',', ';', '(', ')'])
        .filter(|part| !part.is_empty())
        .collect();
    let pairs = words.windows(2).filter(|pair| pair[1] == word);
    pairs.filter_map(|pair| pair[0].parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_read() {
        let cargo = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\n\
                     test result: FAILED. 3 passed; 1 failed; 0 ignored\n";
        assert_eq!(Tally::of_tests(cargo), Tally { passed: 5, failed: 1 });
        let nextest =
            "    Summary [  12.345s] 10 tests run: 7 passed (2 slow), 2 failed, 1 timed out, 3 skipped\n";
        assert_eq!(Tally::of_tests(nextest), Tally { passed: 7, failed: 3 });
        let all = "     Summary [   0.005s] 1 test run: 1 passed, 0 skipped\n";
        assert_eq!(Tally::of_tests(all), Tally::ONE);
        assert_eq!(
            Tally::of_tests("checks run: 8 passed, 1 failed"),
            Tally { passed: 8, failed: 1 }
        );
        assert_eq!(Tally::of_tests("error: could not compile"), Tally::default());
    }
}
