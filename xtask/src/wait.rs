//! Waiting for something to become true: poll with a deadline, and say at the end what was still missing.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Between two looks: short beside everything that is waited for, long beside the cost of a look.
const PAUSE: Duration = Duration::from_millis(20);

/// What a look found.
pub(crate) enum Look<T> {
    Found(T),
    /// Not yet, and what is missing in words.
    Missing(String),
}

/// Looks until something is found; an `Err` of a look ends the wait at once.
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let missing = match look()? {
            Look::Found(value) => return Ok(value),
            Look::Missing(missing) => missing,
        };
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}: {missing}", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks until `is_true`.
pub(crate) fn until_true(what: &str, limit: Duration, mut is_true: impl FnMut() -> bool) -> Result<()> {
    until(what, limit, || {
        Ok(if is_true() {
            Look::Found(())
        } else {
            Look::Missing("it did not happen".into())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_says_what_was_missing() {
        let error = until::<()>("three voters", Duration::ZERO, || {
            Ok(Look::Missing("only two".into()))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s for three voters: only two");
    }

    #[test]
    fn error_of_a_look_ends_the_wait() {
        let error = until::<()>("peace", Duration::from_secs(60), || bail!("the machine died")).unwrap_err();
        assert_eq!(error.to_string(), "the machine died");
    }
}
