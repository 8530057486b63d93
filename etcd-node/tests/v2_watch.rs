//! Watches of the v2 API over a real node: the rules where this node differs from etcd 2 on purpose, and what
//! a recorded conversation cannot show. Numbers are the checks of the v2 facts.
#![expect(clippy::unwrap_used, reason = "a test may end so")]

mod support;

use std::net::SocketAddr;

use bytes::Bytes;
use proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op};
use serde_json::Value;
use store::{Command, Outcome};
use support::http::{Connection, call, watch};
use support::{Node, PATIENCE};

async fn done(node: &Node, method: &str, key: &str, form: Option<&str>) -> Value {
    let answer = call(node.address, method, &format!("/v2/keys{key}"), form).await;
    assert!(answer.head.status < 300, "{method} {key}: {}", answer.text());
    serde_json::from_str(&answer.text()).unwrap()
}

async fn set(node: &Node, key: &str, value: &str) -> u64 {
    let event = done(node, "PUT", key, Some(&format!("value={value}"))).await;
    event["node"]["modifiedIndex"].as_u64().unwrap()
}

async fn open(node: &Node, key_and_query: &str) -> Connection {
    let (connection, head) = watch(node.address, &format!("/v2/keys{key_and_query}")).await;
    assert_eq!(head.status, 200, "{key_and_query}");
    connection
}

/// Action and key of the next event.
async fn next(connection: &mut Connection) -> (String, String) {
    let event: Value = serde_json::from_str(&connection.event().await).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&event["action"]), text(&event["node"]["key"]))
}

fn event(action: &str, key: &str) -> (String, String) {
    (action.to_owned(), key.to_owned())
}

async fn watchers(address: SocketAddr) -> u64 {
    let stats = call(address, "GET", "/v2/stats/store", None).await;
    serde_json::from_str::<Value>(&stats.text()).unwrap()["watchers"]
        .as_u64()
        .unwrap()
}

async fn until_watchers_are(address: SocketAddr, count: u64) {
    let reached = async {
        while watchers(address).await != count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("the number of watchers is not reached");
}

/// Checks 199, 205 and 223.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_sends_its_head_at_once_and_leaves_the_connection_usable() {
    let node = Node::start().await;
    set(&node, "/a", "1").await;
    let mut connection = Connection::open(node.address).await;
    connection.request("GET", "/v2/keys/a?wait=true", None).await;
    let head = connection.head().await;
    assert_eq!((head.status, head.header("X-Etcd-Index")), (200, Some("4")));
    set(&node, "/a", "2").await;
    let body = connection.body(&head, "GET").await;
    assert!(body.ends_with(b"}\n"));
    let again = connection.call("GET", "/v2/keys/a", None).await;
    assert_eq!(again.head.header("X-Etcd-Index"), Some("5"));
    node.stop().await;
}

/// Check 222: etcd 2 delivers the first and then falls silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_replays_the_past_and_goes_on_without_gap_or_repeat() {
    let node = Node::start().await;
    let first = set(&node, "/d/1", "x").await;
    set(&node, "/other", "x").await;
    set(&node, "/d/2", "x").await;
    let mut stream = open(
        &node,
        &format!("/d?wait=true&recursive=true&stream=true&waitIndex={first}"),
    )
    .await;
    set(&node, "/d/3", "x").await;
    set(&node, "/d/4", "x").await;
    for key in ["/d/1", "/d/2", "/d/3", "/d/4"] {
        assert_eq!(next(&mut stream).await, event("set", key));
    }
    assert!(stream.is_silent().await);
    drop(stream);
    node.stop().await;
}

/// Check 217: etcd 2 sends the deletion twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_the_deleted_node_hears_of_it_once() {
    let node = Node::start().await;
    set(&node, "/d/k", "x").await;
    let mut file = open(&node, "/d/k?wait=true&stream=true").await;
    let mut directory = open(&node, "/d?wait=true&recursive=true&stream=true").await;
    done(&node, "DELETE", "/d/k", None).await;
    done(&node, "DELETE", "/d?recursive=true", None).await;
    set(&node, "/d/k", "again").await;
    for expected in [event("delete", "/d/k"), event("set", "/d/k")] {
        assert_eq!(
            next(&mut file).await,
            expected,
            "the file was gone before its directory"
        );
    }
    for expected in [
        event("delete", "/d/k"),
        event("delete", "/d"),
        event("set", "/d/k"),
    ] {
        assert_eq!(next(&mut directory).await, expected);
    }
    node.stop().await;
}

/// Checks 91, 213 to 216: the one event of a directory's removal.
#[tokio::test(flavor = "multi_thread")]
async fn removing_a_directory_wakes_exact_watches_inside_and_nobody_beside() {
    let node = Node::start().await;
    set(&node, "/d/sub/k", "x").await;
    set(&node, "/d/_h", "x").await;
    set(&node, "/dd", "x").await;
    let mut inside = Vec::new();
    for key in ["/d/sub/k", "/d/sub", "/d/_h"] {
        inside.push(open(&node, &format!("{key}?wait=true")).await);
    }
    let mut beside = open(&node, "/dd?wait=true").await;
    let mut never_there = open(&node, "/d/nothing?wait=true").await;
    let removal = done(&node, "DELETE", "/d?recursive=true", None).await;
    for watch in &mut inside {
        assert_eq!(next(watch).await, event("delete", "/d"));
    }
    assert!(beside.is_silent().await);
    assert!(never_there.is_silent().await);

    let index = removal["node"]["modifiedIndex"].as_u64().unwrap();
    let mut past = open(&node, &format!("/d/sub/k?wait=true&waitIndex={index}")).await;
    assert_eq!(next(&mut past).await, event("delete", "/d"));
    let mut past_beside = open(&node, &format!("/dd?wait=true&waitIndex={index}")).await;
    assert!(past_beside.is_silent().await);

    done(&node, "PUT", "/t", Some("dir=true&ttl=1")).await;
    set(&node, "/t/k", "x").await;
    let mut expiring = open(&node, "/t/k?wait=true").await;
    assert_eq!(next(&mut expiring).await, event("expire", "/t"));
    node.stop().await;
}

/// Checks 209 to 212: hidden nodes, live and in the past.
#[tokio::test(flavor = "multi_thread")]
async fn hidden_nodes_are_seen_only_by_who_looks_straight_at_them() {
    let node = Node::start().await;
    let from = set(&node, "/d/_h/x", "1").await;
    set(&node, "/d/plain", "1").await;
    let mut past = open(&node, &format!("/d?wait=true&recursive=true&waitIndex={from}")).await;
    assert_eq!(next(&mut past).await, event("set", "/d/plain"));

    let mut above = open(&node, "/d?wait=true&recursive=true&stream=true").await;
    let mut exact = open(&node, "/d/_h/x?wait=true").await;
    let mut below = open(&node, "/d/_h?wait=true&recursive=true").await;
    set(&node, "/d/_h/x", "2").await;
    set(&node, "/d/plain", "2").await;
    assert_eq!(next(&mut exact).await, event("set", "/d/_h/x"));
    assert_eq!(next(&mut below).await, event("set", "/d/_h/x"));
    assert_eq!(next(&mut above).await, event("set", "/d/plain"));
    node.stop().await;
}

/// Checks 101, 102 and 204.
#[tokio::test(flavor = "multi_thread")]
async fn refreshes_and_events_before_the_asked_index_wake_nobody() {
    let node = Node::start().await;
    set(&node, "/a", "1").await;
    let mut live = open(&node, "/a?wait=true").await;
    let mut later = open(&node, "/a?wait=true&waitIndex=7").await;
    let refresh = done(&node, "PUT", "/a", Some("refresh=true&ttl=100&prevExist=true")).await;
    let index = refresh["node"]["modifiedIndex"].as_u64().unwrap();
    assert_eq!(index, 5);
    let mut past = open(&node, &format!("/a?wait=true&waitIndex={index}")).await;
    set(&node, "/a", "2").await;
    let woken: Value = serde_json::from_str(&live.event().await).unwrap();
    assert_eq!(woken["node"]["modifiedIndex"], 6);
    let woken: Value = serde_json::from_str(&past.event().await).unwrap();
    assert_eq!(woken["node"]["modifiedIndex"], 6);
    set(&node, "/a", "3").await;
    let woken: Value = serde_json::from_str(&later.event().await).unwrap();
    assert_eq!(woken["node"]["modifiedIndex"], 7);
    node.stop().await;
}

/// Checks 225 to 228.
#[tokio::test(flavor = "multi_thread")]
async fn the_window_holds_a_thousand_events_and_says_when_it_does_not() {
    let node = Node::start().await;
    let mut connection = Connection::open(node.address).await;
    let mut last = 0;
    for _ in 0..1005 {
        let answer = connection.call("PUT", "/v2/keys/a", Some("value=x")).await;
        last = answer.head.header("X-Etcd-Index").unwrap().parse().unwrap();
    }
    let oldest = last - 999;
    let mut within = open(&node, &format!("/a?wait=true&waitIndex={oldest}")).await;
    let woken: Value = serde_json::from_str(&within.event().await).unwrap();
    assert_eq!(woken["node"]["modifiedIndex"], oldest);
    let before = oldest - 1;
    let refused = call(
        node.address,
        "GET",
        &format!("/v2/keys/a?wait=true&waitIndex={before}"),
        None,
    )
    .await;
    assert_eq!(refused.head.status, 400);
    assert_eq!(
        refused.head.header("X-Etcd-Index"),
        Some(last.to_string().as_str())
    );
    let expected = format!(
        "{{\"errorCode\":401,\"message\":\"The event in requested index is outdated and cleared\",\
         \"cause\":\"the requested history has been cleared [{oldest}/{before}]\",\"index\":{last}}}\n"
    );
    assert_eq!(refused.text(), expected);
    node.stop().await;
}

/// Check 224.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_watch() {
    let node = Node::start().await;
    let poll = open(&node, "/a?wait=true").await;
    let stream = open(&node, "/?wait=true&recursive=true&stream=true").await;
    assert_eq!(watchers(node.address).await, 2);
    drop(poll);
    until_watchers_are(node.address, 1).await;
    drop(stream);
    until_watchers_are(node.address, 0).await;
    assert_eq!(node.handle.hub().subscribers(), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_polls_end_when_the_node_stops() {
    let node = Node::start().await;
    let mut poll = open(&node, "/a?wait=true").await;
    let mut stream = open(&node, "/?wait=true&recursive=true&stream=true").await;
    set(&node, "/x", "1").await;
    assert_eq!(next(&mut stream).await, event("set", "/x"));
    node.begin_to_stop();
    assert_eq!(stream.chunk().await, None, "a clean end, nothing cut");
    assert_eq!(poll.chunk().await, None);
    node.stop().await;
}

/// Writes of 64 KiB that nobody reads.
const BIG_WRITES: u64 = 400;

/// Section 2.6: closed after what was buffered; never a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_stream_is_closed_after_what_was_buffered() {
    let node = Node::start().await;
    let mut slow = open(&node, "/?wait=true&recursive=true&stream=true").await;
    let big = "x".repeat(64 << 10);
    let mut writer = Connection::open(node.address).await;
    // More than the sockets (about 10 MiB) and the subscription (128 changes) hold.
    for _ in 0..BIG_WRITES {
        let answer = writer
            .call("PUT", "/v2/keys/big", Some(&format!("value={big}")))
            .await;
        assert!(answer.head.status < 300, "{}", answer.text());
    }
    let mut expected = 4;
    let mut text = String::new();
    while let Some(chunk) = slow.chunk().await {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some(end) = text.find('\n') {
            let line: String = text.drain(..=end).collect();
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["node"]["modifiedIndex"], expected, "a gap");
            expected += 1;
        }
    }
    assert!(expected - 4 < BIG_WRITES, "the stream was not slow");
    until_watchers_are(node.address, 0).await;
    node.stop().await;
}

/// A v3 transaction over three keys gives a v2 watcher three events, in operation order.
#[tokio::test(flavor = "multi_thread")]
async fn a_v3_transaction_is_as_many_events_as_it_shows_keys() {
    let node = Node::start().await;
    let mut stream = open(&node, "/t?wait=true&recursive=true&stream=true").await;
    let put = |key: &'static str| RequestOp {
        request: Some(request_op::Request::RequestPut(PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(b"v"),
            ..PutRequest::default()
        })),
    };
    let success = vec![put("/t/b"), put("/t/a"), put("not a path"), put("/t/c")];
    let txn = TxnRequest {
        success,
        ..TxnRequest::default()
    };
    let answer = node.handle.propose(Command::Txn(txn)).await.unwrap();
    assert!(matches!(answer.outcome, Outcome::Txn(Ok(_))));
    for key in ["/t/b", "/t/a", "/t/c"] {
        assert_eq!(next(&mut stream).await, event("set", key));
    }
    node.stop().await;
}
