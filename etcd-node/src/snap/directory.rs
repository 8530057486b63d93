//! The checkpoints of one node: which there are, and which are kept.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::ids::{ClusterId, LogIndex, Term};
use proto::peer::RaftSnapshotMetadata;
use tracing::warn;

use super::format::Head;
use super::{CheckpointFile, CheckpointReader, CheckpointReceiver, CheckpointWriter, SnapError};
use crate::disk::{Disk, DiskFile};
use crate::wal::LogPosition;

/// Checkpoints that are kept: the newest, and the one before it for the day when the newest is damaged. The log
/// is kept from the older one.
pub const KEPT: usize = 2;

const SUFFIX: &str = ".checkpoint";
/// While a checkpoint is being written or received.
const PART_SUFFIX: &str = ".part";

/// A checkpoint on disk, by its name: the position where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointName {
    /// The last entry that is in it.
    pub position: LogPosition,
}

impl CheckpointName {
    /// The name of the file.
    pub fn file_name(self) -> String {
        format!(
            "{:016x}-{:016x}{SUFFIX}",
            self.position.index.get(),
            self.position.term.get()
        )
    }

    pub(super) fn of(metadata: &RaftSnapshotMetadata) -> Self {
        let (index, term) = (LogIndex::new(metadata.index), Term::new(metadata.term));
        Self {
            position: LogPosition { index, term },
        }
    }

    fn of_file_name(file_name: &str) -> Option<Self> {
        let (index, term) = file_name.strip_suffix(SUFFIX)?.split_once('-')?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let (index, term) = (LogIndex::new(number(index)?), Term::new(number(term)?));
        let name = Self {
            position: LogPosition { index, term },
        };
        (name.file_name() == file_name).then_some(name)
    }
}

/// The directory of a node's checkpoints. Clones are the same directory.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub(super) dir: Arc<dyn Disk>,
    pub(super) cluster: ClusterId,
    /// Numbers the unfinished files, so that one that is written and one that is received never meet.
    part_next: Arc<AtomicU64>,
}

impl Checkpoints {
    /// Opens the directory and removes unfinished files of an earlier start.
    ///
    /// # Errors
    /// [`SnapError::Io`].
    pub fn open(dir: Arc<dyn Disk>, cluster: ClusterId) -> Result<Self, SnapError> {
        let checkpoints = Self {
            dir,
            cluster,
            part_next: Arc::default(),
        };
        for name in checkpoints.names()? {
            if name.ends_with(PART_SUFFIX) {
                checkpoints.remove(&name)?;
            } else if CheckpointName::of_file_name(&name).is_none() {
                warn!(file = %checkpoints.dir.describe(&name), "not a checkpoint, left alone");
            }
        }
        Ok(checkpoints)
    }

    /// The checkpoints, newest first. Their content is not read.
    ///
    /// # Errors
    /// [`SnapError::Io`].
    pub fn list(&self) -> Result<Vec<CheckpointName>, SnapError> {
        let names = self.names()?;
        let mut found: Vec<_> = names
            .iter()
            .filter_map(|name| CheckpointName::of_file_name(name))
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Begins to write a checkpoint that ends where the metadata says.
    ///
    /// # Errors
    /// [`SnapError::NoSpace`], [`SnapError::Io`].
    pub fn create(&self, metadata: RaftSnapshotMetadata) -> Result<CheckpointWriter, SnapError> {
        CheckpointWriter::begin(
            self.clone(),
            &Head {
                cluster: self.cluster,
                metadata,
            },
        )
    }

    /// Begins to receive a checkpoint of which the sender says where it ends and how long its file is.
    ///
    /// # Errors
    /// [`SnapError::NoSpace`], [`SnapError::Io`].
    pub fn receive(
        &self,
        metadata: RaftSnapshotMetadata,
        bytes: u64,
    ) -> Result<CheckpointReceiver, SnapError> {
        CheckpointReceiver::begin(self.clone(), metadata, bytes)
    }

    /// Opens a checkpoint to restore from it.
    ///
    /// # Errors
    /// [`SnapError::Damaged`], [`SnapError::Foreign`], [`SnapError::NewerFormat`], [`SnapError::Io`].
    pub fn read(&self, name: CheckpointName) -> Result<CheckpointReader, SnapError> {
        CheckpointReader::open(self, name)
    }

    /// Opens a checkpoint to send its file as it is. The receiver checks it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn file(&self, name: CheckpointName) -> Result<CheckpointFile, SnapError> {
        CheckpointFile::open(self, name)
    }

    /// Removes all checkpoints but the newest [`KEPT`]. Returns those that are kept, newest first: the log may be
    /// released up to the last of them. Readers that are open keep working.
    ///
    /// # Errors
    /// [`SnapError::Io`].
    pub fn prune(&self) -> Result<Vec<CheckpointName>, SnapError> {
        let mut found = self.list()?;
        let old = found.split_off(found.len().min(KEPT));
        for name in old {
            self.remove(&name.file_name())?;
        }
        Ok(found)
    }

    /// A new unfinished file, with its name.
    pub(super) fn part(&self, name: CheckpointName) -> Result<(String, Arc<dyn DiskFile>), SnapError> {
        let number = self.part_next.fetch_add(1, Ordering::Relaxed);
        let part = format!("{}.{number}{PART_SUFFIX}", name.file_name());
        let file = self
            .dir
            .create(&part)
            .map_err(|error| SnapError::io("create", &self.dir.describe(&part), error))?;
        Ok((part, file))
    }

    /// Makes an unfinished, synced file a checkpoint.
    pub(super) fn publish(&self, part: &str, name: CheckpointName) -> Result<(), SnapError> {
        let publish = || -> io::Result<()> {
            self.dir.rename(part, &name.file_name())?;
            self.dir.sync()
        };
        publish().map_err(|error| SnapError::io("rename", &self.dir.describe(part), error))
    }

    /// Removes an unfinished file after an error that is reported already.
    pub(super) fn discard(&self, part: &str) {
        if let Err(error) = self.dir.remove(part) {
            warn!(file = %self.dir.describe(part), %error, "an unfinished checkpoint stays until the next start");
        }
    }

    fn names(&self) -> Result<Vec<String>, SnapError> {
        self.dir
            .list()
            .map_err(|error| SnapError::io("list", &self.dir.describe(""), error))
    }

    fn remove(&self, name: &str) -> Result<(), SnapError> {
        self.dir
            .remove(name)
            .map_err(|error| SnapError::io("remove", &self.dir.describe(name), error))
    }
}
