//! A machine's disk: `etc` and `var` on the host's disk, below the lab's directory, where fsync is real.
//!
//! `/usr` is the host's, read-only, so nothing of a distribution is downloaded or copied; `/etc` is made here and
//! holds only what a machine needs. What is common to all machines is made once, in a tree that is also what
//! `install --root` installs to; each machine starts as a copy.

use super::state::{Record, Role};
use crate::command;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

/// Directories of the host's `/etc` that machines see read-only: too many small files to copy.
pub(super) const SHARED_ETC: [&str; 7] = [
    "dbus-1",
    "ssl",
    "ca-certificates",
    "alternatives",
    "pam.d",
    "security",
    "ld.so.conf.d",
];

/// Files of the host's `/etc` that each machine gets a copy of, when the host has them.
const COPIED_ETC: [&str; 9] = [
    "nsswitch.conf",
    "ld.so.cache",
    "ld.so.conf",
    "os-release",
    "login.defs",
    "localtime",
    "services",
    "protocols",
    "manpath.config",
];

/// Vendor units that a machine of the lab does not need: devices, consoles, mounts, first-boot work. With the
/// rest masked, what runs is journald, dbus and ours.
const MASKED: &str = "getty.target systemd-logind.service systemd-user-sessions.service systemd-firstboot.service \
    systemd-sysusers.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-clean.timer \
    kmod-static-nodes.service systemd-modules-load.service dev-hugepages.mount dev-mqueue.mount \
    sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    proc-sys-fs-binfmt_misc.automount systemd-binfmt.service systemd-random-seed.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-sysctl.service \
    systemd-remount-fs.service tmp.mount systemd-journal-catalog-update.service systemd-update-done.service \
    systemd-hwdb-update.service systemd-network-generator.service systemd-udevd.service \
    systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-ask-password-console.path systemd-ask-password-wall.path systemd-pcrphase.service \
    systemd-pcrphase-sysinit.service systemd-boot-update.service systemd-initctl.socket \
    systemd-journald-audit.socket systemd-machine-id-commit.service systemd-repart.service ldconfig.service \
    systemd-homed.service systemd-resolved.service systemd-networkd.service systemd-timesyncd.service \
    systemd-oomd.service systemd-networkd.socket remote-fs.target machines.target cryptsetup.target \
    integritysetup.target veritysetup.target";

/// Where vendors put generators. They cost 100-250 ms at each boot and each reload, and would look at the
/// host's configuration.
const GENERATORS: [&str; 2] = [
    "/usr/lib/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
];

const SYSTEM_CONF: &str = "[Manager]
DefaultTimeoutStopSec=10s
DefaultStartLimitIntervalSec=10s
DefaultStartLimitBurst=1000
";

const JOURNALD_CONF: &str = "[Journal]
Storage=persistent
SystemMaxUse=64M
RuntimeMaxUse=16M
ReadKMsg=no
Audit=no
RateLimitIntervalSec=0
ForwardToSyslog=no
ForwardToWall=no
";

const BASHRC: &str = "[ -n \"$PS1\" ] || return
PS1='\\u@\\h:\\w\\$ '
[ ! -r /usr/share/bash-completion/bash_completion ] || . /usr/share/bash-completion/bash_completion
";

/// How many machines of a role know each other by name.
const HOSTS_KNOWN: u8 = 9;
/// Ids from here on are people's; a machine has none, except `nobody`.
const FIRST_PERSON_ID: u32 = 1000;
const NOBODY_ID: u32 = 65534;

/// Makes the tree that all machines start from.
pub(super) fn make_common(tree: &Path) -> Result<()> {
    let (etc, var) = (tree.join("etc"), tree.join("var"));
    for directory in [
        "systemd/system",
        "systemd/system-generators",
        "systemd/system/multi-user.target.wants",
    ] {
        fs::create_dir_all(etc.join(directory))?;
    }
    for directory in SHARED_ETC {
        fs::create_dir_all(etc.join(directory))?;
    }
    for directory in ["log/journal", "lib", "tmp", "cache", "spool"] {
        fs::create_dir_all(var.join(directory))?;
    }
    fs::set_permissions(var.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    symlink("/run", var.join("run"))?;
    symlink("/run/lock", var.join("lock"))?;
    fs::create_dir_all(tree.join("usr/local"))?;

    for file in COPIED_ETC {
        let source = Path::new("/etc").join(file);
        if source.exists() {
            fs::copy(&source, etc.join(file)).with_context(|| format!("copy {}", source.display()))?;
        }
    }
    for file in ["passwd", "group"] {
        let text =
            fs::read_to_string(Path::new("/etc").join(file)).with_context(|| format!("read /etc/{file}"))?;
        fs::write(etc.join(file), system_accounts(&text))?;
    }
    fs::write(etc.join("shadow"), "root:*:19000:0:99999:7:::\n")?;
    fs::set_permissions(etc.join("shadow"), fs::Permissions::from_mode(0o600))?;
    fs::write(etc.join("fstab"), "")?;
    fs::write(etc.join("hosts"), hosts())?;
    fs::write(etc.join("bash.bashrc"), BASHRC)?;
    fs::write(etc.join("systemd/system.conf"), SYSTEM_CONF)?;
    fs::write(etc.join("systemd/journald.conf"), JOURNALD_CONF)?;
    mask(&etc)
}

/// Gives a new machine its copy and what is its own.
pub(super) fn make_machine(common: &Path, disk: &Path, record: &Record) -> Result<()> {
    fs::create_dir_all(disk.join("usr/local"))?;
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto"])
        .arg(common.join("etc"))
        .arg(common.join("var"))
        .arg(disk);
    command::run(&mut copy)?;
    let etc = disk.join("etc");
    // Without an id systemd takes this for a first boot and enables every unit of the vendor.
    fs::write(etc.join("machine-id"), format!("{}\n", record.machine_id))?;
    fs::write(etc.join("hostname"), format!("{}\n", record.name))?;
    let address = record.address;
    let environment = format!("COREOS_PUBLIC_IPV4={address}\nCOREOS_PRIVATE_IPV4={address}\n");
    Ok(fs::write(etc.join("environment"), environment)?)
}

fn mask(etc: &Path) -> Result<()> {
    for unit in MASKED.split_whitespace() {
        symlink("/dev/null", etc.join("systemd/system").join(unit))?;
    }
    for directory in GENERATORS {
        for generator in fs::read_dir(directory).into_iter().flatten().flatten() {
            let place = etc.join("systemd/system-generators").join(generator.file_name());
            if place.symlink_metadata().is_err() {
                symlink("/dev/null", place)?;
            }
        }
    }
    Ok(())
}

/// The lines of passwd or group that a machine takes over: the distribution's own. People are left out, and the
/// accounts that our installation makes, so that it has to make them.
fn system_accounts(text: &str) -> String {
    let is_kept = |line: &&str| {
        let mut fields = line.split(':');
        let (name, id) = (
            fields.next().unwrap_or_default(),
            fields.nth(1).and_then(|id| id.parse::<u32>().ok()),
        );
        !["etcd", "fleet"].contains(&name) && id.is_some_and(|id| id < FIRST_PERSON_ID || id == NOBODY_ID)
    };
    text.lines()
        .filter(is_kept)
        .fold(String::new(), |kept, line| kept + line + "\n")
}

fn hosts() -> String {
    let mut text = format!(
        "127.0.0.1 localhost\n::1 localhost\n{} {}\n",
        super::HUB_ADDRESS,
        super::HUB
    );
    for role in [Role::Core, Role::Worker] {
        for number in 1..=HOSTS_KNOWN {
            let (name, address) = role.machine(number);
            writeln!(text, "{address} {name}").expect("a String takes every write");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_take_over_neither_people_nor_our_accounts() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nmessagebus:x:100:102::/:/usr/sbin/nologin\n\
            etcd:x:102:105::/var/lib/etcd:/usr/sbin/nologin\nann:x:1000:1000::/home/ann:/bin/bash\n\
            nobody:x:65534:65534::/:/usr/sbin/nologin\n";
        let kept: Vec<_> = system_accounts(passwd)
            .lines()
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect();
        assert_eq!(kept, ["root", "messagebus", "nobody"]);
        assert_eq!(system_accounts("fleet:x:105:\nadm:x:4:\n"), "adm:x:4:\n");
    }

    #[test]
    fn common_tree_masks_vendor_units() {
        let directory = tempfile::tempdir().unwrap();
        make_common(directory.path()).unwrap();
        let masked = directory.path().join("etc/systemd/system/systemd-logind.service");
        assert_eq!(fs::read_link(masked).unwrap(), Path::new("/dev/null"));
        let hosts = fs::read_to_string(directory.path().join("etc/hosts")).unwrap();
        assert!(hosts.contains("172.17.8.201 worker-01\n"), "{hosts}");
        assert!(hosts.contains("172.17.8.1 hub\n"), "{hosts}");
    }
}
