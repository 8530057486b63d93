//! What the tests of the store share: a machine that applies commands in slices of a chosen size.

use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use proto::ids::{ClusterId, LogIndex, NodeId, Revision, Term};
use proto::log::v2_command::Operation;
use proto::log::{Expire, KeepAlive, Proposal, TenureStart, V2Command, expire};
use proto::time::Timestamp;
use store::checkpoint::{Checkpointer, Restorer};
use store::command::Position;
use store::members::Member;
use store::v2::{self, Event, Listing, Node, NodeQuery};
use store::v3::{RangeScan, Refusal};
use store::{Applied, Command, Entry, Founding, LeaseRenewal, Outcome, Progress, Store};

/// Where the tests' time begins.
pub(crate) const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

pub(crate) fn seconds(count: u64) -> Timestamp {
    START.checked_add_seconds(count).unwrap()
}

pub(crate) fn founding() -> Founding {
    let member = Member {
        id: NodeId::new(1),
        name: "one".into(),
        ..Member::default()
    };
    Founding {
        cluster: ClusterId::new(7),
        members: vec![member],
        position: Position {
            index: LogIndex::new(1),
            term: Term::new(1),
        },
    }
}

/// A store with a log position and a clock.
pub(crate) struct Machine {
    pub(crate) store: Store,
    pub(crate) now: Timestamp,
    /// Records of each slice after the first.
    pub(crate) slice: usize,
    /// How many slices the last entry took.
    pub(crate) slices: usize,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::found(founding()),
            now: START,
            slice: 100,
            slices: 0,
        }
    }

    pub(crate) fn at(&mut self, second: u64) -> &mut Self {
        self.now = seconds(second);
        self
    }

    pub(crate) fn entry(&mut self, entry: Entry) -> Applied {
        let last = self.store.position();
        let position = Position {
            index: last.index.next(),
            term: last.term,
        };
        let mut progress = self.store.apply(position, entry);
        self.slices = 1;
        loop {
            match progress {
                Progress::Done(applied) => return applied,
                Progress::More => progress = self.store.resume(self.slice),
            }
            self.slices += 1;
        }
    }

    pub(crate) fn proposal(&self, command: Command) -> Entry {
        let stamp = self.now.as_nanos();
        Entry::Proposal(Box::new(Proposal {
            version: 1,
            stamp,
            request: None,
            command: Some(command),
        }))
    }

    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        let entry = self.proposal(command);
        self.entry(entry)
    }

    pub(crate) fn v2(&mut self, command: V2Command) -> Result<Arc<Event>, v2::Error> {
        match self.apply(Command::V2(command)).outcome {
            Outcome::V2(result) => result,
            other => panic!("a v2 command was answered with {other:?}"),
        }
    }

    pub(crate) fn set(&mut self, path: &str, value: &str) -> Arc<Event> {
        self.v2(set(path, value)).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Result<Event, v2::Error> {
        self.list(path, false)
    }

    pub(crate) fn list(&self, path: &str, recursive: bool) -> Result<Event, v2::Error> {
        let mut listing = Listing::new(NodeQuery {
            path: path.into(),
            recursive,
            now: self.now,
        });
        loop {
            if let Some(event) = listing.step(&self.store.view(), self.slice)? {
                return Ok(event);
            }
        }
    }

    /// All paths that a recursive listing of the root shows, directories with a slash.
    pub(crate) fn tree(&self) -> Vec<String> {
        fn walk(node: &Node, into: &mut Vec<String>) {
            for child in &node.nodes {
                into.push(format!("{}{}", child.key, if child.dir { "/" } else { "" }));
                walk(child, into);
            }
        }
        let mut paths = Vec::new();
        walk(&self.list("/", true).unwrap().node, &mut paths);
        paths
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> PutResponse {
        self.put_with(put(key, value)).unwrap()
    }

    pub(crate) fn put_with(&mut self, request: PutRequest) -> Result<PutResponse, Refusal> {
        match self.apply(Command::Put(request)).outcome {
            Outcome::Put(result) => result,
            other => panic!("a put was answered with {other:?}"),
        }
    }

    pub(crate) fn delete_range(&mut self, key: &str, end: &str) -> DeleteRangeResponse {
        let request = DeleteRangeRequest {
            key: bytes(key),
            range_end: bytes(end),
            prev_kv: true,
        };
        match self.apply(Command::DeleteRange(request)).outcome {
            Outcome::DeleteRange(result) => result.unwrap(),
            other => panic!("a delete was answered with {other:?}"),
        }
    }

    pub(crate) fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Refusal> {
        match self.apply(Command::Txn(request)).outcome {
            Outcome::Txn(result) => result,
            other => panic!("a txn was answered with {other:?}"),
        }
    }

    pub(crate) fn range(&self, request: RangeRequest) -> Result<RangeResponse, Refusal> {
        let mut scan = RangeScan::new(request)?;
        loop {
            if let Some(response) = scan.step(&self.store.view(), self.slice)? {
                return Ok(response);
            }
        }
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<i64, Refusal> {
        match self
            .apply(Command::Compact(CompactionRequest {
                revision,
                physical: false,
            }))
            .outcome
        {
            Outcome::Compact(result) => result.map(|response| response.header.unwrap().revision),
            other => panic!("a compaction was answered with {other:?}"),
        }
    }

    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, Refusal> {
        match self
            .apply(Command::LeaseGrant(LeaseGrantRequest { id, ttl }))
            .outcome
        {
            Outcome::LeaseGrant(result) => result.map(|response| response.ttl),
            other => panic!("a grant was answered with {other:?}"),
        }
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Result<i64, Refusal> {
        match self
            .apply(Command::LeaseRevoke(LeaseRevokeRequest { id }))
            .outcome
        {
            Outcome::LeaseRevoke(result) => result.map(|response| response.header.unwrap().revision),
            other => panic!("a revoke was answered with {other:?}"),
        }
    }

    pub(crate) fn keep_alive(&mut self, leases: &[i64]) -> Vec<LeaseRenewal> {
        match self
            .apply(Command::KeepAlive(KeepAlive {
                leases: leases.to_vec(),
            }))
            .outcome
        {
            Outcome::KeepAlive(renewals) => renewals,
            other => panic!("a keep-alive was answered with {other:?}"),
        }
    }

    pub(crate) fn start_tenure(&mut self) {
        self.apply(Command::TenureStart(TenureStart { leader: 1 }));
    }

    /// Proposes what is due now, as the leader does.
    pub(crate) fn expire(&mut self) -> Applied {
        let due = self.store.due(self.now, 1000);
        let node = |(at, path): (Timestamp, String)| expire::Node {
            path,
            expires_at: at.as_nanos(),
        };
        let nodes = due.nodes.into_iter().map(node).collect();
        self.apply(Command::Expire(Expire {
            nodes,
            leases: due.leases,
        }))
    }

    /// Frees everything that compaction allows.
    pub(crate) fn collect(&mut self) {
        while self.store.collect(self.slice) {}
    }

    pub(crate) fn revision(&self) -> i64 {
        self.store.view().revision().get()
    }

    pub(crate) fn v2_index(&self) -> u64 {
        self.store.view().v2_index().get()
    }

    /// The newest events of v2, as (action, path, index).
    pub(crate) fn events(&self, from: u64) -> Vec<(&'static str, String, u64)> {
        let events = self
            .store
            .view()
            .events_since(proto::ids::V2Index::new(from), 1000)
            .unwrap();
        events
            .iter()
            .map(|event| (event.action.as_str(), event.node.key.clone(), event.index.get()))
            .collect()
    }

    /// Written to a checkpoint and read back.
    pub(crate) fn restored(&self) -> Self {
        let mut checkpointer = Checkpointer::new(&self.store);
        let mut blocks = Vec::new();
        while let Some(block) = checkpointer.next_block(&self.store, self.slice) {
            blocks.push(block);
        }
        Self {
            store: restore(blocks),
            now: self.now,
            slice: self.slice,
            slices: 0,
        }
    }
}

pub(crate) fn restore(blocks: Vec<Bytes>) -> Store {
    let mut restorer = Restorer::new();
    for block in blocks {
        restorer.push(block).unwrap();
    }
    restorer.finish().unwrap()
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn v2(operation: Operation, path: &str) -> V2Command {
    V2Command {
        operation: operation.into(),
        path: path.into(),
        ..V2Command::default()
    }
}

pub(crate) fn set(path: &str, value: &str) -> V2Command {
    V2Command {
        value: bytes(value),
        ..v2(Operation::Set, path)
    }
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..PutRequest::default()
    }
}

pub(crate) fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: bytes(key),
        range_end: bytes(end),
        ..RangeRequest::default()
    }
}

/// Everything.
pub(crate) fn all() -> RangeRequest {
    range("\0", "\0")
}

pub(crate) fn revision(number: i64) -> Revision {
    Revision::new(number)
}
