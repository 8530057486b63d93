//! The v3 front over real gRPC against a node inside the test: what a comparison with stock etcd cannot show,
//! because it depends on time, size or the moment at which something stops.

use std::time::Duration;

use crate::support::inside::Inside;
use crate::support::watching::{Stream, all, create, events, one};
use crate::support::{Clients, deadline};
use etcd_node::api::v3::{MESSAGE_BYTES_MAX, Options, REQUEST_BYTES_MAX};
use etcd_node::watch::{Interest, QUEUE_CHANGES_MAX};
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest,
    MemberListRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest, WatchCreateRequest,
    WatchResponse,
};
use proto::health::HealthCheckRequest;
use proto::key::KeyRange;
use tokio_stream::StreamExt;
use tonic::{Code, Request};

fn quick() -> Options {
    Options {
        progress_interval: Duration::from_millis(50),
    }
}

async fn put(clients: &mut Clients, key: &str, value: &[u8]) -> i64 {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_vec().into(),
        ..PutRequest::default()
    };
    clients
        .kv
        .put(request)
        .await
        .expect("a put")
        .into_inner()
        .header
        .expect("a header")
        .revision
}

async fn put_many(clients: &mut Clients, count: usize) -> i64 {
    let mut revision = 0;
    for number in 0..count {
        revision = put(
            clients,
            &format!("k{}", number % 7),
            number.to_string().as_bytes(),
        )
        .await;
    }
    revision
}

fn header(response: &WatchResponse) -> i64 {
    response.header.expect("a header").revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_the_past_goes_live_without_gap_or_repeat() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let before = put_many(&mut clients, 1200).await;
    let mut writer = clients.clone();
    let mut stream = Stream::open(&clients).await;
    stream
        .send(create(WatchCreateRequest {
            start_revision: 2,
            ..all()
        }))
        .await;
    // Writing goes on while the watch replays, so its last slice and its first live changes meet.
    let writing = tokio::spawn(async move { put_many(&mut writer, 600).await });
    assert!(stream.next().await.created);
    let mut revisions: Vec<i64> = Vec::new();
    while revisions.len() < 1800 {
        let response = stream.next().await;
        assert!(
            header(&response) >= *revisions.last().unwrap_or(&0),
            "headers never go back"
        );
        revisions.extend(events(&response).map(|event| event.kv.expect("a key").mod_revision));
    }
    let last = writing.await.expect("the writer ends");
    assert_eq!(before, 1201);
    assert_eq!(
        revisions,
        (2..=last).collect::<Vec<i64>>(),
        "every revision once, in order"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_stream_goes_back_to_history_and_loses_nothing() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    stream.send(create(all())).await;
    assert!(stream.next().await.created);
    // Nobody reads meanwhile: the connection's window fills, then the queue of the subscription overflows.
    let value = vec![b'v'; 8 << 10];
    let mut last = 0;
    for number in 0..QUEUE_CHANGES_MAX * 4 {
        last = put(&mut clients, &format!("k{}", number % 5), &value).await;
    }
    let mut revisions = Vec::new();
    while revisions.last() != Some(&last) {
        let response = stream.next().await;
        revisions.extend(events(&response).map(|event| event.kv.expect("a key").mod_revision));
    }
    assert_eq!(revisions, (2..=last).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_stream_that_history_has_passed_is_told_so() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    stream.send(create(all())).await;
    assert!(stream.next().await.created);
    let value = vec![b'v'; 64 << 10];
    let mut last = 0;
    for number in 0..QUEUE_CHANGES_MAX * 3 {
        last = put(&mut clients, &format!("k{}", number % 5), &value).await;
    }
    let compaction = CompactionRequest {
        revision: last,
        physical: true,
    };
    clients.kv.compact(compaction).await.expect("a compaction");
    let mut revisions = Vec::new();
    let end = loop {
        let response = stream.next().await;
        if response.canceled {
            break response;
        }
        revisions.extend(events(&response).map(|event| event.kv.expect("a key").mod_revision));
    };
    assert_eq!(end.compact_revision, last);
    assert!(header(&end) >= last);
    let seen = i64::try_from(revisions.len()).expect("few");
    assert_eq!(
        revisions,
        (2..2 + seen).collect::<Vec<i64>>(),
        "what came before the end has no gap"
    );
    assert!(
        seen < last - 1,
        "something must have been lost for this test to mean anything"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_store_sends_watches_back_to_history() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    stream.send(create(all())).await;
    assert!(stream.next().await.created);
    let mut last = 1;
    for round in 0..20 {
        last = put(&mut clients, "a", b"1").await;
        node.handle
            .hub()
            .interrupt(node.handle.view(|view| view.revision()));
        assert_eq!(last, round + 2);
    }
    let mut revisions = Vec::new();
    while revisions.last() != Some(&last) {
        let response = stream.next().await;
        revisions.extend(events(&response).map(|event| event.kv.expect("a key").mod_revision));
    }
    assert_eq!(revisions, (2..=last).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_watches_hear_how_far_they_are() {
    let node = Inside::start(quick()).await;
    let mut clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    let revision = put(&mut clients, "other", b"1").await;
    stream
        .send(create(WatchCreateRequest {
            progress_notify: true,
            ..one("a")
        }))
        .await;
    stream.send(create(one("b"))).await;
    stream
        .send(create(WatchCreateRequest {
            progress_notify: true,
            start_revision: 1000,
            ..one("c")
        }))
        .await;
    for _ in 0..3 {
        assert!(stream.next().await.created);
    }
    for _ in 0..3 {
        let response = stream.next().await;
        assert_eq!(
            (response.watch_id, response.events.len()),
            (0, 0),
            "only the one that asked and has begun"
        );
        assert_eq!(header(&response), revision);
    }
    let revision = put(&mut clients, "other", b"2").await;
    let mut told = 0;
    while told < revision {
        told = header(&stream.next().await);
    }
}

/// "Progress R" comes after every event up to R, whatever happens meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_never_ahead_of_events() {
    let node = Inside::start(Options {
        progress_interval: Duration::from_millis(2),
    })
    .await;
    let clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    for key in ["k0", "k1", "k2"] {
        stream
            .send(create(WatchCreateRequest {
                progress_notify: true,
                start_revision: 1,
                ..one(key)
            }))
            .await;
    }
    let mut writer = clients.clone();
    let writing = tokio::spawn(async move { put_many(&mut writer, 500).await });
    let mut seen = [1_i64; 3];
    let mut told = [0_i64; 3];
    let mut progress = 0;
    while seen.iter().max() < Some(&501) {
        stream.ask_progress().await;
        let response = stream.next().await;
        let revision = header(&response);
        for event in events(&response) {
            let at = usize::try_from(response.watch_id).expect("an id of ours");
            let modified = event.kv.expect("a key").mod_revision;
            assert!(
                modified > told[at],
                "event {modified} after progress {}",
                told[at]
            );
            seen[at] = modified;
        }
        if !response.created && response.events.is_empty() {
            progress += 1;
            match usize::try_from(response.watch_id) {
                Ok(id) => told[id] = revision,
                Err(_) => told = [revision; 3],
            }
        }
    }
    assert!(
        progress > 10,
        "there must have been progress to check: {progress}"
    );
    assert_eq!(writing.await.expect("the writer ends"), 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_progress_waits_until_all_watches_have_read_history() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let revision = put_many(&mut clients, 300).await;
    let mut stream = Stream::open(&clients).await;
    stream.ask_progress().await;
    let response = stream.next().await;
    assert_eq!(
        (response.watch_id, header(&response)),
        (-1, revision),
        "without a watch nothing is missing"
    );
    for _ in 0..5 {
        stream
            .send(create(WatchCreateRequest {
                start_revision: 2,
                ..all()
            }))
            .await;
    }
    stream.ask_progress().await;
    let mut counts = [0; 5];
    loop {
        let response = stream.next().await;
        if response.watch_id == -1 {
            assert_eq!(header(&response), revision);
            break;
        }
        counts[usize::try_from(response.watch_id).expect("an id of ours")] += response.events.len();
    }
    assert_eq!(counts, [300; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_revision_is_one_response_unless_fragments_are_welcome() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    stream.send(create(all())).await;
    stream
        .send(create(WatchCreateRequest {
            fragment: true,
            ..all()
        }))
        .await;
    assert!(stream.next().await.created && stream.next().await.created);
    // Deleting with the previous values makes a response larger than any request.
    for number in 0..4 {
        put(&mut clients, &format!("big{number}"), &vec![b'v'; 1 << 20]).await;
    }
    stream
        .send(create(WatchCreateRequest {
            prev_kv: true,
            ..all()
        }))
        .await;
    stream
        .send(create(WatchCreateRequest {
            prev_kv: true,
            fragment: true,
            ..all()
        }))
        .await;
    let delete = DeleteRangeRequest {
        key: "big".into(),
        range_end: "bih".into(),
        ..DeleteRangeRequest::default()
    };
    let mut created = 0;
    while created < 2 {
        created += usize::from(stream.next().await.created);
    }
    clients.kv.delete_range(delete).await.expect("a delete");
    let mut pieces: [Vec<(usize, bool)>; 4] = Default::default();
    let is_complete =
        |pieces: &[Vec<(usize, bool)>; 4]| pieces.iter().all(|all| all.last().is_some_and(|one| !one.1));
    while !is_complete(&pieces) {
        let response = stream.next().await;
        if response.events.first().is_some_and(|event| event.r#type == 1) {
            let at = usize::try_from(response.watch_id).expect("an id of ours");
            pieces[at].push((response.events.len(), response.fragment));
        }
    }
    assert_eq!(pieces[0], [(4, false)]);
    assert_eq!(pieces[1], [(4, false)], "small enough for one");
    assert_eq!(pieces[2], [(4, false)], "never split unasked");
    assert_eq!(
        pieces[3],
        [(1, true), (1, true), (1, true), (1, false)],
        "a megabyte each, two do not fit"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_start_is_refused() {
    let node = Inside::start(Options::default()).await;
    let mut stream = Stream::open(&node.clients()).await;
    stream
        .send(create(WatchCreateRequest {
            start_revision: -1,
            ..one("a")
        }))
        .await;
    let refused = stream.next().await;
    assert!(refused.created && refused.canceled);
    assert_eq!(refused.watch_id, -1);
    assert_eq!(
        refused.cancel_reason,
        "etcdserver: mvcc: required revision has been compacted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_of_a_stream_are_bounded_and_counted() {
    let node = Inside::start(Options::default()).await;
    let clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    for _ in 0..10_000 {
        stream.send(create(one("a"))).await;
        assert!(!stream.next().await.canceled);
    }
    stream.send(create(one("a"))).await;
    let refused = stream.next().await;
    assert!(refused.canceled);
    assert_eq!(refused.cancel_reason, "etcdserver: too many requests");
    assert_eq!(node.handle.hub().subscribers(), 10_000);
    drop(stream);
    deadline("the hub to forget them", async {
        while node.handle.hub().subscribers() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_nothing_more_still_hears_of_its_watches() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    stream.send(create(one("a"))).await;
    assert!(stream.next().await.created);
    stream.close();
    put(&mut clients, "a", b"1").await;
    assert_eq!(stream.next().await.events.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_node_stops() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let mut stream = Stream::open(&clients).await;
    stream.send(create(one("a"))).await;
    assert!(stream.next().await.created);
    let mut health = clients
        .health
        .watch(HealthCheckRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(
        health
            .message()
            .await
            .expect("a message")
            .map(|message| message.status),
        Some(1)
    );
    let granted = clients
        .lease
        .lease_grant(LeaseGrantRequest { ttl: 60, id: 5 })
        .await
        .expect("a lease");
    let requests = tokio_stream::once(LeaseKeepAliveRequest {
        id: granted.into_inner().id,
    });
    let requests = requests.chain(tokio_stream::pending());
    let mut renewals = clients
        .lease
        .lease_keep_alive(requests)
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(
        renewals
            .message()
            .await
            .expect("a message")
            .map(|message| message.ttl),
        Some(60)
    );
    node.stop.cancel();
    let watch = stream.end().await;
    assert_eq!(
        (watch.code(), watch.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
    let renewal = deadline("the renewals to end", renewals.message())
        .await
        .expect_err("an end with an error");
    assert_eq!(
        (renewal.code(), renewal.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
    let last = deadline("the health to change", health.message())
        .await
        .expect("a message");
    assert_eq!(last.map(|message| message.status), Some(2), "not serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_bounded_as_in_etcd() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let mut sized = async |bytes: usize| {
        let request = PutRequest {
            key: "a".into(),
            value: vec![0; bytes].into(),
            ..PutRequest::default()
        };
        clients
            .kv
            .put(request)
            .await
            .map(|_| ())
            .map_err(|status| (status.code(), status.message().to_owned()))
    };
    // The value, its tag and length, the key with its own, and what the log puts around it.
    assert_eq!(sized(REQUEST_BYTES_MAX - 4 - 3 - 17).await, Ok(()));
    let too_large = (
        Code::InvalidArgument,
        "etcdserver: request is too large".to_owned(),
    );
    assert_eq!(sized(REQUEST_BYTES_MAX - 4 - 3 - 16).await, Err(too_large));
    let message = format!(
        "grpc: received message larger than max ({} vs. {MESSAGE_BYTES_MAX})",
        MESSAGE_BYTES_MAX + 8
    );
    assert_eq!(
        sized(MESSAGE_BYTES_MAX).await,
        Err((Code::ResourceExhausted, message))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn long_ranges_are_read_in_slices_of_one_revision() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    for chunk in 0..25 {
        let success = (0..100)
            .map(|number| {
                let key = format!("k{chunk:02}{number:02}").into();
                RequestOp {
                    request: Some(Operation::RequestPut(PutRequest {
                        key,
                        ..PutRequest::default()
                    })),
                }
            })
            .collect();
        clients
            .kv
            .txn(TxnRequest {
                success,
                ..TxnRequest::default()
            })
            .await
            .expect("a transaction");
    }
    let request = RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        ..RangeRequest::default()
    };
    let mut writer = clients.clone();
    let writing = tokio::spawn(async move {
        // Each of these would be seen by a range that read its slices at different revisions.
        for number in 0..200 {
            put(&mut writer, "k0000", number.to_string().as_bytes()).await;
            put(&mut writer, "k2499", number.to_string().as_bytes()).await;
        }
    });
    for _ in 0..40 {
        let response = clients
            .kv
            .range(request.clone())
            .await
            .expect("a range")
            .into_inner();
        assert_eq!((response.kvs.len(), response.count), (2500, 2500));
        let revision = response.header.expect("a header").revision;
        assert!(response.kvs.iter().all(|kv| kv.mod_revision <= revision));
        let (first, last) = (&response.kvs[0], &response.kvs[2499]);
        let numbers = [first, last].map(|kv| String::from_utf8_lossy(&kv.value).parse::<i64>().unwrap_or(-1));
        assert!(
            numbers[0] - numbers[1] == 0 || numbers[0] - numbers[1] == 1,
            "{numbers:?} at {revision}"
        );
    }
    writing.await.expect("the writer ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alives_of_one_stream_are_answered_together_and_in_order() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    for id in 1..=100 {
        clients
            .lease
            .lease_grant(LeaseGrantRequest { ttl: 100 + id, id })
            .await
            .expect("a lease");
    }
    let requests = tokio_stream::iter((1..=101).map(|id| LeaseKeepAliveRequest { id }));
    let answers = clients
        .lease
        .lease_keep_alive(requests)
        .await
        .expect("a stream")
        .into_inner();
    // One after the other they would take 50 seconds, more than a deadline has.
    let answers: Vec<(i64, i64)> = deadline("the renewals", async {
        answers
            .map(|answer| answer.map(|answer| (answer.id, answer.ttl)).expect("an answer"))
            .collect()
            .await
    })
    .await;
    let expected: Vec<(i64, i64)> = (1..=100).map(|id| (id, 100 + id)).chain([(101, 0)]).collect();
    assert_eq!(answers, expected, "101 does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_tells_its_time_and_its_keys() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let granted = clients
        .lease
        .lease_grant(LeaseGrantRequest { ttl: 300, id: 0 })
        .await
        .expect("a lease")
        .into_inner();
    assert!(granted.id > 0);
    for key in ["b", "a"] {
        let request = PutRequest {
            key: key.into(),
            lease: granted.id,
            ..PutRequest::default()
        };
        clients.kv.put(request).await.expect("a put");
    }
    let request = LeaseTimeToLiveRequest {
        id: granted.id,
        keys: true,
    };
    let told = clients
        .lease
        .lease_time_to_live(request)
        .await
        .expect("an answer")
        .into_inner();
    assert!((280..=300).contains(&told.ttl), "{}", told.ttl);
    assert_eq!(told.granted_ttl, 300);
    assert_eq!(told.keys, ["a", "b"]);
    let request = LeaseTimeToLiveRequest { id: 404, keys: true };
    let unknown = clients
        .lease
        .lease_time_to_live(request)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!((unknown.ttl, unknown.granted_ttl), (-1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_members_and_health() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    put(&mut clients, "a", b"1").await;
    let status = clients
        .maintenance
        .status(StatusRequest {})
        .await
        .expect("a status")
        .into_inner();
    assert_eq!(status.version, "3.6.5");
    assert_eq!(status.leader, status.header.expect("a header").member_id);
    assert_eq!(status.header.expect("a header").revision, 2);
    assert!(
        status.db_size > 0 && status.db_size_in_use > 0 && status.errors.is_empty() && !status.is_learner
    );
    assert!(
        status.raft_applied_index > 1
            && status.raft_index >= status.raft_applied_index
            && status.raft_term > 1
    );
    for linearizable in [false, true] {
        let members = clients
            .cluster
            .member_list(MemberListRequest { linearizable })
            .await
            .expect("members")
            .into_inner();
        assert_eq!(members.header.expect("a header").revision, 0);
        let names: Vec<&str> = members
            .members
            .iter()
            .map(|member| member.name.as_str())
            .collect();
        assert_eq!(names, ["inside"]);
    }
    let health = clients
        .health
        .check(HealthCheckRequest::default())
        .await
        .expect("health")
        .into_inner();
    assert_eq!(health.status, 1);
    let unknown = clients
        .health
        .check(HealthCheckRequest { service: "x".into() })
        .await
        .expect_err("no such service");
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "unknown service")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_says_so() {
    let node = Inside::start(Options::default()).await;
    let channel = tonic::transport::Endpoint::from_shared(node.url.clone())
        .expect("a URL")
        .connect_lazy();
    for path in [
        "/etcdserverpb.Auth/Authenticate",
        "/etcdserverpb.Maintenance/Snapshot",
        "/v3lockpb.Lock/Lock",
    ] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.expect("a connection");
        let codec = tonic_prost::ProstCodec::<StatusRequest, StatusRequest>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let answered = client.unary(Request::new(StatusRequest {}), path, codec).await;
        assert_eq!(
            answered.expect_err("nobody serves it").code(),
            Code::Unimplemented
        );
    }
}

/// A caller that requires a leader is served while there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_may_be_required() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let mut request = Request::new(RangeRequest {
        key: "a".into(),
        serializable: true,
        ..RangeRequest::default()
    });
    request
        .metadata_mut()
        .insert("hasleader", "true".parse().expect("a value"));
    clients.kv.range(request).await.expect("there is a leader");
}

/// The v2 front's subscriptions and the v3 front's share the hub; one of each hears of the same write.
#[tokio::test(flavor = "multi_thread")]
async fn both_grammars_hear_of_one_write() {
    let node = Inside::start(Options::default()).await;
    let mut clients = node.clients();
    let hub = node.handle.hub();
    let revision = node.handle.view(|view| view.revision());
    let mut path = hub.subscribe(
        Interest::Path {
            path: "/d".into(),
            recursive: true,
        },
        revision,
    );
    let mut keys = hub.subscribe(Interest::Keys(KeyRange::prefix(b"/d/")), revision);
    put(&mut clients, "/d/x", b"1").await;
    for subscription in [&mut path, &mut keys] {
        match deadline("the change", subscription.next()).await {
            etcd_node::watch::Next::Change(change) => {
                assert_eq!((change.writes.len(), change.events.len()), (1, 1));
            }
            etcd_node::watch::Next::Lagged => panic!("one change fits"),
        }
    }
}
