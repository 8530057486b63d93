//! What an entry under way has written so far: the change at hand, and those that are complete already.
//!
//! Nothing of it is visible. When the entry is complete the store takes over all of it at once, so that the
//! applied index and the data move together (law 5 of the design).

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{Revision, V2Index};
use proto::time::Timestamp;

use super::history::Moment;
use super::record::{Directory, Record};
use crate::digest::{Digest, Tag, unsigned};
use crate::{Change, KeyWrite, v2};

/// The writes of one entry.
#[derive(Debug)]
pub(crate) struct Edit {
    stamp: Timestamp,
    revision: Revision,
    v2_index: V2Index,
    writes: Vec<KeyWrite>,
    events: Vec<Arc<v2::Event>>,
    removed_directories: Vec<String>,
    directories: Vec<Arc<str>>,
    finished: Vec<Moment>,
    /// Leases that end with this entry: until then they are still seen.
    pub(crate) ended_leases: Vec<i64>,
    /// The hash of everything applied, this entry's part included.
    pub(crate) digest: Digest,
}

impl Edit {
    /// An entry that begins at this visible state.
    pub(crate) fn new(stamp: Timestamp, visible: Revision, v2_index: V2Index, digest: Digest) -> Self {
        Self {
            stamp,
            revision: visible.next(),
            v2_index,
            writes: Vec::new(),
            events: Vec::new(),
            removed_directories: Vec::new(),
            directories: Vec::new(),
            finished: Vec::new(),
            ended_leases: Vec::new(),
            digest,
        }
    }

    /// Cluster time of the entry.
    pub(crate) fn stamp(&self) -> Timestamp {
        self.stamp
    }

    /// The revision that the change at hand makes; reading at it sees what the entry wrote so far.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision that a v3 answer names now: the change's own once a key was written.
    pub(crate) fn header_revision(&self) -> Revision {
        if self.writes.is_empty() {
            Revision::new(self.revision.get() - 1)
        } else {
            self.revision
        }
    }

    /// The newest v2 index taken.
    pub(crate) fn v2_index(&self) -> V2Index {
        self.v2_index
    }

    /// Takes the index of a new v2 event.
    pub(crate) fn take_v2_index(&mut self) -> V2Index {
        self.v2_index = self.v2_index.next();
        self.v2_index
    }

    /// Writes of this entry so far, those of its complete changes included.
    pub(crate) fn all_writes(&self) -> impl Iterator<Item = &KeyWrite> {
        self.finished
            .iter()
            .flat_map(|moment| &moment.change.writes)
            .chain(&self.writes)
    }

    pub(crate) fn note_put(&mut self, key: Bytes, record: &Arc<Record>, prev: Option<Arc<Record>>) {
        let ends = record.expires_at.map_or(0, Timestamp::as_nanos);
        self.digest.numbers(
            Tag::Put,
            [
                unsigned(record.mod_revision.get()),
                unsigned(record.create_revision.get()),
                unsigned(record.version),
                unsigned(record.lease),
                record.created_index.get(),
                record.modified_index.get(),
                ends,
            ],
        );
        self.digest.bytes(&key);
        self.digest.bytes(&record.value);
        self.writes.push(KeyWrite {
            key,
            record: Some(Arc::clone(record)),
            prev,
        });
    }

    pub(crate) fn note_delete(&mut self, key: Bytes, prev: Arc<Record>) {
        self.digest.numbers(Tag::Delete, [unsigned(self.revision.get())]);
        self.digest.bytes(&key);
        self.writes.push(KeyWrite {
            key,
            record: None,
            prev: Some(prev),
        });
    }

    pub(crate) fn note_event(&mut self, event: Arc<v2::Event>) {
        let numbers = [
            event.index.get(),
            event.action as u64,
            u64::from(event.is_refresh),
        ];
        self.digest.numbers(Tag::Event, numbers);
        self.digest.bytes(event.node.key.as_bytes());
        self.events.push(event);
    }

    pub(crate) fn note_removed_directory(&mut self, path: &str) {
        self.removed_directories.push(path.to_owned());
    }

    /// A directory got a version of this revision.
    pub(crate) fn note_directory(&mut self, path: &Arc<str>) {
        self.directories.push(Arc::clone(path));
    }

    pub(crate) fn fold_directory(&mut self, path: &str, state: &Directory) {
        match state {
            Directory::Recorded(record) => {
                let ends = record.expires_at.map_or(0, Timestamp::as_nanos);
                let numbers = [record.created_index.get(), record.modified_index.get(), ends];
                self.digest.numbers(Tag::Directory, numbers);
            }
            Directory::Implied => self.digest.numbers(Tag::Directory, []),
            Directory::Absent => self.digest.numbers(Tag::DirectoryGone, []),
        }
        self.digest.bytes(path.as_bytes());
    }

    /// Completes the change at hand; without a write it never was, and its revision is not taken.
    pub(crate) fn close_change(&mut self) {
        if self.writes.is_empty() && self.directories.is_empty() {
            assert!(self.events.is_empty(), "an event tells of something written");
            return;
        }
        let change = Change {
            revision: self.revision,
            writes: std::mem::take(&mut self.writes),
            events: std::mem::take(&mut self.events),
            removed_directories: std::mem::take(&mut self.removed_directories),
        };
        let directories = std::mem::take(&mut self.directories);
        self.finished.push(Moment {
            change: Arc::new(change),
            directories,
        });
        self.revision = self.revision.next();
    }

    /// The complete changes.
    pub(crate) fn into_moments(self) -> Vec<Moment> {
        assert!(
            self.writes.is_empty() && self.directories.is_empty(),
            "a change was left open"
        );
        self.finished
    }
}
