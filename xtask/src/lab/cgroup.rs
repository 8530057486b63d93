//! Control groups of machines: one directory of the cgroup2 hierarchy per machine, which its systemd sees as
//! the root of the hierarchy. The directory also tells which processes a machine has, holds its freezer, and
//! is what makes `down` complete: whatever runs in it can be killed without knowing it.

use crate::wait;
use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Processes that got SIGKILL are gone within milliseconds, except in uninterruptible sleep on a slow disk.
const DEATH_LIMIT: Duration = Duration::from_secs(20);
/// Freezing waits for every thread to leave the kernel.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// A directory of the cgroup2 hierarchy, which may not exist.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn child(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    pub(crate) fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.0).with_context(|| format!("make the cgroup {}", self.0.display()))
    }

    /// Moves the calling process into it.
    pub(crate) fn enter(&self) -> Result<()> {
        let path = self.0.join("cgroup.procs");
        fs::write(&path, std::process::id().to_string()).with_context(|| format!("enter {}", path.display()))
    }

    /// The processes of this directory alone, not of those below it.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
            .collect()
    }

    /// The process that is PID 1 of a namespace right below ours. A systemd moves itself to `init.scope`.
    pub(crate) fn leader(&self) -> Option<Pid> {
        let mut candidates = self.child("init.scope").processes();
        candidates.extend(self.processes());
        candidates.into_iter().find(|pid| is_leader(*pid))
    }

    /// Whether any process is in it or below it.
    pub(crate) fn is_populated(&self) -> bool {
        self.event("populated 1")
    }

    /// Whether all its processes are frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.event("frozen 1")
    }

    /// Stops all its processes where they are.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.write("cgroup.freeze", "1")?;
        wait::until_true("every process to freeze", FREEZE_LIMIT, || self.is_frozen())
    }

    /// Lets them run on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.write("cgroup.freeze", "0")?;
        wait::until_true("every process to thaw", FREEZE_LIMIT, || !self.is_frozen())
    }

    /// Kills everything in it and below it, and removes it. Nothing to do when it does not exist.
    pub(crate) fn destroy(&self) -> Result<()> {
        if !self.0.exists() {
            return Ok(());
        }
        wait::until_true(
            &format!("the processes of {} to die", self.0.display()),
            DEATH_LIMIT,
            || {
                self.kill();
                !self.is_populated()
            },
        )?;
        remove_tree(&self.0)
    }

    /// Sends SIGKILL to everything in it and below it.
    fn kill(&self) {
        // Kernels before 5.14 have no `cgroup.kill`.
        if self.write("cgroup.kill", "1").is_err() {
            for directory in subtree(&self.0) {
                for pid in Self(directory).processes() {
                    // One that is gone already is what we want.
                    kill_process(pid, Signal::KILL).ok();
                }
            }
        }
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
    }

    fn event(&self, line: &str) -> bool {
        let text = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        text.lines().any(|found| found == line)
    }
}

/// Whether this process is PID 1 of a namespace right below that of our `/proc`.
fn is_leader(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .is_some_and(|pids| {
            let pids: Vec<_> = pids.split_whitespace().collect();
            matches!(pids[..], [_, "1"])
        })
}

/// `root` and all directories below it, parents first.
fn subtree(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        let children = fs::read_dir(directory).into_iter().flatten().flatten();
        let children: Vec<_> = children
            .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|child| child.path())
            .collect();
        found.extend(children);
        next += 1;
    }
    found
}

fn remove_tree(root: &Path) -> Result<()> {
    for directory in subtree(root).iter().rev() {
        let removed = || match fs::remove_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            outcome => outcome.is_ok(),
        };
        // A killed process leaves its cgroup a moment after it has left `populated`.
        wait::until_true(
            &format!("the cgroup {} to become empty", directory.display()),
            DEATH_LIMIT,
            removed,
        )?;
    }
    Ok(())
}

/// Where the cgroup2 hierarchy is mounted.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let cgroup2 = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    cgroup2.context("no cgroup2 hierarchy is mounted here: `mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`")
}

/// The directory of the process `pid` (or `self`) in the cgroup2 hierarchy.
pub(crate) fn of_process(pid: &str) -> Result<Cgroup> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let own = text
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .context("no line of cgroup2 in /proc/self/cgroup")?;
    Ok(Cgroup::at(mount_point()?.join(own.trim_start_matches('/'))))
}
