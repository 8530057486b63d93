//! The conversation recorded with etcd 2.3.8, spoken again with this node: each answer must be byte-equal but
//! for the differences named here.
#![expect(clippy::unwrap_used, reason = "a test may end so")]

mod support;

use std::time::Duration;

use support::http::{Answer, Connection, call, watch};
use support::{Node, cluster};

const RECORDED: &str = include_str!("golden/v2-2.3.8.txt");

/// Calls that are not spoken again, with the reason.
const LEFT_OUT: &[(u16, &str)] = &[
    (
        205,
        "Go's refusal of semicolons came after etcd 2: here they are data, as they were then",
    ),
    (206, "as 205"),
    (
        249,
        "the recorder broke the line; spoken below as a call of its own",
    ),
    (261, "/v2/leader of etcd 0.4 is served here"),
    (263, "stats of the original's run"),
    (265, "as 263"),
    (267, "the version"),
    (268, "etcd 3's health, without the space"),
    (269, "metrics of the original's run"),
    (270, "/debug/vars is not served"),
    (277, "auth is not served"),
    (278, "as 277"),
    (279, "as 277"),
    (280, "/config/local/log is not served"),
    (307, "as 261"),
    (308, "as 261"),
    (309, "as 261"),
    (310, "as 261"),
    (333, "members are not changed through this API yet"),
    (346, "as 333"),
    (347, "as 333"),
    (348, "as 261"),
    (
        349,
        "the recorded member add had taken the quorum away; here it would not (keyspace rules, section 7)",
    ),
    (350, "as 349"),
    (351, "as 349"),
    (352, "as 349"),
    (353, "the peer port"),
    (354, "the peer port"),
    (355, "the peer port"),
    (356, "the peer port"),
    (357, "the peer port"),
];

/// Unsorted listings that the recorder cut: only the status is compared. Here every listing is sorted.
const UNSORTED_AND_CUT: &[u16] = &[63, 173];

/// Recorded while an expiry was due at any moment: only read here when it is certain what they answer.
const RACES_WITH_EXPIRY: &[u16] = &[100, 102];

/// Answers that are etcd 3's and not etcd 2's.
const NEWER: &[(u16, &str)] = &[(30, "{\"action\":\"set\"}")];

/// What was written while the recorded call waited.
fn written_meanwhile(number: u16) -> &'static [(&'static str, &'static str, Option<&'static str>)] {
    match number {
        207 => &[("PUT", "/w", Some("value=1"))],
        209 => &[("DELETE", "/w", None)],
        210 | 211 => &[("PUT", "/wd/sub/x", Some("value=1"))],
        212 => &[("DELETE", "/wd?recursive=true", None)],
        220 => &[
            ("PUT", "/st/1", Some("value=1")),
            ("PUT", "/st/2", Some("value=2")),
            ("DELETE", "/st/1", None),
        ],
        221 | 222 => &[("PUT", "/hw/_hid", Some("value=1"))],
        223 => &[("POST", "/hw", Some("value=1"))],
        225 => &[("PUT", "/hc?prevValue=1", Some("value=2"))],
        226 => &[("DELETE", "/hc?prevIndex=106", None)],
        227 => &[("PUT", "/hc", Some("dir=true"))],
        228 => &[("PUT", "/hc", Some("prevExist=true&ttl=10"))],
        _ => &[],
    }
}

/// The index that must have been reached before a call: expiries that the recorded run had waited for.
fn reached_before(number: u16) -> u64 {
    match number {
        105 => 52,
        116 => 63,
        _ => 0,
    }
}

/// One recorded call.
struct Recorded<'a> {
    number: u16,
    method: &'a str,
    path: &'a str,
    options: &'a str,
    status: u16,
    is_http_1_0: bool,
    /// The first line of the body, possibly cut; none when the call timed out waiting for one.
    body: Option<&'a str>,
}

fn parse(line: &str) -> Option<Recorded<'_>> {
    let (number, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (request, answer) = rest.split_once(" => ")?;
    let (method, rest) = request.split_once(' ')?;
    let (path, options) = rest.split_once(' ').unwrap_or((rest, ""));
    let versionless = answer.strip_prefix("HTTP/1.0 ");
    let (status, rest) = versionless.unwrap_or(answer).split_once(' ')?;
    let status: u16 = status.parse().ok()?;
    let reason = http::StatusCode::from_u16(status)
        .unwrap()
        .canonical_reason()
        .unwrap();
    let body = rest.strip_prefix(reason)?;
    Some(Recorded {
        number: number.parse().ok()?,
        method,
        path,
        options,
        status,
        is_http_1_0: versionless.is_some(),
        body: (body != "[curl exit 28]").then_some(body.trim_start()),
    })
}

/// A request as curl would have written it.
fn request(recorded: &Recorded<'_>) -> Vec<u8> {
    let mut headers: Vec<(String, String)> = vec![("Host".into(), "x".into())];
    let mut content_type = None;
    let mut body = String::new();
    for (flag, value) in options(recorded.options) {
        match flag {
            "-H" => match value.split_once(": ") {
                Some(("Content-Type", value)) => content_type = Some(Some(value.to_owned())),
                Some((name, value)) => headers.push((name.into(), value.into())),
                None => content_type = Some(None),
            },
            "-F" => {
                let (name, value) = value.split_once('=').unwrap();
                body = format!(
                    "--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n--b--\r\n"
                );
                content_type = Some(Some("multipart/form-data; boundary=b".into()));
            }
            "--data-binary" => {
                let letter = if recorded.path.ends_with("long") { "x" } else { "y" };
                body = format!("value={}", letter.repeat(100_000));
            }
            "--data-urlencode" => {
                let (name, value) = value.split_once('=').unwrap();
                body = format!(
                    "{name}={}",
                    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
                );
            }
            "-d" => {
                if !body.is_empty() {
                    body.push('&');
                }
                body.push_str(value);
            }
            "--path-as-is" | "--http1.0" => {}
            other => panic!("unknown option {other}"),
        }
    }
    let has_body = !body.is_empty();
    let default_type = has_body.then(|| "application/x-www-form-urlencoded".to_owned());
    if let Some(content_type) = content_type.unwrap_or(default_type) {
        headers.push(("Content-Type".into(), content_type));
    }
    let is_chunked = headers.iter().any(|(_, value)| value == "chunked");
    if is_chunked {
        body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    } else if has_body {
        headers.push(("Content-Length".into(), body.len().to_string()));
    }
    let version = if recorded.is_http_1_0 { "1.0" } else { "1.1" };
    let mut text = format!("{} {} HTTP/{version}\r\n", recorded.method, recorded.path);
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(&body);
    text.into_bytes()
}

/// curl's options with their values, which were recorded without quotes.
fn options(text: &str) -> Vec<(&str, &str)> {
    const FLAGS: [&str; 7] = [
        "-H",
        "-F",
        "-d",
        "--data-binary",
        "--data-urlencode",
        "--path-as-is",
        "--http1.0",
    ];
    let mut starts: Vec<(usize, &str)> = Vec::new();
    for flag in FLAGS {
        let at_start = text.starts_with(flag).then_some(0);
        let later = text
            .match_indices(&format!(" {flag} "))
            .map(|(at, _)| at + 1)
            .collect::<Vec<_>>();
        let last = text
            .ends_with(&format!(" {flag}"))
            .then(|| text.len() - flag.len());
        starts.extend(at_start.into_iter().chain(later).chain(last).map(|at| (at, flag)));
    }
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let pairs = starts.iter().zip(ends);
    pairs
        .map(|((at, flag), end)| (*flag, text[at + flag.len()..end].trim()))
        .collect()
}

/// Without what time makes different.
fn timeless(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::new();
    while let Some(at) = ["\"expiration\":\"", "\"ttl\":"]
        .iter()
        .filter_map(|mark| Some(rest.find(mark)? + mark.len()))
        .min()
    {
        plain.push_str(&rest[..at]);
        let is_inside = |letter: char| letter.is_ascii_digit() || "-:.TZ".contains(letter);
        rest = rest[at..].trim_start_matches(is_inside);
        plain.push('~');
    }
    plain + rest
}

/// With every listing in order, as a value: what a listing in another order is compared by.
fn in_order(text: &str) -> serde_json::Value {
    fn sort(value: &mut serde_json::Value) {
        if let Some(nodes) = value.get_mut("nodes").and_then(serde_json::Value::as_array_mut) {
            nodes.sort_by_key(|node| node["key"].as_str().unwrap().to_owned());
            nodes.iter_mut().for_each(sort);
        }
    }
    let mut value: serde_json::Value = serde_json::from_str(&text.replace('~', "0")).unwrap();
    sort(&mut value["node"]);
    value
}

fn is_whole_json(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok()
}

fn compare(recorded: &Recorded<'_>, answer: &Answer) {
    let context = format!(
        "[{}] {} {} {}",
        recorded.number, recorded.method, recorded.path, recorded.options
    );
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.head.status, recorded.status, "{context}: {text}");
    if recorded.path.starts_with("/v2/keys") && answer.head.header("content-type") == Some("application/json")
    {
        check_headers(recorded, answer, &context);
    }
    let newer = NEWER.iter().find(|(number, _)| *number == recorded.number);
    let Some(body) = newer.map(|(_, body)| *body).or(recorded.body) else {
        return;
    };
    if recorded.method == "HEAD" || UNSORTED_AND_CUT.contains(&recorded.number) {
        return;
    }
    let (ours, theirs) = (timeless(text.lines().next().unwrap_or_default()), timeless(body));
    if !body.starts_with('{') || is_whole_json(body) {
        let is_unsorted = body.contains("\"nodes\"") && !recorded.path.contains("sorted=true");
        if is_unsorted {
            assert_eq!(in_order(&ours), in_order(&theirs), "{context}");
        } else {
            assert_eq!(ours, theirs, "{context}");
        }
    } else {
        assert!(ours.starts_with(&theirs), "{context}:\n{ours}\n{theirs}");
    }
}

/// Section 1.8 of the v2 facts: checks 179 to 186 and 193.
fn check_headers(recorded: &Recorded<'_>, answer: &Answer, context: &str) {
    let names: Vec<&str> = answer
        .head
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let cluster_id = cluster().to_string();
    assert_eq!(
        answer.head.header("X-Etcd-Cluster-Id"),
        Some(cluster_id.as_str()),
        "{context}"
    );
    assert!(
        names.contains(&"X-Etcd-Cluster-Id") && names.contains(&"X-Etcd-Index"),
        "{context}: {names:?}"
    );
    let is_success = recorded.status < 300;
    for raft in ["X-Raft-Index", "X-Raft-Term"] {
        assert_eq!(names.contains(&raft), is_success, "{context}: {names:?}");
    }
    if recorded.method == "HEAD" {
        return;
    }
    let text = answer.text();
    assert!(
        text.ends_with("}\n") && !text.ends_with("\n\n"),
        "{context}: {text:?}"
    );
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    let index = answer.head.header("X-Etcd-Index").unwrap();
    if !is_success {
        assert_eq!(index, body["index"].to_string(), "{context}");
    } else if recorded.method != "GET" && body.get("node").is_some() {
        assert_eq!(index, body["node"]["modifiedIndex"].to_string(), "{context}");
    }
}

async fn reach(node: &Node, index: u64) {
    let reached = async {
        let mut connection = Connection::open(node.address).await;
        loop {
            let answer = connection.call("GET", "/v2/keys/", None).await;
            let now: u64 = answer.head.header("X-Etcd-Index").unwrap().parse().unwrap();
            assert!(now <= index.max(1), "index {now} is beyond {index}");
            if now == index {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, reached)
        .await
        .expect("the index is not reached");
}

async fn speak(node: &Node, recorded: &Recorded<'_>) {
    if reached_before(recorded.number) > 0 {
        reach(node, reached_before(recorded.number)).await;
    }
    if recorded.number == 229 {
        fill_the_window(node).await;
    }
    let is_watch =
        recorded.status == 200 && recorded.path.contains("wait=true") && !recorded.path.contains("quorum");
    if is_watch {
        return wait_for_event(node, recorded).await;
    }
    let mut connection = Connection::open(node.address).await;
    connection.write(&request(recorded)).await;
    let head = connection.head().await;
    assert_eq!(
        head.version == "HTTP/1.0",
        recorded.is_http_1_0,
        "[{}]",
        recorded.number
    );
    let body = connection.body(&head, recorded.method).await;
    if !RACES_WITH_EXPIRY.contains(&recorded.number) {
        compare(recorded, &Answer { head, body });
    }
}

/// The head comes before the event; then what was written meanwhile; then one event, or none.
async fn wait_for_event(node: &Node, recorded: &Recorded<'_>) {
    let (mut connection, head) = watch(node.address, recorded.path).await;
    assert_eq!(
        head.header("transfer-encoding"),
        Some("chunked"),
        "[{}]",
        recorded.number
    );
    for (method, key, form) in written_meanwhile(recorded.number) {
        let done = call(node.address, method, &format!("/v2/keys{key}"), *form).await;
        assert!(
            done.head.status < 300,
            "[{}] {key}: {}",
            recorded.number,
            done.text()
        );
    }
    if recorded.body.is_none() {
        assert!(connection.is_silent().await, "[{}]", recorded.number);
        return;
    }
    let body = connection.chunk().await.unwrap();
    if !recorded.path.contains("stream=true") {
        assert_eq!(
            connection.chunk().await,
            None,
            "[{}] a long poll ends",
            recorded.number
        );
    }
    compare(recorded, &Answer { head, body });
}

/// The recorded run wrote until the window had lost its beginning.
async fn fill_the_window(node: &Node) {
    let mut connection = Connection::open(node.address).await;
    for _ in 0..1100 {
        let done = connection.call("PUT", "/v2/keys/fill", Some("value=x")).await;
        assert!(done.head.status < 300, "{}", done.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_conversation_is_answered_alike() {
    let node = Node::start().await;
    let mut spoken = 0;
    for line in RECORDED.lines() {
        let Some(recorded) = parse(line) else {
            assert!(line.starts_with("[249]"), "not understood: {line}");
            broken_line(&node).await;
            continue;
        };
        if LEFT_OUT.iter().all(|(number, _)| *number != recorded.number) {
            speak(&node, &recorded).await;
            spoken += 1;
        }
    }
    assert_eq!(
        spoken + LEFT_OUT.len(),
        357,
        "every recorded call is spoken or left out by name"
    );
    node.stop().await;
}

/// Call 249: a value with a line feed, a tab and a control character.
async fn broken_line(node: &Node) {
    let done = call(
        node.address,
        "PUT",
        "/v2/keys/nl",
        Some("value=line1%0Aline2%09tab%01ctl"),
    )
    .await;
    let expected = "{\"action\":\"set\",\"node\":{\"key\":\"/nl\",\"value\":\"line1\\nline2\\ttab\\u0001ctl\",\
                    \"modifiedIndex\":1217,\"createdIndex\":1217}}\n";
    assert_eq!(done.text(), expected);
}
