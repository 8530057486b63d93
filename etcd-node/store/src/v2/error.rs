//! Errors of the v2 API that the state machine decides.

use proto::ids::V2Index;

/// Codes of the v2 API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 100
    KeyNotFound,
    /// 101
    CompareFailed,
    /// 102
    NotAFile,
    /// 104
    NotADirectory,
    /// 105
    AlreadyExists,
    /// 107
    RootIsReadOnly,
    /// 108
    DirectoryNotEmpty,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::KeyNotFound => 100,
            Self::CompareFailed => 101,
            Self::NotAFile => 102,
            Self::NotADirectory => 104,
            Self::AlreadyExists => 105,
            Self::RootIsReadOnly => 107,
            Self::DirectoryNotEmpty => 108,
        }
    }

    /// The text on the wire.
    pub fn message(self) -> &'static str {
        match self {
            Self::KeyNotFound => "Key not found",
            Self::CompareFailed => "Compare failed",
            Self::NotAFile => "Not a file",
            Self::NotADirectory => "Not a directory",
            Self::AlreadyExists => "Key already exists",
            Self::RootIsReadOnly => "Root is read only",
            Self::DirectoryNotEmpty => "Directory not empty",
        }
    }
}

/// A v2 operation refused by the state of the keyspace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {} ({cause}) [{index}]", code.number(), code.message())]
pub struct Error {
    /// What is wrong.
    pub code: ErrorCode,
    /// The path or comparison that made it so; may be empty.
    pub cause: String,
    /// The v2 index at the time of the decision.
    pub index: V2Index,
}
