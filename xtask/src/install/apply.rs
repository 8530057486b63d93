//! What an installation needs beside its files: the users of the units, their directories, and a service
//! manager that knows of the new units.
//!
//! Users are made while installing, also below a `--root` (when it has an `/etc/passwd`): a tree that is booted
//! afterwards then needs no `systemd-sysusers` run of its own. Directories below a `--root` are left to the
//! `systemd-tmpfiles` run of the next boot.

use super::Destination;
use super::manifest::{Content, Entry};
use crate::command;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

pub(super) fn apply(destination: &Destination, entries: &[Entry]) -> Result<()> {
    if destination.root.join("etc/passwd").exists() {
        let mut users = Command::new("systemd-sysusers");
        if !destination.is_live() {
            users.arg("--root").arg(&destination.root);
        }
        command::run_with_input(users.arg("-"), &texts(entries, "sysusers.d"))?;
    }
    if destination.is_live() {
        let directories = texts(entries, "tmpfiles.d");
        command::run_with_input(
            Command::new("systemd-tmpfiles").args(["--create", "-"]),
            &directories,
        )?;
        reload();
    }
    Ok(())
}

pub(super) fn after_uninstall(destination: &Destination) {
    if destination.is_live() {
        reload();
    }
}

/// Lets a running service manager read the units anew. Best effort: without a bus, the next boot reads them.
fn reload() {
    if Path::new("/run/systemd/system").exists() {
        command::succeeds(Command::new("systemctl").arg("daemon-reload"));
    }
}

/// The texts of all entries in a directory named `directory`, joined.
fn texts(entries: &[Entry], directory: &str) -> String {
    let is_in = |entry: &&Entry| {
        entry
            .path
            .parent()
            .is_some_and(|parent| parent.ends_with(directory))
    };
    let text = |entry: &Entry| match &entry.content {
        Content::Text(text) => text.clone(),
        Content::Copy(_) => String::new(),
    };
    entries.iter().filter(is_in).map(text).collect()
}
