//! The record of an installation, `PREFIX/share/hawser/installed`: the files that were written and the
//! directories that were made for them, so that uninstalling removes these and nothing else.

use super::Destination;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Paths are absolute, as programs on the machine see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) files: BTreeSet<PathBuf>,
    /// Only those that did not exist before; sorted, so that a parent stands before its children.
    pub(super) directories: BTreeSet<PathBuf>,
}

impl Record {
    /// Where the record lies, as programs on the machine see it.
    pub(super) fn path(destination: &Destination) -> PathBuf {
        destination.prefix.join("share/hawser/installed")
    }

    /// The record of the last installation; empty when there was none.
    pub(super) fn read(destination: &Destination) -> Result<Self> {
        let path = destination.below_root(&Self::path(destination));
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub(super) fn write(&self, destination: &Destination) -> Result<()> {
        let path = destination.below_root(&Self::path(destination));
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            fs::write(&path, self.render())
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Notes the directories above `path` that do not exist yet.
    pub(super) fn add_missing_directories(&mut self, destination: &Destination, path: &Path) {
        for directory in path.ancestors().skip(1) {
            if destination.below_root(directory).exists() {
                break;
            }
            self.directories.insert(directory.to_path_buf());
        }
    }

    fn render(&self) -> String {
        let mut text = String::from("# Written by `cargo xtask install`, read by `cargo xtask uninstall`.\n");
        for (word, paths) in [("directory", &self.directories), ("file", &self.files)] {
            for path in paths {
                writeln!(text, "{word} {}", path.display()).expect("a String takes every write");
            }
        }
        text
    }

    fn parse(text: &str) -> Result<Self> {
        let mut record = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(' ') {
                Some(("file", path)) if path.starts_with('/') => record.files.insert(path.into()),
                Some(("directory", path)) if path.starts_with('/') => record.directories.insert(path.into()),
                _ => bail!("`{line}` is not a line of such a record"),
            };
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_survives_writing_and_reading() {
        let record = Record {
            files: BTreeSet::from(["/usr/local/bin/etcd".into(), "/usr/local/with space".into()]),
            directories: BTreeSet::from(["/usr/local/share/hawser".into()]),
        };
        assert_eq!(Record::parse(&record.render()).unwrap(), record);
        Record::parse("file relative/path").unwrap_err();
        Record::parse("everything /").unwrap_err();
    }
}
