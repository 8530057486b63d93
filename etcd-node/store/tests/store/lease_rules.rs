//! Leases: what the five calls do, and what time does to them.

use proto::etcdserverpb::PutRequest;
use store::LeaseRenewal;
use store::v3::Refusal;

use crate::support::{Machine, put, range, seconds};

fn leased(key: &str, lease: i64) -> PutRequest {
    PutRequest {
        lease,
        ..put(key, "v")
    }
}

#[test]
fn grants_are_answered_and_refused_as_by_etcd() {
    let mut machine = Machine::new();
    assert_eq!(
        machine.grant(7, 1),
        Ok(2),
        "the shortest time to live of a stock etcd"
    );
    assert_eq!(machine.grant(7, 1), Err(Refusal::LeaseExists));
    assert_eq!(machine.grant(8, -5), Ok(2));
    assert_eq!(machine.grant(9, 9_000_000_001), Err(Refusal::LeaseTtlTooLarge));
    assert_eq!(machine.grant(9, 9_000_000_000), Ok(9_000_000_000));
    assert_eq!(machine.grant(-9, 10), Ok(10));
    assert_eq!(
        machine.grant(0, 10),
        Err(Refusal::LeaseNotFound),
        "the proposer draws ids"
    );
    assert_eq!(machine.store.view().lease_ids(), [-9, 7, 8, 9]);
    assert_eq!(machine.revision(), 1);
}

#[test]
fn a_put_attaches_moves_and_detaches_its_key() {
    let mut machine = Machine::new();
    machine.grant(1, 60).unwrap();
    machine.grant(2, 60).unwrap();
    let keys = |machine: &Machine, id| machine.store.view().lease(id, true).unwrap().keys;
    machine.put_with(leased("b", 1)).unwrap();
    machine.put_with(leased("a", 1)).unwrap();
    assert_eq!(keys(&machine, 1), ["a", "b"]);
    machine.put_with(leased("a", 2)).unwrap();
    assert_eq!(
        (keys(&machine, 1), keys(&machine, 2)),
        (vec!["b".into()], vec!["a".into()])
    );
    machine
        .put_with(PutRequest {
            ignore_lease: true,
            ..put("a", "w")
        })
        .unwrap();
    assert_eq!(keys(&machine, 2), ["a"]);
    machine.put("a", "w");
    assert!(keys(&machine, 2).is_empty());
    machine.delete_range("b", "");
    assert!(keys(&machine, 1).is_empty());
}

#[test]
fn a_put_under_an_unknown_lease_is_refused_before_anything_else() {
    let mut machine = Machine::new();
    assert_eq!(machine.put_with(leased("a", 99)), Err(Refusal::LeaseNotFound));
    let request = PutRequest {
        ignore_value: true,
        value: bytes::Bytes::new(),
        ..leased("a", 99)
    };
    assert_eq!(machine.put_with(request), Err(Refusal::LeaseNotFound));
}

#[test]
fn revoking_deletes_the_keys_in_one_revision() {
    let mut machine = Machine::new();
    machine.grant(1, 60).unwrap();
    for key in ["c", "/a", "/b"] {
        machine.put_with(leased(key, 1)).unwrap();
    }
    assert_eq!(machine.revoke(1), Ok(5));
    assert_eq!(machine.revoke(1), Err(Refusal::LeaseNotFound));
    let changes = machine
        .store
        .view()
        .changes_since(crate::support::revision(5), 9)
        .unwrap();
    let keys: Vec<&[u8]> = changes[0].writes.iter().map(|write| write.key.as_ref()).collect();
    assert_eq!(keys, [b"/a".as_ref(), b"/b", b"c"]);
    assert_eq!(machine.store.usage().leases, 0);
}

#[test]
fn keeping_alive_gives_the_full_time_from_the_stamp() {
    let mut machine = Machine::new();
    machine.grant(1, 10).unwrap();
    let renewals = machine.at(8).keep_alive(&[1, 2]);
    assert_eq!(
        renewals,
        [LeaseRenewal { id: 1, ttl: 10 }, LeaseRenewal { id: 2, ttl: 0 }]
    );
    assert_eq!(
        machine.store.view().lease(1, false).unwrap().expires_at,
        seconds(18)
    );
}

#[test]
fn a_lease_never_ends_early() {
    let mut machine = Machine::new();
    machine.grant(1, 10).unwrap();
    machine.put_with(leased("a", 1)).unwrap();
    machine.now = seconds(9);
    assert!(machine.store.due(machine.now, 9).leases.is_empty());
    // A proposal that was made too early, by whatever clock, is passed over.
    let early = proto::log::Expire {
        nodes: Vec::new(),
        leases: vec![1],
    };
    assert!(machine.apply(store::Command::Expire(early)).changes.is_empty());
    assert_eq!(machine.at(10).expire().changes.len(), 1);
    assert_eq!(machine.range(range("a", "")).unwrap().count, 0);
    assert!(machine.store.view().lease(1, false).is_none());
}

#[test]
fn a_lease_without_keys_ends_without_a_revision() {
    let mut machine = Machine::new();
    machine.grant(1, 10).unwrap();
    assert!(machine.at(11).expire().changes.is_empty());
    assert_eq!((machine.revision(), machine.store.usage().leases), (1, 0));
}

#[test]
fn a_new_tenure_gives_each_lease_its_full_time_and_leaves_v2_ttls() {
    let mut machine = Machine::new();
    machine.grant(1, 10).unwrap();
    machine.grant(2, 1000).unwrap();
    machine
        .v2(proto::log::V2Command {
            ttl: Some(10),
            ..crate::support::set("/a", "1")
        })
        .unwrap();
    machine.at(9).start_tenure();
    let ends = |machine: &Machine, id| machine.store.view().lease(id, false).unwrap().expires_at;
    assert_eq!(
        (ends(&machine, 1), ends(&machine, 2)),
        (seconds(19), seconds(1009))
    );
    assert_eq!(machine.store.due(seconds(10), 9).nodes.len(), 1);
    machine.slice = 1;
    machine.at(2).start_tenure();
    assert_eq!(ends(&machine, 1), seconds(19), "never back");
}

#[test]
fn due_names_what_ended_earliest_first_and_no_more_than_asked() {
    let mut machine = Machine::new();
    for (id, ttl) in [(5, 9), (6, 3), (7, 3), (8, 50)] {
        machine.grant(id, ttl).unwrap();
    }
    assert_eq!(machine.store.due(seconds(20), 9).leases, [6, 7, 5]);
    assert_eq!(machine.store.due(seconds(20), 2).leases, [6, 7]);
    assert!(machine.store.due(seconds(2), 9).leases.is_empty());
}
