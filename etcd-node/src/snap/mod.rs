//! Checkpoints: the whole state at one log position, in one file. The content is opaque here. A file gets its
//! name only when it is whole and durable, each block of it carries a checksum, and a receiver writes the very
//! bytes that the sender has on disk, checking them on the way.
//!
//! What a checkpoint says may be used only when its reader has come to the end without an error.

mod directory;
mod error;
mod format;
mod read;
mod receive;
mod write;

#[cfg(test)]
mod tests;

pub use directory::{CheckpointName, Checkpoints, KEPT};
pub use error::SnapError;
pub use format::{BLOCK_BYTES_MAX, FORMAT_VERSION};
pub use read::{CheckpointFile, CheckpointReader};
pub use receive::CheckpointReceiver;
pub use write::CheckpointWriter;
