//! `cargo xtask dist`: the tree of `install` as a tar archive (below /usr/local) and as a Debian package
//! (below /usr).

use super::archive::{Tarball, ar};
use super::manifest::{self, Entry};
use crate::{command, workspace};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs after unpacking: users, directories, units. Enabling is a person's decision.
const POSTINST: &str = "#!/bin/sh
set -e
[ \"$1\" = configure ] || exit 0
systemd-sysusers hawser-etcd.conf hawser-fleet.conf
systemd-tmpfiles --create hawser-fleet.conf || true
[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
";

/// Runs after removal. Data, users and configuration stay.
const POSTRM: &str = "#!/bin/sh
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
";

/// Builds and packs; returns the archives written, in `target/dist`.
pub(crate) fn dist(given: Option<&Path>) -> Result<Vec<PathBuf>> {
    let binaries = workspace::binaries(given)?;
    let directory = workspace::target().join("dist");
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let modified = modified();

    let local = manifest::entries(Path::new("/usr/local"), &workspace::checkout(), &binaries)?;
    let tar = directory.join(format!(
        "hawser-{version}-{}-linux.tar.gz",
        std::env::consts::ARCH
    ));
    write(&tar, &tarball(&local, modified)?)?;

    let system = manifest::entries(Path::new("/usr"), &workspace::checkout(), &binaries)?;
    let architecture = debian_architecture();
    let deb = directory.join(format!("hawser_{version}_{architecture}.deb"));
    write(&deb, &package(&system, version, architecture, modified)?)?;
    Ok(vec![tar, deb])
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

fn tarball(entries: &[Entry], modified: u64) -> Result<Vec<u8>> {
    let mut tarball = Tarball::new(modified);
    for entry in entries {
        tarball.add(&entry.path, entry.mode, &entry.bytes()?)?;
    }
    tarball.finish()
}

fn package(entries: &[Entry], version: &str, architecture: &str, modified: u64) -> Result<Vec<u8>> {
    let mut installed_bytes = 0;
    for entry in entries {
        installed_bytes += entry.bytes()?.len();
    }
    let mut control = Tarball::new(modified);
    let fields = control_fields(version, architecture, installed_bytes.div_ceil(1024));
    control.add(Path::new("control"), 0o644, fields.as_bytes())?;
    control.add(Path::new("postinst"), 0o755, POSTINST.as_bytes())?;
    control.add(Path::new("postrm"), 0o755, POSTRM.as_bytes())?;
    let (control, data) = (control.finish()?, tarball(entries, modified)?);
    let members: [(&str, &[u8]); 3] = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &control),
        ("data.tar.gz", &data),
    ];
    Ok(ar(&members, modified))
}

fn control_fields(version: &str, architecture: &str, installed_kib: usize) -> String {
    format!(
        "Package: hawser
Version: {version}
Architecture: {architecture}
Maintainer: The Hawser project <hawser@localhost>
Installed-Size: {installed_kib}
Depends: libc6, systemd, dbus
Conflicts: etcd-server, etcd-client
Section: admin
Priority: optional
Description: etcd and fleet for Linux machines
 A replicated key-value node that speaks both APIs of etcd over one keyspace, an agent that runs systemd
 units across machines as fleet did, and cluster-init, which configures both from a #cloud-config file.
"
    )
}

/// Debian's name of the architecture that we are built for.
fn debian_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// When the content was made, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the last commit, else now.
fn modified() -> u64 {
    let named = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok());
    let committed = || {
        let mut git = Command::new("git");
        git.current_dir(workspace::checkout())
            .args(["log", "-1", "--format=%ct"]);
        command::capture(&mut git).ok()?.trim().parse().ok()
    };
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    named.or_else(committed).unwrap_or_else(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::manifest::Content;

    #[test]
    fn dpkg_reads_the_package() {
        let entry = Entry {
            path: "/usr/lib/systemd/system/etcd.service".into(),
            mode: 0o644,
            content: Content::Text("[Unit]\n".into()),
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hawser.deb");
        std::fs::write(&path, package(&[entry], "0.1.0", "amd64", 1_400_000_000).unwrap()).unwrap();
        let fields = command::capture(Command::new("dpkg-deb").arg("-f").arg(&path)).unwrap();
        assert!(fields.contains("Package: hawser\n"), "{fields}");
        assert!(
            fields.contains("Conflicts: etcd-server, etcd-client\n"),
            "{fields}"
        );
        let files = command::capture(Command::new("dpkg-deb").arg("-c").arg(&path)).unwrap();
        assert!(files.contains("-rw-r--r-- root/root         7"), "{files}");
        assert!(
            files.contains(" ./usr/lib/systemd/system/etcd.service\n"),
            "{files}"
        );
    }
}
