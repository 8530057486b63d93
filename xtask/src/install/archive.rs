//! Archives: a gzipped tar of files that all belong to root, and the `ar` around those of a Debian package.
//! The same input makes the same bytes.

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A gzipped tar in memory. Every path in it begins with `./`, as dpkg wants it.
pub(super) struct Tarball {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    directories: BTreeSet<PathBuf>,
    /// Seconds since 1970 that every file carries.
    modified: u64,
}

impl Tarball {
    pub(super) fn new(modified: u64) -> Self {
        let tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        Self {
            tar,
            directories: BTreeSet::new(),
            modified,
        }
    }

    /// Adds a file, after the directories above it. `path` may be absolute or relative.
    pub(super) fn add(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
        let path = Path::new(".").join(path.strip_prefix("/").unwrap_or(path));
        let mut parents: Vec<_> = path
            .ancestors()
            .skip(1)
            .filter(|parent| !parent.as_os_str().is_empty())
            .collect();
        parents.reverse();
        for parent in parents {
            if self.directories.insert(parent.to_path_buf()) {
                self.append(parent, tar::EntryType::Directory, 0o755, &[])?;
            }
        }
        self.append(&path, tar::EntryType::Regular, mode, bytes)
    }

    pub(super) fn finish(self) -> Result<Vec<u8>> {
        Ok(self.tar.into_inner()?.finish()?)
    }

    fn append(&mut self, path: &Path, kind: tar::EntryType, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        header.set_mtime(self.modified);
        header.set_size(bytes.len() as u64);
        let mut name = path.as_os_str().to_owned();
        if kind == tar::EntryType::Directory {
            name.push("/");
        }
        set_path(&mut header, &name)?;
        header.set_cksum();
        self.tar
            .append(&header, bytes)
            .with_context(|| format!("archive {}", path.display()))
    }
}

/// `Header::set_path` would drop the leading `./`. All our paths fit into the 100 bytes of the plain field.
fn set_path(header: &mut tar::Header, name: &std::ffi::OsStr) -> Result<()> {
    let bytes = name.as_encoded_bytes();
    let field = &mut header.as_old_mut().name;
    anyhow::ensure!(
        bytes.len() <= field.len(),
        "the path {} is too long for an archive",
        name.display()
    );
    field[..bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// An `ar` archive of the members, in their order.
pub(super) fn ar(members: &[(&str, &[u8])], modified: u64) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        assert!(name.len() <= 16, "the member name {name} does not fit");
        let header = format!(
            "{name:<16}{modified:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            "100644",
            bytes.len()
        );
        assert_eq!(header.len(), 60, "an ar header has 60 bytes");
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tarball_lists_directories_before_files_and_is_reproducible() {
        let make = || {
            let mut tarball = Tarball::new(1_400_000_000);
            tarball
                .add(Path::new("/usr/bin/etcd"), 0o755, b"program")
                .unwrap();
            tarball
                .add(Path::new("/usr/bin/etcdctl"), 0o755, b"other")
                .unwrap();
            tarball.finish().unwrap()
        };
        let bytes = make();
        assert_eq!(bytes, make());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "./",
                "./usr/",
                "./usr/bin/",
                "./usr/bin/etcd",
                "./usr/bin/etcdctl"
            ]
        );
    }

    #[test]
    fn ar_pads_members_of_odd_length() {
        let archive = ar(&[("a", b"1"), ("b", b"22")], 0);
        assert_eq!(archive.len(), 8 + 60 + 2 + 60 + 2);
        assert_eq!(&archive[8 + 60..8 + 62], b"1\n");
    }
}
