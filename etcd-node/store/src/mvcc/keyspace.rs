//! The only owner of keys and values: the index, the directories, the leases, the history and the window,
//! kept in step by the few functions here that write.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{Revision, V2Index};
use proto::time::Timestamp;

use super::directory::Directories;
use super::edit::Edit;
use super::history::History;
use super::index::{Cursor, KeyIndex};
use super::pins::Pins;
use super::record::{DirectoryRecord, Record};
use super::retention::{Reading, Retention};
use crate::lease::Leases;
use crate::v2::path;
use crate::v2::window::Window;

/// Which kind of v2 node ends: a key and a directory may stand at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeKind {
    File,
    Directory,
}

/// v2 nodes that end, in the order in which they do.
pub(crate) type DueNodes = BTreeSet<(Timestamp, Bytes, NodeKind)>;

/// What a new version of a key holds, beside what follows from the version before.
#[derive(Debug)]
pub(crate) struct Content {
    /// In its final allocation (see [`super::exact`]).
    pub(crate) value: Bytes,
    pub(crate) lease: i64,
    pub(crate) created_index: V2Index,
    pub(crate) modified_index: V2Index,
    pub(crate) expires_at: Option<Timestamp>,
}

/// The keyspace.
#[derive(Debug)]
pub(crate) struct Keyspace {
    /// The newest visible revision.
    pub(crate) revision: Revision,
    /// The newest visible v2 index.
    pub(crate) v2_index: V2Index,
    pub(crate) keys: KeyIndex,
    pub(crate) directories: Directories,
    pub(crate) leases: Leases,
    pub(crate) due_nodes: DueNodes,
    pub(crate) history: History,
    pub(crate) window: Window,
    pub(crate) retention: Retention,
    /// The revision that was last compacted to; none = nothing ever was, which differs from "to zero".
    pub(crate) compacted: Option<Revision>,
    /// Versions that only readers below this revision saw are freed already. Local, as the pins are.
    pub(crate) collected: Revision,
    /// How far the change after `collected` is freed.
    pub(crate) collected_within: usize,
    pub(crate) pins: Pins,
    /// Superseded bytes that were counted before this node's counters began.
    pub(crate) superseded_before: u64,
}

impl Keyspace {
    /// An empty keyspace at its first revision and index.
    pub(crate) fn new(v2_index: V2Index) -> Self {
        Self {
            revision: Revision::FIRST,
            v2_index,
            keys: KeyIndex::default(),
            directories: Directories::default(),
            leases: Leases::default(),
            due_nodes: DueNodes::new(),
            history: History::new(Revision::FIRST.next()),
            window: Window::default(),
            retention: Retention::default(),
            compacted: None,
            collected: Revision::FIRST,
            collected_within: 0,
            pins: Pins::default(),
            superseded_before: 0,
        }
    }

    /// Writes a version of a key; what stood there before.
    pub(crate) fn put_key(
        &mut self,
        edit: &mut Edit,
        key: &Bytes,
        content: Content,
    ) -> (Arc<Record>, Option<Arc<Record>>) {
        let before = self.keys.newest(key);
        let revision = edit.revision();
        let record = Arc::new(Record {
            value: content.value,
            create_revision: before.map_or(revision, |record| record.create_revision),
            mod_revision: revision,
            version: before.map_or(0, |record| record.version) + 1,
            lease: content.lease,
            created_index: content.created_index,
            modified_index: content.modified_index,
            expires_at: content.expires_at,
        });
        let (key, prev) = self.keys.put(key, Arc::clone(&record));
        if let Some(prev) = &prev {
            self.detach(&key, prev);
        } else if let Some(path) = path::of_key(&key) {
            self.directories.child_added(edit, path);
        }
        self.attach(&key, &record);
        edit.note_put(key, &record, prev.clone());
        (record, prev)
    }

    /// Deletes a key; what stood there, none when nothing did.
    pub(crate) fn delete_key(&mut self, edit: &mut Edit, key: &[u8]) -> Option<(Bytes, Arc<Record>)> {
        let (key, prev) = self.keys.delete(key, edit.revision())?;
        self.detach(&key, &prev);
        if let Some(path) = path::of_key(&key) {
            self.directories.child_removed(edit, path);
        }
        edit.note_delete(key.clone(), Arc::clone(&prev));
        Some((key, prev))
    }

    fn attach(&mut self, key: &Bytes, record: &Record) {
        if record.lease != 0 {
            self.leases.attach(record.lease, key.clone());
        }
        if let Some(expires_at) = record.expires_at {
            let is_new = self.due_nodes.insert((expires_at, key.clone(), NodeKind::File));
            assert!(is_new, "a key ends once");
        }
    }

    fn detach(&mut self, key: &Bytes, record: &Record) {
        if record.lease != 0 {
            self.leases.detach(record.lease, key);
        }
        if let Some(expires_at) = record.expires_at {
            let was_there = self.due_nodes.remove(&(expires_at, key.clone(), NodeKind::File));
            assert!(was_there, "a key with an end stands in the queue");
        }
    }

    /// Gives a directory a record, or another one.
    pub(crate) fn put_directory(&mut self, edit: &mut Edit, path: &str, record: DirectoryRecord) {
        self.forget_directory_end(path);
        if let Some(expires_at) = record.expires_at {
            self.due_nodes.insert((
                expires_at,
                Bytes::copy_from_slice(path.as_bytes()),
                NodeKind::Directory,
            ));
        }
        self.directories.record(edit, path, record);
    }

    /// Takes a directory's record away.
    pub(crate) fn delete_directory(&mut self, edit: &mut Edit, path: &str) {
        self.forget_directory_end(path);
        self.directories.unrecord(edit, path);
    }

    fn forget_directory_end(&mut self, path: &str) {
        if let Some(expires_at) = self
            .directories
            .newest(path)
            .record()
            .and_then(|record| record.expires_at)
        {
            let item = (
                expires_at,
                Bytes::copy_from_slice(path.as_bytes()),
                NodeKind::Directory,
            );
            let was_there = self.due_nodes.remove(&item);
            assert!(was_there, "a directory with an end stands in the queue");
        }
    }

    /// When the node of this record ends in v2's eyes: by its own time or its lease's.
    pub(crate) fn expires_at(&self, record: &Record) -> Option<Timestamp> {
        record.expires_at.or_else(|| self.leases.expires_at(record.lease))
    }

    /// Makes an entry's writes visible, all at once.
    pub(crate) fn publish(&mut self, edit: Edit) -> Vec<Arc<crate::Change>> {
        for id in &edit.ended_leases {
            self.leases.end(*id);
        }
        self.v2_index = edit.v2_index();
        let stamp = edit.stamp();
        let mut changes = Vec::new();
        for moment in edit.into_moments() {
            assert_eq!(
                moment.change.revision,
                self.revision.next(),
                "revisions follow one another"
            );
            self.revision = moment.change.revision;
            self.window.extend(&moment.change.events);
            changes.push(Arc::clone(&moment.change));
            self.history.push(moment);
        }
        if !changes.is_empty() {
            let superseded_ever = self.superseded_ever();
            self.retention.note(Reading {
                stamp,
                revision: self.revision,
                superseded_ever,
            });
        }
        changes
    }

    /// All bytes that were ever superseded.
    pub(crate) fn superseded_ever(&self) -> u64 {
        self.superseded_before
            + self.keys.sizes().superseded_ever
            + self.directories.sizes().superseded_ever
            + self.history.sizes().superseded_ever
    }

    /// Whether a reader may ask for this revision.
    pub(crate) fn is_compacted(&self, revision: Revision) -> bool {
        self.compacted.is_some_and(|compacted| revision < compacted)
    }

    /// Adds what history knows to a restored window that holds only older events.
    pub(crate) fn fill_window(&mut self) {
        for moment in self.history.since(Revision::ZERO) {
            self.window.extend(&moment.change.events);
        }
    }

    /// Finds again what follows from restored keys and directories: what holds what, which lease has which
    /// keys, and what ends when.
    pub(crate) fn attach_restored(&mut self) -> Result<(), String> {
        for (path, chain) in self.directories.all(None) {
            let Some(record) = chain.newest().state.record() else {
                continue;
            };
            if let Some(expires_at) = record.expires_at {
                let path = Bytes::copy_from_slice(path.as_bytes());
                self.due_nodes.insert((expires_at, path, NodeKind::Directory));
            }
        }
        self.directories.count_restored_directories()?;
        for (key, versions) in self.keys.scan(&Cursor::everything()) {
            let Some(record) = &versions.newest().state else {
                continue;
            };
            if let Some(path) = path::of_key(key)
                && !self.directories.count_restored(path)
            {
                return Err(format!("{path} stands in no directory"));
            }
            if record.lease != 0 && !self.leases.attach_restored(record.lease, key) {
                return Err(format!("a key has lease {}, which is not there", record.lease));
            }
            if let Some(expires_at) = record.expires_at {
                self.due_nodes.insert((expires_at, key.clone(), NodeKind::File));
            }
        }
        Ok(())
    }
}
