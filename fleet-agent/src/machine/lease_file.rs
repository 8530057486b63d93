//! The lease's id on disk, so that a restart goes on where the last run was, and the lock that keeps a second
//! fleetd off the same machine.
//!
//! It lies below `/run`: a reboot empties it, and should, since what ran before a reboot runs no more. Losing it
//! costs one lifetime of the lease, so nothing is synced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use client::v3::LeaseId;
use rustix::fs::{FlockOperation, flock};
use tracing::warn;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFileError {
    /// Another fleetd of this machine is running.
    #[error("another fleetd runs on this machine (it holds {}): stop it first", lock.display())]
    Locked {
        /// The file that it holds.
        lock: PathBuf,
    },
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was to be created.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where one machine keeps the id of its lease. At most one exists per directory.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    machine_id: String,
    /// Held as long as this process lives.
    _lock: File,
}

impl LeaseFile {
    /// Takes the directory, creating it when it is not there.
    ///
    /// # Errors
    /// When another process has it, or it cannot be created.
    pub fn open(directory: &Path, machine_id: &str) -> Result<Self, LeaseFileError> {
        let io_error = |path: &Path, source| LeaseFileError::Io {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(|source| io_error(directory, source))?;
        let lock = directory.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock);
        let file = file.map_err(|source| io_error(&lock, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LeaseFileError::Locked { lock }),
            Err(errno) => return Err(io_error(&lock, errno.into())),
        }
        Ok(Self {
            path: directory.join("lease"),
            machine_id: machine_id.to_owned(),
            _lock: file,
        })
    }

    /// What the last run left; none when there is nothing, or nothing that makes sense for this machine.
    pub fn load(&self) -> Option<LeaseId> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the lease of the last run cannot be read");
                return None;
            }
        };
        let lease = parse(&text, &self.machine_id);
        if lease.is_none() {
            warn!(path = %self.path.display(), "the lease of the last run is not one of this machine");
        }
        lease
    }

    /// Keeps the id. What goes wrong is only logged: it costs the next restart some seconds.
    pub fn save(&self, lease: LeaseId) {
        if let Err(error) = self.replace(&render(lease, &self.machine_id)) {
            warn!(path = %self.path.display(), %error, "the lease's id cannot be kept; a restart will wait for it to end");
        }
    }

    /// Drops the id.
    pub fn forget(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %self.path.display(), %error, "the ended lease's id cannot be removed");
            }
            _ => {}
        }
    }

    /// Whole or not at all, and readable by root alone: who knows the id can end the lease.
    fn replace(&self, text: &str) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&fresh, &self.path)
    }
}

/// The id, as etcdctl prints it, and the machine that it belongs to.
fn render(lease: LeaseId, machine_id: &str) -> String {
    format!("{lease} {machine_id}\n")
}

fn parse(text: &str, machine_id: &str) -> Option<LeaseId> {
    let (lease, owner) = text.trim_end().split_once(' ')?;
    if owner != machine_id {
        return None;
    }
    LeaseId::new(i64::from_str_radix(lease, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn lease(number: i64) -> LeaseId {
        LeaseId::new(number).unwrap()
    }

    #[test]
    fn an_id_survives_in_a_file_that_only_root_reads() {
        let directory = tempfile::tempdir().unwrap();
        let file = LeaseFile::open(&directory.path().join("fleet"), "m1").unwrap();
        assert_eq!(file.load(), None);
        file.save(lease(1));
        file.save(lease(0x7f00_0000_0000_0abc));
        assert_eq!(file.load(), Some(lease(0x7f00_0000_0000_0abc)));
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        file.forget();
        file.forget();
        assert_eq!(file.load(), None);
    }

    #[test]
    fn what_is_not_this_machines_lease_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = LeaseFile::open(directory.path(), "m1").unwrap();
        for text in ["", "zz m1\n", "0 m1\n", "7f\n", "7f m2\n"] {
            fs::write(&file.path, text).unwrap();
            assert_eq!(file.load(), None, "{text:?}");
        }
        fs::write(&file.path, "7f m1\n").unwrap();
        assert_eq!(file.load(), Some(lease(0x7f)));
    }

    #[test]
    fn a_second_fleetd_is_kept_out_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let first = LeaseFile::open(directory.path(), "m1").unwrap();
        let error = LeaseFile::open(directory.path(), "m1").unwrap_err();
        assert!(matches!(error, LeaseFileError::Locked { .. }), "{error}");
        drop(first);
        LeaseFile::open(directory.path(), "m1").unwrap();
    }
}
