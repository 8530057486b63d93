//! The naive model: the keyspace as plain lists, searched from front to back, copied whole at every
//! revision. It is slow, has no cleverness, and says what the rules say.

mod v2;
mod v3;

use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeResponse,
    ResponseHeader,
};
use proto::ids::{Revision, V2Index};
use proto::log::Expire;
use proto::time::Timestamp;
use store::lease::LeaseInfo;
use store::mvcc::Record;
use store::v2::{Action, Event, Node};
use store::v3::Refusal;
use store::{Change, Command, KeyWrite, LeaseRenewal, Outcome};

#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) path: String,
    pub(crate) created: V2Index,
    pub(crate) modified: V2Index,
    pub(crate) expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    pub(crate) ttl: i64,
    pub(crate) expires_at: Timestamp,
}

/// Keys and directories at one revision, the keys in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) keys: Vec<(Bytes, Record)>,
    pub(crate) directories: Vec<Directory>,
}

impl Nodes {
    pub(crate) fn key(&self, key: &[u8]) -> Option<&Record> {
        self.keys
            .iter()
            .find(|(there, _)| there == key)
            .map(|(_, record)| record)
    }

    pub(crate) fn directory(&self, path: &str) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.path == path)
    }

    /// "Path p is a directory if it has a record or anything v2-shown lies below it."
    pub(crate) fn is_directory(&self, path: &str) -> bool {
        let shown_key_below = || {
            self.keys
                .iter()
                .any(|(key, _)| is_below(key, path) && self.is_shown(key))
        };
        path == "/"
            || self.directory(path).is_some()
            || self
                .directories
                .iter()
                .any(|directory| is_below(directory.path.as_bytes(), path))
            || shown_key_below()
    }

    /// A key is shown when it is a clean path and not shadowed by a directory.
    pub(crate) fn is_shown(&self, key: &[u8]) -> bool {
        is_clean(key) && !self.is_directory(std::str::from_utf8(key).unwrap())
    }
}

pub(crate) fn is_clean(key: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(key) else {
        return false;
    };
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() > 1 && parts[0].is_empty() && parts[1..].iter().all(|part| !matches!(*part, "" | "." | ".."))
}

pub(crate) fn is_below(key: &[u8], path: &str) -> bool {
    let prefix = if path == "/" {
        "/".to_owned()
    } else {
        format!("{path}/")
    };
    is_clean(key) && key.starts_with(prefix.as_bytes())
}

/// The model.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) now: Nodes,
    pub(crate) leases: Vec<Lease>,
    pub(crate) revision: i64,
    pub(crate) index: u64,
    pub(crate) compacted: Option<i64>,
    pub(crate) stamp: Timestamp,
    /// What stood after each revision, from revision 1 on.
    pub(crate) past: Vec<Nodes>,
    /// All changes, from revision 2 on.
    pub(crate) changes: Vec<Change>,
    /// The change at hand.
    open: Change,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            now: Nodes::default(),
            leases: Vec::new(),
            revision: 1,
            index: 3,
            compacted: None,
            stamp: Timestamp::ZERO,
            past: vec![Nodes::default()],
            changes: Vec::new(),
            open: no_change(),
        }
    }

    pub(crate) fn apply(&mut self, command: &Command, stamp: Timestamp) -> (Outcome, Vec<Change>) {
        self.stamp = self.stamp.max(stamp);
        let first = self.changes.len();
        let outcome = match command {
            Command::V2(command) => Outcome::V2(self.v2(command).map(Arc::new)),
            Command::Put(request) => Outcome::Put(self.put(request)),
            Command::DeleteRange(request) => Outcome::DeleteRange(self.delete_range(request)),
            Command::Txn(request) => Outcome::Txn(self.txn(request)),
            Command::Compact(request) => Outcome::Compact(self.compact(request)),
            Command::LeaseGrant(request) => Outcome::LeaseGrant(self.grant(request)),
            Command::LeaseRevoke(request) => {
                Outcome::LeaseRevoke(match self.end_lease(request.id, Action::Delete) {
                    Some(()) => Ok(LeaseRevokeResponse {
                        header: self.header(),
                    }),
                    None => Err(Refusal::LeaseNotFound),
                })
            }
            Command::KeepAlive(request) => {
                Outcome::KeepAlive(request.leases.iter().map(|id| self.keep_alive(*id)).collect())
            }
            Command::Expire(request) => {
                self.expire(request);
                Outcome::Done
            }
            Command::TenureStart(_) => {
                for id in self.leases.iter().map(|lease| lease.id).collect::<Vec<_>>() {
                    self.keep_alive(id);
                }
                Outcome::Done
            }
            other => panic!("the model does not know {other:?}"),
        };
        self.close();
        (outcome, self.changes[first..].to_vec())
    }

    /// The revision that an answer names: the change's own once it wrote a key.
    fn header(&self) -> Option<ResponseHeader> {
        let revision = self.revision + i64::from(!self.open.writes.is_empty());
        Some(ResponseHeader {
            revision,
            ..ResponseHeader::default()
        })
    }

    /// The revision that the change at hand makes.
    pub(crate) fn next_revision(&self) -> Revision {
        Revision::new(self.revision + 1)
    }

    fn close(&mut self) {
        let open = std::mem::replace(&mut self.open, no_change());
        if open == no_change() {
            return;
        }
        self.revision += 1;
        self.past.push(self.now.clone());
        self.changes.push(Change {
            revision: Revision::new(self.revision),
            ..open
        });
    }

    pub(crate) fn next_index(&mut self) -> V2Index {
        self.index += 1;
        V2Index::new(self.index)
    }

    /// Writes a key; what stood there.
    pub(crate) fn write(&mut self, key: &Bytes, fields: Record) -> Option<Record> {
        let before = self.now.key(key).cloned();
        let revision = self.next_revision();
        let record = Record {
            create_revision: before.as_ref().map_or(revision, |before| before.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(1, |before| before.version + 1),
            ..fields
        };
        self.now.keys.retain(|(there, _)| there != key);
        self.now.keys.push((key.clone(), record.clone()));
        self.now.keys.sort_by(|one, other| one.0.cmp(&other.0));
        let prev = before.clone().map(Arc::new);
        self.open.writes.push(KeyWrite {
            key: key.clone(),
            record: Some(Arc::new(record)),
            prev,
        });
        before
    }

    pub(crate) fn erase(&mut self, key: &[u8]) -> Option<Record> {
        let before = self.now.key(key).cloned()?;
        self.now.keys.retain(|(there, _)| there != key);
        let prev = Some(Arc::new(before.clone()));
        self.open.writes.push(KeyWrite {
            key: Bytes::copy_from_slice(key),
            record: None,
            prev,
        });
        Some(before)
    }

    pub(crate) fn push_event(&mut self, event: Event) {
        self.open.events.push(Arc::new(event));
    }

    /// When a record ends in v2's eyes.
    pub(crate) fn ends(&self, record: &Record) -> Option<Timestamp> {
        let lease = self.leases.iter().find(|lease| lease.id == record.lease);
        record.expires_at.or(lease.map(|lease| lease.expires_at))
    }

    pub(crate) fn file(&self, path: &str, record: &Record, now: Timestamp) -> Node {
        let expires_at = self.ends(record);
        Node {
            key: path.into(),
            value: Some(record.value.clone()),
            expires_at,
            ttl: expires_at.map(|at| ttl(at, now)),
            modified_index: record.modified_index,
            created_index: record.created_index,
            ..Node::default()
        }
    }

    /// Deletes a key as v3 or a lease does.
    pub(crate) fn delete(&mut self, key: &[u8], action: Action) -> Option<Record> {
        let is_shown = self.now.is_shown(key);
        let before = self.now.key(key).cloned()?;
        if is_shown {
            let path = std::str::from_utf8(key).unwrap();
            let prev_node = self.file(path, &before, self.stamp);
            self.push_removal(action, prev_node);
        }
        self.erase(key)
    }

    pub(crate) fn push_removal(&mut self, action: Action, prev_node: Node) -> Event {
        let index = self.next_index();
        let node = Node {
            key: prev_node.key.clone(),
            dir: prev_node.dir,
            modified_index: index,
            created_index: prev_node.created_index,
            ..Node::default()
        };
        let event = Event {
            action,
            node,
            prev_node: Some(prev_node),
            index,
            is_refresh: false,
        };
        self.push_event(event.clone());
        event
    }

    fn compact(&mut self, request: &CompactionRequest) -> Result<CompactionResponse, Refusal> {
        if request.revision <= self.compacted.unwrap_or(-1) {
            return Err(Refusal::Compacted);
        }
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = Some(request.revision);
        Ok(CompactionResponse {
            header: self.header(),
        })
    }

    fn grant(&mut self, request: &LeaseGrantRequest) -> Result<LeaseGrantResponse, Refusal> {
        if request.id == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if request.ttl > 9_000_000_000 {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.iter().any(|lease| lease.id == request.id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = request.ttl.max(2);
        let expires_at = self.stamp.checked_add_seconds(ttl.unsigned_abs()).unwrap();
        self.leases.push(Lease {
            id: request.id,
            ttl,
            expires_at,
        });
        Ok(LeaseGrantResponse {
            header: self.header(),
            id: request.id,
            ttl,
            error: String::new(),
        })
    }

    fn keep_alive(&mut self, id: i64) -> LeaseRenewal {
        let stamp = self.stamp;
        let Some(lease) = self.leases.iter_mut().find(|lease| lease.id == id) else {
            return LeaseRenewal { id, ttl: 0 };
        };
        lease.expires_at = lease
            .expires_at
            .max(stamp.checked_add_seconds(lease.ttl.unsigned_abs()).unwrap());
        LeaseRenewal { id, ttl: lease.ttl }
    }

    fn end_lease(&mut self, id: i64, action: Action) -> Option<()> {
        self.leases.iter().find(|lease| lease.id == id)?;
        for key in self.keys_of(id) {
            self.delete(&key, action);
        }
        self.leases.retain(|lease| lease.id != id);
        Some(())
    }

    pub(crate) fn keys_of(&self, id: i64) -> Vec<Bytes> {
        self.now
            .keys
            .iter()
            .filter(|(_, record)| record.lease == id)
            .map(|(key, _)| key.clone())
            .collect()
    }

    pub(crate) fn lease(&self, id: i64) -> Option<LeaseInfo> {
        let lease = self.leases.iter().find(|lease| lease.id == id)?;
        let keys = self.keys_of(id);
        Some(LeaseInfo {
            id,
            granted_ttl: lease.ttl,
            expires_at: lease.expires_at,
            keys,
        })
    }

    /// One revision for each node and lease, by (time, path or id), nodes before leases of one instant.
    fn expire(&mut self, request: &Expire) {
        enum What {
            Path(String),
            Lease(i64),
        }
        let mut items = Vec::new();
        for node in &request.nodes {
            let at = Timestamp::from_nanos(node.expires_at);
            items.push((at, false, node.path.clone(), 0, What::Path(node.path.clone())));
        }
        for id in &request.leases {
            if let Some(lease) = self.leases.iter().find(|lease| lease.id == *id) {
                items.push((lease.expires_at, true, String::new(), *id, What::Lease(*id)));
            }
        }
        items.sort_by(|one, other| (one.0, one.1, &one.2, one.3).cmp(&(other.0, other.1, &other.2, other.3)));
        for (at, _, _, _, what) in items {
            if at > self.stamp {
                continue;
            }
            match what {
                What::Path(path) => self.expire_node(&path, at),
                What::Lease(id) => {
                    self.end_lease(id, Action::Expire);
                }
            }
            self.close();
        }
    }
}

fn no_change() -> Change {
    Change {
        revision: Revision::ZERO,
        writes: Vec::new(),
        events: Vec::new(),
        removed_directories: Vec::new(),
    }
}

/// Seconds from now on, rounded up; past ones towards zero.
pub(crate) fn ttl(at: Timestamp, now: Timestamp) -> i64 {
    let nanos = i128::from(at.as_nanos()) - i128::from(now.as_nanos());
    let seconds = nanos / 1_000_000_000;
    i64::try_from(seconds + i128::from(nanos % 1_000_000_000 > 0)).unwrap()
}
