//! Recorded answers of the originals: every line of `golden/v2.txt` is a request and what etcd 2.3.8 said.

use std::fmt::Write as _;

use bytes::Bytes;
use proto::log::V2Command;
use proto::log::v2_command::Operation;
use store::v2::{self, Event, Node};

use crate::support::Machine;

#[test]
fn every_recorded_answer_of_etcd_2_is_ours() {
    let mut machine = Machine::new();
    machine.slice = 2;
    let mut played = 0;
    for (number, line) in include_str!("golden/v2.txt").lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if let Some(seconds) = line.strip_prefix("+ ") {
            let nanos = seconds.parse::<u64>().unwrap() * 1_000_000_000;
            machine.now = proto::time::Timestamp::from_nanos(machine.now.as_nanos() + nanos);
            machine.expire();
            continue;
        }
        let (request, expected) = line.split_once(" => ").unwrap();
        let answer = play(&mut machine, request);
        assert_eq!(answer, expected, "line {}: {request}", number + 1);
        played += 1;
    }
    assert!(played > 120, "only {played} answers were played");
}

/// Plays one request as the v2 front would.
fn play(machine: &mut Machine, request: &str) -> String {
    let mut words = request.split(" -d ");
    let (method, target) = words.next().unwrap().split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = v2::path::clean(path.strip_prefix("/v2/keys").unwrap());
    let body: Vec<&str> = if method == "DELETE" {
        Vec::new()
    } else {
        words.collect()
    };
    let form: Vec<&str> = body.into_iter().chain(query.split('&')).collect();
    let field = |name: &str| {
        let found = form
            .iter()
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.filter(|value| !value.is_empty())
    };
    let is_set = |name: &str| matches!(field(name), Some("true" | "1" | "TRUE"));
    if method == "GET" {
        return render(machine.list(&path, is_set("recursive")));
    }
    let prev_index = field("prevIndex").map_or(0, |number| number.parse().unwrap());
    let prev_value = field("prevValue").map(|value| Bytes::copy_from_slice(value.as_bytes()));
    let compares = prev_index > 0 || prev_value.is_some();
    let operation = match (method, field("prevExist")) {
        ("POST", _) => Operation::CreateInOrder,
        ("DELETE", _) if compares => Operation::CompareAndDelete,
        ("DELETE", _) => Operation::Delete,
        (_, Some("false")) => Operation::Create,
        (_, Some(_)) if !compares => Operation::Update,
        _ if compares => Operation::CompareAndSwap,
        _ => Operation::Set,
    };
    let command = V2Command {
        operation: operation.into(),
        path,
        value: Bytes::copy_from_slice(field("value").unwrap_or("").as_bytes()),
        dir: is_set("dir"),
        recursive: is_set("recursive"),
        refresh: is_set("refresh"),
        ttl: field("ttl").map(|ttl| ttl.parse().unwrap()),
        prev_value,
        prev_index,
    };
    render(machine.v2(command).map(|event| Event::clone(&event)))
}

/// Status and JSON, times left open.
fn render(result: Result<Event, v2::Error>) -> String {
    let event = match result {
        Ok(event) => event,
        Err(error) => {
            let status = match error.code.number() {
                100 => 404,
                101 | 105 => 412,
                102 | 108 => 403,
                _ => 400,
            };
            let (code, message) = (error.code.number(), error.code.message());
            let cause = if error.cause.is_empty() {
                String::new()
            } else {
                format!(r#""cause":"{}","#, error.cause)
            };
            let index = error.index;
            return format!(
                r#"{status} {{"errorCode":{code},"message":"{message}",{cause}"index":{index}}}"#
            );
        }
    };
    let is_new =
        event.action == v2::Action::Create || (event.action == v2::Action::Set && event.prev_node.is_none());
    let mut text = format!(
        r#"{} {{"action":"{}","node":"#,
        if is_new { 201 } else { 200 },
        event.action.as_str()
    );
    render_node(&event.node, &mut text);
    if let Some(prev) = &event.prev_node {
        text.push_str(r#","prevNode":"#);
        render_node(prev, &mut text);
    }
    text.push('}');
    text
}

fn render_node(node: &Node, text: &mut String) {
    let mut fields = Vec::new();
    if node.key != "/" {
        fields.push(format!(r#""key":"{}""#, node.key));
    }
    if let Some(value) = &node.value {
        fields.push(format!(r#""value":"{}""#, String::from_utf8_lossy(value)));
    }
    if node.dir {
        fields.push(r#""dir":true"#.to_owned());
    }
    if node.expires_at.is_some() {
        fields.push(r#""expiration":"*""#.to_owned());
    }
    if node.ttl.is_some_and(|ttl| ttl != 0) {
        fields.push(r#""ttl":"*""#.to_owned());
    }
    if !node.nodes.is_empty() {
        let mut nodes = String::new();
        for (number, child) in node.nodes.iter().enumerate() {
            if number > 0 {
                nodes.push(',');
            }
            render_node(child, &mut nodes);
        }
        fields.push(format!(r#""nodes":[{nodes}]"#));
    }
    if node.modified_index.get() > 0 {
        fields.push(format!(r#""modifiedIndex":{}"#, node.modified_index));
        fields.push(format!(r#""createdIndex":{}"#, node.created_index));
    }
    write!(text, "{{{}}}", fields.join(",")).unwrap();
}
