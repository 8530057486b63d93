//! Random commands of both grammars over a small world, so that everything meets everything.

use bytes::Bytes;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest,
};
use proto::log::v2_command::Operation;
use proto::log::{KeepAlive, TenureStart, V2Command};
use store::Command;

/// SplitMix64: the whole run follows from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let length = u64::try_from(from.len()).unwrap();
        from[usize::try_from(self.below(length)).unwrap()]
    }

    fn number(&mut self, bound: u64) -> i64 {
        i64::try_from(self.below(bound)).unwrap()
    }
}

const PATHS: &[&str] = &[
    "/", "/a", "/a/b", "/a/b/c", "/a/b/d", "/a/b-x", "/a/b0", "/a/_h", "/a/_h/i", "/a-b", "/c", "/c/d",
    "/c/d/e/f", "/_q", "/_q/r", "/ab", "/a/b/c/d",
];

/// Keys that v2 never shows.
const UNCLEAN: &[&[u8]] = &[
    b"a",
    b"/a/",
    b"/a//x",
    b"/a/b/",
    b"/a/b/../z",
    b"/a/b/\xff",
    b"//",
    b"/",
    b"\x01",
    b"\xff\xff",
    b"/a/b/./c",
];

const VALUES: &[&str] = &["", "1", "2", "three"];

const LEASES: u64 = 5;

impl Random {
    pub(crate) fn path(&mut self) -> &'static str {
        self.pick(PATHS)
    }

    fn key(&mut self) -> Bytes {
        if self.one_in(4) {
            return Bytes::from_static(self.pick(UNCLEAN));
        }
        Bytes::from_static(self.pick(&PATHS[1..]).as_bytes())
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(self.pick(VALUES).as_bytes())
    }

    fn pair(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        let end = match self.below(8) {
            0 => Bytes::from_static(b"\0"),
            1 | 2 => {
                let mut end = key.to_vec();
                *end.last_mut().unwrap() = end.last().unwrap().saturating_add(1);
                Bytes::from(end)
            }
            3 => self.key(),
            _ => Bytes::new(),
        };
        (key, end)
    }

    /// A command; `revision` and `index` are the newest, so that conditions hold now and then.
    pub(crate) fn command(&mut self, revision: i64, index: u64) -> Command {
        match self.below(100) {
            0..45 => Command::V2(self.v2(index)),
            45..68 => Command::Put(self.put()),
            68..75 => {
                let (key, range_end) = self.pair();
                Command::DeleteRange(DeleteRangeRequest {
                    key,
                    range_end,
                    prev_kv: self.one_in(2),
                })
            }
            75..89 => Command::Txn(self.txn(revision, 0)),
            89..91 => {
                let back = self.number(40) - 2;
                Command::Compact(CompactionRequest {
                    revision: revision - back,
                    physical: false,
                })
            }
            91..95 => {
                let (id, ttl) = (self.number(LEASES), self.number(20) - 1);
                Command::LeaseGrant(LeaseGrantRequest { id, ttl })
            }
            95..97 => Command::LeaseRevoke(LeaseRevokeRequest {
                id: self.number(LEASES),
            }),
            97..99 => Command::KeepAlive(KeepAlive {
                leases: vec![self.number(LEASES), self.number(LEASES)],
            }),
            _ => Command::TenureStart(TenureStart { leader: 1 }),
        }
    }

    fn v2(&mut self, index: u64) -> V2Command {
        let operation = self.pick(&[
            Operation::Set,
            Operation::Set,
            Operation::Set,
            Operation::Create,
            Operation::CreateInOrder,
            Operation::Update,
            Operation::CompareAndSwap,
            Operation::Delete,
            Operation::Delete,
            Operation::CompareAndDelete,
        ]);
        let compares = matches!(operation, Operation::CompareAndSwap | Operation::CompareAndDelete);
        V2Command {
            operation: operation.into(),
            path: self.path().to_owned(),
            value: self.value(),
            dir: self.one_in(4),
            recursive: self.one_in(3),
            refresh: self.one_in(6),
            ttl: self.one_in(4).then(|| {
                if self.one_in(9) {
                    u64::MAX / 2
                } else {
                    self.below(15)
                }
            }),
            prev_value: (compares && self.one_in(2)).then(|| self.value()),
            prev_index: if compares && self.one_in(3) {
                index - self.below(5).min(index)
            } else {
                0
            },
        }
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.one_in(9);
        let ignore_lease = self.one_in(9);
        PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if ignore_lease || !self.one_in(4) {
                0
            } else {
                self.number(LEASES)
            },
            prev_kv: self.one_in(3),
            ignore_value,
            ignore_lease,
        }
    }

    pub(crate) fn range(&mut self, revision: i64) -> RangeRequest {
        let (key, range_end) = match self.below(3) {
            0 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            _ => self.pair(),
        };
        let bound = |random: &mut Self| {
            if random.one_in(6) {
                random.number(revision.unsigned_abs() + 1)
            } else {
                0
            }
        };
        let bounds: Vec<i64> = (0..4).map(|_| bound(self)).collect();
        RangeRequest {
            key,
            range_end,
            limit: if self.one_in(3) { self.number(6) - 1 } else { 0 },
            revision: if self.one_in(2) {
                revision + 1 - self.number(30).min(revision + 1)
            } else {
                0
            },
            sort_order: i32::try_from(self.below(3)).unwrap(),
            sort_target: i32::try_from(self.below(5)).unwrap(),
            serializable: false,
            keys_only: self.one_in(5),
            count_only: self.one_in(7),
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
        }
    }

    fn compare(&mut self, revision: i64) -> Compare {
        let (key, range_end) = self.pair();
        let target = i32::try_from(self.below(5)).unwrap();
        let union = match target {
            0 => TargetUnion::Version(self.number(3)),
            1 => TargetUnion::CreateRevision(if self.one_in(2) {
                0
            } else {
                revision - self.number(9)
            }),
            2 => TargetUnion::ModRevision(if self.one_in(2) {
                0
            } else {
                revision - self.number(9)
            }),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.number(LEASES)),
        };
        let result = i32::try_from(self.below(4)).unwrap();
        Compare {
            result,
            target,
            key,
            range_end,
            target_union: Some(union),
        }
    }

    fn txn(&mut self, revision: i64, depth: u32) -> TxnRequest {
        let branch = |random: &mut Self| -> Vec<RequestOp> {
            (0..random.below(4))
                .map(|_| random.operation(revision, depth))
                .collect()
        };
        let (success, failure) = (branch(self), branch(self));
        let compare = (0..self.below(3)).map(|_| self.compare(revision)).collect();
        TxnRequest {
            compare,
            success,
            failure,
        }
    }

    fn operation(&mut self, revision: i64, depth: u32) -> RequestOp {
        let request = match self.below(10) {
            0..5 => Request::RequestPut(self.put()),
            5 | 6 => {
                let (key, range_end) = self.pair();
                Request::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    range_end,
                    prev_kv: self.one_in(2),
                })
            }
            7 if depth < 3 => Request::RequestTxn(self.txn(revision, depth + 1)),
            _ => Request::RequestRange(self.range(revision)),
        };
        RequestOp {
            request: Some(request),
        }
    }
}
