//! Typed results of applying a command: done, or deterministically refused.

use std::sync::Arc;

use proto::etcdserverpb::{
    CompactionResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseRevokeResponse, PutResponse,
    TxnResponse,
};

use crate::Change;
use crate::members::{Member, MemberRefusal};
use crate::v2;
use crate::v3::Refusal;

/// How far an entry has come.
#[derive(Debug)]
pub enum Progress {
    /// Applied; its revisions are visible.
    Done(Applied),
    /// It touches many records: call [`crate::Store::resume`] before anything else is applied.
    More,
}

/// What an applied entry did.
#[derive(Debug, Default)]
pub struct Applied {
    /// For whoever proposed it.
    pub outcome: Outcome,
    /// The revisions that it made, in order; most commands make none or one, `Expire` one for each node and lease.
    pub changes: Vec<Arc<Change>>,
}

/// The result of one command. v3 responses carry a header with the revision alone; the front fills in the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Outcome {
    /// Nothing to tell: raft's empty entry, expiry, tenure start, member updates, alarms.
    #[default]
    Done,
    /// A v2 write.
    V2(Result<Arc<v2::Event>, v2::Error>),
    /// A v3 Put.
    Put(Result<PutResponse, Refusal>),
    /// A v3 DeleteRange.
    DeleteRange(Result<DeleteRangeResponse, Refusal>),
    /// A v3 Txn.
    Txn(Result<TxnResponse, Refusal>),
    /// A v3 Compact.
    Compact(Result<CompactionResponse, Refusal>),
    /// A lease granted.
    LeaseGrant(Result<LeaseGrantResponse, Refusal>),
    /// A lease revoked.
    LeaseRevoke(Result<LeaseRevokeResponse, Refusal>),
    /// Leases renewed, in the order of the command.
    KeepAlive(Vec<LeaseRenewal>),
    /// A membership change.
    Member(Result<Member, MemberRefusal>),
}

/// One lease of a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRenewal {
    /// The lease.
    pub id: i64,
    /// Its full time to live in seconds from the stamp; 0 = there is no such lease.
    pub ttl: i64,
}
