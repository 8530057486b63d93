//! One machine, from outside: its power switch, commands inside it, and what its PID 1 says.

use super::boot::Plan;
use super::cgroup::Cgroup;
use super::state::{Bind, Record, Role};
use super::{Lab, PATH, Session};
use crate::command;
use crate::wait::{self, Look};
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A boot takes half a second; this many machines at once on a loaded host take longer.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Units get 10 s to stop (`DefaultTimeoutStopSec` of the machines), some in sequence.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How much of the console is quoted when a boot fails.
const CONSOLE_LINES: usize = 10;

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    /// Frozen in mid-work: its connections stand, and nothing answers.
    Paused,
    Off,
}

/// A machine of a lab.
pub(crate) struct Machine<'lab> {
    lab: &'lab Lab,
    record: &'lab Record,
}

impl<'lab> Machine<'lab> {
    pub(super) fn new(lab: &'lab Lab, record: &'lab Record) -> Self {
        Self { lab, record }
    }

    pub(crate) fn name(&self) -> &'lab str {
        &self.record.name
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.record.address
    }

    pub(crate) fn role(&self) -> Role {
        self.record.role
    }

    pub(crate) fn machine_id(&self) -> &'lab str {
        &self.record.machine_id
    }

    /// The machine's `/`, as far as it lies on a disk: `etc`, `var` and, when it is blank, `usr/local`.
    pub(crate) fn disk(&self) -> PathBuf {
        self.lab.disk(self.name())
    }

    pub(crate) fn power(&self) -> Power {
        match self.cgroup().leader() {
            None => Power::Off,
            Some(_) if self.cgroup().is_frozen() => Power::Paused,
            Some(_) => Power::On,
        }
    }

    /// Switches it on and returns once its PID 1 answers with the machine id on the disk.
    pub(crate) fn boot(&self) -> Result<()> {
        if self.power() != Power::Off {
            bail!("{} is running", self.name());
        }
        let cgroup = self.cgroup();
        cgroup.destroy()?;
        cgroup.create()?;
        let plan = self.write_plan()?;
        let console = self.console();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&console)
            .context("open the console's log")?;
        let mut child = self
            .lab
            .command_in(&cgroup, Session::Own)
            .arg("nsenter")
            .arg(format!(
                "--net={}",
                self.lab.network.namespace(self.name()).display()
            ))
            .args([
                "--",
                "unshare",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--cgroup",
                "--fork",
                "--kill-child=KILL",
                "--",
            ])
            .arg(self.lab.helper())
            .arg("become-machine")
            .arg(plan)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the machine")?;
        wait::until(&format!("PID 1 of {}", self.name()), BOOT_LIMIT, || {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "{} went off while booting ({status}): {}",
                    self.name(),
                    self.console_tail()
                );
            }
            Ok(match self.answering_id() {
                Some(id) if id == self.machine_id() => Look::Found(()),
                Some(id) => Look::Missing(format!("what answers is the machine {id}")),
                None => Look::Missing(format!("nothing answers on its bus, see {}", console.display())),
            })
        })
    }

    /// Waits until the boot is over and returns what systemd calls the result: `running`, `degraded`.
    pub(crate) fn settle(&self) -> Result<String> {
        // It ends with 1 for every state but `running`; the word is what counts.
        let output = self
            .command(&["systemctl", "is-system-running", "--wait"])?
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A power cut: everything is gone at once; the disk stays.
    pub(crate) fn kill(&self) -> Result<()> {
        if let Some(leader) = self.cgroup().leader() {
            // It may just have ended by itself.
            kill_process(leader, Signal::KILL).ok();
        }
        self.cgroup().destroy()
    }

    /// A clean shutdown, as by `poweroff`.
    pub(crate) fn stop(&self) -> Result<()> {
        self.run(&[
            "systemctl",
            "--no-block",
            "--job-mode=replace-irreversibly",
            "start",
            "poweroff.target",
        ])?;
        let what = format!("{} to shut down", self.name());
        wait::until_true(&what, STOP_LIMIT, || self.cgroup().leader().is_none())?;
        self.cgroup().destroy()
    }

    pub(crate) fn freeze(&self) -> Result<()> {
        self.leader()?;
        self.cgroup().freeze()
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.leader()?;
        self.cgroup().thaw()
    }

    /// A command inside the machine, in all its namespaces, ready to run.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Command> {
        let leader = self.awake_leader()?;
        let mut command = self
            .lab
            .command_in(&self.cgroup().child("init.scope"), Session::Callers);
        // No `=` after --root and --wd: a path given there would be looked up on the host.
        command
            .args([
                "nsenter",
                "--target",
                &leader.to_string(),
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
            ])
            .args(["--cgroup", "--root", "--wd", "--", "env", "-i", "HOME=/root"])
            .arg(format!("PATH={PATH}"))
            .arg(format!(
                "TERM={}",
                std::env::var("TERM").unwrap_or_else(|_| "dumb".into())
            ))
            .args(words);
        Ok(command)
    }

    /// Runs a command inside and returns what it printed.
    pub(crate) fn output<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<String> {
        command::capture(&mut self.command(words)?).with_context(|| format!("on {}", self.name()))
    }

    /// Runs a command inside for its effect.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<()> {
        self.output(words).map(drop)
    }

    /// Becomes a command inside: terminal, signals and exit code are the caller's. Returns only on failure.
    pub(crate) fn exec<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<()> {
        Err(self.command(words)?.exec()).context("enter the machine")
    }

    /// A command that reads the machine's journal from its disk, whether or not it runs.
    pub(crate) fn journal(&self) -> Command {
        let mut command = Command::new("journalctl");
        command
            .arg("--directory")
            .arg(self.disk().join("var/log/journal"));
        command
    }

    /// PID 1 of the machine, as the host numbers it.
    fn leader(&self) -> Result<Pid> {
        let hint = || format!("{0} is off: `cargo xtask restart {0}` boots it", self.name());
        self.cgroup().leader().with_context(hint)
    }

    fn awake_leader(&self) -> Result<Pid> {
        let leader = self.leader()?;
        if self.cgroup().is_frozen() {
            bail!(
                "{0} is paused: `cargo xtask resume {0}` lets it run on",
                self.name()
            );
        }
        Ok(leader)
    }

    fn cgroup(&self) -> Cgroup {
        self.lab.cgroup(self.name())
    }

    fn console(&self) -> PathBuf {
        self.disk().join("console.log")
    }

    fn console_tail(&self) -> String {
        let text = fs::read_to_string(self.console()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("; ")
    }

    fn write_plan(&self) -> Result<PathBuf> {
        let local = if self.lab.is_blank() {
            Bind {
                path: self.disk().join("usr/local"),
                is_writable: true,
            }
        } else {
            Bind {
                path: self.lab.common().join("usr/local"),
                is_writable: false,
            }
        };
        let plan = Plan {
            name: self.name().to_owned(),
            disk: self.disk(),
            local,
            helper: self.lab.helper(),
            binds: self.lab.state.binds.clone(),
        };
        let path = self.disk().join("plan.json");
        fs::write(&path, serde_json::to_vec_pretty(&plan)?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// The machine id that PID 1 itself gives over the machine's bus. While a machine is still building its root,
    /// the path of that bus leads to the host's, so that any answer alone proves nothing.
    fn answering_id(&self) -> Option<String> {
        let leader = self.cgroup().leader()?;
        let mut call = Command::new("busctl");
        call.arg(format!(
            "--address=unix:path=/proc/{leader}/root/run/dbus/system_bus_socket"
        ));
        call.args([
            "--timeout=5",
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
        ]);
        let answer = command::capture(call.args(["org.freedesktop.DBus.Peer", "GetMachineId"])).ok()?;
        Some(answer.trim().strip_prefix("s \"")?.strip_suffix('"')?.to_owned())
    }
}
