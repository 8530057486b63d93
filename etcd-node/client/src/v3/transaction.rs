//! Transactions in words: `Transaction::when([compare::absent(k)]).then([operation::put(k, v, None)])`.

use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

/// A transaction: all of `then` if every condition holds, else all of `or_else`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction(TxnRequest);

impl Transaction {
    /// Under these conditions; none always hold.
    pub fn when(conditions: impl IntoIterator<Item = Compare>) -> Self {
        Self(TxnRequest {
            compare: conditions.into_iter().collect(),
            ..TxnRequest::default()
        })
    }

    /// What happens if they all hold.
    #[must_use]
    pub fn then(mut self, operations: impl IntoIterator<Item = RequestOp>) -> Self {
        self.0.success.extend(operations);
        self
    }

    /// What happens else.
    #[must_use]
    pub fn or_else(mut self, operations: impl IntoIterator<Item = RequestOp>) -> Self {
        self.0.failure.extend(operations);
        self
    }
}

impl From<Transaction> for TxnRequest {
    fn from(transaction: Transaction) -> Self {
        transaction.0
    }
}

/// Whether no branch changes anything, at any depth.
pub(super) fn is_read_only(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|operation| match &operation.request {
            Some(Request::RequestRange(_)) | None => true,
            Some(Request::RequestTxn(nested)) => is_read_only(nested),
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => false,
        })
}

/// Conditions of a transaction.
pub mod compare {
    use bytes::Bytes;
    use proto::etcdserverpb::Compare;
    use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
    use proto::ids::Revision;

    use crate::v3::lease::LeaseId;

    fn equal(key: impl Into<Bytes>, target: CompareTarget, value: TargetUnion) -> Compare {
        Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key: key.into(),
            range_end: Bytes::new(),
            target_union: Some(value),
        }
    }

    /// The key does not exist.
    pub fn absent(key: impl Into<Bytes>) -> Compare {
        equal(key, CompareTarget::Create, TargetUnion::CreateRevision(0))
    }

    /// The key exists.
    pub fn present(key: impl Into<Bytes>) -> Compare {
        Compare {
            result: CompareResult::Greater.into(),
            ..absent(key)
        }
    }

    /// The key was last changed by this revision.
    pub fn modified_at(key: impl Into<Bytes>, revision: Revision) -> Compare {
        equal(key, CompareTarget::Mod, TargetUnion::ModRevision(revision.get()))
    }

    /// The key was created by this revision.
    pub fn created_at(key: impl Into<Bytes>, revision: Revision) -> Compare {
        equal(
            key,
            CompareTarget::Create,
            TargetUnion::CreateRevision(revision.get()),
        )
    }

    /// The key has this value.
    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Compare {
        equal(key, CompareTarget::Value, TargetUnion::Value(value.into()))
    }

    /// The key hangs on this lease; none: on no lease.
    pub fn lease(key: impl Into<Bytes>, lease: Option<LeaseId>) -> Compare {
        equal(
            key,
            CompareTarget::Lease,
            TargetUnion::Lease(lease.map_or(0, LeaseId::get)),
        )
    }
}

/// Steps of a transaction.
pub mod operation {
    use bytes::Bytes;
    use proto::etcdserverpb::request_op::Request;
    use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp};
    use proto::key::KeyRange;

    use crate::v3::lease::LeaseId;

    /// Writes a key, under a lease or for good.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: Option<LeaseId>) -> RequestOp {
        let lease = lease.map_or(0, LeaseId::get);
        let put = PutRequest {
            key: key.into(),
            value: value.into(),
            lease,
            ..PutRequest::default()
        };
        RequestOp {
            request: Some(Request::RequestPut(put)),
        }
    }

    /// Reads a key or range.
    pub fn get(range: KeyRange) -> RequestOp {
        let (key, range_end) = range.into_pair();
        let range = RangeRequest {
            key,
            range_end,
            ..RangeRequest::default()
        };
        RequestOp {
            request: Some(Request::RequestRange(range)),
        }
    }

    /// Deletes a key or range.
    pub fn delete(range: KeyRange) -> RequestOp {
        let (key, range_end) = range.into_pair();
        let delete = DeleteRangeRequest {
            key,
            range_end,
            ..DeleteRangeRequest::default()
        };
        RequestOp {
            request: Some(Request::RequestDeleteRange(delete)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::key::KeyRange;

    use super::*;

    #[test]
    fn a_transaction_that_writes_in_any_branch_is_a_write() {
        let read = || operation::get(KeyRange::One(Bytes::from_static(b"k")));
        let reads = Transaction::when([compare::present("k")])
            .then([read()])
            .or_else([read()]);
        assert!(is_read_only(&reads.into()));
        let writes: TxnRequest = Transaction::when([])
            .then([read()])
            .or_else([operation::put("k", "v", None)])
            .into();
        assert!(!is_read_only(&writes));
        let nested = RequestOp {
            request: Some(Request::RequestTxn(writes)),
        };
        assert!(!is_read_only(&Transaction::when([]).then([nested]).into()));
    }
}
