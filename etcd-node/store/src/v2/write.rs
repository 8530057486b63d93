//! The writes of the v2 grammar: its decision tables (etcd v2 facts, 1.4 to 1.6), one function for each operation.

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::V2Index;
use proto::log::V2Command;
use proto::log::v2_command::Operation;
use proto::time::Timestamp;

use super::error::{Error, ErrorCode};
use super::event::{self, Action, Event, Node};
use super::locate::{FirstShown, Indexes, Located, Nothing, locate};
use super::path;
use super::remove::Removal;
use crate::budget::Budget;
use crate::mvcc::{Content, Directory, DirectoryRecord, Edit, Keyspace, Record, exact};

/// A v2 write under way. All but the ones that meet a whole subtree are done in their first step.
#[derive(Debug)]
pub(crate) struct Write {
    command: V2Command,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Decide,
    /// The directory has no record: its indexes are those of the first shown key below it.
    Indexes(FirstShown),
    Remove(Removal, Arc<Event>),
}

/// What a decision comes to.
enum Step {
    Done(Result<Arc<Event>, Error>),
    Next(Phase),
}

impl Write {
    pub(crate) fn new(mut command: V2Command) -> Self {
        if !path::is_clean(command.path.as_bytes()) {
            command.path = path::clean(&command.path);
        }
        Self {
            command,
            phase: Phase::Decide,
        }
    }

    /// Goes on; none = the budget ended first.
    pub(crate) fn step(
        &mut self,
        keyspace: &mut Keyspace,
        edit: &mut Edit,
        budget: &mut Budget,
    ) -> Option<Result<Arc<Event>, Error>> {
        loop {
            let step = match &mut self.phase {
                Phase::Decide => Writer {
                    keyspace,
                    edit,
                    command: &self.command,
                }
                .decide(None),
                Phase::Indexes(search) => {
                    let indexes = search.step(keyspace, edit.revision(), budget)?;
                    Writer {
                        keyspace,
                        edit,
                        command: &self.command,
                    }
                    .decide(Some(indexes))
                }
                Phase::Remove(removal, event) => {
                    if !removal.step(keyspace, edit, budget) {
                        return None;
                    }
                    Step::Done(Ok(Arc::clone(event)))
                }
            };
            match step {
                Step::Done(result) => return Some(result),
                Step::Next(phase) => self.phase = phase,
            }
        }
    }
}

/// When a v2 time to live ends. A time beyond what the originals can count, or beyond the calendar, has no end.
fn expires_at(ttl: Option<u64>, stamp: Timestamp) -> Option<Timestamp> {
    const SECONDS_MAX: u64 = i64::MAX.unsigned_abs() / 1_000_000_000;
    ttl.filter(|seconds| *seconds <= SECONDS_MAX)
        .and_then(|seconds| stamp.checked_add_seconds(seconds))
}

/// One decision: the command against what stands there.
struct Writer<'a> {
    keyspace: &'a mut Keyspace,
    edit: &'a mut Edit,
    command: &'a V2Command,
}

/// What a decision found at the path, owned, so that it can write.
enum Target {
    File(Arc<Record>),
    Directory(Directory),
    Nothing(Nothing),
}

impl Writer<'_> {
    fn decide(&mut self, indexes: Option<Indexes>) -> Step {
        let operation = self.command.operation();
        let path = self.command.path.as_str();
        let is_root = path == "/";
        if is_root && !matches!(operation, Operation::CreateInOrder | Operation::CompareAndDelete) {
            return self.refuse(ErrorCode::RootIsReadOnly, "/");
        }
        if !is_root && !path::is_clean(path.as_bytes()) {
            return self.refuse(ErrorCode::KeyNotFound, path);
        }
        match operation {
            Operation::Set => self.set(),
            Operation::Create => self.create(path),
            Operation::CreateInOrder => {
                let directory = path.trim_end_matches('/');
                self.create(&format!("{directory}/{:020}", self.edit.v2_index().next().get()))
            }
            Operation::Update => self.update(indexes),
            Operation::CompareAndSwap => self.compare_and_swap(),
            Operation::Delete => self.delete(indexes),
            Operation::CompareAndDelete => self.compare_and_delete(),
        }
    }

    fn set(&mut self) -> Step {
        let path = self.command.path.as_str();
        let prev = match self.target(path) {
            Target::Directory(_) => return self.refuse(ErrorCode::NotAFile, path),
            Target::File(record) => Some(record),
            Target::Nothing(nothing) if nothing.code == ErrorCode::KeyNotFound && !self.command.refresh => {
                None
            }
            Target::Nothing(nothing) => return self.refuse(nothing.code, &nothing.cause),
        };
        let prev_node = prev.as_deref().map(|record| self.file(path, record));
        let value = self.value(prev.as_deref());
        let (node, index) = self.place(path, value);
        self.done(Action::Set, node, prev_node, index)
    }

    fn create(&mut self, path: &str) -> Step {
        match self.target(path) {
            Target::File(_) | Target::Directory(_) => return self.refuse(ErrorCode::AlreadyExists, path),
            Target::Nothing(nothing) if nothing.code == ErrorCode::KeyNotFound => {}
            Target::Nothing(nothing) => return self.refuse(nothing.code, &nothing.cause),
        }
        if !path::is_clean(path.as_bytes()) {
            return self.refuse(ErrorCode::KeyNotFound, path);
        }
        let (node, index) = self.place(path, exact(&self.command.value));
        self.edit_event(Action::Create, (node, None), index, false)
    }

    fn update(&mut self, indexes: Option<Indexes>) -> Step {
        let path = self.command.path.as_str();
        match self.target(path) {
            Target::Nothing(nothing) => self.refuse(nothing.code, &nothing.cause),
            Target::Directory(_) if !self.command.value.is_empty() => self.refuse(ErrorCode::NotAFile, path),
            Target::Directory(directory) => match self.indexes_of(&directory, indexes) {
                Ok(indexes) => self.update_directory(&directory, indexes),
                Err(search) => Step::Next(Phase::Indexes(search)),
            },
            Target::File(record) => self.rewrite(Action::Update, &record),
        }
    }

    /// The event shows the new index, the stored directory keeps its old one: as the originals do.
    fn update_directory(&mut self, directory: &Directory, (created, modified): Indexes) -> Step {
        let path = self.command.path.as_str();
        let index = self.take_index(path);
        let stamp = self.edit.stamp();
        let before = directory.record().map_or(
            DirectoryRecord {
                created_index: created,
                modified_index: modified,
                expires_at: None,
            },
            |record| DirectoryRecord::clone(record),
        );
        let after = DirectoryRecord {
            expires_at: expires_at(self.command.ttl, stamp),
            ..before.clone()
        };
        let prev_node = event::directory(path, &before, stamp);
        let node = Node {
            modified_index: index,
            ..event::directory(path, &after, stamp)
        };
        self.keyspace.put_directory(self.edit, path, after);
        self.done(Action::Update, node, Some(prev_node), index)
    }

    fn compare_and_swap(&mut self) -> Step {
        match self.compared() {
            Ok(record) => self.rewrite(Action::CompareAndSwap, &record),
            Err(refusal) => refusal,
        }
    }

    /// Writes a file anew that keeps its created index.
    fn rewrite(&mut self, action: Action, prev: &Arc<Record>) -> Step {
        let path = self.command.path.as_str();
        let prev_node = self.file(path, prev);
        let value = self.value(Some(prev));
        let index = self.take_index(path);
        let node = self.put_file(path, value, (prev.created_index, index));
        self.done(action, node, Some(prev_node), index)
    }

    fn compare_and_delete(&mut self) -> Step {
        let path = self.command.path.as_str();
        match self.compared() {
            Ok(record) => self.delete_file(Action::CompareAndDelete, path, &record),
            Err(refusal) => refusal,
        }
    }

    /// The file at the path, if it is one and all given conditions hold.
    fn compared(&mut self) -> Result<Arc<Record>, Step> {
        let path = self.command.path.as_str();
        let record = match self.target(path) {
            Target::Nothing(nothing) => return Err(self.refuse(nothing.code, &nothing.cause)),
            // The originals name the root by an empty cause here.
            Target::Directory(_) if path == "/" => return Err(self.refuse(ErrorCode::NotAFile, "")),
            Target::Directory(_) => return Err(self.refuse(ErrorCode::NotAFile, path)),
            Target::File(record) => record,
        };
        match mismatch(self.command, &record) {
            Some(cause) => Err(self.refuse(ErrorCode::CompareFailed, &cause)),
            None => Ok(record),
        }
    }

    fn delete(&mut self, indexes: Option<Indexes>) -> Step {
        let path = self.command.path.as_str();
        let directory = match self.target(path) {
            Target::Nothing(nothing) => return self.refuse(nothing.code, &nothing.cause),
            Target::File(record) => return self.delete_file(Action::Delete, path, &record),
            Target::Directory(directory) => directory,
        };
        if !self.command.recursive && !self.command.dir {
            return self.refuse(ErrorCode::NotAFile, path);
        }
        if !self.command.recursive && self.keyspace.directories.has_children(path) {
            return self.refuse(ErrorCode::DirectoryNotEmpty, path);
        }
        match self.indexes_of(&directory, indexes) {
            Ok(indexes) => self.delete_directory(&directory, indexes),
            Err(search) => Step::Next(Phase::Indexes(search)),
        }
    }

    fn delete_file(&mut self, action: Action, path: &str, record: &Record) -> Step {
        let prev_node = self.file(path, record);
        let index = self.take_index(path);
        self.keyspace
            .delete_key(self.edit, path.as_bytes())
            .expect("the file was just found");
        let event = Arc::new(event::removal(action, prev_node, index));
        self.edit.note_event(Arc::clone(&event));
        Step::Done(Ok(event))
    }

    fn delete_directory(&mut self, directory: &Directory, (created, modified): Indexes) -> Step {
        let path = self.command.path.as_str();
        let expires_at = directory.record().and_then(|record| record.expires_at);
        let shown = DirectoryRecord {
            created_index: created,
            modified_index: modified,
            expires_at,
        };
        let prev_node = event::directory(path, &shown, self.edit.stamp());
        let index = self.take_index(path);
        let event = Arc::new(event::removal(Action::Delete, prev_node, index));
        self.edit.note_event(Arc::clone(&event));
        if self.command.recursive {
            return Step::Next(Phase::Remove(Removal::new(path.to_owned()), event));
        }
        // Nothing stands in it; a key that it shadowed comes back.
        self.edit.note_removed_directory(path);
        self.keyspace.delete_directory(self.edit, path);
        Step::Done(Ok(event))
    }

    /// Writes a new node, file or directory, where no directory stands: created and modified by this event.
    fn place(&mut self, path: &str, value: Bytes) -> (Node, V2Index) {
        let index = self.take_index(path);
        if !self.command.dir {
            return (self.put_file(path, value, (index, index)), index);
        }
        self.keyspace.delete_key(self.edit, path.as_bytes());
        let stamp = self.edit.stamp();
        let expires_at = expires_at(self.command.ttl, stamp);
        let record = DirectoryRecord {
            created_index: index,
            modified_index: index,
            expires_at,
        };
        let node = event::directory(path, &record, stamp);
        self.keyspace.put_directory(self.edit, path, record);
        (node, index)
    }

    /// Every v2 write of a file detaches it from a lease: what it says about time is all there is.
    fn put_file(&mut self, path: &str, value: Bytes, (created_index, modified_index): Indexes) -> Node {
        let stamp = self.edit.stamp();
        let expires_at = expires_at(self.command.ttl, stamp);
        let content = Content {
            value,
            lease: 0,
            created_index,
            modified_index,
            expires_at,
        };
        let key = Bytes::copy_from_slice(path.as_bytes());
        let (record, _) = self.keyspace.put_key(self.edit, &key, content);
        event::file(path, &record, expires_at, stamp)
    }

    /// Takes the event's index and gives all ancestors that lack one a record with it.
    fn take_index(&mut self, path: &str) -> V2Index {
        let index = self.edit.take_v2_index();
        let mut path = path;
        while let Some(parent) = path::parent(path) {
            if self.keyspace.directories.newest(parent).record().is_some() {
                break;
            }
            let record = DirectoryRecord {
                created_index: index,
                modified_index: index,
                expires_at: None,
            };
            self.keyspace.put_directory(self.edit, parent, record);
            path = parent;
        }
        index
    }

    /// The value to write: the given one, or on a refresh the one that stands there.
    fn value(&self, prev: Option<&Record>) -> Bytes {
        match prev {
            Some(prev) if self.command.refresh => prev.value.clone(),
            Some(_) | None => exact(&self.command.value),
        }
    }

    fn indexes_of(&self, directory: &Directory, found: Option<Indexes>) -> Result<Indexes, FirstShown> {
        match (directory.record(), found) {
            (Some(record), _) => Ok((record.created_index, record.modified_index)),
            (None, Some(found)) => Ok(found),
            (None, None) => Err(FirstShown::new(&self.command.path)),
        }
    }

    fn target(&self, path: &str) -> Target {
        match locate(self.keyspace, path, self.edit.revision()) {
            Ok(Located::File(record)) => Target::File(Arc::clone(record)),
            Ok(Located::Directory(directory)) => Target::Directory(directory.clone()),
            Err(nothing) => Target::Nothing(nothing),
        }
    }

    fn file(&self, path: &str, record: &Record) -> Node {
        event::file(path, record, self.keyspace.expires_at(record), self.edit.stamp())
    }

    fn done(&mut self, action: Action, node: Node, prev_node: Option<Node>, index: V2Index) -> Step {
        self.edit_event(action, (node, prev_node), index, self.command.refresh)
    }

    fn edit_event(
        &mut self,
        action: Action,
        (node, prev_node): (Node, Option<Node>),
        index: V2Index,
        is_refresh: bool,
    ) -> Step {
        let event = Arc::new(Event {
            action,
            node,
            prev_node,
            index,
            is_refresh,
        });
        self.edit.note_event(Arc::clone(&event));
        Step::Done(Ok(event))
    }

    fn refuse(&self, code: ErrorCode, cause: &str) -> Step {
        Step::Done(Err(Error {
            code,
            cause: cause.to_owned(),
            index: self.edit.v2_index(),
        }))
    }
}

/// What the conditions say against the record, in the originals' words; none = they hold.
fn mismatch(command: &V2Command, record: &Record) -> Option<String> {
    let mut causes = Vec::new();
    if let Some(value) = &command.prev_value
        && *value != record.value
    {
        let (given, actual) = (
            String::from_utf8_lossy(value),
            String::from_utf8_lossy(&record.value),
        );
        causes.push(format!("[{given} != {actual}]"));
    }
    if command.prev_index != 0 && command.prev_index != record.modified_index.get() {
        causes.push(format!("[{} != {}]", command.prev_index, record.modified_index));
    }
    (!causes.is_empty()).then(|| causes.join(" "))
}
