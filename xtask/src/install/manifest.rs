//! The manifest: every file of an installation, where it goes and what is in it.

use crate::{command, workspace};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Unit files name programs below this prefix; installing elsewhere rewrites it.
const WRITTEN_PREFIX: &str = "/usr/local";

/// Unit files, relative to the checkout.
const UNITS: [&str; 4] = [
    "etcd-node/units/etcd.service",
    "fleet-agent/units/fleet.service",
    "fleet-agent/units/fleet.socket",
    "fleet-agent/units/cluster-init.service",
];

/// Users and directories: source in the checkout, directory below `lib`, name there. Named after the product,
/// for a distribution may have an `etcd.conf` of its own.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("etcd-node/units/sysusers.conf", "sysusers.d", "hawser-etcd.conf"),
    (
        "fleet-agent/units/sysusers.conf",
        "sysusers.d",
        "hawser-fleet.conf",
    ),
    (
        "fleet-agent/units/tmpfiles.conf",
        "tmpfiles.d",
        "hawser-fleet.conf",
    ),
];

/// What a file consists of.
pub(super) enum Content {
    /// A copy of this file.
    Copy(PathBuf),
    Text(String),
}

/// One file of the installation.
pub(super) struct Entry {
    /// Absolute, as programs on the machine see it.
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) content: Content,
}

impl Entry {
    /// The bytes of the file.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        match &self.content {
            Content::Text(text) => Ok(text.clone().into_bytes()),
            Content::Copy(source) => fs::read(source).with_context(|| format!("read {}", source.display())),
        }
    }

    /// Writes the file at `place`, whole or not at all: a running program keeps the old one.
    pub(super) fn write(&self, place: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            if let Some(directory) = place.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut name = place.as_os_str().to_owned();
            name.push(".new");
            let fresh = PathBuf::from(name);
            match &self.content {
                Content::Copy(source) => fs::copy(source, &fresh).map(drop)?,
                Content::Text(text) => fs::write(&fresh, text)?,
            }
            fs::set_permissions(&fresh, fs::Permissions::from_mode(self.mode))?;
            fs::rename(&fresh, place)
        };
        write().with_context(|| format!("install {}", place.display()))
    }
}

/// Every file of an installation below `prefix`, in the order of the manifest.
pub(super) fn entries(prefix: &Path, checkout: &Path, binaries: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for program in &workspace::PROGRAMS {
        let source = binaries.join(program.binary);
        let path = prefix.join("bin").join(program.binary);
        entries.push(Entry {
            path,
            mode: 0o755,
            content: Content::Copy(source.clone()),
        });
        generated(prefix, program.binary, &source, &mut entries)?;
    }
    for unit in UNITS {
        let name = Path::new(unit).file_name().unwrap_or_default();
        entries.push(rewritten(
            prefix,
            checkout,
            unit,
            prefix.join("lib/systemd/system").join(name),
        )?);
    }
    for (source, directory, name) in SETTINGS {
        let path = prefix.join("lib").join(directory).join(name);
        entries.push(rewritten(prefix, checkout, source, path)?);
    }
    Ok(entries)
}

/// A text of the checkout, with the prefix that is installed to.
fn rewritten(prefix: &Path, checkout: &Path, source: &str, path: PathBuf) -> Result<Entry> {
    let source = checkout.join(source);
    let text = fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
    let text = text.replace(&format!("{WRITTEN_PREFIX}/"), &format!("{}/", prefix.display()));
    Ok(Entry {
        path,
        mode: 0o644,
        content: Content::Text(text),
    })
}

/// Manual page and completions, which the program itself prints.
fn generated(prefix: &Path, name: &str, program: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    let share = prefix.join("share");
    // Debian's zsh looks into vendor-completions below /usr and into site-functions below /usr/local.
    let zsh = if prefix == Path::new("/usr") {
        "zsh/vendor-completions"
    } else {
        "zsh/site-functions"
    };
    let texts: [(&[&str], PathBuf); 4] = [
        (
            &["--generate-man"],
            share.join("man/man1").join(format!("{name}.1")),
        ),
        (
            &["--generate-completion", "bash"],
            share.join("bash-completion/completions").join(name),
        ),
        (
            &["--generate-completion", "zsh"],
            share.join(zsh).join(format!("_{name}")),
        ),
        (
            &["--generate-completion", "fish"],
            share
                .join("fish/vendor_completions.d")
                .join(format!("{name}.fish")),
        ),
    ];
    for (arguments, path) in texts {
        let text = command::capture(Command::new(program).args(arguments))?;
        if text.trim().is_empty() {
            bail!("`{name} {}` printed nothing", arguments.join(" "));
        }
        entries.push(Entry {
            path,
            mode: 0o644,
            content: Content::Text(text),
        });
    }
    Ok(())
}
