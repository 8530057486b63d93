//! What is printed: etcdctl 2's three formats, byte for byte.

use std::fmt::Write as _;
use std::io::{self, Write};

use client::v2::{Answer, Event, Node};
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

use crate::exit::Failure;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The value.
    Simple,
    /// What is known of the key, like the head of a letter.
    Extended,
    /// As the Go client would write it.
    Json,
}

impl Format {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "simple" => Some(Self::Simple),
            "extended" => Some(Self::Extended),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Prints a text as it is, and sees that it arrives.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints lines.
pub(crate) fn lines(lines: &[&str]) -> Result<(), Failure> {
    text(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// Prints what happened to a key.
pub(crate) fn key(answer: &Answer, format: Format) -> Result<(), Failure> {
    text(&render(answer, format))
}

fn render(answer: &Answer, format: Format) -> String {
    match format {
        Format::Simple => simple(&answer.event),
        Format::Extended => extended(answer),
        Format::Json => json(&answer.event),
    }
}

fn simple(event: &Event) -> String {
    if event.action == "delete" {
        return format!("PrevNode.Value: {}\n", event.prev_node.as_ref().map_or("", value));
    }
    format!("{}\n", value(&event.node))
}

fn extended(answer: &Answer) -> String {
    let Answer { event, index, .. } = answer;
    let node = &event.node;
    let mut text = format!(
        "Key: {}\nCreated-Index: {}\nModified-Index: {}\n",
        node.key, node.created_index, node.modified_index
    );
    if let Some(previous) = &event.prev_node {
        writeln!(text, "PrevNode.Value: {}", value(previous)).expect("a string takes what is written");
    }
    write!(text, "TTL: {}\nIndex: {index}\n", node.ttl.unwrap_or(0)).expect("a string takes what is written");
    if event.action != "delete" {
        write!(text, "\n{}\n", value(node)).expect("a string takes what is written");
    }
    text
}

fn value(node: &Node) -> &str {
    node.value.as_deref().unwrap_or("")
}

/// The Go client's view of an event: other fields and another order than the API's.
#[derive(Serialize)]
struct GoEvent<'a> {
    action: &'a str,
    node: GoNode<'a>,
    #[serde(rename = "prevNode")]
    prev_node: Option<GoNode<'a>>,
}

#[derive(Serialize)]
struct GoNode<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dir: bool,
    value: &'a str,
    nodes: Option<Vec<Self>>,
    #[serde(rename = "createdIndex")]
    created_index: u64,
    #[serde(rename = "modifiedIndex")]
    modified_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
}

impl<'a> GoNode<'a> {
    fn new(node: &'a Node) -> Self {
        Self {
            key: &node.key,
            dir: node.dir,
            value: value(node),
            nodes: (!node.nodes.is_empty()).then(|| node.nodes.iter().map(GoNode::new).collect()),
            created_index: node.created_index,
            modified_index: node.modified_index,
            expiration: node.expiration.as_deref(),
            ttl: node.ttl.filter(|ttl| *ttl != 0),
        }
    }
}

fn json(event: &Event) -> String {
    let event = GoEvent {
        action: &event.action,
        node: GoNode::new(&event.node),
        prev_node: event.prev_node.as_ref().map(GoNode::new),
    };
    let mut text = Vec::new();
    event
        .serialize(&mut serde_json::Serializer::with_formatter(
            &mut text,
            GoEscapes(CompactFormatter),
        ))
        .expect("a vector takes what is written, and no map has keys that are not strings");
    text.push(b'\n');
    String::from_utf8(text).expect("serde_json writes UTF-8")
}

/// Compact JSON with the escapes that Go's encoder uses, which differ for what HTML gives a meaning.
struct GoEscapes(CompactFormatter);

impl Formatter for GoEscapes {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(position) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (before, from) = rest.split_at(position);
            let escaped = from.chars().next().expect("find points at a character");
            write!(writer, "{before}\\u{:04x}", u32::from(escaped))?;
            rest = &from[escaped.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::Backspace => writer.write_all(b"\\u0008"),
            CharEscape::FormFeed => writer.write_all(b"\\u000c"),
            other => self.0.write_char_escape(writer, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: Option<&str>) -> Node {
        Node {
            key: "/k".to_owned(),
            value: value.map(str::to_owned),
            modified_index: 7,
            created_index: 6,
            ..Node::default()
        }
    }

    fn answer(action: &str, value: Option<&str>, previous: Option<&str>) -> Answer {
        let event = Event {
            action: action.to_owned(),
            node: node(value),
            prev_node: previous.map(|value| node(Some(value))),
        };
        Answer {
            event,
            index: 9,
            raft_index: None,
            raft_term: None,
            cluster_id: None,
        }
    }

    #[test]
    fn simple_shows_the_value_and_for_delete_alone_the_one_before() {
        assert_eq!(
            render(&answer("set", Some("v"), Some("old")), Format::Simple),
            "v\n"
        );
        assert_eq!(
            render(&answer("delete", None, Some("old")), Format::Simple),
            "PrevNode.Value: old\n"
        );
        assert_eq!(
            render(&answer("compareAndDelete", None, Some("old")), Format::Simple),
            "\n"
        );
        assert_eq!(render(&answer("expire", None, Some("old")), Format::Simple), "\n");
    }

    #[test]
    fn extended_shows_the_head_and_the_value() {
        assert_eq!(
            render(&answer("set", Some("v"), Some("old")), Format::Extended),
            "Key: /k\nCreated-Index: 6\nModified-Index: 7\nPrevNode.Value: old\nTTL: 0\nIndex: 9\n\nv\n"
        );
        assert_eq!(
            render(&answer("delete", None, Some("old")), Format::Extended),
            "Key: /k\nCreated-Index: 6\nModified-Index: 7\nPrevNode.Value: old\nTTL: 0\nIndex: 9\n"
        );
    }

    #[test]
    fn json_has_the_fields_and_escapes_of_go() {
        assert_eq!(
            render(
                &answer("get", Some("<a&b>\u{8}\u{c}\n\"\u{2028}\u{2603}"), None),
                Format::Json
            ),
            concat!(
                r#"{"action":"get","node":{"key":"/k","value":"\u003ca\u0026b\u003e\u0008\u000c\n\"\u2028"#,
                "\u{2603}",
                r#"","nodes":null,"createdIndex":6,"modifiedIndex":7},"prevNode":null}"#,
                "\n"
            )
        );
    }
}
