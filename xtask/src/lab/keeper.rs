//! The keeper: a process that holds what must outlive the commands. On a host with systemd that is a delegated
//! cgroup. For an ordinary user it is a user namespace too, in which they are root, with a mount namespace (`/run` is
//! theirs there) and a network namespace; every later command enters these and finds itself root.

use super::cgroup::{self, Cgroup};
use super::host::{self, Marker};
use super::{claim, default_directory, find, network};
use crate::command;
use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set in the environment of commands that run inside an ordinary user's namespaces.
const INSIDE: &str = "HAWSER_LAB_INSIDE";
/// A user namespace with all of the user's subordinate ids, and namespaces that belong to it.
const NAMESPACES: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--map-auto",
    "--mount",
    "--net",
];

/// What a command inside a user's namespaces cannot find out there: `/run` is another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Inside {
    /// The lab's directory.
    pub(super) directory: PathBuf,
    /// Where machines may have their cgroups.
    pub(super) cgroup: PathBuf,
}

/// An ordinary user's keeper, as the marker of their lab names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Keeper {
    pid: i32,
    /// When it started, in the kernel's ticks: a process id alone may be another's by now.
    started: u64,
    /// Whether the user's service manager runs it.
    is_managed: bool,
    /// The cgroup that was delegated to it; its machines' are below.
    delegated: PathBuf,
}

/// Whether this command runs inside a user's namespaces.
pub(super) fn inside() -> Option<Inside> {
    serde_json::from_str(&std::env::var(INSIDE).ok()?).ok()
}

/// Whether commands about machines have to enter a user's namespaces first.
pub(crate) fn is_needed() -> bool {
    !rustix::process::geteuid().is_root() && inside().is_none()
}

/// What the process called `keeper` does; never returns on success.
pub(crate) fn keep(is_user: bool) -> Result<()> {
    if is_user {
        mount(
            "tmpfs",
            "/run",
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            c"mode=755",
        )
        .context("mount /run")?;
        network::wake_loopback()?;
    }
    // The last step: others wait for it.
    host::make_room().context("make room for the machines")?;
    loop {
        std::thread::park();
    }
}

/// Starts a user's keeper and claims the marker, then becomes this same command inside, with `extra` arguments.
/// Returns only on failure.
pub(crate) fn up(lab: &str, extra: &[OsString]) -> Result<()> {
    let directory = claim(lab)?;
    let started = start(lab).and_then(|keeper| {
        Marker {
            keeper: Some(keeper.clone()),
            ..Marker::new(directory.clone())
        }
        .replace(lab)?;
        Ok(keeper)
    });
    match started {
        Ok(keeper) => Err(keeper.command(directory, extra)?.exec()).context("enter the lab's namespaces"),
        // Without a keeper there is nothing that `down` could remove.
        Err(error) => Marker::release(lab).and(Err(error)),
    }
}

/// Becomes this same command inside. Returns only on failure.
pub(crate) fn enter(lab: &str) -> Result<()> {
    let (directory, keeper) = running(lab)?;
    let keeper = keeper.filter(Keeper::is_alive);
    let keeper =
        keeper.context("the keeper of the lab's namespaces is gone: run `cargo xtask down`, then `up`")?;
    Err(keeper.command(directory, &[])?.exec()).context("enter the lab's namespaces")
}

/// Takes a user's lab down: from inside, then what holds the inside. Returns whether there was anything.
pub(crate) fn down(lab: &str) -> Result<bool> {
    let marked = find(lab)?;
    if let Some(directory) = &marked
        && let Some(keeper) = Marker::read(lab)?.and_then(|marker| marker.keeper)
    {
        if keeper.is_alive() {
            let status = keeper
                .command(directory.clone(), &[])?
                .status()
                .context("enter the lab's namespaces")?;
            if !status.success() {
                bail!("removing the machines from inside ended with {status}");
            }
        }
        keeper.end()?;
    }
    // An interrupted `up` may not have noted its keeper, and a host that went down leaves a directory.
    if has_manager() {
        command::succeeds(Command::new("systemctl").args(["--user", "stop", &host::unit(lab)]));
    }
    cgroup::of_process("self")?
        .child(&format!("hawser-{lab}"))
        .destroy()?;
    let is_left = remove_from_outside(lab, &marked.clone().unwrap_or_else(|| default_directory(lab)))?;
    Marker::release(lab)?;
    Ok(marked.is_some() || is_left)
}

fn running(lab: &str) -> Result<(PathBuf, Option<Keeper>)> {
    let directory = find(lab)?.context("no lab is running: `cargo xtask up` starts one")?;
    Ok((directory, Marker::read(lab)?.and_then(|marker| marker.keeper)))
}

/// Files of a lab belong to subordinate ids, so that removing them takes a user namespace, if only for that.
fn remove_from_outside(lab: &str, directory: &Path) -> Result<bool> {
    if !directory.exists() {
        return Ok(false);
    }
    let inside = Inside {
        directory: directory.to_path_buf(),
        cgroup: PathBuf::new(),
    };
    let mut remove = Command::new(NAMESPACES[0]);
    remove
        .args(&NAMESPACES[1..])
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(["--lab", lab, "down"]);
    command::run(remove.env(INSIDE, serde_json::to_string(&inside)?))?;
    Ok(true)
}

/// Starts the keeper in a cgroup that is the user's own: under their service manager, else below the cgroup that
/// we are in, when that is theirs.
fn start(lab: &str) -> Result<Keeper> {
    let program = std::env::current_exe()?;
    let is_managed = has_manager();
    let delegated = if is_managed {
        let mut run = Command::new("systemd-run");
        run.args([
            "--user",
            "--quiet",
            "--collect",
            "--property=Delegate=yes",
            "--unit",
            &host::unit(lab),
            "--",
        ]);
        command::run(
            run.args(NAMESPACES)
                .arg("--")
                .arg(&program)
                .args(["keeper", "--user"]),
        )?;
        host::unit_cgroup(lab, host::Manager::User)?
    } else {
        let own = cgroup::of_process("self")?.child(&format!("hawser-{lab}"));
        own.create().context(
            "an ordinary user's machines need a cgroup of the user's own: log in where `systemd --user` runs, or \
             run as root",
        )?;
        let mut keeper = Command::new(&program);
        keeper
            .args(["in-cgroup", "--session"])
            .arg(own.path())
            .arg("--")
            .args(NAMESPACES)
            .arg("--");
        keeper.arg(&program).args(["keeper", "--user"]);
        keeper
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start the keeper")?;
        own
    };
    host::keeper_ready(&delegated).context("is there a line for you in /etc/subuid and /etc/subgid?")?;
    let pid = host::keeper_process(&delegated).context("the keeper ended at once")?;
    let started = start_time(pid).context("the keeper ended at once")?;
    Ok(Keeper {
        pid: pid.as_raw_nonzero().get(),
        started,
        is_managed,
        delegated: delegated.path().to_path_buf(),
    })
}

/// Whether the user's own service manager answers.
fn has_manager() -> bool {
    command::succeeds(Command::new("systemctl").args(["--user", "show-environment"]))
}

/// When a process started, in ticks since the host did: the 22nd field of its `stat`.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; 20 fields follow up to ours.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl Keeper {
    fn is_alive(&self) -> bool {
        Pid::from_raw(self.pid).and_then(start_time) == Some(self.started)
    }

    /// This same command, inside. Under a service manager it has to be in a cgroup of the manager's, for only within
    /// its part of the tree may a user move processes.
    fn command(&self, directory: PathBuf, extra: &[OsString]) -> Result<Command> {
        let inside = Inside {
            directory,
            cgroup: host::machines_cgroup(&Cgroup::at(self.delegated.clone())),
        };
        let mut words: Vec<OsString> = Vec::new();
        if self.is_managed {
            words.extend(
                ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"].map(OsString::from),
            );
        }
        let target = self.pid.to_string();
        words
            .extend(["nsenter", "--target", &target, "--user", "--mount", "--net", "--"].map(OsString::from));
        words.push(std::env::current_exe()?.into());
        words.extend(std::env::args_os().skip(1));
        words.extend_from_slice(extra);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env(INSIDE, serde_json::to_string(&inside)?);
        Ok(command)
    }

    /// Ends the keeper and everything below its cgroup.
    fn end(&self) -> Result<()> {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            kill_process(pid, Signal::KILL).ok();
        }
        Cgroup::at(self.delegated.clone()).destroy()
    }
}
