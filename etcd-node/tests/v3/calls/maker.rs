//! Draws calls: mostly sensible, some wrong, all from a small world so that they meet each other.

use bytes::Bytes;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};

use super::{Answer, Call};
use crate::support::Draw;

const KEYS: [&[u8]; 9] = [
    b"a",
    b"a/b",
    b"/d",
    b"/d/x",
    b"/d/y",
    b"/d/y/",
    b"b",
    b"\0",
    b"\xff\xfe",
];
const ENDS: [&[u8]; 8] = [b"", b"", b"\0", b"b", b"/d0", b"/e", b"\xff", b"a"];
const VALUES: [&[u8]; 4] = [b"", b"1", b"2", b"three"];
const LEASES: [i64; 4] = [11, 12, 13, 1 << 40];

/// Watches open at a time: each is on both sides, and every write goes to most of them.
const WATCHES_MAX: usize = 12;

/// Draws calls and remembers what makes the next ones interesting.
pub(crate) struct Maker {
    draw: Draw,
    revision: i64,
    compacted: i64,
    watches: Vec<i64>,
    asked: Option<Call>,
}

impl Maker {
    pub(crate) fn new(draw: Draw) -> Self {
        Self {
            draw,
            revision: 1,
            compacted: 0,
            watches: Vec::new(),
            asked: None,
        }
    }

    /// Takes notice of an answer to the last call.
    pub(crate) fn learn(&mut self, answer: &Answer) {
        self.revision = self.revision.max(answer.revision().unwrap_or(0));
        match (&self.asked, answer) {
            (Some(Call::Watch(_)), Answer::Watch(created)) if !created.canceled => {
                self.watches.push(created.watch_id);
            }
            (Some(Call::Compact(request)), Answer::Compact(_)) => self.compacted = request.revision,
            (Some(Call::Unwatch(id)), _) => self.watches.retain(|open| open != id),
            _ => {}
        }
    }

    /// A watch that the server ended.
    pub(crate) fn forget_watch(&mut self, id: i64) {
        self.watches.retain(|open| *open != id);
    }

    pub(crate) fn next(&mut self) -> Call {
        let call = match self.draw.below(100) {
            0..30 => Call::Put(self.put()),
            30..55 => Call::Range(self.range()),
            55..63 => Call::Delete(self.delete()),
            63..83 => Call::Txn(self.txn(0)),
            83..86 => Call::Compact(CompactionRequest {
                revision: self.past(4),
                physical: self.draw.one_in(2),
            }),
            86..94 => self.lease(),
            94..99 if self.watches.len() < WATCHES_MAX => Call::Watch(self.watch()),
            _ => match self.watches.first() {
                Some(_) => Call::Unwatch(self.draw.pick(&self.watches)),
                None => Call::Leases,
            },
        };
        self.asked = Some(call.clone());
        call
    }

    fn key(&mut self) -> Bytes {
        if self.draw.one_in(60) {
            Bytes::new()
        } else {
            Bytes::from_static(self.draw.pick(&KEYS))
        }
    }

    fn end(&mut self) -> Bytes {
        Bytes::from_static(self.draw.pick(&ENDS))
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(self.draw.pick(&VALUES))
    }

    fn lease_id(&mut self) -> i64 {
        if self.draw.one_in(2) {
            0
        } else {
            self.draw.pick(&LEASES)
        }
    }

    /// About now: some revisions back, one or two ahead.
    fn past(&mut self, back: i64) -> i64 {
        self.revision + self.draw.within(-back, 1)
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.draw.one_in(10);
        let ignore_lease = self.draw.one_in(10);
        PutRequest {
            key: self.key(),
            value: if ignore_value && !self.draw.one_in(4) {
                Bytes::new()
            } else {
                self.value()
            },
            lease: if ignore_lease && !self.draw.one_in(4) {
                0
            } else {
                self.lease_id()
            },
            prev_kv: self.draw.one_in(3),
            ignore_value,
            ignore_lease,
        }
    }

    fn bound(&mut self) -> i64 {
        if self.draw.one_in(12) { self.past(6) } else { 0 }
    }

    fn range(&mut self) -> RangeRequest {
        let is_sorted = self.draw.one_in(3);
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: if self.draw.one_in(3) {
                self.draw.within(-1, 4)
            } else {
                0
            },
            revision: if self.draw.one_in(3) {
                self.past(8)
            } else {
                self.draw.within(-1, 0)
            },
            sort_order: if is_sorted {
                i32::try_from(self.draw.below(3)).expect("a small number")
            } else {
                0
            },
            sort_target: if is_sorted {
                i32::try_from(self.draw.below(5)).expect("a small number")
            } else {
                0
            },
            serializable: self.draw.one_in(4),
            keys_only: self.draw.one_in(6),
            count_only: self.draw.one_in(8),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let range_end = if self.draw.one_in(2) {
            self.end()
        } else {
            Bytes::new()
        };
        DeleteRangeRequest {
            key: self.key(),
            range_end,
            prev_kv: self.draw.one_in(2),
        }
    }

    fn compare(&mut self) -> Compare {
        let target = self.draw.within(0, 4);
        let target_union = match target {
            0 => TargetUnion::Version(self.draw.within(0, 3)),
            1 => TargetUnion::CreateRevision(if self.draw.one_in(2) { 0 } else { self.past(9) }),
            2 => TargetUnion::ModRevision(if self.draw.one_in(2) { 0 } else { self.past(9) }),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.lease_id()),
        };
        Compare {
            result: i32::try_from(self.draw.below(4)).expect("a small number"),
            target: i32::try_from(target).expect("a small number"),
            key: self.key(),
            target_union: if self.draw.one_in(20) {
                None
            } else {
                Some(target_union)
            },
            range_end: if self.draw.one_in(3) {
                self.end()
            } else {
                Bytes::new()
            },
        }
    }

    fn txn(&mut self, depth: u64) -> TxnRequest {
        let compares = self.draw.below(3);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(depth),
            failure: self.branch(depth),
        }
    }

    fn branch(&mut self, depth: u64) -> Vec<RequestOp> {
        let operations = self.draw.below(4);
        (0..operations)
            .map(|_| RequestOp {
                request: self.operation(depth),
            })
            .collect()
    }

    fn operation(&mut self, depth: u64) -> Option<Request> {
        Some(match self.draw.below(40) {
            0..14 => Request::RequestPut(self.put()),
            14..26 => Request::RequestRange(self.range()),
            26..33 => Request::RequestDeleteRange(self.delete()),
            33..39 if depth < 2 => Request::RequestTxn(self.txn(depth + 1)),
            39 => return None,
            _ => Request::RequestRange(self.range()),
        })
    }

    fn lease(&mut self) -> Call {
        let id = self.draw.pick(&LEASES);
        match self.draw.below(20) {
            0..6 => Call::Grant(LeaseGrantRequest {
                ttl: self.draw.pick(&[600, 900, 9_000_000_001]),
                id,
            }),
            6 => Call::Grant(LeaseGrantRequest {
                ttl: 9_000_000_001,
                id: 0,
            }),
            7..9 => Call::GrantShort(LeaseGrantRequest {
                ttl: self.draw.within(-2, 3),
                id: 99,
            }),
            9..13 => Call::Revoke(LeaseRevokeRequest { id }),
            13..17 => Call::TimeToLive(LeaseTimeToLiveRequest {
                id,
                keys: self.draw.one_in(2),
            }),
            17..19 => Call::Leases,
            _ => Call::KeepAlive(LeaseKeepAliveRequest { id }),
        }
    }

    /// Not exactly the compacted revision: what it deleted, stock etcd 3.4 has lost (a bug mended in 3.5), and the
    /// values before it; our node shows both.
    fn start(&mut self) -> i64 {
        if self.draw.one_in(2) {
            return 0;
        }
        let start = self.past(10).max(0) + self.draw.within(0, 2);
        if start == self.compacted { start + 1 } else { start }
    }

    fn watch(&mut self) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.key(),
            range_end: self.end(),
            start_revision: self.start(),
            progress_notify: self.draw.one_in(4),
            filters: (0..2).filter(|_| self.draw.one_in(4)).collect(),
            prev_kv: self.draw.one_in(2),
            watch_id: if self.draw.one_in(3) {
                self.draw.within(1, 9)
            } else {
                0
            },
            fragment: self.draw.one_in(4),
        }
    }
}
