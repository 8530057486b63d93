//! The steps of a long task, each with its time: a live line on a terminal, plain lines elsewhere.

#![expect(clippy::print_stdout, reason = "steps are the output of the task")]

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// How often the live line moves.
const TICK: Duration = Duration::from_millis(100);

/// Runs one step after the other and shows them.
pub(crate) struct Steps {
    begun: Instant,
    is_terminal: bool,
}

impl Steps {
    pub(crate) fn start() -> Self {
        Self {
            begun: Instant::now(),
            is_terminal: std::io::stdout().is_terminal(),
        }
    }

    /// Runs `work` under a live line; an error names the step.
    pub(crate) fn run<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let live = self.is_terminal.then(|| live_line(what));
        let outcome = work();
        if let Some(live) = live {
            live.finish_and_clear();
        }
        Self::done(what, begun.elapsed(), &outcome);
        outcome.with_context(|| what.to_owned())
    }

    /// Runs `work` that writes to the terminal itself (cargo, apt): no live line beside it.
    pub(crate) fn run_talking<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let outcome = work();
        Self::done(what, begun.elapsed(), &outcome);
        outcome.with_context(|| what.to_owned())
    }

    /// Time since the first step began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn done<T>(what: &str, took: Duration, outcome: &Result<T>) {
        let mark = if outcome.is_ok() { "" } else { "  failed" };
        println!("{:>6.1} s  {what}{mark}", took.as_secs_f64());
    }
}

fn live_line(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed:>6} {spinner}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let line = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(what.to_owned());
    line.enable_steady_tick(TICK);
    line
}
