//! What the service manager is told (`Type=notify`). Without `NOTIFY_SOCKET` nothing is sent.
//!
//! Telling it is a courtesy: a manager that cannot be reached never stops the daemon.

use sd_notify::NotifyState;
use tracing::debug;

/// The daemon does its work from now on.
pub fn ready() {
    notify(&NotifyState::Ready);
}

/// One line for `systemctl status`: what the daemon does or waits for.
pub fn status(text: &str) {
    notify(&NotifyState::Status(text));
}

/// The daemon has begun to stop.
pub fn stopping() {
    notify(&NotifyState::Stopping);
}

fn notify(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        debug!(%error, %state, "the service manager could not be told");
    }
}
