//! The hub: no machine, but the host's side of the bridge, where one etcd runs as the private discovery
//! service of the story.

use super::cgroup::Cgroup;
use super::network::{HUB, HUB_ADDRESS};
use super::{Lab, Power, Session};
use crate::wait::{self, Look};
use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A single node elects itself at once; the disk may be slow.
const READY_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The discovery service of a lab.
pub(crate) struct Hub<'lab> {
    lab: &'lab Lab,
}

impl<'lab> Hub<'lab> {
    pub(super) fn new(lab: &'lab Lab) -> Self {
        Self { lab }
    }

    pub(crate) fn power(&self) -> Power {
        match self.cgroup() {
            cgroup if !cgroup.is_populated() => Power::Off,
            cgroup if cgroup.is_frozen() => Power::Paused,
            _ => Power::On,
        }
    }

    /// Starts its etcd and returns once that serves keys.
    pub(crate) fn start(&self) -> Result<()> {
        if self.power() != Power::Off {
            bail!("the hub is running");
        }
        let directory = self.lab.directory().join(HUB);
        fs::create_dir_all(&directory).context("make the hub's directory")?;
        self.cgroup().create()?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .context("open the hub's log")?;
        let mut child = self
            .lab
            .command_in(&self.cgroup(), Session::Own)
            .args(self.inside())
            .args(["etcd", "-name", "single-etcd-service", "-data-dir"])
            .arg(directory.join("data"))
            .args([
                "-addr",
                &format!("{HUB_ADDRESS}:4001"),
                "-peer-addr",
                &format!("{HUB_ADDRESS}:7001"),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the hub's etcd")?;
        wait::until("the hub's etcd", READY_LIMIT, || {
            if let Some(status) = child.try_wait()? {
                bail!("the hub's etcd ended with {status}, see {}", self.log().display());
            }
            Ok(match self.lab.ask(HUB_ADDRESS, "/v2/keys/") {
                Ok(answer) if answer.status == 200 => Look::Found(()),
                Ok(answer) => Look::Missing(format!("it answers with status {}", answer.status)),
                Err(error) => Look::Missing(format!("{error:#}, see {}", self.log().display())),
            })
        })
    }

    /// A clean stop.
    pub(crate) fn stop(&self) -> Result<()> {
        for process in self.cgroup().processes() {
            // It may just have ended by itself.
            kill_process(process, Signal::TERM).ok();
        }
        wait::until_true("the hub's etcd to stop", STOP_LIMIT, || {
            !self.cgroup().is_populated()
        })?;
        self.cgroup().destroy()
    }

    pub(crate) fn kill(&self) -> Result<()> {
        self.cgroup().destroy()
    }

    pub(crate) fn freeze(&self) -> Result<()> {
        if self.power() == Power::Off {
            bail!("the hub's etcd does not run: `cargo xtask restart hub` starts it");
        }
        self.cgroup().freeze()
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.cgroup().thaw()
    }

    /// A command in the hub's network, where `etcdctl` finds the hub's etcd.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut inside = self.inside().into_iter();
        let mut command = Command::new(inside.next().unwrap_or_default());
        command.args(inside).args(words);
        command
    }

    /// Becomes such a command. Returns only on failure.
    pub(crate) fn exec<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<()> {
        Err(self.command(words).exec()).context("enter the hub's network")
    }

    /// Where its etcd writes what happens.
    pub(crate) fn log(&self) -> PathBuf {
        self.lab.directory().join(HUB).join("etcd.log")
    }

    /// The words that lead into the hub's network, with our programs first in the path.
    fn inside(&self) -> Vec<OsString> {
        let mut path = OsString::from("PATH=");
        path.push(self.lab.common().join("usr/local/bin"));
        path.push(":");
        path.push(super::PATH);
        let net = format!("--net={}", self.lab.network.namespace(HUB).display());
        let mut words: Vec<OsString> = ["nsenter", &net, "--", "env"].map(OsString::from).into();
        words.push(path);
        words.push(format!("ETCDCTL_PEERS=http://{HUB_ADDRESS}:4001").into());
        words
    }

    fn cgroup(&self) -> Cgroup {
        self.lab.cgroup(HUB)
    }
}
