//! What is wrong with a request by itself, before anything is proposed: etcd's checks in etcd's order, so that
//! the same mistake gets the same answer. Pure.

use std::collections::HashSet;

use bytes::Bytes;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use proto::key::KeyRange;
use store::v3::Refusal;

/// Operations in one transaction: etcd's default. A nested transaction has what its parent left over.
pub(super) const TXN_OPERATIONS_MAX: usize = 128;

/// Transactions inside each other. etcd has no such limit; ours keeps a command's nesting in the log well below
/// the 100 levels at which the message parser gives up, so that whatever is committed can be read again.
pub(super) const TXN_DEPTH_MAX: usize = 32;

pub(super) fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

pub(super) fn put(request: &PutRequest) -> Result<(), Refusal> {
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

pub(super) fn delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        Err(Refusal::EmptyKey)
    } else {
        Ok(())
    }
}

pub(super) fn txn(request: &TxnRequest) -> Result<(), Refusal> {
    operations(request, TXN_OPERATIONS_MAX, TXN_DEPTH_MAX)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn operations(request: &TxnRequest, left: usize, depth_left: usize) -> Result<(), Refusal> {
    let widest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let left = left.checked_sub(widest).ok_or(Refusal::TooManyOperations)?;
    let depth_left = depth_left.checked_sub(1).ok_or(Refusal::TooManyOperations)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(nested)) => operations(nested, left, depth_left)?,
            // etcd's text for an operation that is not set.
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What one branch writes: no key may be put twice, nor put and deleted, on any path through the transaction.
#[derive(Default)]
struct Writes {
    puts: HashSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|range| range.contains(key))
    }

    fn put(&mut self, key: &Bytes) -> Result<(), Refusal> {
        if self.deletes(key) || !self.puts.insert(key.clone()) {
            Err(Refusal::DuplicateKey)
        } else {
            Ok(())
        }
    }
}

fn writes(branch: &[RequestOp]) -> Result<Writes, Refusal> {
    let mut all = Writes::default();
    let requests = || branch.iter().filter_map(|operation| operation.request.as_ref());
    for request in requests() {
        if let Request::RequestDeleteRange(delete) = request {
            all.deletes.extend(deleted(delete));
        }
    }
    for request in requests() {
        if let Request::RequestTxn(nested) = request {
            let then = writes(&nested.success)?;
            let otherwise = writes(&nested.failure)?;
            for key in &then.puts {
                all.put(key)?;
            }
            // Only one of the two branches runs: what both put is put once.
            for key in otherwise.puts.difference(&then.puts) {
                all.put(key)?;
            }
            all.deletes.extend(then.deletes);
            all.deletes.extend(otherwise.deletes);
        }
    }
    for request in requests() {
        if let Request::RequestPut(put) = request {
            all.put(&put.key)?;
        }
    }
    Ok(all)
}

/// The range of a delete as etcd's check sees it: one "to the end of all keys" is empty there, so a put beside
/// it passes, and the transaction works in order.
fn deleted(request: &DeleteRangeRequest) -> Option<KeyRange> {
    let range = KeyRange::new(request.key.clone(), request.range_end.clone());
    if matches!(range, KeyRange::From(_)) {
        None
    } else {
        Some(range)
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
