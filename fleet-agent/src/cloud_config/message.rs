//! What is said about a user-data file: always with the line that it is about.

use std::fmt;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing has to be done.
    Info,
    /// Something in the file has no effect, or not the expected one.
    Warning,
    /// The file cannot be applied; nothing of it is.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What the message is about, where a flag treats it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A key that means nothing at its place; `--strict` makes it an error.
    UnknownKey,
    /// Everything else.
    General,
}

/// One remark about one line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Counted from 1.
    pub line: usize,
    /// How much it matters.
    pub severity: Severity,
    /// Lower case, no full stop, with what to do.
    pub text: String,
    /// Whether it is about an unknown key.
    pub topic: Topic,
}

impl Message {
    /// A reason not to apply the file.
    pub fn error(line: usize, text: impl Into<String>) -> Self {
        Self::new(line, Severity::Error, text)
    }

    /// Something that will not have the expected effect.
    pub fn warning(line: usize, text: impl Into<String>) -> Self {
        Self::new(line, Severity::Warning, text)
    }

    /// Something worth knowing.
    pub fn info(line: usize, text: impl Into<String>) -> Self {
        Self::new(line, Severity::Info, text)
    }

    /// A key that nothing reads at its place.
    pub fn unknown_key(line: usize, text: impl Into<String>) -> Self {
        Self {
            topic: Topic::UnknownKey,
            ..Self::new(line, Severity::Warning, text)
        }
    }

    fn new(line: usize, severity: Severity, text: impl Into<String>) -> Self {
        let text = text.into();
        assert!(line >= 1, "lines count from 1, in {text:?}");
        Self {
            line,
            severity,
            text,
            topic: Topic::General,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}: {}", self.line, self.severity, self.text)
    }
}

/// Makes every unknown key an error (`--strict`).
pub fn make_strict(messages: &mut [Message]) {
    for message in messages {
        if message.topic == Topic::UnknownKey {
            message.severity = Severity::Error;
        }
    }
}

/// Whether one of them forbids applying the file.
pub fn has_error(messages: &[Message]) -> bool {
    messages.iter().any(|message| message.severity == Severity::Error)
}
