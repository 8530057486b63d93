//! What the tests of the log share: small logs on a disk in memory, and a model of what a log holds.

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{ClusterId, LogIndex, NodeId, Term};
use proto::peer::{LogFrame, RaftEntry, RaftHardState};

use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::wal::{Identity, Log, LogPosition, Options, Recovered, WalError, create, recover};

pub(super) const IDENTITY: Identity = Identity {
    cluster: ClusterId::new(0xc1),
    node: NodeId::new(0x11),
};
pub(super) const SALT: u64 = 0x5a17;
/// Where test logs begin, as a founding checkpoint does.
pub(super) const START: LogPosition = LogPosition {
    index: LogIndex::new(1),
    term: Term::new(1),
};

/// Segments small enough that a few frames fill one.
pub(super) fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        first_segment_bytes: 8 << 10,
        spares: 2,
        spares_max: 3,
    }
}

pub(super) fn directory(disk: &MemoryDisk) -> Arc<dyn Disk> {
    disk.directory("wal").unwrap()
}

pub(super) fn create_log(disk: &MemoryDisk) -> Log {
    create(directory(disk), IDENTITY, START, SALT, options()).unwrap()
}

pub(super) fn recover_log(disk: &MemoryDisk) -> Result<Recovered, WalError> {
    recover(directory(disk), IDENTITY, options())
}

pub(super) fn open_log(disk: &MemoryDisk) -> Log {
    recover_log(disk).unwrap().open(START).unwrap()
}

pub(super) fn entry(index: u64, term: u64, data: &[u8]) -> RaftEntry {
    RaftEntry {
        index,
        term,
        data: Bytes::copy_from_slice(data),
        ..RaftEntry::default()
    }
}

/// A frame of `count` entries of one term, each of 100 bytes that tell its place.
pub(super) fn frame(from: u64, count: u64, term: u64) -> LogFrame {
    let data = |index: u64| format!("{index:050}{term:050}").into_bytes();
    let entries = (from..from + count)
        .map(|index| entry(index, term, &data(index)))
        .collect();
    LogFrame {
        entries,
        hard_state: None,
    }
}

pub(super) fn hard_state(term: u64, vote: u64, commit: u64) -> RaftHardState {
    RaftHardState { term, vote, commit }
}

/// Writes frames of ten entries each, one commit each, beginning after what is there.
pub(super) fn fill(log: &mut Log, frames: u64) {
    for _ in 0..frames {
        let from = log.reader.last_index().unwrap().get() + 1;
        log.writer.append(&frame(from, 10, 2)).unwrap();
        log.writer.commit().unwrap();
    }
}

/// All entries from the log's first on.
pub(super) fn all_entries(log: &Log) -> Vec<RaftEntry> {
    let from = log.reader.begins_after().unwrap().next();
    log.reader
        .entries(from, log.reader.last_index().unwrap().next(), usize::MAX)
        .unwrap()
}

/// The indexes of all entries, first and last; their content is checked.
pub(super) fn span(log: &Log) -> (u64, u64) {
    let entries = all_entries(log);
    for entry in &entries {
        assert_eq!(entry.data, frame(entry.index, 1, entry.term).entries[0].data);
    }
    (
        entries.first().map_or(0, |entry| entry.index),
        entries.last().map_or(0, |entry| entry.index),
    )
}

/// The newest segment's name below the disk's root.
pub(super) fn last_segment(disk: &MemoryDisk) -> String {
    let names = directory(disk).list().unwrap();
    let last = names.iter().rfind(|name| !name.starts_with("spare")).unwrap();
    format!("wal/{last}")
}

/// Offset of the last byte that is not zero.
pub(super) fn last_written(disk: &MemoryDisk, name: &str) -> u64 {
    disk.content(name).iter().rposition(|byte| *byte != 0).unwrap() as u64
}

/// What a log should hold: the naive version.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) begins_after: LogPosition,
    pub(super) entries: Vec<RaftEntry>,
    pub(super) hard_state: RaftHardState,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            begins_after: START,
            entries: Vec::new(),
            hard_state: RaftHardState::default(),
        }
    }

    pub(super) fn last_index(&self) -> u64 {
        self.begins_after.index.get() + self.entries.len() as u64
    }

    /// For messages.
    pub(super) fn brief(&self) -> String {
        let entry = |entry: &RaftEntry| format!("{}/{}:{}", entry.index, entry.term, entry.data.len());
        let entries: Vec<_> = self.entries.iter().map(entry).collect();
        format!("after {} {entries:?} {:?}", self.begins_after, self.hard_state)
    }

    pub(super) fn append(&mut self, frame: &LogFrame) {
        for entry in &frame.entries {
            self.entries.retain(|old| old.index < entry.index);
            self.entries.push(entry.clone());
        }
        if let Some(hard_state) = frame.hard_state {
            self.hard_state = hard_state;
        }
    }

    pub(super) fn restart(&mut self, position: LogPosition) {
        self.entries.clear();
        self.begins_after = position;
    }
}
