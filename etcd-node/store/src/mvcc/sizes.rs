//! What the parts of the keyspace weigh: estimates that count overhead and never drift.
//!
//! Each weight is a function of the thing weighed, so that what is added for it is what is taken away.

use bytes::Bytes;

use super::Record;

/// A key's place in the index with its own allocation.
const KEY_OVERHEAD: u64 = 144;
/// A record with its reference count and its value's allocation.
const RECORD_OVERHEAD: u64 = 160;
/// A directory's place in the index, its record and its path's allocation.
const DIRECTORY_OVERHEAD: u64 = 192;
/// A superseded version in a chain.
const VERSION_OVERHEAD: u64 = 16;
/// A change in history.
const CHANGE_OVERHEAD: u64 = 208;
/// A key written, in a change.
const WRITE_OVERHEAD: u64 = 48;
/// An event with its nodes, without the texts of their keys.
const EVENT_OVERHEAD: u64 = 320;

/// Bytes of one part of the keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// What the newest versions weigh.
    pub(crate) live: u64,
    /// What readers of older revisions, and watchers, may still need.
    pub(crate) superseded: u64,
    /// All that ever became superseded: the difference of two readings tells what lies between them.
    pub(crate) superseded_ever: u64,
}

impl Sizes {
    pub(crate) fn supersede(&mut self, bytes: u64) {
        self.superseded += bytes;
        self.superseded_ever += bytes;
    }
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

pub(crate) fn key(key: &[u8]) -> u64 {
    length(key) + KEY_OVERHEAD
}

pub(crate) fn record(record: &Record) -> u64 {
    length(&record.value) + RECORD_OVERHEAD
}

pub(crate) fn directory(path: &str) -> u64 {
    length(path.as_bytes()) + DIRECTORY_OVERHEAD
}

pub(crate) fn version() -> u64 {
    VERSION_OVERHEAD
}

pub(crate) fn change(change: &crate::Change) -> u64 {
    // The values are shared with the records; the texts of the events are their own.
    let texts: usize = change.events.iter().map(|event| event.node.key.len() * 2).sum();
    let removed: usize = change
        .removed_directories
        .iter()
        .map(|path| path.len() + size_of::<String>())
        .sum();
    CHANGE_OVERHEAD
        + change.writes.len() as u64 * WRITE_OVERHEAD
        + change.events.len() as u64 * EVENT_OVERHEAD
        + (texts + removed) as u64
}

/// Values and keys at or above this are shared with the message that brought them (keyspace rules, section 5):
/// below it, a small slice could pin a message of a megabyte.
const SHARED_BYTES_MIN: usize = 16 * 1024;

/// The bytes in an allocation of their own when they are small.
pub(crate) fn exact(bytes: &Bytes) -> Bytes {
    if bytes.len() < SHARED_BYTES_MIN {
        Bytes::copy_from_slice(bytes)
    } else {
        bytes.clone()
    }
}
