//! The keeper: a process that holds what must outlive the commands - a delegated cgroup on hosts with systemd,
//! and an ordinary user's namespaces.

use super::host;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Set in the environment of commands that run inside an ordinary user's namespaces.
const INSIDE: &str = "HAWSER_LAB_INSIDE";

/// What a command inside a user's namespaces cannot find out there: `/run` is another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Inside {
    /// The lab's directory.
    pub(super) directory: PathBuf,
    /// Where machines may have their cgroups.
    pub(super) cgroup: PathBuf,
}

/// Whether this command runs inside a user's namespaces.
pub(super) fn inside() -> Option<Inside> {
    serde_json::from_str(&std::env::var(INSIDE).ok()?).ok()
}

/// Runs as the keeper; never returns on success.
pub(crate) fn keep() -> Result<()> {
    host::make_room().context("make room for the machines")?;
    loop {
        std::thread::park();
    }
}
