//! The JSON of the v2 API, written by hand into one buffer: this is on the path of every read and write, and
//! the bytes are a contract down to the escapes (section 0 and 1.7 of the v2 facts).

use std::fmt::Display;
use std::io::Write;

use bytes::Bytes;
use proto::ids::{NodeId, V2Index};
use store::v2::{Action, Event, Node};

/// Room for what surrounds key and value in one node.
const NODE_BYTES: usize = 128;
/// What stands for one byte that is not UTF-8.
const REPLACEMENT: &[u8] = b"\\ufffd";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// An event with its line feed.
pub(super) fn event(event: &Event) -> Bytes {
    let prev_bytes = event.prev_node.as_ref().map_or(0, estimate);
    let mut json = Vec::with_capacity(estimate(&event.node) + prev_bytes);
    json.extend_from_slice(b"{\"action\":\"");
    json.extend_from_slice(event.action.as_str().as_bytes());
    json.extend_from_slice(b"\",\"node\":");
    node(&mut json, &event.node);
    if let Some(prev) = &event.prev_node {
        json.extend_from_slice(b",\"prevNode\":");
        node(&mut json, prev);
    }
    json.extend_from_slice(b"}\n");
    json.into()
}

/// The short answer to a write that asked for no value.
pub(super) fn action_only(action: Action) -> Bytes {
    let mut json = Vec::with_capacity(40);
    json.extend_from_slice(b"{\"action\":\"");
    json.extend_from_slice(action.as_str().as_bytes());
    json.extend_from_slice(b"\"}\n");
    json.into()
}

fn estimate(node: &Node) -> usize {
    let value = node.value.as_ref().map_or(0, Bytes::len);
    let children: usize = node.nodes.iter().map(estimate).sum();
    NODE_BYTES + node.key.len() + value + children
}

/// A node; the order of the fields is part of the contract. Recursion is as deep as the tree, at most
/// [`PATH_COMPONENTS_MAX`](store::v2::path::PATH_COMPONENTS_MAX).
fn node(json: &mut Vec<u8>, node: &Node) {
    let mut fields = Fields::open(json);
    if node.key != "/" {
        string(fields.next("key"), node.key.as_bytes());
    }
    if let Some(value) = &node.value {
        string(fields.next("value"), value);
    }
    if node.dir {
        fields.next("dir").extend_from_slice(b"true");
    }
    if let Some(expires_at) = node.expires_at {
        string(fields.next("expiration"), expires_at.to_rfc3339().as_bytes());
    }
    if let Some(ttl) = node.ttl.filter(|ttl| *ttl != 0) {
        number(fields.next("ttl"), ttl);
    }
    if !node.nodes.is_empty() {
        array(fields.next("nodes"), &node.nodes, self::node);
    }
    for (name, index) in [
        ("modifiedIndex", node.modified_index),
        ("createdIndex", node.created_index),
    ] {
        if index != V2Index::ZERO {
            number(fields.next(name), index.get());
        }
    }
    fields.close();
}

/// An object being written.
pub(super) struct Fields<'a> {
    json: &'a mut Vec<u8>,
    is_first: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn open(json: &'a mut Vec<u8>) -> Self {
        json.push(b'{');
        Self { json, is_first: true }
    }

    /// Where the value of the next field goes.
    pub(super) fn next(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.is_first {
            self.json.push(b',');
        }
        self.is_first = false;
        self.json.push(b'"');
        self.json.extend_from_slice(name.as_bytes());
        self.json.extend_from_slice(b"\":");
        self.json
    }

    pub(super) fn close(self) {
        self.json.push(b'}');
    }
}

/// An array.
pub(super) fn array<T>(
    json: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    json.push(b'[');
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        write(json, item);
    }
    json.push(b']');
}

/// An id in its hexadecimal form.
pub(super) fn id(json: &mut Vec<u8>, id: NodeId) {
    write!(json, "\"{id}\"").expect("memory can be written to");
}

/// A number.
pub(super) fn number(json: &mut Vec<u8>, number: impl Display) {
    write!(json, "{number}").expect("memory can be written to");
}

/// A quoted string with Go's escapes; each byte that is not UTF-8 becomes `\ufffd`.
pub(super) fn string(json: &mut Vec<u8>, text: &[u8]) {
    json.push(b'"');
    for chunk in text.utf8_chunks() {
        escaped(json, chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            json.extend_from_slice(REPLACEMENT);
        }
    }
    json.push(b'"');
}

/// Copies whole runs and stops only where something must be escaped.
fn escaped(json: &mut Vec<u8>, text: &[u8]) {
    let mut copied = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            b'<' | b'>' | b'&' | 0..0x20 => {
                json.extend_from_slice(&text[copied..at]);
                json.extend_from_slice(b"\\u00");
                json.push(HEX[usize::from(byte >> 4)]);
                json.push(HEX[usize::from(byte & 15)]);
                copied = at + 1;
                continue;
            }
            // U+2028 and U+2029 end lines in JavaScript: E2 80 A8 and E2 80 A9.
            0xe2 => match text.get(at + 1..at + 3) {
                Some([0x80, 0xa8]) => b"\\u2028",
                Some([0x80, 0xa9]) => b"\\u2029",
                _ => continue,
            },
            _ => continue,
        };
        json.extend_from_slice(&text[copied..at]);
        json.extend_from_slice(escape);
        copied = at + if *byte == 0xe2 { 3 } else { 1 };
    }
    json.extend_from_slice(&text[copied..]);
}

#[cfg(test)]
mod tests {
    use proto::time::Timestamp;

    use super::*;

    fn quoted(text: &[u8]) -> String {
        let mut json = Vec::new();
        string(&mut json, text);
        String::from_utf8(json).unwrap()
    }

    fn file(key: &str, value: &str, modified: u64, created: u64) -> Node {
        Node {
            key: key.into(),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            modified_index: V2Index::new(modified),
            created_index: V2Index::new(created),
            ..Node::default()
        }
    }

    fn shown(action: Action, node: Node, prev_node: Option<Node>) -> String {
        let done = Event {
            action,
            node,
            prev_node,
            index: V2Index::ZERO,
            is_refresh: false,
        };
        String::from_utf8(event(&done).to_vec()).unwrap()
    }

    /// Section 0 of the v2 facts, and checks 27 to 29.
    #[test]
    fn strings_have_the_escapes_of_go() {
        let cases: [(&[u8], &str); 9] = [
            (b"", r#""""#),
            (b"plain /slash", r#""plain /slash""#),
            (br#"a"b\c"#, r#""a\"b\\c""#),
            (
                b"line1\nline2\ttab\rcr\x01ctl",
                r#""line1\nline2\ttab\rcr\u0001ctl""#,
            ),
            (b"\x08\x0c\0\x1f\x7f", "\"\\u0008\\u000c\\u0000\\u001f\x7f\""),
            (
                "☃ \"q\" <&> \\ é".as_bytes(),
                r#""☃ \"q\" \u003c\u0026\u003e \\ é""#,
            ),
            (b"\xff\xfe", r#""\ufffd\ufffd""#),
            (b"a\xe2\x80", r#""a\ufffd\ufffd""#),
            (
                "\u{2028}x\u{2029}\u{2027}".as_bytes(),
                "\"\\u2028x\\u2029\u{2027}\"",
            ),
        ];
        for (text, json) in cases {
            assert_eq!(quoted(text), json);
        }
    }

    /// Recorded with etcd 2.3.8.
    #[test]
    fn events_are_byte_equal_to_the_recorded_ones() {
        assert_eq!(
            shown(
                Action::Set,
                file("/foo", "baz", 5, 5),
                Some(file("/foo", "bar", 4, 4))
            ),
            concat!(
                r#"{"action":"set","node":{"key":"/foo","value":"baz","modifiedIndex":5,"createdIndex":5},"#,
                r#""prevNode":{"key":"/foo","value":"bar","modifiedIndex":4,"createdIndex":4}}"#,
                "\n"
            )
        );
        let root = Node {
            key: "/".into(),
            dir: true,
            ..Node::default()
        };
        assert_eq!(
            shown(Action::Get, root, None),
            "{\"action\":\"get\",\"node\":{\"dir\":true}}\n"
        );
        let removed = Node {
            value: None,
            dir: true,
            ..file("/wd", "", 96, 94)
        };
        assert_eq!(
            shown(Action::Delete, removed, None),
            "{\"action\":\"delete\",\"node\":{\"key\":\"/wd\",\"dir\":true,\"modifiedIndex\":96,\"createdIndex\":94}}\n"
        );
    }

    #[test]
    fn all_fields_stand_in_etcds_order() {
        let child = file("/d/k", "", 7, 7);
        let directory = Node {
            key: "/d".into(),
            value: None,
            dir: true,
            expires_at: Some(Timestamp::from_nanos(1_780_000_000_500_000_000)),
            ttl: Some(30),
            nodes: vec![child, file("/d/z", "26", 8, 8)],
            modified_index: V2Index::new(6),
            created_index: V2Index::new(5),
        };
        assert_eq!(
            shown(Action::Get, directory, None),
            concat!(
                r#"{"action":"get","node":{"key":"/d","dir":true,"expiration":"2026-05-28T20:26:40.5Z","ttl":30,"#,
                r#""nodes":[{"key":"/d/k","value":"","modifiedIndex":7,"createdIndex":7},"#,
                r#"{"key":"/d/z","value":"26","modifiedIndex":8,"createdIndex":8}],"modifiedIndex":6,"createdIndex":5}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_ttl_of_zero_is_left_out_and_an_overdue_one_is_shown() {
        let ttl = |ttl| Node {
            expires_at: Some(Timestamp::from_nanos(1_780_000_000_000_000_000)),
            ttl: Some(ttl),
            ..file("/t", "1", 4, 4)
        };
        assert!(!shown(Action::Get, ttl(0), None).contains("ttl"));
        assert!(
            shown(Action::Get, ttl(-1), None).contains(r#""expiration":"2026-05-28T20:26:40Z","ttl":-1,"#)
        );
    }

    #[test]
    fn the_short_answer_has_the_action_alone() {
        assert_eq!(
            action_only(Action::CompareAndSwap).as_ref(),
            b"{\"action\":\"compareAndSwap\"}\n"
        );
    }
}
