//! The v3 grammar: what a stock etcd 3.4 answered to the same requests, and its regression list as far as
//! the store decides it.

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use store::v3::{RangeScan, Refusal, check};

use crate::support::{Machine, all, bytes, put, range};

fn put_op(key: &str, value: &str) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestPut(put(key, value))),
    }
}

fn delete_op(key: &str, end: &str) -> RequestOp {
    let delete = DeleteRangeRequest {
        key: bytes(key),
        range_end: bytes(end),
        prev_kv: false,
    };
    RequestOp {
        request: Some(Request::RequestDeleteRange(delete)),
    }
}

fn range_op(request: RangeRequest) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestRange(request)),
    }
}

fn txn_op(request: TxnRequest) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestTxn(request)),
    }
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

fn header_revision(header: Option<&ResponseHeader>) -> i64 {
    header.unwrap().revision
}

fn revisions(response: &TxnResponse) -> Vec<i64> {
    let of = |response: &Response| match response {
        Response::ResponseRange(range) => header_revision(range.header.as_ref()),
        Response::ResponsePut(put) => header_revision(put.header.as_ref()),
        Response::ResponseDeleteRange(delete) => header_revision(delete.header.as_ref()),
        Response::ResponseTxn(txn) => header_revision(txn.header.as_ref()),
    };
    response
        .responses
        .iter()
        .map(|op| of(op.response.as_ref().unwrap()))
        .collect()
}

fn keys(machine: &Machine, request: RangeRequest) -> Vec<String> {
    let kvs = machine.range(request).unwrap().kvs;
    kvs.iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect()
}

#[test]
fn a_delete_from_a_key_on_and_a_put_in_one_txn_run_in_order() {
    let mut machine = Machine::new();
    for key in ["a", "b", "c"] {
        machine.put(key, "old");
    }
    let response = machine
        .txn(then(vec![delete_op("a", "\0"), put_op("b", "new")]))
        .unwrap();
    assert_eq!(revisions(&response), [5, 5]);
    let kv = machine.range(all()).unwrap().kvs.remove(0);
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version, &kv.value[..]),
        (5, 5, 1, &b"new"[..])
    );
    let change = machine
        .store
        .view()
        .changes_since(crate::support::revision(5), 1)
        .unwrap()
        .remove(0);
    let writes: Vec<_> = change
        .writes
        .iter()
        .map(|write| (&write.key[..], write.record.is_some()))
        .collect();
    assert_eq!(
        writes,
        [(&b"a"[..], false), (b"b", false), (b"c", false), (b"b", true)]
    );
    let response = machine
        .txn(then(vec![
            put_op("q", "1"),
            delete_op("a", "\0"),
            range_op(all()),
        ]))
        .unwrap();
    assert_eq!(revisions(&response), [6, 6, 6]);
    assert_eq!(machine.range(all()).unwrap().count, 0);
}

#[test]
fn headers_within_a_txn_name_the_revision_seen_so_far() {
    let mut machine = Machine::new();
    for key in ["a", "b", "c", "d", "e"] {
        machine.put(key, "1");
    }
    let is_written = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Version.into(),
        key: bytes("x"),
        target_union: Some(TargetUnion::Version(1)),
        ..Compare::default()
    };
    let nested = TxnRequest {
        compare: vec![is_written],
        success: vec![put_op("y", "1")],
        failure: vec![put_op("z", "1"), range_op(range("x", ""))],
    };
    let operations = vec![
        range_op(range("x", "")),
        put_op("x", "1"),
        range_op(range("x", "")),
        txn_op(nested),
    ];
    let response = machine.txn(then(operations)).unwrap();
    assert_eq!(revisions(&response), [6, 7, 7, 0], "a nested header is empty");
    let Some(Response::ResponseTxn(nested)) = &response.responses[3].response else {
        panic!()
    };
    assert!(
        !nested.succeeded,
        "nested comparisons do not see the writes before them"
    );
    assert_eq!(revisions(nested), [7, 7]);
    assert_eq!(header_revision(response.header.as_ref()), 7);
}

#[test]
fn duplicate_keys_are_refused_as_by_etcd() {
    let mut machine = Machine::new();
    let refused = [
        then(vec![put_op("a", "1"), put_op("a", "2")]),
        then(vec![delete_op("a", "z"), put_op("b", "2")]),
        then(vec![put_op("b", "2"), delete_op("a", "z")]),
        then(vec![delete_op("b", ""), put_op("b", "2")]),
        then(vec![txn_op(then(vec![put_op("a", "1")])), put_op("a", "2")]),
        then(vec![
            txn_op(then(vec![delete_op("a", "")])),
            txn_op(then(vec![put_op("a", "1")])),
        ]),
    ];
    for request in refused {
        assert_eq!(
            machine.txn(request.clone()),
            Err(Refusal::DuplicateKey),
            "{request:?}"
        );
    }
    let both_branches = TxnRequest {
        success: vec![put_op("a", "1")],
        failure: vec![put_op("a", "2")],
        ..TxnRequest::default()
    };
    let accepted = [
        then(vec![txn_op(both_branches.clone())]),
        both_branches,
        then(vec![delete_op("a", "b"), put_op("b", "1")]),
        then(vec![delete_op("b", "\0"), put_op("b", "2")]),
        then(vec![
            txn_op(then(vec![put_op("k", "1")])),
            txn_op(then(vec![delete_op("k", "")])),
        ]),
    ];
    for request in accepted {
        assert!(machine.txn(request.clone()).is_ok(), "{request:?}");
    }
}

#[test]
fn a_txn_is_refused_whole_before_its_first_write() {
    let mut machine = Machine::new();
    machine.put("there", "1");
    let keeps = |key| {
        let request = PutRequest {
            ignore_value: true,
            ..put(key, "")
        };
        RequestOp {
            request: Some(Request::RequestPut(request)),
        }
    };
    let leased = RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            lease: 99,
            ..put("l", "1")
        })),
    };
    let at = |revision| {
        range_op(RangeRequest {
            revision,
            ..range("a", "")
        })
    };
    machine.compact(2).unwrap();
    for (operation, refusal) in [
        (keeps("missing"), Refusal::KeyNotFound),
        (leased, Refusal::LeaseNotFound),
        (at(99), Refusal::FutureRevision),
        (at(1), Refusal::Compacted),
        (put_op("", "1"), Refusal::EmptyKey),
        (RequestOp { request: None }, Refusal::KeyNotFound),
    ] {
        let request = then(vec![put_op("first", "1"), operation]);
        assert_eq!(machine.txn(request.clone()), Err(refusal), "{request:?}");
    }
    let gone = then(vec![delete_op("a", "\0"), keeps("there")]);
    assert_eq!(machine.txn(gone), Err(Refusal::KeyNotFound), "etcd panics here");
    assert_eq!(
        (machine.revision(), keys(&machine, all())),
        (2, vec!["there".to_owned()])
    );
}

#[test]
fn the_size_and_depth_of_txns_are_bounded() {
    let puts = |count: usize| {
        then(
            (0..count)
                .map(|number| put_op(&format!("k{number}"), "1"))
                .collect(),
        )
    };
    assert_eq!(check::txn(&puts(128)), Ok(()));
    assert_eq!(check::txn(&puts(129)), Err(Refusal::TooManyOperations));
    assert_eq!(
        check::txn(&then(vec![txn_op(puts(127))])),
        Ok(()),
        "a nested one has what its parent leaves"
    );
    assert_eq!(
        check::txn(&then(vec![txn_op(puts(128))])),
        Err(Refusal::TooManyOperations)
    );
    let nest = |depth: usize| (1..depth).fold(puts(1), |inner, _| then(vec![txn_op(inner)]));
    assert_eq!(check::txn(&nest(check::TXN_DEPTH_MAX)), Ok(()));
    assert_eq!(
        check::txn(&nest(check::TXN_DEPTH_MAX + 1)),
        Err(Refusal::TooManyOperations)
    );
    let wide = then(
        (0..64)
            .map(|_| txn_op(then(vec![range_op(range("a", "")); 64])))
            .collect(),
    );
    assert_eq!(
        check::txn(&wide),
        Err(Refusal::TooManyOperations),
        "nested operations count in sum"
    );
}

/// What a front could read, the log must be able to read.
#[test]
fn the_deepest_txn_survives_the_log() {
    use prost::Message;
    let deepest =
        (1..check::TXN_DEPTH_MAX).fold(then(vec![put_op("a", "1")]), |inner, _| then(vec![txn_op(inner)]));
    let machine = Machine::new();
    let store::Entry::Proposal(proposal) = machine.proposal(store::Command::Txn(deepest)) else {
        panic!()
    };
    let data = proto::peer::ProposeRequest {
        cluster: 1,
        proposal: Some(*proposal),
    }
    .encode_to_vec();
    let read = proto::peer::ProposeRequest::decode(data.as_slice()).unwrap();
    let entry = read.proposal.unwrap().encode_to_vec();
    assert!(store::command::decode(entry.into()).is_ok());
}

#[test]
fn limits_filters_and_orders_of_a_range() {
    let mut machine = Machine::new();
    for (key, value) in [("s1", "3"), ("s2", "1"), ("s3", "2")] {
        machine.put(key, value);
    }
    machine.put("s1", "3");
    let base = range("s", "t");
    let with = |change: fn(&mut RangeRequest)| {
        let mut request = base.clone();
        change(&mut request);
        request
    };
    let limited = machine.range(with(|request| request.limit = 2)).unwrap();
    assert_eq!((limited.kvs.len(), limited.more, limited.count), (2, true, 3));
    let exact = machine.range(with(|request| request.limit = 3)).unwrap();
    assert_eq!((exact.kvs.len(), exact.more), (3, false));
    let counted = machine
        .range(with(|request| (request.limit, request.count_only) = (1, true)))
        .unwrap();
    assert_eq!((counted.kvs.len(), counted.more, counted.count), (0, false, 3));
    let bare = machine.range(with(|request| request.keys_only = true)).unwrap();
    assert!(bare.kvs.iter().all(|kv| kv.value.is_empty()));
    let ordered = |target: SortTarget, order: SortOrder| {
        keys(
            &machine,
            RangeRequest {
                sort_order: order.into(),
                sort_target: target.into(),
                ..base.clone()
            },
        )
    };
    assert_eq!(ordered(SortTarget::Key, SortOrder::Descend), ["s3", "s2", "s1"]);
    assert_eq!(ordered(SortTarget::Value, SortOrder::Ascend), ["s2", "s3", "s1"]);
    assert_eq!(
        ordered(SortTarget::Mod, SortOrder::None),
        ["s2", "s3", "s1"],
        "a target alone sorts ascending"
    );
    assert_eq!(
        ordered(SortTarget::Create, SortOrder::Descend),
        ["s3", "s2", "s1"]
    );
    assert_eq!(
        ordered(SortTarget::Version, SortOrder::Descend),
        ["s1", "s2", "s3"]
    );
    let cut_first = with(|request| (request.limit, request.sort_target) = (1, SortTarget::Value.into()));
    assert_eq!(
        keys(&machine, cut_first),
        ["s2"],
        "etcd cuts by key to one more than the limit, then sorts"
    );
    let newest_two = with(|request| request.min_mod_revision = 4);
    assert_eq!(keys(&machine, newest_two.clone()), ["s1", "s3"]);
    assert_eq!(
        machine.range(newest_two).unwrap().count,
        3,
        "filters do not change the count"
    );
    assert_eq!(
        keys(&machine, with(|request| request.max_create_revision = 2)),
        ["s1"]
    );
}

#[test]
fn many_results_with_a_small_limit_sort_as_if_all_were_kept() {
    let mut machine = Machine::new();
    for number in 0..600_u32 {
        machine.put(
            &format!("k{number:03}"),
            &format!("{:05}", number.wrapping_mul(7919) % 601),
        );
    }
    let whole = RangeRequest {
        sort_target: SortTarget::Value.into(),
        sort_order: 2,
        ..range("k", "l")
    };
    let mut expected = keys(&machine, whole.clone());
    expected.truncate(5);
    assert_eq!(keys(&machine, RangeRequest { limit: 5, ..whole }), expected);
}

#[test]
fn bad_requests_are_refused_when_they_arrive() {
    assert_eq!(RangeScan::new(range("", "")).unwrap_err(), Refusal::EmptyKey);
    let unsorted = RangeRequest {
        sort_order: 9,
        ..range("a", "")
    };
    assert_eq!(RangeScan::new(unsorted).unwrap_err(), Refusal::InvalidSortOption);
    let mut machine = Machine::new();
    assert_eq!(machine.put_with(put("", "1")), Err(Refusal::EmptyKey));
    let both = PutRequest {
        ignore_value: true,
        ..put("a", "1")
    };
    assert_eq!(machine.put_with(both), Err(Refusal::ValueProvided));
    let both = PutRequest {
        ignore_lease: true,
        lease: 1,
        ..put("a", "1")
    };
    assert_eq!(machine.put_with(both), Err(Refusal::LeaseProvided));
}

#[test]
fn put_keeps_what_it_is_told_to_keep() {
    let mut machine = Machine::new();
    machine.grant(3, 60).unwrap();
    machine
        .put_with(PutRequest {
            lease: 3,
            ..put("a", "1")
        })
        .unwrap();
    let response = machine
        .put_with(PutRequest {
            ignore_lease: true,
            prev_kv: true,
            ..put("a", "2")
        })
        .unwrap();
    assert_eq!(response.prev_kv.unwrap().value, "1");
    machine
        .put_with(PutRequest {
            ignore_value: true,
            ..put("a", "")
        })
        .unwrap();
    let kv = machine.range(range("a", "")).unwrap().kvs.remove(0);
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"2"[..], 0, 3));
}

#[test]
fn compaction_is_refused_as_by_etcd() {
    let mut machine = Machine::new();
    for value in ["1", "2", "3"] {
        machine.put("a", value);
    }
    assert_eq!(
        machine.compact(0),
        Ok(4),
        "nothing was compacted yet, not even to zero"
    );
    assert_eq!(machine.compact(0), Err(Refusal::Compacted));
    assert_eq!(machine.compact(-1), Err(Refusal::Compacted));
    assert_eq!(machine.compact(5), Err(Refusal::FutureRevision));
    assert_eq!(machine.compact(3), Ok(4));
    let at = |revision| RangeRequest {
        revision,
        ..range("a", "")
    };
    assert_eq!(machine.range(at(2)), Err(Refusal::Compacted));
    assert_eq!(machine.range(at(3)).unwrap().kvs[0].value, "2");
    assert_eq!(machine.range(at(5)), Err(Refusal::FutureRevision));
    assert_eq!(
        machine.range(at(-3)).unwrap().kvs[0].value,
        "3",
        "a negative revision is the newest"
    );
}

/// etcd #18089, #19179: a delete event was dropped when compaction hit the revision of its tombstone.
#[test]
fn compaction_at_a_deletion_keeps_its_event_and_the_current_revision() {
    let mut machine = Machine::new();
    machine.put("a", "1");
    machine.delete_range("a", "");
    machine.compact(3).unwrap();
    machine.collect();
    let view = machine.store.view();
    let changes = view.changes_since(crate::support::revision(3), 9).unwrap();
    assert!(changes.len() == 1 && changes[0].writes[0].record.is_none());
    assert_eq!(changes[0].writes[0].prev.as_ref().unwrap().value, "1");
    assert_eq!(
        view.changes_since(crate::support::revision(2), 9)
            .unwrap_err()
            .revision
            .get(),
        3
    );
    assert_eq!(
        view.revision().get(),
        3,
        "#17780: the revision outlives the newest key"
    );
    assert_eq!(machine.restored().revision(), 3);
    assert_eq!(machine.put("b", "1").header.unwrap().revision, 4);
}
