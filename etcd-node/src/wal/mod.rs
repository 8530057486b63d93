//! The write-ahead log: what a node has promised is here before the promise leaves it.
//!
//! One frame is what one fsync covers, and the next frame is written only after that fsync. So at most the
//! last frame can be torn: a bad frame with nothing valid after it is cut, and one with a valid frame after it
//! is lost data that was acknowledged, which stops the node. Segments are files of fixed size, zeroed before
//! use and used again after the log before a checkpoint is released; the checksum of each frame covers the
//! segment's id and the frame's sequence, so what an earlier life of the file left behind is never read.
//!
//! Ways in: [`create`] or [`recover`], then [`Recovered::open`], which gives a [`Log`]: the [`Writer`] for
//! the one thread that writes (see [`thread`]), the [`LogReader`] for entries that left memory, and the
//! [`Keeper`] that prepares and releases segments.

mod error;
mod frame;
mod index;
mod keeper;
mod reader;
mod recover;
mod replay;
mod segment;
pub mod thread;
mod window;
mod writer;

#[cfg(test)]
mod tests {
    mod behaviour;
    mod crashes;
    mod damage;
    mod support;
    mod threads;
}

use std::fmt;

use proto::ids::{ClusterId, LogIndex, NodeId, Term};

pub use error::WalError;
pub use keeper::Keeper;
pub use reader::LogReader;
pub use recover::{Continuity, Log, Recovered, Tail, exists, recover};
pub use segment::FORMAT_VERSION;
pub use writer::{SyncHook, Writer, create};

/// Largest encoded log entry: 12 MiB of command and room for what raft adds.
pub const ENTRY_BYTES_MAX: usize = 12 * 1024 * 1024 + 64 * 1024;

/// Largest body of one frame. More staged entries become several frames, each with its own fsync.
pub const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Whose log it is; written into each segment and checked on each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub node: NodeId,
}

/// A place in the Raft log: an index and the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The entry's index; zero before the first.
    pub index: LogIndex,
    /// The entry's term.
    pub term: Term,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} of term {}", self.index, self.term)
    }
}

/// Number of a frame: the first frame of a log is 1, and no number is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    const FIRST: Self = Self(1);

    const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Sizes of a log. The defaults are right for a node; tests use small ones.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of a segment. Each segment keeps its own size in its header, so this may change between starts.
    pub segment_bytes: u64,
    /// Size of the very first segment: small, because a founding node waits while it is zeroed.
    pub first_segment_bytes: u64,
    /// Zeroed segments that are kept ready: one is the next, both are what a full disk leaves to write into.
    pub spares: usize,
    /// Most ready segments that are kept when segments are released; more are removed. A log that outgrows a
    /// checkpoint of 256 MiB gives back and takes four at a time.
    pub spares_max: usize,
}

impl Options {
    /// A segment has room for its header, a small frame and the frame that ends it.
    fn check(&self) {
        let least = 2 * segment::FRAMES_FROM;
        assert!(
            self.segment_bytes >= least,
            "a segment has at least {least} bytes"
        );
        assert!(
            self.first_segment_bytes >= least,
            "a segment has at least {least} bytes"
        );
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            first_segment_bytes: 8 << 20,
            spares: 2,
            spares_max: 4,
        }
    }
}
