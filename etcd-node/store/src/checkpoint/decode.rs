//! Reading a checkpoint back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::ids::{ClusterId, LogIndex, NodeId, Revision, Term, V2Index};
use proto::snapshot::block::Content;
use proto::snapshot::{
    Block, ChangePart, DirectoryState, EventState, Head, KeyState, LeaseState, MemberState, NodeState,
    RecordState, VersionReference, directory_version, node_state, version_reference,
};
use proto::time::Timestamp;

use super::VERSION;
use crate::command::Position;
use crate::digest::Digest;
use crate::lease::Leases;
use crate::members::{Member, Members};
use crate::mvcc::{
    Chain, Directories, Directory, DirectoryRecord, History, KeyIndex, Keyspace, Moment, Reading, Record,
    Retention, State, Versions, exact,
};
use crate::v2::{Action, Event, Node};
use crate::{Change, KeyWrite, Store};

/// Why a checkpoint's content cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Written by a newer release.
    #[error("the checkpoint has content version {0}, newer than this build: install a newer release")]
    NewerVersion(u32),
    /// Not what a checkpointer writes.
    #[error("the checkpoint's content cannot be read: {0}")]
    Damaged(String),
}

fn damaged<T>(what: impl Into<String>) -> Result<T, RestoreError> {
    Err(RestoreError::Damaged(what.into()))
}

/// A checkpoint being read back.
#[derive(Debug)]
pub struct Restorer {
    blocks: u64,
    head: Option<Head>,
    leases: Leases,
    directories: Vec<(Arc<str>, Chain<Directory>)>,
    keys: Vec<(Bytes, Versions)>,
    /// Built from the keys when the first change asks for it.
    index: Option<KeyIndex>,
    history: Option<History>,
    /// The change whose parts are being read.
    open: Option<ChangePart>,
    window: Vec<Arc<Event>>,
    is_complete: bool,
}

impl Restorer {
    /// Begins.
    #[expect(
        clippy::new_without_default,
        reason = "a restorer without a checkpoint means nothing"
    )]
    pub fn new() -> Self {
        Self {
            blocks: 0,
            head: None,
            leases: Leases::default(),
            directories: Vec::new(),
            keys: Vec::new(),
            index: None,
            history: None,
            open: None,
            window: Vec::new(),
            is_complete: false,
        }
    }

    /// Takes the next block, in order.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn push(&mut self, block: Bytes) -> Result<(), RestoreError> {
        let block = Block::decode(block).map_err(|error| RestoreError::Damaged(error.to_string()))?;
        let Some(content) = block.content else {
            return damaged(format!("block {} is of no known kind", self.blocks));
        };
        if self.is_complete {
            return damaged("a block follows the last");
        }
        match content {
            Content::Head(head) => self.take_head(head)?,
            _ if self.head.is_none() => return damaged("the first block is no head"),
            Content::Leases(leases) => {
                for lease in leases.leases {
                    self.take_lease(lease)?;
                }
            }
            Content::Directories(directories) => {
                for directory in directories.directories {
                    self.take_directory(directory)?;
                }
            }
            Content::Keys(keys) => {
                for key in keys.keys {
                    self.take_key(key)?;
                }
            }
            Content::Changes(changes) => {
                for part in changes.parts {
                    self.take_change_part(part)?;
                }
            }
            Content::Window(window) => {
                for event in window.events {
                    self.window.push(Arc::new(event_of(event, &[])?));
                }
            }
            Content::End(end) if end.blocks == self.blocks => self.is_complete = true,
            Content::End(end) => {
                return damaged(format!(
                    "{} blocks were written, {} are there",
                    end.blocks, self.blocks
                ));
            }
        }
        self.blocks += 1;
        Ok(())
    }

    fn take_head(&mut self, head: Head) -> Result<(), RestoreError> {
        if head.version > VERSION {
            return Err(RestoreError::NewerVersion(head.version));
        }
        if self.head.is_some() || head.version == 0 || head.revision < 1 {
            return damaged("its head is none");
        }
        if head
            .compacted
            .is_some_and(|compacted| !(0..=head.revision).contains(&compacted))
        {
            return damaged("it is compacted beyond itself");
        }
        self.head = Some(head);
        Ok(())
    }

    /// The checkpoint's own revision.
    fn top(&self) -> i64 {
        self.head.as_ref().map_or(0, |head| head.revision)
    }

    fn take_lease(&mut self, lease: LeaseState) -> Result<(), RestoreError> {
        let is_valid = (crate::lease::TTL_SECONDS_MIN..=crate::lease::TTL_SECONDS_MAX).contains(&lease.ttl);
        if lease.id == 0 || !is_valid || self.leases.get(lease.id).is_some() {
            return damaged(format!("lease {} cannot be", lease.id));
        }
        self.leases
            .grant(lease.id, lease.ttl, Timestamp::from_nanos(lease.expires_at));
        Ok(())
    }

    fn take_directory(&mut self, state: DirectoryState) -> Result<(), RestoreError> {
        let top = self.top();
        let path = state.path.as_str();
        if self
            .directories
            .last()
            .is_some_and(|(last, _)| last.as_ref() >= path)
        {
            return damaged(format!("directory {path} is out of order"));
        }
        let mut chain = None;
        for version in state.versions {
            let kind = directory_version::Kind::try_from(version.kind);
            let state = match kind {
                Ok(directory_version::Kind::Absent) => Directory::Absent,
                Ok(directory_version::Kind::Implied) => Directory::Implied,
                Ok(directory_version::Kind::Recorded) => Directory::Recorded(Arc::new(DirectoryRecord {
                    created_index: V2Index::new(version.created_index),
                    modified_index: V2Index::new(version.modified_index),
                    expires_at: version.expires_at.map(Timestamp::from_nanos),
                })),
                Err(_) => return damaged(format!("directory {path} is of no known kind")),
            };
            grow(&mut chain, (version.revision, top), state)?;
        }
        match chain {
            Some(chain) => self.directories.push((Arc::from(path), chain)),
            None => return damaged(format!("directory {path} has no version")),
        }
        Ok(())
    }

    fn take_key(&mut self, state: KeyState) -> Result<(), RestoreError> {
        let top = self.top();
        if self.index.is_some() {
            return damaged("keys follow the changes");
        }
        let goes_on = self.keys.last().is_some_and(|(last, _)| *last == state.key);
        if !goes_on && self.keys.last().is_some_and(|(last, _)| *last > state.key) {
            return damaged("keys are out of order");
        }
        let (key, mut chain) = if goes_on {
            let (key, chain) = self.keys.pop().expect("it was just seen");
            (key, Some(chain))
        } else {
            (exact(&state.key), None)
        };
        for version in state.versions {
            let record = version.record.map(|record| Arc::new(record_of(&record)));
            if record
                .as_ref()
                .is_some_and(|record| record.mod_revision.get() != version.revision)
            {
                return damaged("a record contradicts its revision");
            }
            grow(&mut chain, (version.revision, top), record)?;
        }
        match chain {
            Some(chain) => self.keys.push((key, chain)),
            None => return damaged("a key has no version"),
        }
        Ok(())
    }

    fn take_change_part(&mut self, part: ChangePart) -> Result<(), RestoreError> {
        let is_last = part.last;
        let open = match self.open.take() {
            Some(mut open) if open.revision == part.revision => {
                open.writes.extend(part.writes);
                open.events.extend(part.events);
                open.removed_directories.extend(part.removed_directories);
                open.directories.extend(part.directories);
                open
            }
            Some(_) => return damaged("a change is not complete"),
            None => part,
        };
        if is_last {
            self.take_change(open)?;
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    fn take_change(&mut self, part: ChangePart) -> Result<(), RestoreError> {
        if !(2..=self.top()).contains(&part.revision) {
            return damaged(format!("there is no change of revision {}", part.revision));
        }
        let revision = Revision::new(part.revision);
        let index = self
            .index
            .get_or_insert_with(|| KeyIndex::restore(std::mem::take(&mut self.keys)));
        let mut writes = Vec::with_capacity(part.writes.len());
        for write in part.writes {
            // The index' own key, so that the change shares it.
            let record = resolve(index, &write.key, write.record)?;
            let prev = resolve(index, &write.key, write.prev)?;
            writes.push(KeyWrite {
                key: index.stored_key(&write.key).unwrap_or_else(|| exact(&write.key)),
                record,
                prev,
            });
        }
        let mut events = Vec::with_capacity(part.events.len());
        for event in part.events {
            events.push(Arc::new(event_of(event, &writes)?));
        }
        let change = Change {
            revision,
            writes,
            events,
            removed_directories: part.removed_directories,
        };
        let directories = part
            .directories
            .iter()
            .map(|path| Arc::from(path.as_str()))
            .collect();
        let history = self.history.get_or_insert_with(|| History::new(revision));
        if history.next() != revision {
            return damaged(format!("the change of revision {} is missing", history.next()));
        }
        history.push(Moment {
            change: Arc::new(change),
            directories,
        });
        Ok(())
    }

    /// The store, once all blocks were pushed.
    ///
    /// # Errors
    /// [`RestoreError`] when blocks are missing.
    pub fn finish(mut self) -> Result<Store, RestoreError> {
        if !self.is_complete || self.open.is_some() {
            return damaged("its end is missing");
        }
        let head = self.head.take().expect("a complete checkpoint has a head");
        let keyspace = self.keyspace(&head)?;
        let present: BTreeMap<NodeId, Member> = head.members.iter().map(member_of).collect();
        Ok(Store {
            keyspace,
            members: Members {
                cluster: ClusterId::new(head.cluster),
                present,
                removed: head.removed_members.iter().copied().map(NodeId::new).collect(),
            },
            alarms: head
                .alarms
                .iter()
                .map(|alarm| (alarm.member, alarm.alarm))
                .collect(),
            position: Position {
                index: LogIndex::new(head.index),
                term: Term::new(head.term),
            },
            stamp: Timestamp::from_nanos(head.stamp),
            digest: Digest::from_value(head.hash),
            running: None,
        })
    }

    fn keyspace(self, head: &Head) -> Result<Keyspace, RestoreError> {
        let revision = Revision::new(head.revision);
        let compacted = head.compacted.map(Revision::new);
        let floor = compacted.unwrap_or(Revision::ZERO);
        let history = self.history.unwrap_or_else(|| History::new(revision.next()));
        if history.next() != revision.next()
            || history.first() > floor.max(Revision::FIRST.next()).min(history.next())
        {
            return damaged("its history is not whole");
        }
        let reading = |reading: &proto::snapshot::Reading| Reading {
            stamp: Timestamp::from_nanos(reading.stamp),
            revision: Revision::new(reading.revision.max(0)),
            superseded_ever: reading.superseded_ever,
        };
        let mut keyspace = Keyspace::new(V2Index::new(head.v2_index));
        keyspace.revision = revision;
        keyspace.keys = self.index.unwrap_or_else(|| KeyIndex::restore(self.keys));
        keyspace.directories = Directories::restore(self.directories);
        keyspace.leases = self.leases;
        keyspace.history = history;
        keyspace.retention = Retention::restore(head.readings.iter().map(reading));
        keyspace.compacted = compacted;
        keyspace.collected = floor.max(Revision::FIRST);
        keyspace.superseded_before = head.superseded_ever.saturating_sub(keyspace.superseded_ever());
        keyspace.window.extend(&self.window);
        keyspace.fill_window();
        match keyspace.attach_restored() {
            Ok(()) => Ok(keyspace),
            Err(what) => damaged(what),
        }
    }
}

/// Adds a version to a chain that may not have begun.
fn grow<T: State + Clone>(
    chain: &mut Option<Chain<T>>,
    (revision, top): (i64, i64),
    state: T,
) -> Result<(), RestoreError> {
    if !(2..=top).contains(&revision) {
        return damaged(format!("there is no revision {revision}"));
    }
    let revision = Revision::new(revision);
    match chain {
        None => *chain = Some(Chain::new(revision, state)),
        Some(chain) if chain.newest().revision < revision => {
            chain.push(revision, state);
        }
        Some(_) => return damaged(format!("revision {revision} is out of order")),
    }
    Ok(())
}

/// The version that a write refers to.
fn resolve(
    index: &KeyIndex,
    key: &Bytes,
    reference: Option<VersionReference>,
) -> Result<Option<Arc<Record>>, RestoreError> {
    match reference.and_then(|reference| reference.version) {
        Some(version_reference::Version::None(_)) => Ok(None),
        Some(version_reference::Version::Inline(record)) => Ok(Some(Arc::new(record_of(&record)))),
        Some(version_reference::Version::At(at)) => match index.at(key, Revision::new(at.max(0))) {
            Some(record) => Ok(Some(Arc::clone(record))),
            None => damaged(format!("a change refers to a version at {at} that is not there")),
        },
        None => damaged("a change refers to nothing"),
    }
}

fn record_of(state: &RecordState) -> Record {
    Record {
        value: exact(&state.value),
        create_revision: Revision::new(state.create_revision.max(0)),
        mod_revision: Revision::new(state.mod_revision.max(0)),
        version: state.version,
        lease: state.lease,
        created_index: V2Index::new(state.created_index),
        modified_index: V2Index::new(state.modified_index),
        expires_at: state.expires_at.map(Timestamp::from_nanos),
    }
}

fn event_of(state: EventState, writes: &[KeyWrite]) -> Result<Event, RestoreError> {
    const ACTIONS: [Action; 8] = [
        Action::Get,
        Action::Set,
        Action::Create,
        Action::Update,
        Action::CompareAndSwap,
        Action::Delete,
        Action::CompareAndDelete,
        Action::Expire,
    ];
    let action = ACTIONS.into_iter().find(|action| *action as u32 == state.action);
    let (Some(action), Some(node)) = (action, state.node) else {
        return damaged("an event is none");
    };
    Ok(Event {
        action,
        node: node_of(node, writes)?,
        prev_node: state.prev_node.map(|node| node_of(node, writes)).transpose()?,
        index: V2Index::new(state.index),
        is_refresh: state.is_refresh,
    })
}

fn node_of(state: NodeState, writes: &[KeyWrite]) -> Result<Node, RestoreError> {
    let write = |number: u32| writes.get(usize::try_from(number).unwrap_or(usize::MAX));
    let shared = |record: Option<&Arc<Record>>| match record {
        Some(record) => Ok(Some(record.value.clone())),
        None => damaged("an event shares a value with nothing"),
    };
    let value = match &state.value {
        None => None,
        Some(node_state::Value::Inline(value)) => Some(exact(value)),
        Some(node_state::Value::RecordOf(number)) => {
            shared(write(*number).and_then(|write| write.record.as_ref()))?
        }
        Some(node_state::Value::PrevOf(number)) => {
            shared(write(*number).and_then(|write| write.prev.as_ref()))?
        }
    };
    Ok(Node {
        key: state.key,
        value,
        dir: state.dir,
        expires_at: state.expires_at.map(Timestamp::from_nanos),
        ttl: state.ttl,
        nodes: Vec::new(),
        modified_index: V2Index::new(state.modified_index),
        created_index: V2Index::new(state.created_index),
    })
}

fn member_of(state: &MemberState) -> (NodeId, Member) {
    let id = NodeId::new(state.id);
    let member = Member {
        id,
        name: state.name.clone(),
        peer_urls: state.peer_urls.clone(),
        client_urls: state.client_urls.clone(),
        is_learner: state.is_learner,
        incarnation: Bytes::copy_from_slice(&state.incarnation),
    };
    (id, member)
}
