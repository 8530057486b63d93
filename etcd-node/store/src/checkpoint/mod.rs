//! The store as a stream of blocks, and back: restart, and the snapshot for a node that is too far behind.
//!
//! A checkpoint belongs to one revision and is written while applying goes on: versions are immutable, so
//! that pinning the compacted revision keeps everything that it needs, and what is newer than its own
//! revision is left out. The form is `snapshot.proto`.

mod decode;
mod encode;

pub use decode::{RestoreError, Restorer};
pub use encode::Checkpointer;

/// The newest content version that this build knows (law 9 of the design).
pub const VERSION: u32 = 1;
