//! The client port as programs meet it: versions of HTTP, heads, limits, redirects, and the endpoints beside
//! the keys. Numbers are the checks of the v2 facts.
#![expect(clippy::unwrap_used, reason = "a test may end so")]

mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::health::HealthCheckRequest;
use proto::health::health_client::HealthClient;
use serde_json::Value;
use support::Node;
use support::http::{Answer, Connection, call};
use tokio::net::TcpStream;

async fn get(node: &Node, path: &str) -> Answer {
    call(node.address, "GET", path, None).await
}

async fn json(node: &Node, path: &str) -> Value {
    serde_json::from_str(&get(node, path).await.text()).unwrap()
}

/// Checks 172 to 177 and the transport rules of section 0.
#[tokio::test(flavor = "multi_thread")]
async fn heads_are_spelled_and_bodies_are_measured_as_in_etcd() {
    let node = Node::start().await;
    let put = call(node.address, "PUT", "/v2/keys/foo", Some("value=bar")).await;
    assert_eq!(put.head.status, 201);
    let body = "{\"action\":\"set\",\"node\":{\"key\":\"/foo\",\"value\":\"bar\",\"modifiedIndex\":4,\"createdIndex\":4}}\n";
    assert_eq!(put.text(), body);
    let names: Vec<&str> = put.head.headers.iter().map(|(name, _)| name.as_str()).collect();
    for name in [
        "Content-Type",
        "X-Etcd-Cluster-Id",
        "X-Etcd-Index",
        "X-Raft-Index",
        "X-Raft-Term",
        "Date",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(
        put.head.header("content-length"),
        Some(body.len().to_string().as_str())
    );
    assert_eq!(put.head.header("content-type"), Some("application/json"));

    let got = get(&node, "/v2/keys/foo").await;
    let head = call(node.address, "HEAD", "/v2/keys/foo", None).await;
    assert_eq!(head.head.status, 200);
    assert_eq!(
        head.head.header("content-length"),
        got.head.header("content-length")
    );
    assert_eq!(head.head.header("x-etcd-index"), Some("4"));
    let missing = call(node.address, "HEAD", "/v2/keys/no", None).await;
    assert_eq!(
        (missing.head.status, missing.head.header("x-raft-index")),
        (404, None)
    );
    let waiting = call(node.address, "HEAD", "/v2/keys/foo?wait=true", None).await;
    assert_eq!(waiting.head.status, 400);

    let patch = call(node.address, "PATCH", "/v2/keys/foo", None).await;
    assert_eq!(
        (patch.head.status, patch.text().as_str()),
        (405, "Method Not Allowed\n")
    );
    assert_eq!(patch.head.header("allow"), Some("HEAD,GET,PUT,POST,DELETE"));
    let options = call(node.address, "OPTIONS", "/any/../thing", None).await;
    assert_eq!((options.head.status, options.body.len()), (200, 0));
    let unknown = get(&node, "/nosuch").await;
    assert_eq!(
        (unknown.head.status, unknown.text().as_str()),
        (404, "404 page not found\n")
    );
    assert_eq!(
        unknown.head.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    node.stop().await;
}

/// Checks 34 and 35: nothing runs on a path that is not clean.
#[tokio::test(flavor = "multi_thread")]
async fn unclean_paths_are_sent_elsewhere_and_nothing_is_written() {
    let node = Node::start().await;
    let put = call(node.address, "PUT", "/v2/keys//a", Some("value=1")).await;
    assert_eq!(
        (put.head.status, put.head.header("location")),
        (301, Some("/v2/keys/a"))
    );
    let dots = call(
        node.address,
        "PUT",
        "/v2/keys/x/%2e%2e/a?prevExist=false",
        Some("value=1"),
    )
    .await;
    assert_eq!(
        (dots.head.status, dots.head.header("location")),
        (301, Some("/v2/keys/a?prevExist=false"))
    );
    let read = get(&node, "/v2/keys/a//b?x=1&y=2").await;
    assert_eq!(
        (read.head.status, read.head.header("location")),
        (301, Some("/v2/keys/a/b?x=1&y=2"))
    );
    assert_eq!(get(&node, "/v2/keys/a").await.head.status, 404);
    assert_eq!(get(&node, "/v2/keys/%zz").await.head.status, 400);
    assert_eq!(
        call(node.address, "PUT", "/v2/keys/%ff", Some("value=1"))
            .await
            .head
            .status,
        400
    );
    assert_eq!(
        get(&node, "/v2/keys/").await.head.header("x-etcd-index"),
        Some("3")
    );
    node.stop().await;
}

/// Nothing that recurses along a path can be made to go deep.
#[tokio::test(flavor = "multi_thread")]
async fn keys_beyond_the_limits_are_refused_by_every_method() {
    let node = Node::start().await;
    let deepest = format!("/v2/keys{}", "/x".repeat(128));
    assert_eq!(
        call(node.address, "PUT", &deepest, Some("value=1"))
            .await
            .head
            .status,
        201
    );
    let tree = get(&node, "/v2/keys/?recursive=true").await;
    assert_eq!(
        tree.text().matches("\"dir\":true").count(),
        128,
        "the root and 127 directories"
    );
    for path in [format!("{deepest}/x"), format!("/v2/keys/{}", "x".repeat(4096))] {
        for (method, form) in [
            ("PUT", Some("value=1")),
            ("POST", Some("value=1")),
            ("GET", None),
            ("DELETE", None),
        ] {
            let refused = call(node.address, method, &path, form).await;
            assert_eq!(refused.head.status, 400, "{method}");
            assert!(
                refused
                    .text()
                    .contains("a key has at most 4096 bytes in 128 components"),
                "{method}"
            );
        }
    }
    let too_deep_for_children = call(node.address, "POST", &deepest, Some("value=1")).await;
    assert_eq!(too_deep_for_children.head.status, 400, "a file is in the way");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_and_expect_and_pipelines_are_served() {
    let node = Node::start().await;
    let mut old = Connection::open(node.address).await;
    old.write(b"GET /v2/keys/ HTTP/1.0\r\n\r\n").await;
    let head = old.head().await;
    assert_eq!((head.version.as_str(), head.status), ("HTTP/1.0", 200));
    old.body(&head, "GET").await;
    assert!(old.is_closed().await);

    let mut polite = Connection::open(node.address).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7";
    polite
        .write(
            format!("PUT /v2/keys/e HTTP/1.1\r\nHost: x\r\n{form}\r\nExpect: 100-continue\r\n\r\n")
                .as_bytes(),
        )
        .await;
    polite.write(b"value=1").await;
    let head = polite.head().await;
    assert_eq!(head.status, 201);
    polite.body(&head, "PUT").await;
    polite
        .write(b"GET /v2/keys/e HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    for _ in 0..2 {
        let head = polite.head().await;
        assert_eq!(head.status, 200);
        polite.body(&head, "GET").await;
    }
    node.stop().await;
}

/// Check 250: refused before it is read, declared or not; the next connection is served.
#[tokio::test(flavor = "multi_thread")]
async fn forms_beyond_ten_mebibytes_are_refused() {
    let node = Node::start().await;
    let mut connection = Connection::open(node.address).await;
    let form = "Content-Type: application/x-www-form-urlencoded";
    let declared =
        format!("PUT /v2/keys/big HTTP/1.1\r\nHost: x\r\n{form}\r\nContent-Length: 10485761\r\n\r\n");
    connection.write(declared.as_bytes()).await;
    let head = connection.head().await;
    let body = connection.body(&head, "PUT").await;
    assert_eq!(head.status, 400);
    let expected = b"{\"errorCode\":210,\"message\":\"Invalid POST form\",\"cause\":\"http: POST too large\",\"index\":0}\n";
    assert_eq!(body, expected);
    let large = format!("value={}", "x".repeat(5 << 20));
    let fits = call(node.address, "PUT", "/v2/keys/big", Some(&large)).await;
    assert_eq!(fits.head.status, 201);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_and_grpc_share_the_port_with_http_1() {
    let node = Node::start().await;
    let stream = TokioIo::new(TcpStream::connect(node.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let uri = format!("http://{}/v2/keys/h2", node.address);
    let put = http::Request::put(&uri)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from_static(b"value=two")))
        .unwrap();
    assert_eq!(sender.send_request(put).await.unwrap().status(), 201);
    let request = |method: &str| {
        http::Request::builder()
            .method(method)
            .uri(&uri)
            .body(Full::new(Bytes::new()))
            .unwrap()
    };
    let got = sender.send_request(request("GET")).await.unwrap();
    assert_eq!(got.headers()["x-etcd-index"], "4");
    let length = got.headers()["content-length"].clone();
    assert!(
        got.into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .starts_with(b"{\"action\":\"get\"")
    );
    let head = sender.send_request(request("HEAD")).await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &length)
    );
    drop(sender);
    driver.await.unwrap().unwrap();

    let mut health = HealthClient::connect(format!("http://{}", node.address))
        .await
        .unwrap();
    let answer = health
        .check(HealthCheckRequest {
            service: String::new(),
        })
        .await
        .unwrap();
    assert_eq!(answer.into_inner().status, 1, "serving");
    drop(health);
    node.stop().await;
}

/// Checks 162 to 165 and 176.
#[tokio::test(flavor = "multi_thread")]
async fn reads_are_alike_with_and_without_a_quorum() {
    let node = Node::start().await;
    call(node.address, "PUT", "/v2/keys/a", Some("value=1")).await;
    let plain = get(&node, "/v2/keys/a").await;
    let quorum = get(&node, "/v2/keys/a?quorum=true&wait=true").await;
    assert_eq!(plain.body, quorum.body);
    assert_eq!(quorum.head.header("x-etcd-index"), Some("4"));
    assert_eq!(get(&node, "/v2/keys/a?consistent=true").await.head.status, 200);
    node.stop().await;
}

/// More than one slice of a thousand records, sorted, with hidden nodes left out.
#[tokio::test(flavor = "multi_thread")]
async fn long_listings_are_whole_and_sorted() {
    let node = Node::start().await;
    let mut connection = Connection::open(node.address).await;
    for number in 0..2_500 {
        let hidden = if number % 100 == 0 { "_" } else { "" };
        let answer = connection
            .call("PUT", &format!("/v2/keys/d/{hidden}{number:05}"), Some("value=x"))
            .await;
        assert_eq!(answer.head.status, 201);
    }
    let listing = json(&node, "/v2/keys/d").await;
    let keys: Vec<&str> = listing["node"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys.len(), 2_475);
    assert!(keys.is_sorted());
    let all = json(&node, "/v2/keys/?recursive=true").await;
    assert_eq!(all["node"]["nodes"][0]["nodes"].as_array().unwrap().len(), 2_475);
    node.stop().await;
}

/// Checks 251 to 264, 266, 268 to 269 and 281.
#[tokio::test(flavor = "multi_thread")]
async fn the_endpoints_beside_the_keys_tell_what_is() {
    let node = Node::start().await;
    let machines = get(&node, "/v2/machines").await;
    assert_eq!(machines.text(), "http://127.0.0.1:4002");
    assert_eq!(
        machines.head.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(machines.head.header("x-etcd-cluster-id"), None);
    assert_eq!(get(&node, "/v2/peers").await.text(), machines.text());
    let refused = call(node.address, "POST", "/v2/machines", Some("x=1")).await;
    assert_eq!(
        (refused.head.status, refused.head.header("allow")),
        (405, Some("GET,HEAD"))
    );
    assert_eq!(get(&node, "/v2/leader").await.text(), "http://127.0.0.1:7002");

    let leader = json(&node, "/v2/members/leader").await;
    assert_eq!(leader["id"], "2f74aac306f9093a");
    let unknown = get(&node, "/v2/members/abc").await;
    assert_eq!(
        (unknown.head.status, unknown.text().as_str()),
        (404, "{\"message\":\"Not found\"}")
    );
    let added = call(node.address, "POST", "/v2/members", Some("{}")).await;
    assert_eq!(added.head.status, 501);
    assert!(added.text().starts_with("{\"message\":\""));

    let version = json(&node, "/version").await;
    assert_eq!(version["etcdserver"], "3.6.5");
    assert_eq!(get(&node, "/health").await.text(), "{\"health\":\"true\"}");
    let stats = json(&node, "/v2/stats/self").await;
    assert_eq!(
        (&stats["id"], &stats["state"]),
        (&Value::from("2f74aac306f9093a"), &Value::from("StateLeader"))
    );
    assert_eq!(stats["leaderInfo"]["leader"], stats["id"]);
    assert_ne!(stats["leaderInfo"]["startTime"], "0001-01-01T00:00:00Z");
    assert_eq!(
        get(&node, "/v2/stats/leader").await.text(),
        "{\"leader\":\"2f74aac306f9093a\",\"followers\":{}}"
    );
    node.stop().await;
}

/// Check 259, and the counters that dashboards read.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_counted() {
    let node = Node::start().await;
    for form in ["value=1", "value=2&prevValue=no", "value=2&prevValue=1"] {
        call(node.address, "PUT", "/v2/keys/a", Some(form)).await;
    }
    get(&node, "/v2/keys/a").await;
    get(&node, "/v2/keys/no").await;
    call(node.address, "DELETE", "/v2/keys/no", None).await;
    let stats = json(&node, "/v2/stats/store").await;
    let counts = [
        "getsSuccess",
        "getsFail",
        "setsSuccess",
        "compareAndSwapSuccess",
        "compareAndSwapFail",
        "deleteFail",
    ];
    for name in counts {
        assert_eq!(stats[name], 1, "{name} in {stats}");
    }
    let page = get(&node, "/metrics").await;
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(page.head.header("content-type"), Some(media_type));
    let page = page.text();
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_leader_changes_seen_total 1",
        "etcd_http_received_total{method=\"PUT\"} 3",
        "etcd_http_failed_total{method=\"PUT\",code=\"412\"} 1",
        "etcd_store_writes_total{action=\"set\"} 1",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line} in\n{page}");
    }
    let fsyncs = page
        .lines()
        .find_map(|line| line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_count "));
    assert!(
        fsyncs.unwrap().parse::<u64>().unwrap() >= 2,
        "two writes were acknowledged"
    );
    node.stop().await;
}
