//! A YAML document as a tree that remembers lines and how scalars were written.
//!
//! Scalars stay text: what `yes`, `0644` or `off` mean depends on the field that they stand in
//! (YAML 1.1 would make `permissions: 0644` the number 420 and `reboot_strategy: off` a boolean),
//! so typing is left to the reader of the field. Aliases and merge keys are resolved here; both
//! are bounded, because a few lines of aliases can stand for gigabytes.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::message::Message;

/// Deepest nesting that is read; the grammar itself needs seven levels.
const DEPTH_MAX: usize = 64;

/// Most nodes of a document, aliases unfolded: far above any real file, far below what hurts.
const NODES_MAX: usize = 20_000;

/// Most text in a document, aliases unfolded.
const TEXT_BYTES_MAX: usize = 2 * super::input::USER_DATA_BYTES_MAX;

/// A value and the line on which it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Counted from 1.
    pub line: usize,
    /// What it is.
    pub value: Value,
}

/// The three kinds of YAML values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// One scalar, as written.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// Keys in the order of the file, merge keys resolved.
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// The form in which keys are compared: `-` and `_` are the same.
    pub name: String,
    /// The line of the key.
    pub line: usize,
    /// Its value.
    pub node: Node,
}

/// A scalar's text and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// After YAML's own unescaping and folding.
    pub text: String,
    /// Whether it stood without quotes, so that YAML 1.1 gives it a type.
    pub is_plain: bool,
    /// Whether it is tagged `!!binary`, that is, base64 text.
    pub is_binary: bool,
}

impl Node {
    /// Whether the value is absent: `key:`, `key: ~` or `key: null`.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => {
                scalar.is_plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// What it is, for "expected X, found Y".
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(_) if self.is_null() => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn size(&self) -> Size {
        match &self.value {
            Value::Scalar(scalar) => Size::of_text(&scalar.text),
            Value::List(items) => items.iter().fold(Size::ONE, |sum, item| sum.plus(item.size())),
            Value::Map(entries) => entries.iter().fold(Size::ONE, |sum, entry| {
                sum.plus(Size::of_text(&entry.key)).plus(entry.node.size())
            }),
        }
    }
}

/// What a tree weighs, against the bounds above.
#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    const ZERO: Self = Self { nodes: 0, bytes: 0 };
    const ONE: Self = Self { nodes: 1, bytes: 0 };

    fn of_text(text: &str) -> Self {
        Self {
            nodes: 1,
            bytes: text.len(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// A document and what was noticed while reading it.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    /// None for a file with comments only.
    pub root: Option<Node>,
    /// Remarks that do not hinder reading.
    pub messages: Vec<Message>,
}

/// Reads the first document of a text.
///
/// # Errors
/// Text that is not YAML, duplicated keys, or one of the bounds, at the line where it was noticed.
pub fn read(text: &str) -> Result<Document, Message> {
    let mut builder = Builder::new();
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
    let mut messages = Vec::new();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(text, &error))?;
        let line = span.start.line().max(1);
        if matches!(event, Event::DocumentStart(_)) && builder.is_complete {
            messages.push(Message::warning(
                line,
                "only the first document of the file is read, not what follows this ---",
            ));
            break;
        }
        builder.take(event, span, line)?;
    }
    Ok(Document {
        root: builder.root,
        messages,
    })
}

/// Containers that are still open, with a key that waits for its value.
enum Open {
    List {
        line: usize,
        anchor: usize,
        items: Vec<Node>,
    },
    Map {
        line: usize,
        anchor: usize,
        entries: Vec<Entry>,
        key: Option<(String, usize)>,
    },
}

struct Builder {
    stack: Vec<Open>,
    /// Finished nodes by the parser's anchor number.
    anchors: std::collections::BTreeMap<usize, Node>,
    size: Size,
    root: Option<Node>,
    is_complete: bool,
}

impl Builder {
    fn new() -> Self {
        Self {
            stack: Vec::new(),
            anchors: std::collections::BTreeMap::new(),
            size: Size::ZERO,
            root: None,
            is_complete: false,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span, line: usize) -> Result<(), Message> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.weigh(Size::of_text(&text), line)?;
                let scalar = Scalar {
                    text: text.into_owned(),
                    is_plain: style == ScalarStyle::Plain && tag.is_none(),
                    is_binary: tag.as_deref().is_some_and(is_binary),
                };
                // An absent value has the position of the next token: its key's line is meant.
                let line = match self.stack.last() {
                    Some(Open::Map {
                        key: Some((_, key_line)),
                        ..
                    }) if span.is_empty() => *key_line,
                    _ => line,
                };
                let value = Value::Scalar(scalar);
                self.add(Node { line, value }, anchor)
            }
            Event::Alias(id) => {
                let node = self.anchors.get(&id).cloned().ok_or_else(|| {
                    Message::error(line, "an alias inside of what it stands for has no end")
                })?;
                self.weigh(node.size(), line)?;
                self.add(Node { line, ..node }, 0)
            }
            Event::SequenceStart(anchor, _) => {
                let items = Vec::new();
                self.open(Open::List { line, anchor, items }, line)
            }
            Event::MappingStart(anchor, _) => {
                let (entries, key) = (Vec::new(), None);
                let map = Open::Map {
                    line,
                    anchor,
                    entries,
                    key,
                };
                self.open(map, line)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::DocumentEnd => {
                self.is_complete = true;
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn open(&mut self, container: Open, line: usize) -> Result<(), Message> {
        if self.stack.len() == DEPTH_MAX {
            let text = format!("nested more than {DEPTH_MAX} levels deep");
            return Err(Message::error(line, text));
        }
        self.weigh(Size::ONE, line)?;
        self.stack.push(container);
        Ok(())
    }

    /// Counts what is about to be added, before it is copied.
    fn weigh(&mut self, size: Size, line: usize) -> Result<(), Message> {
        self.size = self.size.plus(size);
        if self.size.nodes > NODES_MAX || self.size.bytes > TEXT_BYTES_MAX {
            let text = "too many values, or aliases that stand for too many";
            return Err(Message::error(line, text));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Message> {
        let open = self.stack.pop().expect("the parser pairs starts and ends");
        let (line, anchor, value) = match open {
            Open::List { line, anchor, items } => (line, anchor, Value::List(items)),
            Open::Map {
                line,
                anchor,
                entries,
                ..
            } => (line, anchor, Value::Map(merge(entries)?)),
        };
        self.add(Node { line, value }, anchor)
    }

    /// Puts a finished node at its place: the root, a list, a key or the value of a key.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Message> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                None => *key = Some(key_of(node)?),
                Some((key, line)) => {
                    let name = normal_key(&key);
                    let entry = Entry {
                        key,
                        name,
                        line,
                        node,
                    };
                    push_entry(entries, entry)?;
                }
            },
        }
        Ok(())
    }
}

fn key_of(node: Node) -> Result<(String, usize), Message> {
    match node.value {
        Value::Scalar(scalar) => Ok((scalar.text, node.line)),
        Value::List(_) | Value::Map(_) => Err(Message::error(
            node.line,
            format!("a key must be a single word, not {}", node.kind()),
        )),
    }
}

fn push_entry(entries: &mut Vec<Entry>, entry: Entry) -> Result<(), Message> {
    let twin = entries.iter().find(|other| other.name == entry.name);
    if let Some(twin) = twin {
        let text = format!(
            "{} is given twice, here and in line {}: keep one",
            entry.key, twin.line
        );
        return Err(Message::error(entry.line, text));
    }
    entries.push(entry);
    Ok(())
}

fn normal_key(key: &str) -> String {
    key.replace('-', "_")
}

/// Resolves `<<`: keys of the merged mappings that are not given here.
fn merge(entries: Vec<Entry>) -> Result<Vec<Entry>, Message> {
    let Some(position) = entries.iter().position(|entry| entry.key == "<<") else {
        return Ok(entries);
    };
    let mut own = entries;
    let merged = own.remove(position);
    let sources = match merged.node.value {
        Value::Map(entries) => vec![entries],
        Value::List(items) => items
            .into_iter()
            .map(|item| match item.value {
                Value::Map(entries) => Ok(entries),
                Value::Scalar(_) | Value::List(_) => Err(not_mergeable(merged.line)),
            })
            .collect::<Result<_, _>>()?,
        Value::Scalar(_) => return Err(not_mergeable(merged.line)),
    };
    for entry in sources.into_iter().flatten() {
        if !own.iter().any(|other| other.name == entry.name) {
            own.push(entry);
        }
    }
    Ok(own)
}

fn not_mergeable(line: usize) -> Message {
    Message::error(line, "<< takes an alias of a mapping, or a list of them")
}

fn is_binary(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == "binary"
}

/// The parser's complaint, with a plain word for the mistakes that people make.
fn syntax_error(text: &str, error: &ScanError) -> Message {
    let line = error.marker().line().clamp(1, text.lines().count().max(1));
    // The parser may notice a tab only at the token after it.
    let tab = (line.saturating_sub(1).max(1)..=line).find(|&number| is_indented_by_tab(text, number));
    if let Some(number) = tab {
        return Message::error(number, "a tab in the indentation: YAML takes spaces only");
    }
    let content = text.lines().nth(line - 1).unwrap_or_default();
    let hint = if content.contains('\t') {
        " (the line holds a tab: use spaces)"
    } else {
        ""
    };
    Message::error(line, format!("not YAML: {}{hint}", error.info()))
}

fn is_indented_by_tab(text: &str, line: usize) -> bool {
    let content = text.lines().nth(line - 1).unwrap_or_default();
    let indent = content.len() - content.trim_start().len();
    content[..indent].contains('\t')
}
