//! v2 in the model: the tables of the etcd v2 facts, line by line.

use bytes::Bytes;
use proto::ids::{Revision, V2Index};
use proto::log::V2Command;
use proto::log::v2_command::Operation;
use proto::time::Timestamp;
use store::mvcc::Record;
use store::v2::{Action, Error, ErrorCode, Event, Node};

use super::{Directory, Model, Nodes, is_below, ttl};

enum Found {
    Directory,
    File(Record),
    /// The first component that misses.
    Missing(String),
    /// The file in the way.
    Blocked(String),
}

fn find(nodes: &Nodes, path: &str) -> Found {
    let mut so_far = String::new();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for (number, part) in parts.iter().enumerate() {
        so_far = format!("{so_far}/{part}");
        let is_last = number + 1 == parts.len();
        match (nodes.is_directory(&so_far), nodes.key(so_far.as_bytes())) {
            (true, _) => {}
            (false, Some(record)) if is_last => return Found::File(record.clone()),
            (false, Some(_)) => return Found::Blocked(so_far),
            (false, None) => return Found::Missing(so_far),
        }
    }
    Found::Directory
}

impl Model {
    fn error<T>(&self, code: ErrorCode, cause: &str) -> Result<T, Error> {
        Err(Error {
            code,
            cause: cause.into(),
            index: V2Index::new(self.index),
        })
    }

    fn expiry(&self, command: &V2Command) -> Option<Timestamp> {
        let ttl = command.ttl.filter(|ttl| *ttl <= 9_223_372_036)?;
        self.stamp.checked_add_seconds(ttl)
    }

    pub(crate) fn v2(&mut self, command: &V2Command) -> Result<Event, Error> {
        let path = command.path.as_str();
        let operation = command.operation();
        if path == "/" && !matches!(operation, Operation::CreateInOrder | Operation::CompareAndDelete) {
            return self.error(ErrorCode::RootIsReadOnly, "/");
        }
        match operation {
            Operation::Set => self.set(command),
            Operation::Create => self.create(command, path),
            Operation::CreateInOrder => {
                let directory = if path == "/" { "" } else { path };
                self.create(command, &format!("{directory}/{:020}", self.index + 1))
            }
            Operation::Update => self.update(command),
            Operation::CompareAndSwap | Operation::CompareAndDelete => self.compare(command),
            Operation::Delete => self.delete_node(command),
        }
    }

    fn set(&mut self, command: &V2Command) -> Result<Event, Error> {
        let path = command.path.as_str();
        let prev = match find(&self.now, path) {
            Found::Blocked(cause) => return self.error(ErrorCode::NotADirectory, &cause),
            Found::Missing(cause) if command.refresh => return self.error(ErrorCode::KeyNotFound, &cause),
            Found::Directory => return self.error(ErrorCode::NotAFile, path),
            Found::File(record) => Some(record),
            Found::Missing(_) => None,
        };
        let prev_node = prev.as_ref().map(|prev| self.file(path, prev, self.stamp));
        let value = match &prev {
            Some(prev) if command.refresh => prev.value.clone(),
            _ => command.value.clone(),
        };
        let index = self.begin(path);
        let node = self.place(command, path, value, (index, index));
        self.finish(command, (Action::Set, node, prev_node), index)
    }

    fn create(&mut self, command: &V2Command, path: &str) -> Result<Event, Error> {
        match find(&self.now, path) {
            Found::Blocked(cause) => return self.error(ErrorCode::NotADirectory, &cause),
            Found::Directory | Found::File(_) => return self.error(ErrorCode::AlreadyExists, path),
            Found::Missing(_) => {}
        }
        let index = self.begin(path);
        let node = self.place(command, path, command.value.clone(), (index, index));
        let plain = V2Command {
            refresh: false,
            ..command.clone()
        };
        self.finish(&plain, (Action::Create, node, None), index)
    }

    fn update(&mut self, command: &V2Command) -> Result<Event, Error> {
        let path = command.path.as_str();
        match find(&self.now, path) {
            Found::Blocked(cause) => self.error(ErrorCode::NotADirectory, &cause),
            Found::Missing(cause) => self.error(ErrorCode::KeyNotFound, &cause),
            Found::File(record) => self.rewrite(command, Action::Update, &record),
            Found::Directory if !command.value.is_empty() => self.error(ErrorCode::NotAFile, path),
            Found::Directory => {
                let prev_node = self.directory_node(&self.now, path, self.stamp);
                let index = self.begin(path);
                let record = Directory {
                    path: path.into(),
                    created: prev_node.created_index,
                    modified: prev_node.modified_index,
                    expires_at: self.expiry(command),
                };
                self.now.directories.retain(|directory| directory.path != path);
                self.now.directories.push(record);
                let node = self.directory_node(&self.now, path, self.stamp);
                let node = Node {
                    modified_index: index,
                    ..node
                };
                self.finish(command, (Action::Update, node, Some(prev_node)), index)
            }
        }
    }

    fn compare(&mut self, command: &V2Command) -> Result<Event, Error> {
        let path = command.path.as_str();
        let record = match find(&self.now, path) {
            Found::Blocked(cause) => return self.error(ErrorCode::NotADirectory, &cause),
            Found::Missing(cause) => return self.error(ErrorCode::KeyNotFound, &cause),
            Found::Directory => return self.error(ErrorCode::NotAFile, if path == "/" { "" } else { path }),
            Found::File(record) => record,
        };
        let actual = String::from_utf8_lossy(&record.value);
        let wrong_value = command
            .prev_value
            .as_ref()
            .filter(|value| **value != record.value);
        let wrong_value =
            wrong_value.map(|value| format!("[{} != {actual}]", String::from_utf8_lossy(value)));
        let is_wrong = command.prev_index != 0 && command.prev_index != record.modified_index.get();
        let wrong_index = is_wrong.then(|| format!("[{} != {}]", command.prev_index, record.modified_index));
        match (wrong_value, wrong_index) {
            (Some(one), Some(other)) => self.error(ErrorCode::CompareFailed, &format!("{one} {other}")),
            (Some(cause), None) | (None, Some(cause)) => self.error(ErrorCode::CompareFailed, &cause),
            (None, None) if command.operation() == Operation::CompareAndSwap => {
                self.rewrite(command, Action::CompareAndSwap, &record)
            }
            (None, None) => self.remove_file(path, &record, Action::CompareAndDelete),
        }
    }

    fn rewrite(&mut self, command: &V2Command, action: Action, prev: &Record) -> Result<Event, Error> {
        let path = command.path.as_str();
        let prev_node = self.file(path, prev, self.stamp);
        let value = if command.refresh {
            prev.value.clone()
        } else {
            command.value.clone()
        };
        let index = self.begin(path);
        let as_file = V2Command {
            dir: false,
            ..command.clone()
        };
        let node = self.place(&as_file, path, value, (prev.created_index, index));
        self.finish(command, (action, node, Some(prev_node)), index)
    }

    fn delete_node(&mut self, command: &V2Command) -> Result<Event, Error> {
        let path = command.path.as_str();
        match find(&self.now, path) {
            Found::Blocked(cause) => return self.error(ErrorCode::NotADirectory, &cause),
            Found::Missing(cause) => return self.error(ErrorCode::KeyNotFound, &cause),
            Found::File(record) => return self.remove_file(path, &record, Action::Delete),
            Found::Directory if !command.dir && !command.recursive => {
                return self.error(ErrorCode::NotAFile, path);
            }
            Found::Directory => {}
        }
        let has_children = self
            .now
            .directories
            .iter()
            .any(|directory| is_below(directory.path.as_bytes(), path))
            || self.now.keys.iter().any(|(key, _)| is_below(key, path));
        if !command.recursive && has_children {
            return self.error(ErrorCode::DirectoryNotEmpty, path);
        }
        let prev_node = self.directory_node(&self.now, path, self.stamp);
        self.add_ancestors(path);
        let event = self.push_removal(Action::Delete, prev_node);
        if command.recursive {
            self.remove_below(path);
        } else {
            self.open.removed_directories.push(path.into());
            self.now.directories.retain(|directory| directory.path != path);
        }
        Ok(event)
    }

    fn remove_file(&mut self, path: &str, record: &Record, action: Action) -> Result<Event, Error> {
        let prev_node = self.file(path, record, self.stamp);
        self.add_ancestors(path);
        let event = self.push_removal(action, prev_node);
        self.erase(path.as_bytes());
        Ok(event)
    }

    /// "Removes the records and the clean-path keys at and below p, nothing else."
    fn remove_below(&mut self, path: &str) {
        let mut removed: Vec<String> = vec![path.to_owned()];
        for (key, _) in &self.now.keys {
            removed.extend(ancestors(std::str::from_utf8(key).unwrap_or("")));
        }
        removed.extend(
            self.now
                .directories
                .iter()
                .map(|directory| directory.path.clone()),
        );
        removed.retain(|there| there == path || is_below(there.as_bytes(), path));
        removed.retain(|there| self.now.is_directory(there));
        removed.sort();
        removed.dedup();
        self.open.removed_directories.extend(removed);
        self.now
            .directories
            .retain(|directory| directory.path != path && !is_below(directory.path.as_bytes(), path));
        let keys: Vec<Bytes> = self.now.keys.iter().map(|(key, _)| key.clone()).collect();
        self.erase(path.as_bytes());
        for key in keys.iter().filter(|key| is_below(key, path)) {
            self.erase(key);
        }
    }

    pub(crate) fn expire_node(&mut self, path: &str, at: Timestamp) {
        if self
            .now
            .directory(path)
            .is_some_and(|directory| directory.expires_at == Some(at))
        {
            let prev_node = self.directory_node(&self.now, path, self.stamp);
            self.push_removal(Action::Expire, prev_node);
            self.remove_below(path);
        } else if self
            .now
            .key(path.as_bytes())
            .is_some_and(|record| record.expires_at == Some(at))
        {
            self.delete(path.as_bytes(), Action::Expire);
        }
    }

    /// Takes an index; ancestors without a record get one with it.
    fn begin(&mut self, path: &str) -> V2Index {
        self.add_ancestors(path);
        self.next_index()
    }

    /// To be called right before the event's index is taken.
    fn add_ancestors(&mut self, path: &str) {
        let index = V2Index::new(self.index + 1);
        for ancestor in ancestors(path) {
            if self.now.directory(&ancestor).is_none() {
                let record = Directory {
                    path: ancestor,
                    created: index,
                    modified: index,
                    expires_at: None,
                };
                self.now.directories.push(record);
            }
        }
    }

    fn place(
        &mut self,
        command: &V2Command,
        path: &str,
        value: Bytes,
        (created, modified): (V2Index, V2Index),
    ) -> Node {
        let expires_at = self.expiry(command);
        if command.dir {
            self.erase(path.as_bytes());
            let record = Directory {
                path: path.into(),
                created,
                modified,
                expires_at,
            };
            self.now.directories.push(record);
            return self.directory_node(&self.now, path, self.stamp);
        }
        let fields = Record {
            value,
            create_revision: Revision::ZERO,
            mod_revision: Revision::ZERO,
            version: 0,
            lease: 0,
            created_index: created,
            modified_index: modified,
            expires_at,
        };
        self.write(&Bytes::copy_from_slice(path.as_bytes()), fields);
        let record = self.now.key(path.as_bytes()).unwrap().clone();
        self.file(path, &record, self.stamp)
    }

    fn finish(
        &mut self,
        command: &V2Command,
        (action, node, prev_node): (Action, Node, Option<Node>),
        index: V2Index,
    ) -> Result<Event, Error> {
        let event = Event {
            action,
            node,
            prev_node,
            index,
            is_refresh: command.refresh,
        };
        self.push_event(event.clone());
        Ok(event)
    }

    /// A directory as v2 shows it: an implied one has the indexes of the first shown key below it.
    fn directory_node(&self, nodes: &Nodes, path: &str, now: Timestamp) -> Node {
        let bare = Node {
            key: path.into(),
            dir: true,
            ..Node::default()
        };
        if path == "/" {
            return bare;
        }
        if let Some(record) = nodes.directory(path) {
            return Node {
                expires_at: record.expires_at,
                ttl: record.expires_at.map(|at| ttl(at, now)),
                created_index: record.created,
                modified_index: record.modified,
                ..bare
            };
        }
        let shown = nodes
            .keys
            .iter()
            .find(|(key, _)| is_below(key, path) && nodes.is_shown(key));
        let (_, first) = shown.expect("an implied directory has a shown key below");
        Node {
            created_index: first.created_index,
            modified_index: first.modified_index,
            ..bare
        }
    }

    /// What a GET shows at this time.
    pub(crate) fn get(&self, path: &str, recursive: bool, now: Timestamp) -> Result<Event, Error> {
        let node = match find(&self.now, path) {
            Found::Blocked(cause) => return self.error(ErrorCode::NotADirectory, &cause),
            Found::Missing(cause) => return self.error(ErrorCode::KeyNotFound, &cause),
            Found::File(record) => self.file(path, &record, now),
            Found::Directory => self.listed(path, (true, recursive), now),
        };
        let index = V2Index::new(self.index);
        Ok(Event {
            action: Action::Get,
            node,
            prev_node: None,
            index,
            is_refresh: false,
        })
    }

    fn listed(&self, path: &str, (lists, recursive): (bool, bool), now: Timestamp) -> Node {
        let mut node = self.directory_node(&self.now, path, now);
        if !lists {
            return node;
        }
        let prefix = if path == "/" { 1 } else { path.len() + 1 };
        let keys = self
            .now
            .keys
            .iter()
            .filter_map(|(key, _)| std::str::from_utf8(key).ok());
        let directories = self
            .now
            .directories
            .iter()
            .map(|directory| directory.path.as_str());
        let below = keys
            .chain(directories)
            .filter(|there| is_below(there.as_bytes(), path));
        let mut children: Vec<String> = below
            .map(|there| {
                let name = there[prefix..].split('/').next().unwrap();
                format!("{}{name}", &there[..prefix])
            })
            .filter(|child| !child[prefix..].starts_with('_'))
            .collect();
        children.sort();
        children.dedup();
        for child in children {
            node.nodes.push(if self.now.is_directory(&child) {
                self.listed(&child, (recursive, recursive), now)
            } else {
                self.file(&child, self.now.key(child.as_bytes()).unwrap(), now)
            });
        }
        node
    }
}

/// All proper ancestors but the root.
fn ancestors(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (end, _) in path.match_indices('/').skip(1) {
        found.push(path[..end].to_owned());
    }
    found
}
