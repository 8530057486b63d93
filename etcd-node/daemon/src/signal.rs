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
