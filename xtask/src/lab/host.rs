//! What the host gives: a cgroup that is ours to divide, and where `/run` remembers whose lab is running.
//!
//! Where systemd is PID 1 of the host, cgroups are its property, so a transient service with `Delegate=yes` holds
//! ours. Elsewhere a directory in the hierarchy will do. As an ordinary user, see `keeper`.

use super::cgroup::{self, Cgroup};
use super::keeper::Keeper;
use crate::{command, wait, workspace};
use anyhow::{Context as _, Result, bail};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The keeper's own part of a delegated cgroup; machines live beside it in `MACHINES`.
const KEEPER: &str = "keeper";
const MACHINES: &str = "machines";
const KEEPER_LIMIT: Duration = Duration::from_secs(10);

/// Whether systemd is PID 1 of this host.
pub(super) fn is_systemd() -> bool {
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    first.trim() == "systemd" && Path::new("/run/systemd/system").exists()
}

/// The transient service that holds a lab's cgroup on a host with systemd.
pub(super) fn unit(lab: &str) -> String {
    format!("hawser-{lab}.service")
}

/// Where a lab's machines may have their cgroups. The directory itself is made with the first machine.
pub(super) fn claim_cgroup(lab: &str, program: &Path) -> Result<Cgroup> {
    if !is_systemd() {
        return plain_cgroup(lab);
    }
    let mut run = Command::new("systemd-run");
    run.args([
        "--quiet",
        "--collect",
        "--property=Delegate=yes",
        "--unit",
        &unit(lab),
        "--",
    ]);
    command::run(run.arg(program).arg("keeper"))?;
    let delegated = unit_cgroup(lab, Manager::System)?;
    keeper_ready(&delegated)?;
    Ok(Cgroup::at(machines_cgroup(&delegated)))
}

/// Whose service manager.
#[derive(Clone, Copy)]
pub(super) enum Manager {
    System,
    User,
}

/// The cgroup of the transient service that holds a lab's cgroup.
pub(super) fn unit_cgroup(lab: &str, manager: Manager) -> Result<Cgroup> {
    let mut show = Command::new("systemctl");
    show.args(matches!(manager, Manager::User).then_some("--user"));
    show.args(["show", "--property=ControlGroup", "--value", &unit(lab)]);
    let path = command::capture(&mut show)?;
    Ok(Cgroup::at(
        cgroup::mount_point()?.join(path.trim().trim_start_matches('/')),
    ))
}

/// Waits until a keeper has made room in its delegated cgroup.
pub(super) fn keeper_ready(delegated: &Cgroup) -> Result<()> {
    wait::until_true("the keeper to start", KEEPER_LIMIT, || {
        keeper_process(delegated).is_some()
    })
}

/// The keeper in a delegated cgroup.
pub(super) fn keeper_process(delegated: &Cgroup) -> Option<Pid> {
    delegated.child(KEEPER).processes().first().copied()
}

/// The machines' part of a delegated cgroup.
pub(super) fn machines_cgroup(delegated: &Cgroup) -> PathBuf {
    delegated.child(MACHINES).path().to_path_buf()
}

/// Moves the calling keeper out of the way: a cgroup with children should have no processes of its own.
pub(super) fn make_room() -> Result<Cgroup> {
    let delegated = cgroup::of_process("self")?;
    let own = delegated.child(KEEPER);
    own.create()?;
    own.enter()?;
    Ok(delegated)
}

/// Gives the cgroup back; nothing to do when it was never claimed.
pub(super) fn release_cgroup(lab: &str) {
    if is_systemd() {
        command::succeeds(Command::new("systemctl").args(["stop", &unit(lab)]));
    }
}

/// Every place where a lab's cgroup can be, for a clean-up that knows nothing else.
pub(super) fn possible_cgroups(lab: &str) -> Vec<Cgroup> {
    let mount_point = cgroup::mount_point().map(Cgroup::at);
    let places = [mount_point, cgroup::of_process("self")];
    places
        .into_iter()
        .flatten()
        .map(|place| place.child(&format!("hawser-{lab}")))
        .collect()
}

/// A directory right below the mount point, or in our own cgroup when that is all we may write.
fn plain_cgroup(lab: &str) -> Result<Cgroup> {
    let mut refusal = None;
    for place in possible_cgroups(lab) {
        match place.create() {
            Ok(()) => return Ok(place),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.context("no cgroup2 hierarchy is mounted here")?)
}

/// Whose lab is running: a file in `/run` (a user's: in their runtime directory), so that a second checkout
/// finds the first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) checkout: PathBuf,
    /// Where the lab's state lies.
    pub(super) directory: PathBuf,
    /// What holds an ordinary user's namespaces.
    #[serde(default)]
    pub(super) keeper: Option<Keeper>,
}

impl Marker {
    /// The marker of a lab of this checkout.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            checkout: workspace::checkout(),
            directory,
            keeper: None,
        }
    }

    fn path(lab: &str) -> PathBuf {
        let user = rustix::process::geteuid();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !user.is_root());
        let base = match runtime {
            _ if user.is_root() => PathBuf::from("/run/hawser"),
            Some(directory) => PathBuf::from(directory).join("hawser"),
            None => PathBuf::from(format!("/tmp/hawser-{}", user.as_raw())),
        };
        base.join(format!("{lab}.json"))
    }

    /// The marker of a running lab. One that is unreadable is an error, for it may be of another checkout.
    pub(super) fn read(lab: &str) -> Result<Option<Self>> {
        let path = Self::path(lab);
        match fs::read(&path) {
            Ok(text) => {
                let marker = serde_json::from_slice(&text);
                Ok(Some(marker.with_context(|| {
                    format!("{} is damaged: remove it when no lab runs", path.display())
                })?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Sets the marker; refused when there is one.
    pub(super) fn claim(self, lab: &str) -> Result<()> {
        let path = Self::path(lab);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("another `up` is just starting a lab")
            }
            outcome => outcome.with_context(|| format!("make {}", path.display()))?,
        };
        file.write_all(&serde_json::to_vec(&self)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Writes the marker anew, whole or not at all.
    pub(super) fn replace(self, lab: &str) -> Result<()> {
        let path = Self::path(lab);
        let fresh = path.with_extension("new");
        let write = || -> Result<()> {
            fs::write(&fresh, serde_json::to_vec(&self)?)?;
            Ok(fs::rename(&fresh, &path)?)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Removes the marker.
    pub(super) fn release(lab: &str) -> Result<()> {
        let path = Self::path(lab);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        if let Some(directory) = path.parent() {
            // Stays while another lab's marker lies in it.
            drop(fs::remove_dir(directory));
        }
        Ok(())
    }
}
