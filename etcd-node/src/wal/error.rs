//! What can be wrong with a log, each with the file and what to do about it.

use std::io;

use proto::ids::LogIndex;

use super::LogPosition;

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The system refused. After a failed write or fsync the process must end: what is on disk is unknown
    /// until the next start reads it.
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
    /// No room for another segment and no spare left. Nothing was written; the staged frames are kept and the
    /// commit may be tried again.
    #[error(
        "no room for another segment of {bytes} bytes beside {file}: free space on this disk; writing goes on by itself"
    )]
    NoSpace {
        /// The segment that is full.
        file: String,
        /// Size of the segment that is needed.
        bytes: u64,
    },
    /// An earlier write or fsync failed, so nothing more may be promised.
    #[error("the log takes nothing more since an earlier error ({first}): end the process and start again")]
    Stopped {
        /// The first error.
        first: String,
    },
    /// A single entry is larger than a frame may be.
    #[error("log entry {index} has {bytes} bytes, the limit is {limit}")]
    EntryTooLarge {
        /// The entry.
        index: LogIndex,
        /// Its encoded size.
        bytes: usize,
        /// Largest size.
        limit: usize,
    },
    /// There is a log already where one should be made.
    #[error("{file} is there already: this directory holds a log")]
    AlreadyThere {
        /// A segment found.
        file: String,
    },
    /// There is no log where one should be.
    #[error(
        "{directory} holds no segment of a log: restore it from the same moment as the rest of the data directory, or remove this member, empty its data directory and add it again"
    )]
    Empty {
        /// The directory.
        directory: String,
    },
    /// A segment between others, or after one that says that it goes on, is not there.
    #[error(
        "{file} is missing, so acknowledged data is lost: put the file back, or remove this member, empty its data directory and add it again"
    )]
    MissingSegment {
        /// The file that should be there.
        file: String,
    },
    /// A segment of another cluster or member, or one put under another name.
    #[error(
        "{file} belongs to {found}, this node is {expected}: put the node's own files back, or name the right --data-dir"
    )]
    Foreign {
        /// The file.
        file: String,
        /// Whose it is.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// Written by a newer release.
    #[error("{file} is of format {found}, this release reads up to {known}: run the newer release again")]
    NewerFormat {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest that we read.
        known: u32,
    },
    /// A segment's header does not match its checksum. Headers are durable before the file gets its name, so
    /// this is never the trace of a crash.
    #[error(
        "the header of {file} is damaged: restore the file, or remove this member, empty its data directory and add it again"
    )]
    DamagedHeader {
        /// The file.
        file: String,
    },
    /// A bad frame has valid ones after it: what it held was acknowledged.
    #[error(
        "acknowledged data lost: {file} is damaged at byte {offset}, and {later_file} goes on at byte {later_offset}: restore the file, or remove this member, empty its data directory and add it again"
    )]
    DataLost {
        /// The file with the bad frame.
        file: String,
        /// Where it begins.
        offset: u64,
        /// The file with the next valid frame.
        later_file: String,
        /// Where that begins.
        later_offset: u64,
    },
    /// Bytes of the log are not what was written.
    #[error(
        "acknowledged data lost: {file} is damaged at byte {offset} ({detail}): restore the file, or remove this member, empty its data directory and add it again"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// The log does not go on from the checkpoint.
    #[error(
        "the checkpoint ends at {checkpoint}, but the log in {directory} begins after index {log_begins_after}: restore the missing checkpoint or segments, or remove this member, empty its data directory and add it again"
    )]
    Gap {
        /// The log's directory.
        directory: String,
        /// Where the checkpoint ends.
        checkpoint: LogPosition,
        /// The entry before the log's first.
        log_begins_after: LogIndex,
    },
    /// The log holds another committed entry at the checkpoint's place.
    #[error(
        "the checkpoint ends at {checkpoint}, but the log in {directory} holds term {log_term} there: the two are not of one node; restore both from the same moment"
    )]
    OtherHistory {
        /// The log's directory.
        directory: String,
        /// Where the checkpoint ends.
        checkpoint: LogPosition,
        /// What the log has at that index.
        log_term: proto::ids::Term,
    },
    /// The entries asked for were released after a checkpoint; only a checkpoint still covers them.
    #[error("log entry {index} was released, the log begins after {log_begins_after}")]
    Released {
        /// The entry asked for.
        index: LogIndex,
        /// The entry before the log's first.
        log_begins_after: LogIndex,
    },
    /// The entry asked for is not in the log yet.
    #[error("log entry {index} is not on disk, the log ends at {log_ends_at}")]
    NotThere {
        /// The entry asked for.
        index: LogIndex,
        /// The last one.
        log_ends_at: LogIndex,
    },
}

impl WalError {
    pub(super) fn io(action: &'static str, file: String, source: io::Error) -> Self {
        Self::Io { action, file, source }
    }
}
