//! Booting, seen from inside: this runs as PID 1 of a machine's fresh namespaces, builds the machine's file
//! system from its disk and the host's read-only `/usr`, and becomes systemd.

use super::disk::SHARED_ETC;
use super::state::Bind;
use anyhow::{Context as _, Result};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::pivot_root;
use rustix::system::sethostname;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a machine sees this very program, which plays small services of the lab.
pub(super) const HELPER: &str = "/opt/lab/xtask";

/// What the new machine consists of; handed over as a file, because its arguments would be long.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) name: String,
    /// The machine's `etc` and `var`, and the place where its root is put together.
    pub(super) disk: PathBuf,
    /// What is mounted at `/usr/local`.
    pub(super) local: Bind,
    /// This program.
    pub(super) helper: PathBuf,
    pub(super) binds: Vec<Bind>,
}

/// The directories of the host's root that are links into `/usr`, or, on old systems, directories.
const TOP_LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Becomes the machine that the plan in `path` describes; returns only on failure.
pub(crate) fn become_machine(path: &Path) -> Result<()> {
    let plan = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let plan: Plan = serde_json::from_slice(&plan).with_context(|| format!("read {}", path.display()))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("make mounts private")?;
    let root = plan.disk.join("root");
    fs::create_dir_all(&root)?;
    mount_new(
        "tmpfs",
        &root,
        MountFlags::empty(),
        "mode=755,size=16m,nr_inodes=4096",
    )?;
    std::env::set_current_dir(&root)?;
    make_system(&plan)?;
    make_kernel_mounts()?;
    make_devices()?;
    for bind in &plan.binds {
        bind_same_place(bind)?;
    }
    fs::create_dir(".old")?;
    pivot_root(".", ".old").context("change the root")?;
    std::env::set_current_dir("/")?;
    unmount("/.old", UnmountFlags::DETACH).context("leave the host's root")?;
    fs::remove_dir("/.old")?;
    sethostname(plan.name.as_bytes()).context("set the host name")?;
    Err(systemd().exec()).context("become systemd")
}

/// The systemd of the machine. `container` in its environment makes it leave devices and the kernel alone.
fn systemd() -> Command {
    let mut systemd = Command::new("/lib/systemd/systemd");
    systemd
        .args([
            "--system",
            "--show-status=no",
            "--log-target=journal",
            "--unit=multi-user.target",
        ])
        .env_clear()
        .env("container", "hawser-lab")
        .env("PATH", super::PATH)
        .env("TERM", "dumb")
        .stdin(Stdio::null());
    systemd
}

/// `/usr`, `/etc`, `/var` and what links into them, relative to the new root.
fn make_system(plan: &Plan) -> Result<()> {
    for directory in [
        "usr", "proc", "sys", "dev", "run", "etc", "var", "tmp", "root", "home", "opt/lab", "srv", "mnt",
    ] {
        fs::create_dir_all(directory)?;
    }
    for name in TOP_LINKS {
        let source = Path::new("/").join(name);
        match fs::read_link(&source) {
            Ok(target) => symlink(target, name)?,
            Err(_) if source.is_dir() => {
                fs::create_dir(name)?;
                bind(&source, Path::new(name), Access::ReadOnly)?;
            }
            Err(_) => {}
        }
    }
    bind(Path::new("/usr"), Path::new("usr"), Access::ReadOnly)?;
    bind(&plan.local.path, Path::new("usr/local"), Access::of(&plan.local))?;
    bind(&plan.disk.join("etc"), Path::new("etc"), Access::ReadWrite)?;
    bind(&plan.disk.join("var"), Path::new("var"), Access::ReadWrite)?;
    for name in SHARED_ETC {
        let source = Path::new("/etc").join(name);
        if source.is_dir() {
            bind(&source, &Path::new("etc").join(name), Access::ReadOnly)?;
        }
    }
    let helper = Path::new(HELPER).strip_prefix("/").unwrap_or(Path::new(HELPER));
    fs::write(helper, "")?;
    bind(&plan.helper, helper, Access::ReadOnly)
}

/// `/proc`, `/sys`, `/run`, `/tmp` and the cgroup hierarchy, relative to the new root.
fn make_kernel_mounts() -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    let quiet = plain | MountFlags::NOEXEC;
    mount_new("proc", Path::new("proc"), quiet, "")?;
    mount_new("sysfs", Path::new("sys"), quiet | MountFlags::RDONLY, "")?;
    mount_new("cgroup2", Path::new("sys/fs/cgroup"), quiet, "")?;
    mount_new("tmpfs", Path::new("run"), plain, "mode=755,size=128m")?;
    mount_new("tmpfs", Path::new("tmp"), plain, "mode=1777")?;
    // A boot id of its own: with the kernel's, all machines and all boots of one would share it, and
    // `journalctl -b -1` would lie.
    fs::write("run/.boot_id", fs::read("/proc/sys/kernel/random/uuid")?)?;
    bind(
        Path::new("run/.boot_id"),
        Path::new("proc/sys/kernel/random/boot_id"),
        Access::ReadOnly,
    )?;
    Ok(fs::remove_file("run/.boot_id")?)
}

fn make_devices() -> Result<()> {
    mount_new("tmpfs", Path::new("dev"), MountFlags::NOSUID, "mode=755,size=4m")?;
    for name in DEVICES {
        let place = Path::new("dev").join(name);
        fs::write(&place, "")?;
        bind(&Path::new("/dev").join(name), &place, Access::ReadWrite)?;
    }
    fs::write("dev/console", "")?;
    bind(
        Path::new("/dev/null"),
        Path::new("dev/console"),
        Access::ReadWrite,
    )?;
    fs::create_dir("dev/pts")?;
    mount_new(
        "devpts",
        Path::new("dev/pts"),
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )?;
    fs::create_dir("dev/shm")?;
    mount_new(
        "tmpfs",
        Path::new("dev/shm"),
        MountFlags::NOSUID | MountFlags::NODEV,
        "mode=1777",
    )?;
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        symlink(target, Path::new("dev").join(name))?;
    }
    Ok(())
}

/// Shows a path of the host at the same place, with what is mounted below it.
fn bind_same_place(wanted: &Bind) -> Result<()> {
    let place = wanted.path.strip_prefix("/").unwrap_or(&wanted.path);
    if wanted.path.is_dir() {
        fs::create_dir_all(place)?;
    } else {
        fs::create_dir_all(place.parent().unwrap_or(Path::new(".")))?;
        fs::write(place, "")?;
    }
    bind(&wanted.path, place, Access::of(wanted))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

impl Access {
    fn of(bind: &Bind) -> Self {
        if bind.is_writable {
            Self::ReadWrite
        } else {
            Self::ReadOnly
        }
    }
}

/// With all mounts below: a user namespace may not uncover what they hide, so that a bind of one alone is refused.
fn bind(source: &Path, place: &Path, access: Access) -> Result<()> {
    mount_bind_recursive(source, place)
        .with_context(|| format!("show {} at {}", source.display(), place.display()))?;
    if access == Access::ReadOnly {
        make_read_only(place)
    } else {
        Ok(())
    }
}

/// Makes the mount at `place` and all mounts below it read-only.
fn make_read_only(place: &Path) -> Result<()> {
    let place = fs::canonicalize(place)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(mount_point);
    for point in points.filter(|point| point.starts_with(&place)) {
        remount_read_only(&point).with_context(|| format!("make {} read-only", point.display()))?;
    }
    Ok(())
}

/// The kernel writes blanks in paths as octal escapes.
fn mount_point(field: &str) -> PathBuf {
    let plain = field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n");
    PathBuf::from(plain.replace("\\134", "\\"))
}

/// A user namespace may not take back what a mount already forbids: those flags are repeated.
fn remount_read_only(point: &Path) -> Result<()> {
    let now = statvfs(point)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (found, flag) in kept {
        if now.contains(found) {
            flags |= flag;
        }
    }
    Ok(mount_remount(point, flags, "")?)
}

fn mount_new(kind: &str, place: &Path, flags: MountFlags, options: &str) -> Result<()> {
    let data = CString::new(options).context("mount options with a NUL byte")?;
    mount(kind, place, kind, flags, data.as_c_str())
        .with_context(|| format!("mount {kind} at {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(
            mount_point("/home/ann/my\\040checkout"),
            Path::new("/home/ann/my checkout")
        );
        assert_eq!(mount_point("/back\\134slash"), Path::new("/back\\slash"));
    }
}
