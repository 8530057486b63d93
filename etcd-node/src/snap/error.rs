//! What can be wrong with a checkpoint, each with the file and what to do about it.

use std::io;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapError {
    /// The system refused.
    #[error("{action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No room. The unfinished file is removed; the checkpoints before it are untouched.
    #[error(
        "no room for checkpoint {file}: free space on this disk; the last checkpoint and the log still hold everything"
    )]
    NoSpace {
        /// The unfinished file.
        file: String,
    },
    /// The bytes are not a whole checkpoint.
    #[error(
        "checkpoint {file} is damaged at byte {offset} ({detail}): the older checkpoint serves if the log still goes on from it; else restore the file, or remove this member, empty its data directory and add it again"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// Of another cluster, or of another position than its name or the sender says.
    #[error(
        "checkpoint {file} is of {found}, expected {expected}: put the node's own files back, or name the right --data-dir"
    )]
    Foreign {
        /// The file.
        file: String,
        /// What it is of.
        found: String,
        /// What it should be of.
        expected: String,
    },
    /// Written by a newer release.
    #[error(
        "checkpoint {file} is of format {found}, this release reads up to {known}: run the newer release again"
    )]
    NewerFormat {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest that we read.
        known: u32,
    },
    /// A sender sent another number of bytes than it announced.
    #[error(
        "checkpoint {file} was announced with {announced} bytes, {received} came: the sender has to begin again"
    )]
    Length {
        /// The unfinished file.
        file: String,
        /// Bytes announced.
        announced: u64,
        /// Bytes received.
        received: u64,
    },
}

impl SnapError {
    pub(super) fn io(action: &'static str, file: &str, source: io::Error) -> Self {
        let file = file.to_owned();
        if crate::disk::is_full(&source) {
            Self::NoSpace { file }
        } else {
            Self::Io { action, file, source }
        }
    }
}
