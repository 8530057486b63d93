//! Writes a checkpoint as a stream: nobody needs the whole state in memory twice.

use std::sync::Arc;

use super::format::{BLOCK_BYTES_MAX, Encoder, Head};
use super::{CheckpointName, Checkpoints, SnapError};
use crate::disk::DiskFile;

/// The system is told to write after each piece of this size, so that the log's fsyncs never wait behind a whole
/// checkpoint.
const SYNC_BYTES: u64 = 4 << 20;

/// An unfinished checkpoint. Dropped before [`Self::finish`], it leaves nothing.
#[derive(Debug)]
pub struct CheckpointWriter {
    encoder: Option<Encoder>,
    /// Content that fills no block yet.
    pending: Vec<u8>,
    /// A block as it stands in the file; reused.
    encoded: Vec<u8>,
    part: Part,
}

/// A file that is not a checkpoint yet.
#[derive(Debug)]
pub(super) struct Part {
    checkpoints: Checkpoints,
    name: CheckpointName,
    part: String,
    file: Arc<dyn DiskFile>,
    written: u64,
    synced: u64,
    is_published: bool,
}

impl CheckpointWriter {
    pub(super) fn begin(checkpoints: Checkpoints, head: &Head) -> Result<Self, SnapError> {
        let part = Part::create(checkpoints, CheckpointName::of(&head.metadata))?;
        let mut encoded = Vec::new();
        let encoder = Encoder::begin(head, &mut encoded);
        let mut writer = Self {
            encoder: Some(encoder),
            pending: Vec::new(),
            encoded,
            part,
        };
        writer.flush()?;
        Ok(writer)
    }

    /// Appends content.
    ///
    /// # Errors
    /// [`SnapError::NoSpace`], [`SnapError::Io`]; the checkpoint is then to be dropped.
    pub fn write(&mut self, mut content: &[u8]) -> Result<(), SnapError> {
        while !content.is_empty() {
            let room = BLOCK_BYTES_MAX - self.pending.len();
            let (now, later) = content.split_at(room.min(content.len()));
            self.pending.extend_from_slice(now);
            content = later;
            if self.pending.len() == BLOCK_BYTES_MAX {
                self.block()?;
            }
        }
        Ok(())
    }

    /// Ends the content, makes the file durable and gives it its name. Takes the place of a checkpoint of the same
    /// position.
    ///
    /// # Errors
    /// [`SnapError::NoSpace`], [`SnapError::Io`]; there is then no such checkpoint.
    pub fn finish(mut self) -> Result<CheckpointName, SnapError> {
        if !self.pending.is_empty() {
            self.block()?;
        }
        if let Some(encoder) = self.encoder.take() {
            encoder.end(&mut self.encoded);
        }
        self.flush()?;
        self.part.publish()
    }

    /// Bytes of the file so far.
    pub fn bytes(&self) -> u64 {
        self.part.written
    }

    fn block(&mut self) -> Result<(), SnapError> {
        if let Some(encoder) = &mut self.encoder {
            encoder.block(&self.pending, &mut self.encoded);
        }
        self.pending.clear();
        self.flush()
    }

    fn flush(&mut self) -> Result<(), SnapError> {
        self.part.write(&self.encoded)?;
        self.encoded.clear();
        Ok(())
    }
}

impl Part {
    pub(super) fn create(checkpoints: Checkpoints, name: CheckpointName) -> Result<Self, SnapError> {
        let (part, file) = checkpoints.part(name)?;
        Ok(Self {
            checkpoints,
            name,
            part,
            file,
            written: 0,
            synced: 0,
            is_published: false,
        })
    }

    pub(super) fn path(&self) -> String {
        self.checkpoints.dir.describe(&self.part)
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SnapError> {
        self.file
            .write_at(bytes, self.written)
            .map_err(|error| SnapError::io("write", &self.path(), error))?;
        self.written += bytes.len() as u64;
        if self.written - self.synced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), SnapError> {
        self.synced = self.written;
        self.file
            .sync_data()
            .map_err(|error| SnapError::io("fsync", &self.path(), error))
    }

    pub(super) fn publish(mut self) -> Result<CheckpointName, SnapError> {
        self.sync()?;
        self.checkpoints.publish(&self.part, self.name)?;
        self.is_published = true;
        Ok(self.name)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_published {
            self.checkpoints.discard(&self.part);
        }
    }
}
