//! The v2 conformance checklist, as far as the store decides it; numbers are the checklist's. What the
//! recorded conversation in `golden/v2.txt` covers stands there and not here.

use proto::log::V2Command;
use proto::log::v2_command::Operation;
use store::v2::{Action, ErrorCode};

use crate::support::{Machine, bytes, seconds, set, v2};

fn code_and_cause(machine: &mut Machine, command: V2Command) -> (u16, String) {
    let before = (machine.revision(), machine.v2_index());
    let error = machine.v2(command).unwrap_err();
    assert_eq!(
        error.index.get(),
        before.1,
        "185: an error names the newest index"
    );
    assert_eq!(
        (machine.revision(), machine.v2_index()),
        before,
        "77, 189: a failed write changes nothing"
    );
    (error.code.number(), error.cause)
}

fn with_ttl(command: V2Command, ttl: u64) -> V2Command {
    V2Command {
        ttl: Some(ttl),
        ..command
    }
}

#[test]
fn c015_to_c018_parents_come_with_the_write_and_a_file_in_the_way_is_named() {
    let mut machine = Machine::new();
    machine.set("/f", "1");
    assert_eq!(code_and_cause(&mut machine, set("/f/x", "1")), (104, "/f".into()));
    assert_eq!(
        code_and_cause(&mut machine, set("/f/x/y", "1")),
        (104, "/f".into())
    );
    assert_eq!(machine.tree(), ["/f"], "a failing write leaves no directories");
}

#[test]
fn c042_c125_c149_the_first_missing_component_is_named() {
    let mut machine = Machine::new();
    machine.set("/a/f", "1");
    assert_eq!(
        code_and_cause(&mut machine, v2(Operation::Update, "/x/y")),
        (100, "/x".into())
    );
    assert_eq!(
        code_and_cause(&mut machine, v2(Operation::Delete, "/a/b/c")),
        (100, "/a/b".into())
    );
    assert_eq!(machine.get("/a/b/c").unwrap_err().cause, "/a/b");
    let error = machine.get("/a/f/x").unwrap_err();
    assert_eq!(
        (error.code, error.cause.as_str()),
        (ErrorCode::NotADirectory, "/a/f")
    );
}

#[test]
fn c024_c051_c052_c076_c132_c142_the_root_is_read_only() {
    let mut machine = Machine::new();
    for operation in [
        Operation::Set,
        Operation::Update,
        Operation::Create,
        Operation::CompareAndSwap,
        Operation::Delete,
    ] {
        let command = V2Command {
            recursive: true,
            dir: true,
            ..v2(operation, "/")
        };
        assert_eq!(
            code_and_cause(&mut machine, command),
            (107, "/".into()),
            "{operation:?}"
        );
    }
    assert_eq!(
        code_and_cause(&mut machine, v2(Operation::CompareAndDelete, "/")),
        (102, String::new())
    );
    assert_eq!(
        machine.v2(v2(Operation::CreateInOrder, "/")).unwrap().node.key,
        "/00000000000000000004"
    );
}

#[test]
fn c044_c045_an_update_without_a_value_empties_the_file() {
    let mut machine = Machine::new();
    machine.set("/a", "1");
    let event = machine.v2(with_ttl(v2(Operation::Update, "/a"), 5)).unwrap();
    assert_eq!(
        (event.node.value.as_deref(), event.node.ttl),
        (Some(&b""[..]), Some(5))
    );
}

#[test]
fn c057_to_c063_comparisons_name_what_differs() {
    let mut machine = Machine::new();
    machine.set("/a", "real");
    let compare = |value: Option<&str>, index: u64| V2Command {
        prev_value: value.map(bytes),
        prev_index: index,
        ..v2(Operation::CompareAndSwap, "/a")
    };
    for (value, index, cause) in [
        (Some("bad"), 0, "[bad != real]"),
        (None, 10, "[10 != 4]"),
        (Some("bad"), 100, "[bad != real] [100 != 4]"),
        (Some("real"), 100, "[100 != 4]"),
        (Some("bad"), 4, "[bad != real]"),
    ] {
        assert_eq!(
            code_and_cause(&mut machine, compare(value, index)),
            (101, cause.into())
        );
    }
    let event = machine.v2(compare(Some("real"), 4)).unwrap();
    assert_eq!(
        (event.action, event.node.created_index.get()),
        (Action::CompareAndSwap, 4)
    );
}

#[test]
fn c080_to_c081_ttl_counts_down_rounded_up_and_may_be_zero_or_overdue() {
    let mut machine = Machine::new();
    machine.v2(with_ttl(set("/a", "1"), 5)).unwrap();
    machine.now = proto::time::Timestamp::from_nanos(seconds(1).as_nanos() + 500_000_000);
    assert_eq!(machine.get("/a").unwrap().node.ttl, Some(4));
    machine.now = proto::time::Timestamp::from_nanos(seconds(6).as_nanos() + 500_000_000);
    assert_eq!(machine.get("/a").unwrap().node.ttl, Some(-1), "towards zero");
    let event = machine.v2(with_ttl(set("/zero", "1"), 0)).unwrap();
    assert_eq!(
        (event.node.ttl, event.node.expires_at),
        (Some(0), Some(machine.now))
    );
    machine.expire();
    assert_eq!(machine.tree(), [""; 0]);
}

#[test]
fn c088_to_c092_an_expiring_directory_is_one_event_that_names_it() {
    let mut machine = Machine::new();
    machine
        .v2(V2Command {
            dir: true,
            ..with_ttl(v2(Operation::Set, "/d"), 2)
        })
        .unwrap();
    machine.v2(with_ttl(set("/d/k", "1"), 2)).unwrap();
    machine.set("/d/sub/k", "1");
    let applied = machine.at(3).expire();
    let [change] = applied.changes.as_slice() else {
        panic!("{:?}", applied.changes)
    };
    let [event] = change.events.as_slice() else {
        panic!("one event")
    };
    assert_eq!(
        (event.action, event.node.key.as_str(), event.node.dir),
        (Action::Expire, "/d", true)
    );
    let prev = event.prev_node.as_ref().unwrap();
    assert!(prev.dir && prev.nodes.is_empty() && prev.expires_at == Some(seconds(2)));
    assert_eq!(change.removed_directories, ["/d", "/d/sub"]);
    assert_eq!(machine.tree(), [""; 0]);
}

#[test]
fn c093_to_c104_a_refresh_keeps_the_value_and_needs_a_file() {
    let mut machine = Machine::new();
    let refresh = |operation, path| V2Command {
        refresh: true,
        ..with_ttl(v2(operation, path), 5)
    };
    assert_eq!(
        code_and_cause(&mut machine, refresh(Operation::Set, "/a")),
        (100, "/a".into())
    );
    assert_eq!(
        code_and_cause(&mut machine, refresh(Operation::Update, "/a")),
        (100, "/a".into())
    );
    machine.set("/a", "1");
    let event = machine.v2(refresh(Operation::Set, "/a")).unwrap();
    assert_eq!(
        (event.node.value.as_deref(), event.node.created_index.get()),
        (Some(&b"1"[..]), 5)
    );
    let by_index = V2Command {
        prev_index: 5,
        ..refresh(Operation::CompareAndSwap, "/a")
    };
    let event = machine.v2(by_index).unwrap();
    assert_eq!(
        (event.action, event.node.value.as_deref()),
        (Action::CompareAndSwap, Some(&b"1"[..]))
    );
    machine
        .v2(V2Command {
            dir: true,
            ..v2(Operation::Set, "/d")
        })
        .unwrap();
    assert_eq!(
        code_and_cause(&mut machine, refresh(Operation::Set, "/d")),
        (102, "/d".into())
    );
    assert_eq!(
        machine.v2(refresh(Operation::Update, "/d")).unwrap().node.ttl,
        Some(5)
    );
}

#[test]
fn c107_a_longer_ttl_prevents_the_old_expiry() {
    let mut machine = Machine::new();
    machine.v2(with_ttl(set("/a", "1"), 2)).unwrap();
    machine.v2(with_ttl(v2(Operation::Update, "/a"), 20)).unwrap();
    machine.at(3).expire();
    assert!(machine.get("/a").is_ok());
}

#[test]
fn c113_to_c121_names_made_in_order_sort_in_order() {
    let mut machine = Machine::new();
    for value in ["1", "2", "3"] {
        machine
            .v2(V2Command {
                value: bytes(value),
                ..v2(Operation::CreateInOrder, "/q")
            })
            .unwrap();
    }
    let values: Vec<_> = machine
        .get("/q")
        .unwrap()
        .node
        .nodes
        .into_iter()
        .map(|node| node.value.unwrap())
        .collect();
    assert_eq!(values, ["1", "2", "3"]);
}

#[test]
fn c126_to_c133_deleting_a_directory_needs_the_flag_and_emptiness_or_recursion() {
    let mut machine = Machine::new();
    machine.set("/d/_hidden", "1");
    let delete = |dir, recursive| V2Command {
        dir,
        recursive,
        ..v2(Operation::Delete, "/d")
    };
    assert_eq!(
        code_and_cause(&mut machine, delete(false, false)),
        (102, "/d".into())
    );
    assert_eq!(
        code_and_cause(&mut machine, delete(true, false)),
        (108, "/d".into())
    );
    let event = machine.v2(delete(false, true)).unwrap();
    assert!(event.node.dir && event.prev_node.as_ref().unwrap().nodes.is_empty());
    machine
        .v2(V2Command {
            dir: true,
            ..v2(Operation::Set, "/d")
        })
        .unwrap();
    let applied = machine.apply(store::Command::V2(delete(true, false)));
    assert_eq!(applied.changes[0].removed_directories, ["/d"]);
}

#[test]
fn c128_a_shadowed_key_does_not_fill_the_directory_and_comes_back_when_it_goes() {
    let mut machine = Machine::new();
    machine
        .v2(V2Command {
            dir: true,
            ..v2(Operation::Set, "/d")
        })
        .unwrap();
    machine.put("/d", "shadowed");
    machine
        .v2(V2Command {
            dir: true,
            ..v2(Operation::Delete, "/d")
        })
        .unwrap();
    assert_eq!(
        machine.get("/d").unwrap().node.value.as_deref(),
        Some(&b"shadowed"[..])
    );
}

#[test]
fn c141_c143_comparing_deletes_know_files_only() {
    let mut machine = Machine::new();
    machine
        .v2(V2Command {
            dir: true,
            ..v2(Operation::Set, "/d")
        })
        .unwrap();
    let delete = |path| V2Command {
        prev_index: 1,
        recursive: true,
        ..v2(Operation::CompareAndDelete, path)
    };
    assert_eq!(code_and_cause(&mut machine, delete("/d")), (102, "/d".into()));
    assert_eq!(
        code_and_cause(&mut machine, delete("/none")),
        (100, "/none".into())
    );
}

#[test]
fn c151_to_c161_listings_go_one_level_or_all_sorted_and_without_hidden_nodes() {
    let mut machine = Machine::new();
    for path in ["/d/b", "/d/a/x", "/d/a-b", "/d/_h", "/d/_i/y", "/d/e/_j", "/a"] {
        machine.set(path, "1");
    }
    let names = |nodes: Vec<store::v2::Node>| nodes.into_iter().map(|node| node.key).collect::<Vec<_>>();
    let node = machine.get("/d").unwrap().node;
    assert!(
        node.nodes.iter().all(|child| child.nodes.is_empty()),
        "151: one level"
    );
    assert_eq!(names(node.nodes), ["/d/a", "/d/a-b", "/d/b", "/d/e"]);
    assert_eq!(
        machine.tree(),
        ["/a", "/d/", "/d/a/", "/d/a/x", "/d/a-b", "/d/b", "/d/e/"]
    );
    assert_eq!(names(machine.get("/d/_i").unwrap().node.nodes), ["/d/_i/y"]);
    assert!(machine.get("/d/_h").is_ok());
    let root = machine.get("/").unwrap().node;
    assert!(root.dir && root.modified_index.get() == 0 && root.key == "/");
}
