//! Checkpoints of the running store: when one is due, writing it beside the traffic, and reading one back.

use std::sync::atomic::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proto::ids::LogIndex;
use proto::peer::RaftSnapshotMetadata;
use store::Store;
use store::checkpoint::{Checkpointer, RestoreError, Restorer};

use super::{Handle, Order};
use crate::replica::Replica;
use crate::snap::{CheckpointName, SnapError};
use crate::wal::thread::LogHandle;

/// The checkpoints of one node on disk.
pub use crate::snap::Checkpoints as CheckpointFiles;

/// The log may outgrow this before a checkpoint is due, or the last checkpoint's size when that is more:
/// at most two bytes are then written for each byte of change (design, section 4).
const LOG_BYTES: u64 = 256 << 20;

/// At a clean stop a checkpoint is written when the log behind the last one takes longer to read than this.
const LOG_BYTES_AT_STOP: u64 = 16 << 20;

/// Records read per hold of the lock: about a tenth of a millisecond.
const RECORDS_PER_SLICE: usize = 1_000;

/// Blocks longer than this were not written by us.
const BLOCK_BYTES_MAX: u32 = 64 << 20;

/// When checkpoints are due.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Also after so many entries (`--snapshot-count`).
    pub entries: Option<u64>,
}

/// What the raft thread knows of its checkpoints.
pub(super) struct Checkpoints {
    files: CheckpointFiles,
    policy: Policy,
    log_bytes: u64,
    log_entries: u64,
    last_bytes: u64,
    is_running: bool,
}

impl Checkpoints {
    pub(super) fn new(files: CheckpointFiles, policy: Policy) -> Self {
        Self {
            files,
            policy,
            log_bytes: 0,
            log_entries: 0,
            last_bytes: 0,
            is_running: false,
        }
    }

    /// Counts what goes to the log.
    pub(super) fn logged(&mut self, frame: &proto::peer::LogFrame) {
        self.log_entries += frame.entries.len() as u64;
        self.log_bytes += frame
            .entries
            .iter()
            .map(|entry| entry.data.len() as u64)
            .sum::<u64>();
    }

    pub(super) fn is_due(&self) -> bool {
        self.log_bytes > LOG_BYTES.max(self.last_bytes)
            || self
                .policy
                .entries
                .is_some_and(|entries| self.log_entries >= entries)
    }

    /// Begins a checkpoint when one is due or a follower waits for one. The store must be at rest between entries.
    pub(super) fn begin_if_due(&mut self, handle: &Handle, replica: &Replica, is_wanted: bool) {
        if self.is_running || !(is_wanted || self.is_due()) {
            return;
        }
        let Some(metadata) = replica.checkpoint_metadata() else {
            return;
        };
        let checkpointer = handle.shared.store.read(Checkpointer::new);
        let writing = Writing {
            generation: handle.shared.generation.load(Ordering::Acquire),
            handle: handle.clone(),
            files: self.files.clone(),
            metadata,
            checkpointer,
        };
        let spawned = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || writing.run());
        match spawned {
            Ok(_detached) => {
                self.is_running = true;
                self.log_bytes = 0;
                self.log_entries = 0;
            }
            Err(error) => tracing::error!(%error, "no thread for a checkpoint"),
        }
    }

    /// A checkpoint is complete: the log below the older one that is kept is let go.
    pub(super) fn done(&mut self, metadata: &RaftSnapshotMetadata, bytes: u64, log: &LogHandle) {
        self.is_running = false;
        self.last_bytes = bytes;
        tracing::info!(index = metadata.index, bytes, "checkpoint written");
        self.release(log);
    }

    pub(super) fn failed(&mut self) {
        self.is_running = false;
    }

    /// A received checkpoint counts as one of ours.
    pub(super) fn installed(&mut self, log: &LogHandle) {
        self.log_bytes = 0;
        self.log_entries = 0;
        self.release(log);
    }

    fn release(&self, log: &LogHandle) {
        let kept = self.files.prune().and_then(|_removed| self.files.list());
        match kept {
            Ok(kept) => {
                let oldest = kept.last().map_or(LogIndex::ZERO, |name| name.position.index);
                log.release(oldest);
            }
            Err(error) => tracing::warn!(%error, "old checkpoints could not be removed"),
        }
    }

    /// At a clean stop: so that the next start reads little log.
    pub(super) fn at_stop(&self, handle: &Handle, replica: &Replica) {
        let Some(metadata) = replica.checkpoint_metadata() else {
            return;
        };
        if self.is_running || self.log_bytes < LOG_BYTES_AT_STOP {
            return;
        }
        let checkpointer = handle.shared.store.read(Checkpointer::new);
        let writing = Writing {
            generation: handle.shared.generation.load(Ordering::Acquire),
            handle: handle.clone(),
            files: self.files.clone(),
            metadata,
            checkpointer,
        };
        writing.run();
    }
}

struct Writing {
    handle: Handle,
    files: CheckpointFiles,
    metadata: RaftSnapshotMetadata,
    checkpointer: Checkpointer,
    /// Of the store that the checkpointer belongs to.
    generation: u64,
}

impl Writing {
    fn run(mut self) {
        let handle = self.handle.clone();
        let metadata = self.metadata.clone();
        let order = match self.write() {
            Ok(Some(bytes)) => Order::CheckpointDone { metadata, bytes },
            // The store was replaced meanwhile: the received checkpoint is newer anyway.
            Ok(None) => Order::CheckpointFailed,
            Err(error) => {
                tracing::error!(%error, "a checkpoint could not be written: the log keeps growing");
                Order::CheckpointFailed
            }
        };
        // Waits for room in the queue; when the thread has ended nobody needs to know.
        let _ended = handle.shared.orders.send(order);
    }

    fn write(&mut self) -> Result<Option<u64>, SnapError> {
        let mut writer = self.files.create(self.metadata.clone())?;
        loop {
            let shared = &self.handle.shared;
            let checkpointer = &mut self.checkpointer;
            let generation = self.generation;
            let block = shared.store.read(|store| {
                (shared.generation.load(Ordering::Acquire) == generation)
                    .then(|| checkpointer.next_block(store, RECORDS_PER_SLICE))
            });
            match block {
                None => return Ok(None),
                Some(None) => break,
                Some(Some(block)) => {
                    let length = u32::try_from(block.len()).expect("a block is about 1 MiB");
                    writer.write(&length.to_be_bytes())?;
                    writer.write(&block)?;
                }
            }
        }
        writer.finish()?;
        let written = self.files.file(CheckpointName {
            position: super::position(&self.metadata),
        })?;
        Ok(Some(written.bytes()))
    }
}

/// Why a checkpoint cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    /// The file.
    #[error(transparent)]
    File(#[from] SnapError),
    /// What it says.
    #[error(transparent)]
    Content(#[from] RestoreError),
}

/// Writes a store that nothing runs on yet: the base checkpoint of a founded cluster.
///
/// # Errors
/// What the disk refuses.
pub fn write_whole(
    files: &CheckpointFiles,
    metadata: RaftSnapshotMetadata,
    store: &Store,
) -> Result<(), SnapError> {
    let mut writer = files.create(metadata)?;
    let mut checkpointer = Checkpointer::new(store);
    while let Some(block) = checkpointer.next_block(store, RECORDS_PER_SLICE) {
        let length = u32::try_from(block.len()).expect("a block is about 1 MiB");
        writer.write(&length.to_be_bytes())?;
        writer.write(&block)?;
    }
    writer.finish()?;
    Ok(())
}

/// Restores a store from a checkpoint; every block of the file and its content is checked.
///
/// # Errors
/// [`ReadBackError`].
pub fn read_back(
    files: &CheckpointFiles,
    name: CheckpointName,
) -> Result<(RaftSnapshotMetadata, Store), ReadBackError> {
    let mut reader = files.read(name)?;
    let metadata = reader.metadata().clone();
    let mut restorer = Restorer::new();
    let mut pending = BytesMut::new();
    while let Some(part) = reader.next_block()? {
        pending.put(part);
        while let Some(block) = next_block(&mut pending)? {
            restorer.push(block)?;
        }
    }
    if !pending.is_empty() {
        return Err(RestoreError::Damaged("its last block is cut".into()).into());
    }
    Ok((metadata, restorer.finish()?))
}

fn next_block(pending: &mut BytesMut) -> Result<Option<Bytes>, RestoreError> {
    let Some(head) = pending.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*head);
    if length > BLOCK_BYTES_MAX {
        return Err(RestoreError::Damaged(format!("a block of {length} bytes")));
    }
    let length = length as usize;
    if pending.len() < 4 + length {
        return Ok(None);
    }
    pending.advance(4);
    Ok(Some(pending.split_to(length).freeze()))
}
