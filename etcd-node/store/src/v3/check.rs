//! What a v3 request must be before it is looked at: etcd's own checks, in etcd's order.
//!
//! Fronts run them before they propose; applying runs them again, because the log may hold anything.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use proto::key::KeyRange;

use super::Refusal;

/// Most operations of one transaction, counted as etcd does: a nested one has what its parent leaves.
pub const TXN_OPERATIONS_MAX: usize = 128;

/// Most operations of one transaction with all that is nested in it: checking them against each other costs
/// the square of it. etcd has no such limit.
pub const TXN_OPERATIONS_TOTAL_MAX: usize = 2048;

/// Deepest nesting of transactions. Each level is two messages deep on the wire, whose reader follows 100;
/// the log wraps a request in more, and what a front could read the log must be able to.
pub const TXN_DEPTH_MAX: usize = 40;

/// Checks a Range.
///
/// # Errors
/// An empty key, or a sort option out of range.
pub fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        Err(Refusal::InvalidSortOption)
    } else {
        Ok(())
    }
}

/// Checks a Put.
///
/// # Errors
/// An empty key, or a value or lease beside the wish to keep the one that is there.
pub fn put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a DeleteRange.
///
/// # Errors
/// An empty key.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        Err(Refusal::EmptyKey)
    } else {
        Ok(())
    }
}

/// Checks a Txn with all that is nested in it.
///
/// # Errors
/// Too many operations, a part that is refused by itself, or a key that two operations would write.
pub fn txn(request: &TxnRequest) -> Result<(), Refusal> {
    let total = operations(request, TXN_OPERATIONS_MAX, TXN_DEPTH_MAX)?;
    if total > TXN_OPERATIONS_TOTAL_MAX {
        return Err(Refusal::TooManyOperations);
    }
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

/// Checks each part by itself; how many there are.
fn operations(request: &TxnRequest, left: usize, depth: usize) -> Result<usize, Refusal> {
    let count = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let left = left.checked_sub(count).ok_or(Refusal::TooManyOperations)?;
    let depth = depth.checked_sub(1).ok_or(Refusal::TooManyOperations)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    let mut total = request.compare.len() + request.success.len() + request.failure.len();
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => total += operations(request, left, depth)?,
            // etcd's word for an operation that is none.
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(total)
}

/// What a branch may write: no key may be put twice, or put and deleted, on any way through it.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn of(operations: &[RequestOp]) -> Result<Self, Refusal> {
        let mut writes = Self::default();
        for operation in operations {
            if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
                writes.deletes.extend(forbidden_by(delete));
            }
        }
        for operation in operations {
            if let Some(Request::RequestTxn(nested)) = &operation.request {
                writes.add_nested(nested)?;
            }
        }
        for operation in operations {
            if let Some(Request::RequestPut(put)) = &operation.request {
                writes.add_put(put.key.clone())?;
            }
        }
        Ok(writes)
    }

    /// Of a nested transaction only one branch is taken, so that both may put the same key.
    fn add_nested(&mut self, nested: &TxnRequest) -> Result<(), Refusal> {
        let then = Self::of(&nested.success)?;
        let otherwise = Self::of(&nested.failure)?;
        for key in &then.puts {
            self.add_put(key.clone())?;
        }
        for key in otherwise.puts {
            if !then.puts.contains(&key) {
                self.add_put(key)?;
            }
        }
        self.deletes.extend(then.deletes);
        self.deletes.extend(otherwise.deletes);
        Ok(())
    }

    fn add_put(&mut self, key: Bytes) -> Result<(), Refusal> {
        let is_deleted = self.deletes.iter().any(|range| range.contains(&key));
        if is_deleted || !self.puts.insert(key) {
            Err(Refusal::DuplicateKey)
        } else {
            Ok(())
        }
    }
}

/// Where a delete forbids puts. etcd overlooks a delete "from this key on" altogether, and people may rely on
/// it: delete everything, then put, in one transaction. The operations run in order.
fn forbidden_by(delete: &DeleteRangeRequest) -> Option<KeyRange> {
    match KeyRange::new(delete.key.clone(), delete.range_end.clone()) {
        KeyRange::From(_) => None,
        range @ (KeyRange::One(_) | KeyRange::Span { .. }) => Some(range),
    }
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::Compare;

    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn put_op(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: key.into(),
            ..Default::default()
        }))
    }

    fn get_op(key: &'static str) -> RequestOp {
        op(Request::RequestRange(RangeRequest {
            key: key.into(),
            ..Default::default()
        }))
    }

    fn delete_op(key: &'static str, end: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: false,
        }))
    }

    fn txn_op(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest {
            compare: vec![],
            success,
            failure,
        }))
    }

    fn of(success: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            compare: vec![],
            success,
            failure: vec![],
        }
    }

    #[test]
    fn single_requests() {
        let key = Bytes::from_static(b"k");
        assert_eq!(range(&RangeRequest::default()), Err(Refusal::EmptyKey));
        let sorted = |sort_order, sort_target| RangeRequest {
            key: key.clone(),
            sort_order,
            sort_target,
            ..Default::default()
        };
        assert_eq!(range(&sorted(2, 4)), Ok(()));
        assert_eq!(range(&sorted(3, 0)), Err(Refusal::InvalidSortOption));
        assert_eq!(range(&sorted(0, 5)), Err(Refusal::InvalidSortOption));
        assert_eq!(
            delete_range(&DeleteRangeRequest::default()),
            Err(Refusal::EmptyKey)
        );
        let base = PutRequest {
            key,
            ..Default::default()
        };
        let table = [
            (PutRequest::default(), Err(Refusal::EmptyKey)),
            (
                PutRequest {
                    ignore_value: true,
                    ..base.clone()
                },
                Ok(()),
            ),
            (
                PutRequest {
                    ignore_value: true,
                    value: "v".into(),
                    ..base.clone()
                },
                Err(Refusal::ValueProvided),
            ),
            (
                PutRequest {
                    ignore_lease: true,
                    lease: 3,
                    ..base.clone()
                },
                Err(Refusal::LeaseProvided),
            ),
            (
                PutRequest {
                    ignore_lease: true,
                    value: "v".into(),
                    ..base
                },
                Ok(()),
            ),
        ];
        for (request, expected) in table {
            assert_eq!(put(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn parts_of_a_transaction_are_checked_wherever_they_stand() {
        assert_eq!(txn(&of(vec![put_op("")])), Err(Refusal::EmptyKey));
        assert_eq!(
            txn(&of(vec![txn_op(vec![], vec![get_op("")])])),
            Err(Refusal::EmptyKey)
        );
        assert_eq!(
            txn(&of(vec![RequestOp { request: None }])),
            Err(Refusal::KeyNotFound)
        );
        let comparing = TxnRequest {
            compare: vec![Compare::default()],
            success: vec![],
            failure: vec![],
        };
        assert_eq!(txn(&comparing), Err(Refusal::EmptyKey));
    }

    #[test]
    fn operations_count_the_widest_list_and_add_up_with_nesting() {
        let gets = |count| vec![get_op("k"); count];
        assert_eq!(txn(&of(gets(128))), Ok(()));
        assert_eq!(txn(&of(gets(129))), Err(Refusal::TooManyOperations));
        let both = TxnRequest {
            compare: vec![],
            success: gets(128),
            failure: gets(128),
        };
        assert_eq!(txn(&both), Ok(()), "only one branch runs");
        assert_eq!(txn(&of(vec![txn_op(gets(127), vec![])])), Ok(()));
        assert_eq!(
            txn(&of(vec![txn_op(gets(128), vec![])])),
            Err(Refusal::TooManyOperations)
        );
        let nested = |levels: usize| {
            (1..levels).fold(of(gets(1)), |inner, _| of(vec![op(Request::RequestTxn(inner))]))
        };
        assert_eq!(txn(&nested(TXN_DEPTH_MAX)), Ok(()));
        assert_eq!(txn(&nested(TXN_DEPTH_MAX + 1)), Err(Refusal::TooManyOperations));
        let wide = |inner: usize| of(vec![txn_op(gets(inner), gets(inner)); 64]);
        assert_eq!(txn(&wide(15)), Ok(()), "64 and 1,920 operations");
        assert_eq!(
            txn(&wide(16)),
            Err(Refusal::TooManyOperations),
            "64 and 2,048 operations"
        );
    }

    #[test]
    fn no_key_is_written_twice() {
        let twice = Err(Refusal::DuplicateKey);
        let table = [
            (vec![put_op("a"), put_op("b")], Ok(())),
            (vec![put_op("a"), put_op("a")], twice.clone()),
            (vec![put_op("a"), delete_op("a", "")], twice.clone()),
            (vec![delete_op("a", "c"), put_op("b")], twice.clone()),
            (vec![delete_op("a", "c"), put_op("c")], Ok(())),
            (vec![delete_op("a", "\0"), put_op("a")], Ok(())),
            (vec![delete_op("a", "\0"), put_op("b")], Ok(())),
            (vec![delete_op("a", "c"), delete_op("b", "")], Ok(())),
            (vec![txn_op(vec![put_op("a")], vec![put_op("a")])], Ok(())),
            (
                vec![txn_op(vec![put_op("a")], vec![]), put_op("a")],
                twice.clone(),
            ),
            (
                vec![txn_op(vec![], vec![put_op("a")]), put_op("a")],
                twice.clone(),
            ),
            (
                vec![txn_op(vec![delete_op("a", "")], vec![]), put_op("a")],
                twice.clone(),
            ),
            (
                vec![
                    txn_op(vec![put_op("a")], vec![]),
                    txn_op(vec![], vec![put_op("a")]),
                ],
                twice.clone(),
            ),
            (
                vec![delete_op("a", ""), txn_op(vec![put_op("a")], vec![])],
                twice.clone(),
            ),
            (vec![txn_op(vec![delete_op("a", "")], vec![put_op("a")])], Ok(())),
        ];
        for (success, expected) in table {
            let text = format!("{success:?}");
            assert_eq!(txn(&of(success.clone())), expected, "{text}");
            let failing = TxnRequest {
                compare: vec![],
                success: vec![],
                failure: success,
            };
            assert_eq!(txn(&failing), expected, "as failure: {text}");
        }
    }
}
