//! Work that is larger than a slice: nothing of it shows before it is complete, readers stay at their
//! revision, and collection waits for them.

use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use proto::log::V2Command;
use proto::log::v2_command::Operation;
use store::command::Position;
use store::v2::{Listing, NodeQuery};
use store::v3::{RangeScan, Refusal};
use store::{Command, Outcome, Progress};

use crate::dump::Dump;
use crate::random::Random;
use crate::support::{Machine, all, bytes, put, range, v2};

const KEYS: usize = 3000;

fn filled() -> Machine {
    let mut machine = Machine::new();
    machine.grant(1, 60).unwrap();
    for number in 0..KEYS {
        let key = format!("/t/{:02}/{number:04}", number % 40);
        machine
            .put_with(PutRequest {
                lease: 1,
                ..put(&key, "value")
            })
            .unwrap();
    }
    machine
}

/// Applies a command in slices of this many records; how many it took, the first one of a thousand apart.
fn slices(machine: &mut Machine, command: Command, records: usize) -> usize {
    let before = Dump::shallow(&machine.store, machine.now);
    let last = machine.store.position();
    let entry = machine.proposal(command);
    let position = Position {
        index: last.index.next(),
        term: last.term,
    };
    let mut progress = machine.store.apply(position, entry);
    let mut count = 0;
    while let Progress::More = progress {
        if count % 7 == 0 {
            assert_eq!(Dump::shallow(&machine.store, machine.now), before);
        }
        progress = machine.store.resume(records);
        count += 1;
    }
    count
}

#[test]
fn large_commands_run_in_slices_and_show_at_once() {
    let delete = DeleteRangeRequest {
        key: bytes("\0"),
        range_end: bytes("\0"),
        prev_kv: false,
    };
    let recursive = V2Command {
        recursive: true,
        ..v2(Operation::Delete, "/t")
    };
    let revoke = proto::etcdserverpb::LeaseRevokeRequest { id: 1 };
    for command in [
        Command::DeleteRange(delete),
        Command::V2(recursive),
        Command::LeaseRevoke(revoke),
    ] {
        let mut machine = filled();
        let count = slices(&mut machine, command.clone(), 100);
        assert!(
            (18..=25).contains(&count),
            "{command:?} took {count} slices for {} records",
            KEYS - 1000
        );
        assert_eq!(machine.range(all()).unwrap().count, 0);
        assert_eq!(machine.revision(), i64::try_from(KEYS).unwrap() + 2);
    }
}

#[test]
fn a_long_range_stays_at_its_revision_through_writes_and_compaction() {
    let mut machine = filled();
    let expected = machine.range(all()).unwrap();
    let mut scan = RangeScan::new(all()).unwrap();
    assert!(scan.step(&machine.store.view(), 10).unwrap().is_none());
    machine.delete_range("/t/00", "/t/30");
    machine.put("/t/39/new", "1");
    machine.compact(machine.revision()).unwrap();
    machine.collect();
    let refused = RangeRequest {
        revision: expected.header.unwrap().revision,
        ..all()
    };
    assert_eq!(
        machine.range(refused),
        Err(Refusal::Compacted),
        "new readers are refused"
    );
    let response = loop {
        if let Some(response) = scan.step(&machine.store.view(), 500).unwrap() {
            break response;
        }
        machine.collect();
    };
    assert_eq!(response, expected);
    drop(scan);
    let before = machine.store.usage().superseded_bytes;
    machine.collect();
    assert!(
        machine.store.usage().superseded_bytes < before / 2,
        "the pin held them"
    );
}

#[test]
fn a_long_listing_stays_at_its_revision_and_index() {
    let mut machine = filled();
    for recursive in [false, true] {
        let expected = machine.list("/t", recursive).unwrap();
        let query = NodeQuery {
            path: "/t".into(),
            recursive,
            now: machine.now,
        };
        let mut listing = Listing::new(query);
        assert!(listing.step(&machine.store.view(), 5).unwrap().is_none());
        machine.put("/t/00/zzz", "1");
        machine.put(if recursive { "/t/yyy" } else { "/t/xxx" }, "1");
        machine.compact(machine.revision()).unwrap();
        machine.collect();
        let event = loop {
            if let Some(event) = listing.step(&machine.store.view(), 50).unwrap() {
                break event;
            }
        };
        assert_eq!(event, expected);
    }
}

#[test]
fn a_scan_survives_the_replacement_of_its_store() {
    let mut machine = filled();
    let expected = machine.range(all()).unwrap();
    let mut scan = RangeScan::new(all()).unwrap();
    assert!(scan.step(&machine.store.view(), 10).unwrap().is_none());
    machine = machine.restored();
    machine.put("/t/00/zzz", "1");
    let mut refused = RangeScan::new(range("/", "0")).unwrap();
    assert!(refused.step(&machine.store.view(), 10).unwrap().is_none());
    let response = loop {
        if let Some(response) = scan.step(&machine.store.view(), 700).unwrap() {
            break response;
        }
    };
    assert_eq!(response, expected);
    machine.put("/x", "1");
    machine.compact(machine.revision()).unwrap();
    machine = machine.restored();
    assert_eq!(refused.step(&machine.store.view(), 10), Err(Refusal::Compacted));
}

#[test]
fn listing_one_level_does_not_pay_for_what_lies_deeper() {
    let machine = filled();
    let mut listing = Listing::new(NodeQuery {
        path: "/t".into(),
        recursive: false,
        now: machine.now,
    });
    let event = listing.step(&machine.store.view(), 300).unwrap();
    assert_eq!(
        event
            .expect("three steps for each of 40 children")
            .node
            .nodes
            .len(),
        40
    );
}

/// Two stores, the same log, other slices: nothing tells them apart.
#[test]
fn slices_never_change_what_is_decided() {
    for seed in 100..104 {
        let mut random = Random::new(seed);
        let (mut one, mut other) = (Machine::new(), Machine::new());
        for _ in 0..400 {
            let command = random.command(one.revision(), one.v2_index());
            let outcomes = [
                (&mut one, 1),
                (&mut other, 1 + usize::try_from(random.below(50)).unwrap()),
            ]
            .map(|(machine, slice)| apply_in(machine, command.clone(), slice));
            assert_eq!(outcomes[0], outcomes[1], "seed {seed}: {command:?}");
            if random.one_in(9) {
                one.store.collect(2);
            }
        }
        other.collect();
        let dumps = [&one, &other].map(|machine| Dump::deep(&machine.store, machine.now));
        assert_eq!(dumps[0], dumps[1], "seed {seed}");
    }
}

fn apply_in(machine: &mut Machine, command: Command, slice: usize) -> Outcome {
    let last = machine.store.position();
    let entry = machine.proposal(command);
    let position = Position {
        index: last.index.next(),
        term: last.term,
    };
    let mut progress = machine.store.apply_slice(position, entry, slice);
    loop {
        match progress {
            Progress::Done(applied) => return applied.outcome,
            Progress::More => progress = machine.store.resume(slice),
        }
    }
}
