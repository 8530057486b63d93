//! What a data directory looks like: `hawser/format`, `hawser/wal/`, `hawser/checkpoints/`. No name is one
//! that a stock etcd uses (`member/wal`, `member/snap`), so neither program takes the other's files for its own.

use std::io;
use std::sync::Arc;

use super::Disk;

/// The directory below the data directory that holds everything of ours.
pub const ROOT: &str = "hawser";
/// Names the version of this layout.
pub const FORMAT_FILE: &str = "format";
/// Segments of the write-ahead log.
pub const WAL_DIRECTORY: &str = "wal";
/// Checkpoints of the state.
pub const CHECKPOINT_DIRECTORY: &str = "checkpoints";
/// The version that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_WORD: &str = "hawser";
/// While the format file is being written.
const FORMAT_PART: &str = "format.part";
/// A format file is one short line; more is not ours.
const FORMAT_BYTES_MAX: usize = 64;

/// The directories of one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `hawser/`, for the node's own small files.
    pub root: Arc<dyn Disk>,
    /// `hawser/wal/`.
    pub wal: Arc<dyn Disk>,
    /// `hawser/checkpoints/`.
    pub checkpoints: Arc<dyn Disk>,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The system refused.
    #[error("{action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Written by a newer release.
    #[error(
        "{file} is of format {found}, this release reads up to {FORMAT_VERSION}: run the newer release again"
    )]
    NewerFormat {
        /// The format file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// Not a format file of ours.
    #[error(
        "{file} does not name a format: it is damaged or not ours; restore it, or name another --data-dir and join as a new member"
    )]
    NotOurs {
        /// The format file.
        file: String,
    },
}

impl Layout {
    /// Opens the directories below a data directory; makes what is missing, the format file first.
    ///
    /// # Errors
    /// When the format is newer than this program or not ours (nothing is touched then), or the system refuses.
    pub fn open(data: &dyn Disk) -> Result<Self, LayoutError> {
        let below = |disk: &dyn Disk, name: &str| {
            disk.directory(name)
                .map_err(|source| io_error("open directory", disk.describe(name), source))
        };
        let root = below(data, ROOT)?;
        if !read_format(&*root)? {
            write_format(&*root)?;
        }
        let wal = below(&*root, WAL_DIRECTORY)?;
        let checkpoints = below(&*root, CHECKPOINT_DIRECTORY)?;
        Ok(Self {
            root,
            wal,
            checkpoints,
        })
    }
}

/// Whether there is a format file; refuses one that we must not go on with.
fn read_format(root: &dyn Disk) -> Result<bool, LayoutError> {
    let name = root.describe(FORMAT_FILE);
    let file = match root.open(FORMAT_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(io_error("open", name, source)),
    };
    let mut buffer = [0; FORMAT_BYTES_MAX];
    let count = file
        .read_at(&mut buffer, 0)
        .map_err(|source| io_error("read", name.clone(), source))?;
    match parse_format(&buffer[..count]) {
        Some(found) if (1..=FORMAT_VERSION).contains(&found) => Ok(true),
        Some(found) if found > FORMAT_VERSION => Err(LayoutError::NewerFormat { file: name, found }),
        _ => Err(LayoutError::NotOurs { file: name }),
    }
}

fn parse_format(bytes: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (word, version) = line.split_once(' ')?;
    if word == FORMAT_WORD {
        version.parse().ok()
    } else {
        None
    }
}

fn write_format(root: &dyn Disk) -> Result<(), LayoutError> {
    let write = || -> io::Result<()> {
        match root.remove(FORMAT_PART) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = root.create(FORMAT_PART)?;
        file.write_at(format!("{FORMAT_WORD} {FORMAT_VERSION}\n").as_bytes(), 0)?;
        file.sync_data()?;
        root.rename(FORMAT_PART, FORMAT_FILE)?;
        root.sync()
    };
    write().map_err(|source| io_error("write", root.describe(FORMAT_FILE), source))
}

fn io_error(action: &'static str, file: String, source: io::Error) -> LayoutError {
    LayoutError::Io { action, file, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;

    fn with_format(text: &[u8]) -> MemoryDisk {
        let disk = MemoryDisk::new(1);
        let file = disk.directory(ROOT).unwrap().create(FORMAT_FILE).unwrap();
        file.write_at(text, 0).unwrap();
        disk
    }

    #[test]
    fn a_directory_opens_again() {
        let disk = MemoryDisk::new(1);
        Layout::open(&disk).unwrap();
        let layout = Layout::open(&disk).unwrap();
        assert_eq!(layout.root.list().unwrap(), [FORMAT_FILE]);
    }

    #[test]
    fn a_newer_format_is_refused_untouched() {
        let disk = with_format(b"hawser 2\n");
        let error = Layout::open(&disk).unwrap_err();
        assert!(
            matches!(error, LayoutError::NewerFormat { found: 2, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("hawser/format"), "{error}");
    }

    #[test]
    fn what_is_not_a_format_is_refused() {
        for text in [
            &b""[..],
            b"hawser",
            b"hawser 0\n",
            b"hawser x\n",
            b"other 1\n",
            b"hawser 1",
        ] {
            let error = Layout::open(&with_format(text)).unwrap_err();
            assert!(matches!(error, LayoutError::NotOurs { .. }), "{text:?}: {error}");
        }
    }
}
