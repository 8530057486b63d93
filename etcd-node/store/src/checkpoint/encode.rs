//! Writing a checkpoint, block by block.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::ids::Revision;
use proto::snapshot::block::Content;
use proto::snapshot::{
    AlarmState, Block, ChangePart, Changes, Directories, DirectoryState, DirectoryVersion, End, EventState,
    Head, KeyState, KeyVersion, Keys, LeaseState, Leases, MemberState, NodeState, Reading, RecordState,
    VersionReference, Window, WriteState, directory_version, node_state, version_reference,
};

use crate::budget::Budget;
use crate::members::Member;
use crate::mvcc::{Cursor, Directory, Moment, Pin, Record};
use crate::{KeyWrite, Store, v2};

/// A block ends once it holds this much; a large value may take it further.
const BLOCK_BYTES: usize = 1024 * 1024;

/// What an item weighs in a block beside its bytes: enough to keep blocks near their size.
const ITEM_OVERHEAD: usize = 48;

/// A checkpoint being written: pins its revision; applying goes on meanwhile.
#[derive(Debug)]
pub struct Checkpointer {
    head: Head,
    leases: Vec<LeaseState>,
    /// The whole window; what the changes hold of it is left out when they are known.
    window: Vec<Arc<v2::Event>>,
    /// The oldest revision that can be read, and the checkpoint's own.
    floor: Revision,
    top: Revision,
    section: Section,
    blocks: u64,
    pin: Pin,
}

#[derive(Debug)]
enum Section {
    Head,
    Leases(usize),
    Directories {
        after: Option<String>,
    },
    Keys {
        cursor: Cursor,
        within: Option<(Bytes, Revision)>,
    },
    Changes(Place),
    Window,
    End,
    Done,
}

/// How far the changes are written.
#[derive(Debug)]
struct Place {
    revision: Revision,
    writes: usize,
    events: usize,
    removed: usize,
    directories: usize,
    /// The write from which the next event's write is looked for.
    matched: usize,
}

impl Place {
    fn at(revision: Revision) -> Self {
        Self {
            revision,
            writes: 0,
            events: 0,
            removed: 0,
            directories: 0,
            matched: 0,
        }
    }
}

/// What a block may still take.
struct Room {
    budget: Budget,
    bytes: usize,
}

impl Room {
    /// Pays for one item; false = the block is over.
    fn take(&mut self, bytes: usize) -> bool {
        if self.bytes == 0 || !self.budget.take() {
            return false;
        }
        self.bytes = self.bytes.saturating_sub(bytes + ITEM_OVERHEAD);
        true
    }
}

impl Checkpointer {
    /// Begins at the store's present position. Copies what is small (members, leases, window, counters).
    pub fn new(store: &Store) -> Self {
        let keyspace = &store.keyspace;
        let floor = keyspace.compacted.unwrap_or(Revision::ZERO);
        let lease = |(id, lease): (i64, &crate::lease::Lease)| LeaseState {
            id,
            ttl: lease.ttl,
            expires_at: lease.expires_at.as_nanos(),
        };
        Self {
            head: head(store),
            leases: keyspace.leases.iter().map(lease).collect(),
            window: keyspace.window.iter().cloned().collect(),
            floor,
            top: keyspace.revision,
            section: Section::Head,
            blocks: 0,
            pin: keyspace.pins.pin(floor),
        }
    }

    /// The next block of at most about 1 MiB, reading at most `records_max` records; none = complete.
    ///
    /// # Panics
    /// When this is not the store that the checkpoint began with.
    pub fn next_block(&mut self, store: &Store, records_max: usize) -> Option<Bytes> {
        assert!(
            self.pin.belongs_to(&store.keyspace.pins),
            "a checkpoint goes on with the store it began with"
        );
        let mut room = Room {
            budget: Budget::new(records_max),
            bytes: BLOCK_BYTES,
        };
        let content = match std::mem::replace(&mut self.section, Section::Done) {
            Section::Head => {
                self.section = Section::Leases(0);
                Content::Head(std::mem::take(&mut self.head))
            }
            Section::Leases(from) => self.lease_block(from, &mut room),
            Section::Directories { after } => self.directory_block(store, after, &mut room),
            Section::Keys { cursor, within } => self.key_block(store, (cursor, within), &mut room),
            Section::Changes(place) => self.change_block(store, place, &mut room),
            Section::Window => self.window_block(store),
            Section::End => Content::End(End { blocks: self.blocks }),
            Section::Done => return None,
        };
        self.blocks += 1;
        Some(Bytes::from(
            Block {
                content: Some(content),
            }
            .encode_to_vec(),
        ))
    }

    fn lease_block(&mut self, from: usize, room: &mut Room) -> Content {
        let leases: Vec<LeaseState> = self.leases[from..]
            .iter()
            .take_while(|_| room.take(0))
            .copied()
            .collect();
        let done = from + leases.len();
        let is_done = done == self.leases.len();
        self.section = if is_done {
            Section::Directories { after: None }
        } else {
            Section::Leases(done)
        };
        Content::Leases(Leases { leases })
    }

    fn directory_block(&mut self, store: &Store, mut after: Option<String>, room: &mut Room) -> Content {
        let mut directories = Vec::new();
        let mut is_done = true;
        for (path, chain) in store.keyspace.directories.all(after.as_deref()) {
            if !room.take(path.len()) {
                is_done = false;
                break;
            }
            let versions: Vec<_> = chain
                .readable(self.floor, self.top)
                .map(|version| directory_version(version.revision, &version.state))
                .collect();
            if !versions.is_empty() {
                directories.push(DirectoryState {
                    path: path.to_string(),
                    versions,
                });
            }
            after = Some(path.to_string());
        }
        self.section = if is_done {
            Section::Keys {
                cursor: Cursor::everything(),
                within: None,
            }
        } else {
            Section::Directories { after }
        };
        Content::Directories(Directories { directories })
    }

    fn key_block(
        &mut self,
        store: &Store,
        (mut cursor, mut within): (Cursor, Option<(Bytes, Revision)>),
        room: &mut Room,
    ) -> Content {
        let mut keys = Vec::new();
        let mut stopped_at = None;
        for (key, chain) in store.keyspace.keys.scan(&cursor) {
            let written = match within.take() {
                Some((there, revision)) if there == *key => revision,
                Some(_) | None => Revision::ZERO,
            };
            let mut versions = Vec::new();
            let mut last = written;
            for version in chain
                .readable(self.floor, self.top)
                .filter(|version| version.revision > written)
            {
                let record = version.state.as_deref();
                if !room.take(key.len() + record.map_or(0, |record| record.value.len())) {
                    stopped_at = Some(key.clone());
                    within = Some((key.clone(), last));
                    break;
                }
                versions.push(KeyVersion {
                    revision: version.revision.get(),
                    record: record.map(record_state),
                });
                last = version.revision;
            }
            if !versions.is_empty() {
                keys.push(KeyState {
                    key: key.clone(),
                    versions,
                });
            }
            if stopped_at.is_some() {
                break;
            }
        }
        cursor.stop_at(stopped_at);
        self.section = if cursor.is_done() {
            Section::Changes(Place::at(self.floor.max(store.keyspace.history.first())))
        } else {
            Section::Keys { cursor, within }
        };
        Content::Keys(Keys { keys })
    }

    fn change_block(&mut self, store: &Store, mut place: Place, room: &mut Room) -> Content {
        let mut parts = Vec::new();
        while place.revision <= self.top {
            let moment = store
                .keyspace
                .history
                .get(place.revision)
                .expect("the pin keeps what the checkpoint needs");
            let part = self.change_part(store, moment, &mut place, room);
            let is_last = part.last;
            parts.push(part);
            if !is_last {
                self.section = Section::Changes(place);
                return Content::Changes(Changes { parts });
            }
            place = Place::at(place.revision.next());
        }
        self.section = Section::Window;
        Content::Changes(Changes { parts })
    }

    fn change_part(&self, store: &Store, moment: &Moment, place: &mut Place, room: &mut Room) -> ChangePart {
        let change = &moment.change;
        let mut part = ChangePart {
            revision: place.revision.get(),
            ..ChangePart::default()
        };
        // A change pays for itself once, so that empty slices cannot follow each other for ever.
        let mut goes_on = room.take(0);
        while goes_on && let Some(write) = change.writes.get(place.writes) {
            part.writes.push(self.write_state(store, place.revision, write));
            place.writes += 1;
            goes_on = room.take(write.key.len());
        }
        while goes_on && let Some(event) = change.events.get(place.events) {
            part.events
                .push(event_state(event, &change.writes, &mut place.matched));
            place.events += 1;
            goes_on = room.take(event.node.key.len() * 2);
        }
        while goes_on && let Some(path) = change.removed_directories.get(place.removed) {
            part.removed_directories.push(path.clone());
            place.removed += 1;
            goes_on = room.take(path.len());
        }
        while goes_on && let Some(path) = moment.directories.get(place.directories) {
            part.directories.push(path.to_string());
            place.directories += 1;
            goes_on = room.take(path.len());
        }
        part.last = place.writes == change.writes.len()
            && place.events == change.events.len()
            && place.removed == change.removed_directories.len()
            && place.directories == moment.directories.len();
        part
    }

    fn write_state(&self, store: &Store, revision: Revision, write: &KeyWrite) -> WriteState {
        let at = |at: i64| {
            let at = Revision::new(at);
            let record = store
                .keyspace
                .keys
                .at(&write.key, at)
                .filter(|_| at >= self.floor);
            (at, record)
        };
        WriteState {
            key: write.key.clone(),
            record: Some(reference(write.record.as_ref(), at(revision.get()))),
            prev: Some(reference(write.prev.as_ref(), at(revision.get() - 1))),
        }
    }

    fn window_block(&mut self, store: &Store) -> Content {
        self.section = Section::End;
        let from = self.floor.max(store.keyspace.history.first());
        let changes = store
            .keyspace
            .history
            .since(from)
            .take_while(|moment| moment.change.revision <= self.top);
        let first = changes
            .flat_map(|moment| &moment.change.events)
            .map(|event| event.index)
            .next();
        let is_older = |event: &&Arc<v2::Event>| first.is_none_or(|first| event.index < first);
        let events = self
            .window
            .iter()
            .filter(is_older)
            .map(|event| event_state(event, &[], &mut 0))
            .collect();
        Content::Window(Window { events })
    }
}

fn head(store: &Store) -> Head {
    let keyspace = &store.keyspace;
    let reading = |reading: &crate::mvcc::Reading| Reading {
        stamp: reading.stamp.as_nanos(),
        revision: reading.revision.get(),
        superseded_ever: reading.superseded_ever,
    };
    Head {
        version: super::VERSION,
        index: store.position.index.get(),
        term: store.position.term.get(),
        revision: keyspace.revision.get(),
        v2_index: keyspace.v2_index.get(),
        compacted: keyspace.compacted.map(Revision::get),
        stamp: store.stamp.as_nanos(),
        hash: store.digest.value(),
        cluster: store.members.cluster.get(),
        members: store.members.present.values().map(member_state).collect(),
        removed_members: store.members.removed.iter().map(|id| id.get()).collect(),
        alarms: store
            .alarms
            .iter()
            .map(|(member, alarm)| AlarmState {
                member: *member,
                alarm: *alarm,
            })
            .collect(),
        readings: keyspace.retention.readings().map(reading).collect(),
        superseded_ever: keyspace.superseded_ever(),
    }
}

fn member_state(member: &Member) -> MemberState {
    MemberState {
        id: member.id.get(),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
        incarnation: member.incarnation.clone(),
    }
}

fn directory_version(revision: Revision, state: &Directory) -> DirectoryVersion {
    let kind = match state {
        Directory::Absent => directory_version::Kind::Absent,
        Directory::Implied => directory_version::Kind::Implied,
        Directory::Recorded(_) => directory_version::Kind::Recorded,
    };
    let record = state.record();
    DirectoryVersion {
        revision: revision.get(),
        kind: kind.into(),
        created_index: record.map_or(0, |record| record.created_index.get()),
        modified_index: record.map_or(0, |record| record.modified_index.get()),
        expires_at: record
            .and_then(|record| record.expires_at)
            .map(|at| at.as_nanos()),
    }
}

fn record_state(record: &Record) -> RecordState {
    RecordState {
        value: record.value.clone(),
        create_revision: record.create_revision.get(),
        mod_revision: record.mod_revision.get(),
        version: record.version,
        lease: record.lease,
        created_index: record.created_index.get(),
        modified_index: record.modified_index.get(),
        expires_at: record.expires_at.map(|at| at.as_nanos()),
    }
}

/// Names a record by the revision at which a reader finds it, or holds it where none does.
fn reference(
    record: Option<&Arc<Record>>,
    (at, found): (Revision, Option<&Arc<Record>>),
) -> VersionReference {
    let version = match (record, found) {
        (None, _) => version_reference::Version::None(true),
        (Some(record), Some(found)) if Arc::ptr_eq(record, found) => version_reference::Version::At(at.get()),
        (Some(record), _) => version_reference::Version::Inline(record_state(record)),
    };
    VersionReference {
        version: Some(version),
    }
}

fn event_state(event: &v2::Event, writes: &[KeyWrite], matched: &mut usize) -> EventState {
    let is_its_write = |write: &KeyWrite| write.key == event.node.key.as_bytes();
    let found = writes
        .iter()
        .skip(*matched)
        .position(is_its_write)
        .map(|offset| *matched + offset);
    if let Some(found) = found {
        *matched = found + 1;
    }
    let write = found.map(|found| {
        (
            u32::try_from(found).expect("a change of one entry"),
            &writes[found],
        )
    });
    EventState {
        action: event.action as u32,
        index: event.index.get(),
        is_refresh: event.is_refresh,
        node: Some(node_state(&event.node, write)),
        prev_node: event.prev_node.as_ref().map(|node| node_state(node, write)),
    }
}

fn node_state(node: &v2::Node, write: Option<(u32, &KeyWrite)>) -> NodeState {
    assert!(node.nodes.is_empty(), "an event of a write lists nothing");
    let is_of = |record: &Option<Arc<Record>>| {
        let value = node.value.as_ref();
        record
            .as_ref()
            .zip(value)
            .is_some_and(|(record, value)| same_bytes(&record.value, value))
    };
    let value = match (&node.value, write) {
        (None, _) => None,
        (Some(_), Some((number, write))) if is_of(&write.record) => Some(node_state::Value::RecordOf(number)),
        (Some(_), Some((number, write))) if is_of(&write.prev) => Some(node_state::Value::PrevOf(number)),
        (Some(value), _) => Some(node_state::Value::Inline(value.clone())),
    };
    NodeState {
        key: node.key.clone(),
        value,
        dir: node.dir,
        expires_at: node.expires_at.map(|at| at.as_nanos()),
        ttl: node.ttl,
        modified_index: node.modified_index.get(),
        created_index: node.created_index.get(),
    }
}

/// Whether two values are one allocation: equal ones elsewhere are written out, for they may differ in fate.
fn same_bytes(one: &Bytes, other: &Bytes) -> bool {
    one.as_ptr() == other.as_ptr() && one.len() == other.len()
}
