//! SIGTERM and SIGINT ask a daemon to stop; a second one ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A token that is cancelled by the first SIGTERM or SIGINT. The second ends the process with 128 plus the
/// signal's number, as a shell reports a killed command.
///
/// The watcher stays outside [`crate::tasks::Tasks`] on purpose: it must still be there while the others are
/// being joined. Must be called within a tokio runtime.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_token() -> io::Result<CancellationToken> {
    let mut stops = Stops {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let first = stops.next().await;
        info!(signal = first.name(), "stopping");
        token.cancel();
        let second = stops.next().await;
        warn!(signal = second.name(), "second signal, ending at once");
        std::process::exit(128 + second.number());
    });
    Ok(stop)
}

struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
    }
}

#[derive(Clone, Copy)]
enum Stop {
    Terminate,
    Interrupt,
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::Terminate => SignalKind::terminate().as_raw_value(),
            Self::Interrupt => SignalKind::interrupt().as_raw_value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write as _};
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, Signal as Kill, kill_process};

    use super::*;

    /// Set in the child of the test.
    const CHILD: &str = "DAEMON_TEST_SIGNAL";

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        if std::env::var_os(CHILD).is_some() {
            return wait_for_signals();
        }
        let name = "signal::tests::the_first_signal_asks_and_the_second_ends";
        for (first, second, code) in [(Kill::TERM, Kill::TERM, 143), (Kill::TERM, Kill::INT, 130)] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", name, "--nocapture"])
                .env(CHILD, "1")
                .stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let pid = Pid::from_child(&child);
            let mut lines = BufReader::new(child.stdout.take().unwrap())
                .lines()
                .map(Result::unwrap);
            assert!(lines.any(|line| line.ends_with("waiting")));
            kill_process(pid, first).unwrap();
            assert!(lines.any(|line| line.ends_with("asked")));
            kill_process(pid, second).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code));
        }
    }

    fn wait_for_signals() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let stop = stop_token().unwrap();
            writeln!(io::stdout(), "waiting").unwrap();
            stop.cancelled().await;
            writeln!(io::stdout(), "asked").unwrap();
            std::future::pending::<()>().await;
        });
    }
}
