//! Reading typed fields out of a mapping, with a message for everything that does not fit.

use super::config::Located;
use super::message::Message;
use super::options::{self, CLOUD_INIT_KEYS};
use super::yaml::{Entry, Node, Value};

/// A mapping and its place in the file, as in `coreos.etcd`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    path: &'a str,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// Reads a node as a mapping; an absent value is an empty one, anything else is none, with a
    /// message.
    pub(super) fn open(path: &'a str, node: &'a Node, messages: &mut Vec<Message>) -> Option<Self> {
        Self::open_as(path, path, node, messages)
    }

    /// The same for an item of the list at this path.
    pub(super) fn open_item(path: &'a str, node: &'a Node, messages: &mut Vec<Message>) -> Option<Self> {
        Self::open_as(path, &format!("an entry of {path}"), node, messages)
    }

    fn open_as(path: &'a str, what: &str, node: &'a Node, messages: &mut Vec<Message>) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Scalar(_) | Value::List(_) if node.is_null() => &[],
            Value::Scalar(_) | Value::List(_) => {
                let text = format!("{what} must be a mapping (key: value), not {}", node.kind());
                messages.push(Message::error(node.line, text));
                return None;
            }
        };
        Some(Self { path, entries })
    }

    /// The entry of a key, in its `_` form; None when it is absent or has no value.
    pub(super) fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries
            .iter()
            .find(|entry| entry.name == name && !entry.node.is_null())
    }

    /// A text, as written.
    pub(super) fn text(&self, name: &str, messages: &mut Vec<Message>) -> Option<Located<String>> {
        let entry = self.entry(name)?;
        let value = scalar_text(entry, messages)?;
        let line = entry.line;
        Some(Located { line, value })
    }

    /// A YAML 1.1 boolean; false when absent or, with a message, when it is none.
    pub(super) fn flag(&self, name: &str, messages: &mut Vec<Message>) -> bool {
        let Some(text) = self.text(name, messages) else {
            return false;
        };
        boolean(&text.value).unwrap_or_else(|| {
            let message = format!("{name} must be true or false, not {:?}", text.value);
            messages.push(Message::error(text.line, message));
            false
        })
    }

    /// The items of a list; none when absent or, with a message, when it is no list.
    pub(super) fn list(&self, name: &str, messages: &mut Vec<Message>) -> &'a [Node] {
        let Some(entry) = self.entry(name) else {
            return &[];
        };
        if let Value::List(items) = &entry.node.value {
            return items;
        }
        let text = format!(
            "{} must be a list (lines that start with -), not {}",
            entry.key,
            entry.node.kind()
        );
        messages.push(Message::error(entry.line, text));
        &[]
    }

    /// Says a word about each key that is not among the known ones.
    pub(super) fn report_unknown(&self, known: &[&str], messages: &mut Vec<Message>) {
        for entry in self.entries {
            if !known.contains(&entry.name.as_str()) {
                messages.push(self.unknown(entry, known));
            }
        }
    }

    fn unknown(&self, entry: &Entry, known: &[&str]) -> Message {
        let Entry { key, name, line, .. } = entry;
        let is_top = self.path == options::TOP_PATH;
        if is_top && CLOUD_INIT_KEYS.contains(&name.as_str()) {
            return Message::info(*line, format!("{key} is for cloud-init and not read here"));
        }
        let here = if is_top {
            format!("at {}", self.path)
        } else {
            format!("in {}", self.path)
        };
        // Close by beats far away: etcd_severs under fleet is a slip, units under etcd is not.
        if let Some(meant) = options::guess(name, known) {
            let text = format!("unknown key {key} {here}: did you mean {meant}");
            return Message::unknown_key(*line, text);
        }
        let text = match options::home_of(name, self.path) {
            Some(home) => {
                format!("{key} has no effect {here}: it belongs to {home}, mind the indentation")
            }
            None => format!("unknown key {key} {here} has no effect: remove it"),
        };
        Message::unknown_key(*line, text)
    }
}

/// The text of an entry's scalar.
pub(super) fn scalar_text(entry: &Entry, messages: &mut Vec<Message>) -> Option<String> {
    let (kind, advice) = match &entry.node.value {
        Value::Scalar(scalar) => return Some(scalar.text.clone()),
        Value::List(_) => ("a list", "write the parts with commas between them"),
        Value::Map(_) => ("a mapping", "mind the indentation, or put it in quotes"),
    };
    let text = format!("{} must be a single value, not {kind}: {advice}", entry.key);
    messages.push(Message::error(entry.line, text));
    None
}

/// YAML 1.1's booleans.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// YAML 1.1's whole numbers: decimal, `0x`, `0b`, octal with a leading `0`, `_` between digits.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        i64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits.strip_prefix("0o").unwrap_or(&digits), 8)
    } else {
        digits.parse()
    };
    magnitude.ok().map(|magnitude| sign * magnitude)
}
