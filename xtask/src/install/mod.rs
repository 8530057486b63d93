//! `cargo xtask install|uninstall|dist`: one manifest says which files the product consists of and where they
//! go; installing writes them below a root, uninstalling removes what the record of the installation names,
//! and `dist` packs the same tree.

#![expect(clippy::print_stdout, reason = "a hint is part of the task's output")]

mod apply;
mod archive;
mod dist;
mod manifest;
mod record;

use crate::workspace;
use anyhow::{Context as _, Result, bail};
use manifest::Entry;
use record::Record;
use std::path::{Path, PathBuf};

pub(crate) use dist::dist;

/// Where to install to.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Destination {
    /// Install below this directory as if it were `/`: a machine's tree, or a staging directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Where programs, units, manual pages and completions go, as seen below the root
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    pub(crate) prefix: PathBuf,
}

impl Destination {
    /// The place of `path` (absolute, as programs on the machine see it) for us, who look from outside.
    fn below_root(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether it is the running system that is changed, rather than a tree of files.
    fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    fn check(&self) -> Result<()> {
        if !self.prefix.is_absolute() {
            bail!("the prefix {} is not absolute", self.prefix.display());
        }
        Ok(())
    }
}

/// Builds the programs (or takes those of `given`) and installs everything; returns the files written.
///
/// # Errors
/// A file that is in the way and is not ours stops it before anything is written.
pub(crate) fn install(destination: &Destination, given: Option<&Path>) -> Result<Vec<PathBuf>> {
    destination.check()?;
    let binaries = workspace::binaries(given)?;
    let entries = manifest::entries(&destination.prefix, &workspace::checkout(), &binaries)?;
    let old = Record::read(destination)?;
    refuse_foreign(destination, &entries, &old)?;

    // The record comes first: an interrupted installation can be uninstalled too.
    let mut record = Record {
        directories: old.directories.clone(),
        ..Record::default()
    };
    for entry in &entries {
        record.add_missing_directories(destination, &entry.path);
        record.files.insert(entry.path.clone());
    }
    record.add_missing_directories(destination, &Record::path(destination));
    let mut union = record.clone();
    union.files.extend(old.files.iter().cloned());
    union.write(destination)?;
    for entry in &entries {
        entry.write(&destination.below_root(&entry.path))?;
    }
    for stale in old.files.difference(&record.files) {
        remove_file(&destination.below_root(stale))?;
    }
    record.write(destination)?;
    apply::apply(destination, &entries)?;
    Ok(entries.into_iter().map(|entry| entry.path).collect())
}

/// Removes exactly what the record of the installation names; data, configuration and users stay.
pub(crate) fn uninstall(destination: &Destination) -> Result<Vec<PathBuf>> {
    destination.check()?;
    let path = destination.below_root(&Record::path(destination));
    if !path.exists() {
        bail!(
            "nothing is installed here: there is no {} (is --prefix the one of the installation?)",
            path.display()
        );
    }
    let record = Record::read(destination)?;
    for file in &record.files {
        remove_file(&destination.below_root(file))?;
    }
    remove_file(&path)?;
    // Sorted, so a directory stands before what it contains: from the back, leaves go first.
    for directory in record.directories.iter().rev() {
        // One that is not empty holds somebody else's files and stays.
        drop(std::fs::remove_dir(destination.below_root(directory)));
    }
    apply::after_uninstall(destination);
    Ok(record.files.into_iter().collect())
}

/// Says what a person must know after an installation to an unusual place.
pub(crate) fn hint(destination: &Destination) {
    let usual = ["/usr", "/usr/local"].map(Path::new);
    if !usual.contains(&destination.prefix.as_path()) {
        let units = destination.prefix.join("lib/systemd/system");
        println!(
            "systemd does not look there by itself: `systemctl link {}/*`",
            units.display()
        );
    }
}

/// A file that is in the way and that no earlier installation of ours wrote belongs to somebody.
fn refuse_foreign(destination: &Destination, entries: &[Entry], old: &Record) -> Result<()> {
    for entry in entries {
        let path = destination.below_root(&entry.path);
        if path.symlink_metadata().is_ok() && !old.files.contains(&entry.path) {
            bail!(
                "{} exists and is not ours: move it away, or install below another --prefix",
                path.display()
            );
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// Stand-ins for the built programs: installing runs them only for their pages and completions.
    fn programs(directory: &Path) {
        for program in &workspace::PROGRAMS {
            let path = directory.join(program.binary);
            fs::write(&path, format!("#!/bin/sh\necho \"{} $*\"\n", program.binary)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut open = vec![root.to_path_buf()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let content = if path.is_dir() {
                    open.push(path.clone());
                    None
                } else {
                    Some(fs::read(&path).unwrap())
                };
                found.insert(path, content);
            }
        }
        found
    }

    #[test]
    fn uninstall_leaves_the_tree_as_it_was_before_install() {
        let (binaries, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        programs(binaries.path());
        fs::create_dir_all(root.path().join("usr/local/bin")).unwrap();
        fs::write(root.path().join("usr/local/bin/neighbour"), "stays").unwrap();
        let before = tree(root.path());
        let destination = Destination {
            root: root.path().into(),
            prefix: "/usr/local".into(),
        };

        install(&destination, Some(binaries.path())).unwrap();
        let once = tree(root.path());
        assert!(once.contains_key(&root.path().join("usr/local/bin/etcd")));
        assert!(once.contains_key(&root.path().join("usr/local/lib/systemd/system/fleet.service")));
        install(&destination, Some(binaries.path())).unwrap();
        assert_eq!(tree(root.path()), once, "a second installation changes nothing");

        fs::create_dir_all(root.path().join("var/lib/etcd")).unwrap();
        fs::write(root.path().join("var/lib/etcd/data"), "stays").unwrap();
        uninstall(&destination).unwrap();
        fs::remove_dir_all(root.path().join("var")).unwrap();
        assert_eq!(tree(root.path()), before);
    }

    #[test]
    fn file_of_somebody_else_is_refused_before_anything_is_written() {
        let (binaries, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        programs(binaries.path());
        let destination = Destination {
            root: root.path().into(),
            prefix: "/opt/hawser".into(),
        };
        let foreign = root.path().join("opt/hawser/bin/fleetctl");
        fs::create_dir_all(foreign.parent().unwrap()).unwrap();
        fs::write(&foreign, "mine").unwrap();
        let before = tree(root.path());
        let error = install(&destination, Some(binaries.path()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("opt/hawser/bin/fleetctl exists and is not ours"),
            "{error}"
        );
        assert_eq!(tree(root.path()), before);
    }

    #[test]
    fn units_name_the_programs_below_the_prefix() {
        let (binaries, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        programs(binaries.path());
        let destination = Destination {
            root: root.path().into(),
            prefix: "/opt/hawser".into(),
        };
        install(&destination, Some(binaries.path())).unwrap();
        for (unit, program) in [
            ("etcd", "etcd"),
            ("fleet", "fleetd"),
            ("cluster-init", "cluster-init"),
        ] {
            let path = root
                .path()
                .join(format!("opt/hawser/lib/systemd/system/{unit}.service"));
            let text = fs::read_to_string(path).unwrap();
            assert!(
                text.contains(&format!("\nExecStart=/opt/hawser/bin/{program}")),
                "{text}"
            );
            assert!(!text.contains("/usr/local"), "{text}");
        }
    }

    #[test]
    fn uninstall_of_nothing_says_so() {
        let root = tempfile::tempdir().unwrap();
        let destination = Destination {
            root: root.path().into(),
            prefix: "/usr/local".into(),
        };
        let error = uninstall(&destination).unwrap_err().to_string();
        assert!(error.starts_with("nothing is installed here"), "{error}");
    }
}
