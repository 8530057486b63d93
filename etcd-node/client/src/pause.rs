//! The pause between attempts to open a broken watch anew.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// It doubles from the first to the last.
const LENGTH_MIN: Duration = Duration::from_millis(100);
const LENGTH_MAX: Duration = Duration::from_secs(2);

/// No pause at first; after each failure one twice as long as the last.
#[derive(Debug)]
pub(crate) struct Pause {
    length: Duration,
    not_before: Instant,
}

impl Pause {
    pub(crate) fn none() -> Self {
        Self {
            length: Duration::ZERO,
            not_before: Instant::now(),
        }
    }

    /// Waits until the next attempt may be made. Cancel-safe.
    pub(crate) async fn wait(&self) {
        sleep_until(self.not_before).await;
    }

    /// After a failure.
    pub(crate) fn lengthen(&mut self) {
        self.length = (self.length * 2).clamp(LENGTH_MIN, LENGTH_MAX);
        self.not_before = Instant::now() + self.length;
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        *self = Self::none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_grows_up_to_its_limit_and_begins_anew() {
        let mut pause = Pause::none();
        assert_eq!(pause.length, Duration::ZERO);
        for expected in [100, 200, 400, 800, 1600, 2000, 2000] {
            pause.lengthen();
            assert_eq!(pause.length, Duration::from_millis(expected));
        }
        pause.reset();
        assert_eq!(pause.length, Duration::ZERO);
    }
}
