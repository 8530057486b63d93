//! The rules of one keyspace, by section and sentence.

use bytes::Bytes;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use proto::ids::V2Index;
use proto::log::V2Command;
use proto::log::v2_command::Operation;
use store::Command;
use store::v2::{Action, ErrorCode};

use crate::support::{Machine, all, bytes, put, range, seconds, set, v2};

fn put_op(key: &str) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestPut(put(key, "v"))),
    }
}

fn dir(path: &str) -> V2Command {
    V2Command {
        dir: true,
        ..v2(Operation::Set, path)
    }
}

fn recursive_delete(path: &str) -> V2Command {
    V2Command {
        recursive: true,
        ..v2(Operation::Delete, path)
    }
}

fn with_ttl(command: V2Command, ttl: u64) -> V2Command {
    V2Command {
        ttl: Some(ttl),
        ..command
    }
}

// Section 1: two counters.

#[test]
fn s1_a_fresh_store_is_at_revision_1_and_its_first_write_is_index_4() {
    let mut machine = Machine::new();
    assert_eq!((machine.revision(), machine.v2_index()), (1, 3));
    assert_eq!(machine.set("/a", "1").index, V2Index::new(4));
    assert_eq!((machine.revision(), machine.v2_index()), (2, 4));
}

#[test]
fn s1_revision_rises_by_one_for_each_write_that_changed_something_refresh_included() {
    let mut machine = Machine::new();
    machine.put("/a", "1");
    machine.v2(dir("/d")).unwrap();
    machine
        .v2(V2Command {
            refresh: true,
            ..with_ttl(v2(Operation::Update, "/a"), 9)
        })
        .unwrap();
    machine.delete_range("/a", "");
    assert_eq!(machine.revision(), 5);
}

#[test]
fn s1_revision_stays_for_failed_conditions_leases_compaction_and_nothing_deleted() {
    let mut machine = Machine::new();
    machine.put("/a", "1");
    machine
        .v2(V2Command {
            prev_index: 99,
            ..v2(Operation::CompareAndSwap, "/a")
        })
        .unwrap_err();
    machine.v2(v2(Operation::Create, "/a")).unwrap_err();
    machine.grant(7, 10).unwrap();
    machine.keep_alive(&[7]);
    machine.revoke(7).unwrap();
    machine.compact(2).unwrap();
    machine.start_tenure();
    assert_eq!(machine.delete_range("/none", "").header.unwrap().revision, 2);
    assert_eq!((machine.revision(), machine.v2_index()), (2, 4));
}

#[test]
fn s1_a_txn_over_k_shown_keys_is_one_revision_and_k_consecutive_indexes() {
    let mut machine = Machine::new();
    let success = vec![put_op("/a"), put_op("unclean"), put_op("/b"), put_op("/c/d")];
    machine
        .txn(TxnRequest {
            success,
            ..TxnRequest::default()
        })
        .unwrap();
    assert_eq!(machine.revision(), 2);
    let expected = [
        ("set", "/a".to_owned(), 4),
        ("set", "/b".to_owned(), 5),
        ("set", "/c/d".to_owned(), 6),
    ];
    assert_eq!(machine.events(4), expected);
}

#[test]
fn s1_a_v2_recursive_delete_is_one_event_and_n_deletes_of_one_revision() {
    let mut machine = Machine::new();
    for path in ["/d/a", "/d/b", "/d/c/e"] {
        machine.set(path, "x");
    }
    let applied = machine.apply(Command::V2(recursive_delete("/d")));
    let [change] = applied.changes.as_slice() else {
        panic!("one revision")
    };
    assert_eq!((change.writes.len(), change.events.len()), (3, 1));
    assert!(
        change
            .writes
            .iter()
            .all(|write| write.record.is_none() && write.prev.is_some())
    );
    assert_eq!(change.removed_directories, ["/d", "/d/c"]);
    assert_eq!(machine.v2_index(), 7);
}

#[test]
fn s1_ranges_and_leases_tell_v2_in_key_order() {
    let mut machine = Machine::new();
    machine.grant(9, 60).unwrap();
    for key in ["/c", "/a", "/b"] {
        machine
            .put_with(PutRequest {
                lease: 9,
                ..put(key, "v")
            })
            .unwrap();
    }
    machine.revoke(9).unwrap();
    let expected = [
        ("delete", "/a".to_owned(), 7),
        ("delete", "/b".to_owned(), 8),
        ("delete", "/c".to_owned(), 9),
    ];
    assert_eq!(machine.events(7), expected);
    assert_eq!(machine.revision(), 5);
}

#[test]
fn s1_v2_set_resets_created_index_keeps_create_revision_and_raises_version() {
    let mut machine = Machine::new();
    machine.set("/a", "1");
    machine.set("/a", "2");
    let kv = machine.range(range("/a", "")).unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    let node = machine.get("/a").unwrap().node;
    assert_eq!((node.created_index.get(), node.modified_index.get()), (5, 5));
}

#[test]
fn s1_a_v3_put_is_a_set_and_a_lease_ends_by_expire_or_delete() {
    let mut machine = Machine::new();
    machine.put("/a", "1");
    machine.grant(1, 5).unwrap();
    machine.grant(2, 5).unwrap();
    machine
        .put_with(PutRequest {
            lease: 1,
            ..put("/a", "2")
        })
        .unwrap();
    machine
        .put_with(PutRequest {
            lease: 2,
            ..put("/b", "2")
        })
        .unwrap();
    machine.revoke(2).unwrap();
    machine.at(6).expire();
    let actions: Vec<&str> = machine.events(4).iter().map(|event| event.0).collect();
    assert_eq!(actions, ["set", "set", "set", "delete", "expire"]);
}

#[test]
fn s1_a_refresh_is_a_v3_put_of_the_same_value_and_takes_an_index_and_a_slot() {
    let mut machine = Machine::new();
    machine.set("/a", "same");
    let event = machine
        .v2(V2Command {
            refresh: true,
            ..with_ttl(v2(Operation::Update, "/a"), 9)
        })
        .unwrap();
    assert!(event.is_refresh);
    assert_eq!(
        (event.index.get(), event.node.value.as_deref()),
        (5, Some(&b"same"[..]))
    );
    let changes = machine
        .store
        .view()
        .changes_since(crate::support::revision(3), 9)
        .unwrap();
    assert_eq!(changes[0].writes[0].record.as_ref().unwrap().value, "same");
    assert_eq!(machine.events(5).len(), 1);
}

#[test]
fn s1_the_window_holds_1000_events_and_compaction_leaves_it() {
    let mut machine = Machine::new();
    for number in 0..1010 {
        machine.set("/a", &number.to_string());
    }
    machine.compact(machine.revision()).unwrap();
    machine.collect();
    let view = machine.store.view();
    let last = view.v2_index().get();
    let oldest = V2Index::new(last - 999);
    assert_eq!(view.events_since(oldest, 2000).unwrap().len(), 1000);
    let refused = view.events_since(V2Index::new(last - 1000), 1).unwrap_err();
    assert_eq!(refused.oldest, oldest, "the newest index less 999");
}

#[test]
fn s1_a_watch_from_index_1_of_a_young_cluster_is_not_outdated() {
    let mut machine = Machine::new();
    machine.set("/a", "1");
    assert_eq!(machine.events(1), [("set", "/a".to_owned(), 4)]);
    for _ in 5..=1003 {
        machine.set("/a", "1");
    }
    let view = machine.store.view();
    assert_eq!(
        view.events_since(V2Index::new(3), 1).unwrap_err().oldest,
        V2Index::new(4)
    );
}

// Section 2: directories.

#[test]
fn s2_keys_that_are_no_clean_paths_are_not_shown() {
    let mut machine = Machine::new();
    for key in ["a", "/a/", "/b//c", "/b/./c", "/b/../c", "//"] {
        machine.put(key, "1");
    }
    machine
        .put_with(PutRequest {
            key: Bytes::from_static(b"/\xff"),
            ..put("", "")
        })
        .unwrap();
    assert_eq!(machine.tree(), [""; 0]);
    assert_eq!((machine.v2_index(), machine.revision()), (3, 8));
}

#[test]
fn s2_no_v3_operation_meets_a_directory_record() {
    let mut machine = Machine::new();
    machine.v2(dir("/d")).unwrap();
    assert_eq!(machine.range(all()).unwrap().count, 0);
    let response = machine.put("/d", "key beside the directory");
    assert_eq!(response.header.unwrap().revision, 3);
    assert_eq!(machine.delete_range("/", "0").deleted, 1);
    assert_eq!(machine.tree(), ["/d/"]);
}

#[test]
fn s2_1_every_v2_write_gives_ancestors_a_record_of_its_index_and_they_stay() {
    let mut machine = Machine::new();
    machine.set("/x", "1");
    machine.set("/a/b/c", "1");
    for path in ["/a", "/a/b"] {
        let node = machine.get(path).unwrap().node;
        assert_eq!((node.created_index.get(), node.modified_index.get()), (5, 5));
    }
    assert_eq!(machine.events(5).len(), 1, "no event of their own");
    machine.v2(v2(Operation::Delete, "/a/b/c")).unwrap();
    assert_eq!(machine.tree(), ["/a/", "/a/b/", "/x"]);
}

#[test]
fn s2_1_a_v2_delete_of_a_v3_key_leaves_its_directories() {
    let mut machine = Machine::new();
    machine.put("/a/b/c", "1");
    machine.v2(v2(Operation::Delete, "/a/b/c")).unwrap();
    assert_eq!(machine.tree(), ["/a/", "/a/b/"]);
}

#[test]
fn s2_2_v3_writes_imply_directories_that_vanish_with_their_last_key() {
    let mut machine = Machine::new();
    machine.put("/x", "1");
    machine.put("/a/c", "1");
    machine.put("/a/b", "1");
    let node = machine.get("/a").unwrap().node;
    assert_eq!(
        node.modified_index.get(),
        6,
        "the indexes of the first shown key below, in byte order"
    );
    machine.delete_range("/a/b", "");
    assert_eq!(machine.get("/a").unwrap().node.modified_index.get(), 5);
    machine.delete_range("/a/c", "");
    assert_eq!(machine.tree(), ["/x"]);
    assert_eq!(machine.events(7).len(), 2, "the directory went without an event");
}

#[test]
fn s2_2_a_v2_update_gives_an_implied_directory_a_record_first() {
    let mut machine = Machine::new();
    machine.put("/a/b", "1");
    let event = machine.v2(with_ttl(v2(Operation::Update, "/a"), 50)).unwrap();
    assert_eq!(
        (event.node.modified_index.get(), event.node.created_index.get()),
        (5, 4)
    );
    assert_eq!(event.prev_node.as_ref().unwrap().modified_index.get(), 4);
    machine.delete_range("/a/b", "");
    let node = machine.get("/a").unwrap().node;
    assert_eq!((node.modified_index.get(), node.ttl), (4, Some(50)));
}

#[test]
fn s2_3_a_shadowed_key_is_not_shown_has_no_events_and_comes_back() {
    let mut machine = Machine::new();
    machine.set("/a", "file");
    machine.put("/a/b", "below");
    assert!(machine.get("/a").unwrap().node.dir);
    let index = machine.v2_index();
    machine.put("/a", "written in the shadow");
    assert_eq!(machine.v2_index(), index, "no v2 event");
    machine.delete_range("/a/b", "");
    let node = machine.get("/a").unwrap().node;
    assert_eq!(node.value.as_deref(), Some(&b"written in the shadow"[..]));
    assert!(node.modified_index.get() > 0);
}

#[test]
fn s2_3_a_recursive_delete_takes_the_shadowed_key_along() {
    let mut machine = Machine::new();
    machine.put("/a", "shadowed");
    machine.put("/a/b", "1");
    machine.v2(recursive_delete("/a")).unwrap();
    assert_eq!(machine.range(all()).unwrap().count, 0);
}

#[test]
fn s2_4_recursive_delete_and_expiry_spare_what_is_no_clean_path_and_what_only_looks_below() {
    let mut machine = Machine::new();
    for ending in ["deleted", "expired"] {
        machine.v2(with_ttl(dir("/d"), 5)).unwrap();
        for key in ["/d/k", "/d/", "/d//x", "/d/k/", "/d-x", "/d0", "/dd"] {
            machine.put(key, "1");
        }
        if ending == "deleted" {
            machine.v2(recursive_delete("/d")).unwrap();
        } else {
            machine.at(10).expire();
        }
        let kvs = machine.range(all()).unwrap().kvs;
        let left: Vec<&[u8]> = kvs.iter().map(|kv| kv.key.as_ref()).collect();
        let expected: [&[u8]; 6] = [b"/d-x", b"/d/", b"/d//x", b"/d/k/", b"/d0", b"/dd"];
        assert_eq!(left, expected, "{ending}");
        assert!(machine.get("/d").is_err(), "{ending}");
    }
}

#[test]
fn s2_5_a_v3_delete_range_leaves_records_as_empty_directories() {
    let mut machine = Machine::new();
    machine.set("/a/b/c", "1");
    machine.delete_range("/", "0");
    assert_eq!(machine.tree(), ["/a/", "/a/b/"]);
}

#[test]
fn s2_6_dir_over_a_file_is_one_revision_that_deletes_the_key_and_writes_the_record() {
    let mut machine = Machine::new();
    machine.set("/a", "file");
    let applied = machine.apply(Command::V2(dir("/a")));
    let [change] = applied.changes.as_slice() else {
        panic!("one revision")
    };
    assert!(change.writes.len() == 1 && change.writes[0].record.is_none());
    let event = &change.events[0];
    assert!(event.node.dir && event.action == Action::Set);
    assert_eq!(
        event.prev_node.as_ref().unwrap().value.as_deref(),
        Some(&b"file"[..])
    );
    assert_eq!((machine.revision(), machine.range(all()).unwrap().count), (3, 0));
}

// Section 3: time. Leases stand in lease_rules.rs.

#[test]
fn s3_a_v2_ttl_is_no_lease_and_any_plain_write_clears_it() {
    for clears in ["v2", "v3"] {
        let mut machine = Machine::new();
        machine.v2(with_ttl(set("/a", "1"), 9)).unwrap();
        assert_eq!(machine.get("/a").unwrap().node.ttl, Some(9));
        assert_eq!(machine.range(range("/a", "")).unwrap().kvs[0].lease, 0);
        assert!(machine.store.view().lease_ids().is_empty());
        if clears == "v2" {
            machine.set("/a", "2");
        } else {
            machine.put("/a", "2");
        }
        assert_eq!(machine.get("/a").unwrap().node.expires_at, None, "{clears}");
        machine.at(99).expire();
        assert!(machine.get("/a").is_ok(), "{clears}");
    }
}

#[test]
fn s3_v2_shows_a_lease_as_ttl_and_its_own_ttl_detaches_the_key() {
    let mut machine = Machine::new();
    machine.grant(5, 60).unwrap();
    machine
        .put_with(PutRequest {
            lease: 5,
            ..put("/a", "1")
        })
        .unwrap();
    let node = machine.at(10).get("/a").unwrap().node;
    assert_eq!((node.ttl, node.expires_at), (Some(50), Some(seconds(60))));
    machine.v2(with_ttl(set("/a", "1"), 7)).unwrap();
    assert_eq!(machine.range(range("/a", "")).unwrap().kvs[0].lease, 0);
    assert!(machine.store.view().lease(5, true).unwrap().keys.is_empty());
    machine.revoke(5).unwrap();
    assert_eq!(machine.get("/a").unwrap().node.ttl, Some(7));
}

#[test]
fn s3_each_expired_node_is_one_revision_in_the_order_of_time_and_path() {
    let mut machine = Machine::new();
    machine.v2(with_ttl(set("/b", "1"), 2)).unwrap();
    machine.v2(with_ttl(set("/a", "1"), 2)).unwrap();
    machine.v2(with_ttl(set("/c", "1"), 1)).unwrap();
    machine.grant(4, 2).unwrap();
    machine
        .put_with(PutRequest {
            lease: 4,
            ..put("/leased", "1")
        })
        .unwrap();
    let before = machine.revision();
    let applied = machine.at(3).expire();
    assert_eq!(applied.changes.len(), 4);
    let order: Vec<String> = machine.events(8).into_iter().map(|event| event.1).collect();
    assert_eq!(order, ["/c", "/a", "/b", "/leased"]);
    assert_eq!(machine.revision(), before + 4);
}

#[test]
fn s3_what_was_renewed_or_rewritten_is_no_longer_due() {
    let mut machine = Machine::new();
    machine.v2(with_ttl(set("/a", "1"), 2)).unwrap();
    machine.v2(with_ttl(dir("/d"), 2)).unwrap();
    machine.grant(4, 2).unwrap();
    machine
        .put_with(PutRequest {
            lease: 4,
            ..put("/leased", "1")
        })
        .unwrap();
    machine.now = seconds(5);
    let due = machine.store.due(machine.now, 10);
    assert_eq!((due.nodes.len(), due.leases.len()), (2, 1));
    // Between the proposal and its turn in the log:
    machine.v2(with_ttl(set("/a", "1"), 20)).unwrap();
    machine.v2(with_ttl(v2(Operation::Update, "/d"), 20)).unwrap();
    machine.keep_alive(&[4]);
    let node = |(at, path): (proto::time::Timestamp, String)| proto::log::expire::Node {
        path,
        expires_at: at.as_nanos(),
    };
    let expire = proto::log::Expire {
        nodes: due.nodes.into_iter().map(node).collect(),
        leases: due.leases,
    };
    let applied = machine.apply(Command::Expire(expire));
    assert!(applied.changes.is_empty());
    assert_eq!(machine.tree(), ["/a", "/d/", "/leased"]);
}

#[test]
fn s3_a_stamp_that_went_back_counts_as_the_newest() {
    let mut machine = Machine::new();
    machine.at(100).set("/x", "1");
    let event = machine.at(50).v2(with_ttl(set("/a", "1"), 10)).unwrap();
    assert_eq!(event.node.expires_at, Some(seconds(110)));
    assert_eq!(machine.store.view().stamp(), seconds(100));
}

#[test]
fn s3_a_ttl_beyond_nanoseconds_is_permanent() {
    let mut machine = Machine::new();
    for (ttl, ends) in [(9_223_372_036, true), (9_223_372_037, false), (u64::MAX, false)] {
        let event = machine.v2(with_ttl(set("/a", "1"), ttl)).unwrap();
        assert_eq!(event.node.expires_at.is_some(), ends, "{ttl}");
    }
}

// Section 5: sizes.

#[test]
fn s5_small_values_and_keys_are_copied_and_large_ones_are_shared() {
    let mut machine = Machine::new();
    let message = Bytes::from(vec![b'x'; 1 << 20]);
    let shares = |machine: &mut Machine, length: usize| {
        let request = PutRequest {
            key: bytes("/k"),
            value: message.slice(0..length),
            ..PutRequest::default()
        };
        machine.put_with(request).unwrap();
        machine.range(range("/k", "")).unwrap().kvs[0].value.as_ptr() == message.as_ptr()
    };
    assert!(!shares(&mut machine, 16 * 1024 - 1));
    assert!(shares(&mut machine, 16 * 1024));
}

#[test]
fn s5_paths_beyond_the_limits_are_keys_that_v2_does_not_show() {
    let mut machine = Machine::new();
    let deep = "/x".repeat(129);
    machine.put(&deep, "1");
    assert_eq!(machine.v2_index(), 3);
    assert_eq!(
        machine.v2(set(&deep, "1")).unwrap_err().code,
        ErrorCode::KeyNotFound
    );
    assert_eq!(machine.tree(), [""; 0]);
}

#[test]
fn s5_what_compaction_and_collection_free_is_counted_to_the_byte() {
    let mut machine = Machine::new();
    machine.set("/keep/me", "1");
    machine.compact(machine.revision()).unwrap();
    machine.collect();
    let before = machine.store.usage();
    for number in 0..50 {
        machine.put("/t/a", &number.to_string());
        machine.v2(with_ttl(dir(&format!("/t/d{number}")), 5)).unwrap();
    }
    assert!(machine.store.usage().superseded_bytes > before.superseded_bytes);
    machine.v2(recursive_delete("/t")).unwrap();
    // One more write of the same shape as the first, so that the change that stays weighs the same.
    machine.set("/keep/me", "1");
    machine.compact(machine.revision()).unwrap();
    machine.collect();
    assert_eq!(machine.store.usage(), before);
}

// Section 9: integrity.

#[test]
fn s9_the_hash_follows_from_the_log_alone() {
    let run = |value: &str, slice: usize| {
        let mut machine = Machine::new();
        machine.slice = slice;
        machine.set("/a/b", value);
        machine.put("/c", "2");
        let delete = DeleteRangeRequest {
            key: bytes("/"),
            range_end: bytes("0"),
            prev_kv: false,
        };
        machine.apply(Command::DeleteRange(delete));
        machine.store.view().hash()
    };
    assert_eq!(run("1", 1), run("1", 100));
    assert_ne!(run("1", 1), run("2", 1));
}
