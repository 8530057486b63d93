//! The store as a stream of blocks, and back: restart, and the snapshot for a node that is too far behind.

use bytes::Bytes;

use crate::Store;

/// A checkpoint being written: pins its revision; applying goes on meanwhile.
pub struct Checkpointer {
    _private: (),
}

impl Checkpointer {
    /// Begins at the store's present position. Copies what is small (members, leases, window, counters).
    pub fn new(_store: &Store) -> Self {
        todo!()
    }

    /// The next block of at most about 1 MiB, reading at most `records_max` records; none = complete.
    pub fn next_block(&mut self, _store: &Store, _records_max: usize) -> Option<Bytes> {
        todo!()
    }
}

/// Why a checkpoint's content cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Written by a newer release.
    #[error("the checkpoint has content version {0}, newer than this build: install a newer release")]
    NewerVersion(u32),
    /// Not what a checkpointer writes.
    #[error("the checkpoint's content cannot be read: {0}")]
    Damaged(String),
}

/// A checkpoint being read back.
pub struct Restorer {
    _private: (),
}

impl Restorer {
    /// Begins.
    #[expect(clippy::new_without_default, reason = "a restorer without a checkpoint means nothing")]
    pub fn new() -> Self {
        todo!()
    }

    /// Takes the next block, in order.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn push(&mut self, _block: Bytes) -> Result<(), RestoreError> {
        todo!()
    }

    /// The store, once all blocks were pushed.
    ///
    /// # Errors
    /// [`RestoreError`] when blocks are missing.
    pub fn finish(self) -> Result<Store, RestoreError> {
        todo!()
    }
}
