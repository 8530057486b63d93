//! Checkpoints: what comes back is the same store, whatever happened while it was written.

use std::sync::Arc;

use proto::ids::NodeId;
use proto::log::member_change::Action;
use proto::log::v2_command::Operation;
use proto::log::{Alarm, MemberBoot, MemberChange, MemberUpdate, V2Command, alarm};
use store::checkpoint::{Checkpointer, RestoreError, Restorer};
use store::members::MemberRefusal;
use store::{Command, Entry, Outcome, Store};

use crate::dump::Dump;
use crate::random::Random;
use crate::support::{Machine, restore, revision, v2};

#[test]
fn a_restored_store_answers_as_the_first_one() {
    let mut machine = Machine::new();
    machine.slice = 1;
    assert_eq!(
        machine.set("/foo/bar", "x").index.get(),
        4,
        "the first user write is index 4"
    );
    machine.put("/foo/baz", "y");
    machine.put("plain", "z");
    machine
        .v2(V2Command {
            recursive: true,
            ..v2(Operation::Delete, "/foo")
        })
        .unwrap();
    machine.put("/later/on", "1");
    let restored = machine.restored();
    assert_eq!(
        Dump::deep(&restored.store, restored.now),
        Dump::deep(&machine.store, machine.now)
    );
}

/// The checkpoint belongs to the moment of its beginning, while both grammars write, compact and collect.
#[test]
fn a_checkpoint_written_while_applying_goes_on_is_of_its_beginning() {
    for seed in 200..206 {
        let mut random = Random::new(seed);
        let mut machine = Machine::new();
        for _ in 0..300 {
            machine.apply(random.command(machine.revision(), machine.v2_index()));
        }
        let expected = Dump::deep(&machine.store, machine.now);
        let mut checkpointer = Checkpointer::new(&machine.store);
        let mut blocks = Vec::new();
        let records = 1 + usize::try_from(random.below(4)).unwrap();
        while let Some(block) = checkpointer.next_block(&machine.store, records) {
            blocks.push(block);
            let command = random.command(machine.revision(), machine.v2_index());
            machine.apply(command);
            if random.one_in(3) {
                machine.collect();
            }
        }
        drop(checkpointer);
        assert!(blocks.len() > 20, "seed {seed}: {} blocks", blocks.len());
        let restored = restore(blocks);
        assert_eq!(Dump::deep(&restored, machine.now), expected, "seed {seed}");
        let mut again = Machine {
            store: restored,
            ..Machine::new()
        };
        again.now = machine.now;
        assert_eq!(
            Dump::deep(&again.restored().store, machine.now),
            expected,
            "seed {seed}, once more"
        );
    }
}

/// An entry under way is no part of a checkpoint.
#[test]
fn a_checkpoint_within_an_entry_is_of_the_one_before() {
    let mut machine = Machine::new();
    for number in 0..50 {
        machine.put(&format!("/d/{number}"), "1");
    }
    let expected = Dump::deep(&machine.store, machine.now);
    let entry = machine.proposal(Command::V2(V2Command {
        recursive: true,
        ..v2(Operation::Delete, "/d")
    }));
    let last = machine.store.position();
    let position = store::command::Position {
        index: last.index.next(),
        term: last.term,
    };
    let mut progress = machine.store.apply_slice(position, entry, 20);
    assert!(matches!(progress, store::Progress::More));
    let mut checkpointer = Checkpointer::new(&machine.store);
    let mut blocks = Vec::new();
    while let Some(block) = checkpointer.next_block(&machine.store, 7) {
        blocks.push(block);
        if matches!(progress, store::Progress::More) {
            progress = machine.store.resume(3);
        }
    }
    assert_eq!(Dump::deep(&restore(blocks), machine.now), expected);
}

#[test]
fn values_are_shared_again_after_restoring() {
    let mut machine = Machine::new();
    machine.put("/a", "first");
    machine.put("/a", "second");
    let restored = machine.restored();
    let changes = restored.store.view().changes_since(revision(2), 9).unwrap();
    let value = |node: &store::v2::Node| node.value.as_ref().unwrap().as_ptr();
    let event = &changes[1].events[0];
    let write = &changes[1].writes[0];
    assert_eq!(value(&event.node), write.record.as_ref().unwrap().value.as_ptr());
    assert_eq!(
        value(event.prev_node.as_ref().unwrap()),
        changes[0].writes[0].record.as_ref().unwrap().value.as_ptr()
    );
    let window = restored.store.view().events_since(event.index, 1).unwrap();
    assert!(Arc::ptr_eq(&window[0], event));
}

fn blocks_of(machine: &Machine) -> Vec<bytes::Bytes> {
    let mut checkpointer = Checkpointer::new(&machine.store);
    std::iter::from_fn(|| checkpointer.next_block(&machine.store, 3)).collect()
}

fn restored(blocks: &[bytes::Bytes]) -> Result<Store, RestoreError> {
    let mut restorer = Restorer::new();
    for block in blocks {
        restorer.push(block.clone())?;
    }
    restorer.finish()
}

#[test]
fn a_checkpoint_with_a_block_missing_doubled_or_cut_is_refused() {
    let mut machine = Machine::new();
    let mut random = Random::new(5);
    for _ in 0..60 {
        machine.apply(random.command(machine.revision(), machine.v2_index()));
    }
    let blocks = blocks_of(&machine);
    assert!(restored(&blocks).is_ok());
    for number in 0..blocks.len() {
        let mut missing = blocks.clone();
        missing.remove(number);
        assert!(restored(&missing).is_err(), "block {number} is missing");
        let mut doubled = blocks.clone();
        doubled.insert(number, blocks[number].clone());
        assert!(restored(&doubled).is_err(), "block {number} is there twice");
        if blocks[number].len() > 4 {
            let mut cut = blocks.clone();
            cut[number] = blocks[number].slice(..blocks[number].len() - 1);
            assert!(restored(&cut).is_err(), "block {number} is cut");
        }
    }
}

#[test]
fn a_checkpoint_of_a_newer_release_is_refused_by_its_version() {
    use prost::Message;
    use proto::snapshot::{Block, Head, block::Content};
    let head = Head {
        version: 2,
        revision: 1,
        ..Head::default()
    };
    let block = Block {
        content: Some(Content::Head(head)),
    }
    .encode_to_vec();
    let refused = Restorer::new().push(block.into()).unwrap_err();
    assert!(matches!(refused, RestoreError::NewerVersion(2)), "{refused}");
}

#[test]
fn members_and_alarms_follow_the_log_and_come_back() {
    let mut machine = Machine::new();
    let change = |action: Action, id: u64, url: &str| {
        Entry::Member(Box::new(MemberChange {
            version: 1,
            action: action.into(),
            id,
            peer_urls: vec![url.to_owned()],
            ..MemberChange::default()
        }))
    };
    let mut member = |action, id, url: &str| match machine.entry(change(action, id, url)).outcome {
        Outcome::Member(result) => result,
        other => panic!("{other:?}"),
    };
    assert!(member(Action::AddLearner, 2, "http://b:1").unwrap().is_learner);
    assert_eq!(
        member(Action::AddLearner, 2, "http://c:1"),
        Err(MemberRefusal::Exists(NodeId::new(2)))
    );
    let taken = MemberRefusal::UrlTaken {
        url: "http://b:1".into(),
        id: NodeId::new(2),
    };
    assert_eq!(member(Action::AddLearner, 3, "http://b:1"), Err(taken));
    assert!(!member(Action::Promote, 2, "").unwrap().is_learner);
    assert_eq!(
        member(Action::Promote, 9, ""),
        Err(MemberRefusal::Unknown(NodeId::new(9)))
    );
    member(Action::AddLearner, 4, "http://d:1").unwrap();
    let raised = |member: u64| Alarm {
        action: alarm::Action::Raise.into(),
        member,
        alarm: 1,
    };
    machine.apply(Command::Alarm(raised(4)));
    machine.apply(Command::Alarm(raised(2)));
    machine.entry(change(Action::Remove, 4, ""));
    let Outcome::Member(again) = machine.entry(change(Action::AddLearner, 4, "http://e:1")).outcome else {
        panic!()
    };
    assert_eq!(
        again,
        Err(MemberRefusal::Removed(NodeId::new(4))),
        "removed ids never come back"
    );
    assert_eq!(
        machine.store.view().alarms(),
        [(2, 1)],
        "nobody is left to clear a removed member's"
    );
    let boot = |incarnation: &'static [u8]| MemberBoot {
        id: 2,
        incarnation: incarnation.into(),
    };
    machine.apply(Command::MemberBoot(boot(b"first")));
    machine.apply(Command::MemberBoot(boot(b"second")));
    let client_urls = vec!["http://b:3".to_owned(), "http://b:2".to_owned()];
    let update = MemberUpdate {
        id: 2,
        name: "two".into(),
        client_urls,
        peer_urls: Vec::new(),
    };
    machine.apply(Command::MemberUpdate(update));
    let view = machine.store.view();
    let member = &view.members().present[&NodeId::new(2)];
    assert_eq!(member.incarnation, "first", "bound once");
    assert_eq!(
        (member.name.as_str(), member.client_urls.as_slice()),
        ("two", &["http://b:2".into(), "http://b:3".into()][..])
    );
    assert_eq!(
        (machine.revision(), machine.v2_index()),
        (1, 3),
        "membership takes neither counter"
    );
    let restored = machine.restored();
    assert_eq!(
        Dump::deep(&restored.store, machine.now),
        Dump::deep(&machine.store, machine.now)
    );
}
