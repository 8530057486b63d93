//! Errors of the v2 API: one JSON shape, one number each, and the number picks the status.

use std::borrow::Cow;

use http::StatusCode;
use proto::ids::V2Index;
use store::v2;
use store::v2::path::{PATH_BYTES_MAX, PATH_COMPONENTS_MAX};

use crate::driver::{ProposeError, ReadError};

/// What the front itself finds wrong; the state machine's codes are in [`v2::ErrorCode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// From the state machine.
    Store(v2::ErrorCode),
    /// 201
    PrevValueRequired,
    /// 202
    TtlNotANumber,
    /// 203
    IndexNotANumber,
    /// 209
    InvalidField,
    /// 210
    InvalidForm,
    /// 211
    RefreshWithValue,
    /// 212
    RefreshWithoutTtl,
    /// 300
    RaftInternal,
    /// 301
    DuringElection,
    /// 401
    EventIndexCleared,
}

impl Code {
    fn number(self) -> u16 {
        match self {
            Self::Store(code) => code.number(),
            Self::PrevValueRequired => 201,
            Self::TtlNotANumber => 202,
            Self::IndexNotANumber => 203,
            Self::InvalidField => 209,
            Self::InvalidForm => 210,
            Self::RefreshWithValue => 211,
            Self::RefreshWithoutTtl => 212,
            Self::RaftInternal => 300,
            Self::DuringElection => 301,
            Self::EventIndexCleared => 401,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Store(code) => code.message(),
            Self::PrevValueRequired => "PrevValue is Required in POST form",
            Self::TtlNotANumber => "The given TTL in POST form is not a number",
            Self::IndexNotANumber => "The given index in POST form is not a number",
            Self::InvalidField => "Invalid field",
            Self::InvalidForm => "Invalid POST form",
            Self::RefreshWithValue => "Value provided on refresh",
            Self::RefreshWithoutTtl => "A TTL must be provided on refresh",
            Self::RaftInternal => "Raft Internal Error",
            Self::DuringElection => "During Leader Election",
            Self::EventIndexCleared => "The event in requested index is outdated and cleared",
        }
    }

    fn status(self) -> StatusCode {
        match self.number() {
            100 => StatusCode::NOT_FOUND,
            101 | 105 => StatusCode::PRECONDITION_FAILED,
            102 | 108 => StatusCode::FORBIDDEN,
            300 | 301 => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// One refusal of the v2 API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    code: Code,
    cause: Cow<'static, str>,
    index: u64,
}

impl Error {
    /// Found before the store was asked: such errors carry index 0.
    pub(super) fn early(code: Code, cause: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            cause: cause.into(),
            index: 0,
        }
    }

    /// Found beside the store's decisions, at this index.
    pub(super) fn at(code: Code, cause: impl Into<Cow<'static, str>>, index: V2Index) -> Self {
        Self {
            code,
            cause: cause.into(),
            index: index.get(),
        }
    }

    /// The window begins after the index that a watch asked for.
    pub(super) fn cleared(oldest: V2Index, asked: V2Index, index: V2Index) -> Self {
        let cause = format!("the requested history has been cleared [{oldest}/{asked}]");
        Self::at(Code::EventIndexCleared, cause, index)
    }

    /// More than this node holds at once; refused before anything was done.
    pub(super) fn overloaded() -> Self {
        Self::early(Code::RaftInternal, ProposeError::Overloaded.to_string())
    }

    /// A form or an entry beyond its limit.
    pub(super) fn too_large() -> Self {
        Self::early(Code::InvalidForm, "http: POST too large")
    }

    /// A key that v2 cannot show, so that nobody could ever read it here.
    pub(super) fn key_too_long() -> Self {
        let cause = format!("a key has at most {PATH_BYTES_MAX} bytes in {PATH_COMPONENTS_MAX} components");
        Self::early(Code::InvalidForm, cause)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The index of the body and of `X-Etcd-Index`.
    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// The body with its line feed.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(96 + self.cause.len());
        json.extend_from_slice(b"{\"errorCode\":");
        super::json::number(&mut json, u64::from(self.code.number()));
        json.extend_from_slice(b",\"message\":");
        super::json::string(&mut json, self.code.message().as_bytes());
        if !self.cause.is_empty() {
            json.extend_from_slice(b",\"cause\":");
            super::json::string(&mut json, self.cause.as_bytes());
        }
        json.extend_from_slice(b",\"index\":");
        super::json::number(&mut json, self.index);
        json.extend_from_slice(b"}\n");
        json
    }
}

impl From<v2::Error> for Error {
    fn from(error: v2::Error) -> Self {
        Self {
            code: Code::Store(error.code),
            cause: error.cause.into(),
            index: error.index.get(),
        }
    }
}

impl From<ProposeError> for Error {
    fn from(error: ProposeError) -> Self {
        let shown = match error {
            ProposeError::TooLarge => return Self::too_large(),
            // etcd's v2 clients know this failure as a timeout.
            ProposeError::NoLeader => ProposeError::TimedOut,
            other => other,
        };
        Self::early(Code::RaftInternal, shown.to_string())
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        let shown = match error {
            ReadError::NoLeader => ReadError::TimedOut,
            other => other,
        };
        Self::early(Code::RaftInternal, shown.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of section 3 of the v2 facts, and the refusals of the keyspace rules, section 8.
    #[test]
    fn every_refusal_has_its_status_and_text() {
        let store = |code, cause: &str| {
            Error::from(v2::Error {
                code,
                cause: cause.into(),
                index: V2Index::new(9),
            })
        };
        let cases = [
            (
                store(v2::ErrorCode::KeyNotFound, "/a"),
                404,
                r#"{"errorCode":100,"message":"Key not found","cause":"/a","index":9}"#,
            ),
            (
                store(v2::ErrorCode::CompareFailed, "[10 != 5]"),
                412,
                r#"{"errorCode":101,"message":"Compare failed","cause":"[10 != 5]","index":9}"#,
            ),
            (
                store(v2::ErrorCode::NotAFile, ""),
                403,
                r#"{"errorCode":102,"message":"Not a file","index":9}"#,
            ),
            (
                store(v2::ErrorCode::NotADirectory, "/f"),
                400,
                r#"{"errorCode":104,"message":"Not a directory","cause":"/f","index":9}"#,
            ),
            (
                store(v2::ErrorCode::AlreadyExists, "/a"),
                412,
                r#"{"errorCode":105,"message":"Key already exists","cause":"/a","index":9}"#,
            ),
            (
                store(v2::ErrorCode::RootIsReadOnly, "/"),
                400,
                r#"{"errorCode":107,"message":"Root is read only","cause":"/","index":9}"#,
            ),
            (
                store(v2::ErrorCode::DirectoryNotEmpty, "/d"),
                403,
                r#"{"errorCode":108,"message":"Directory not empty","cause":"/d","index":9}"#,
            ),
            (
                Error::early(Code::DuringElection, ""),
                500,
                r#"{"errorCode":301,"message":"During Leader Election","index":0}"#,
            ),
            (
                Error::cleared(V2Index::new(210), V2Index::new(5), V2Index::new(1209)),
                400,
                r#"{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [210/5]","index":1209}"#,
            ),
            (
                ProposeError::Overloaded.into(),
                500,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: too many requests","index":0}"#,
            ),
            (
                ProposeError::NoLeader.into(),
                500,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":0}"#,
            ),
            (
                ProposeError::Uncertain.into(),
                500,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out, possibly due to previous leader failure","index":0}"#,
            ),
            (
                ProposeError::NoSpace.into(),
                500,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: mvcc: database space exceeded","index":0}"#,
            ),
            (
                ProposeError::Corrupt.into(),
                500,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: corrupt cluster","index":0}"#,
            ),
            (
                ProposeError::Stopping.into(),
                500,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: server stopped","index":0}"#,
            ),
            (
                ProposeError::TooLarge.into(),
                400,
                r#"{"errorCode":210,"message":"Invalid POST form","cause":"http: POST too large","index":0}"#,
            ),
            (
                ReadError::NoLeader.into(),
                500,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":0}"#,
            ),
        ];
        for (error, status, body) in cases {
            assert_eq!(error.status(), status, "{error:?}");
            assert_eq!(String::from_utf8(error.to_json()).unwrap(), format!("{body}\n"));
        }
    }
}
