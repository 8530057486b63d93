//! What can go wrong, told apart by what the caller may do next.

use std::fmt;

use ::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::endpoint::{Endpoint, EndpointError};
use crate::http;

/// Numbers of [`Refusal::code`] that callers decide by.
pub mod code {
    /// The key, or a directory on the way to it, does not exist.
    pub const KEY_NOT_FOUND: u64 = 100;
    /// The condition of a compare-and-swap or compare-and-delete does not hold.
    pub const COMPARE_FAILED: u64 = 101;
    /// A directory stands where a file is needed.
    pub const NOT_A_FILE: u64 = 102;
    /// A file stands where a directory is needed.
    pub const NOT_A_DIRECTORY: u64 = 104;
    /// Something stands where a new key was to be made.
    pub const KEY_EXISTS: u64 = 105;
    /// The directory is not empty.
    pub const DIRECTORY_NOT_EMPTY: u64 = 108;
    /// The events asked for are no longer in the window: some were missed.
    pub const EVENT_INDEX_CLEARED: u64 = 401;
}

/// The cluster's refusal, as the keys API writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which one; see [`code`].
    #[serde(rename = "errorCode")]
    pub code: u64,
    /// What the number means.
    pub message: String,
    /// What it is about: mostly a path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// The store's index at the time.
    #[serde(default)]
    pub index: u64,
}

/// As etcdctl prints it: `100: Key not found (/a) [7]`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ({}) [{}]",
            self.code, self.message, self.cause, self.index
        )
    }
}

/// Why one endpoint was of no use.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There was no answer.
    #[error(transparent)]
    Http(http::Error),
    /// There was an answer that says "not now": no leader, no quorum, or a proxy without a backend.
    #[error("{endpoint} has no leader ({status})")]
    NoLeader {
        /// Who said so.
        endpoint: Endpoint,
        /// With which status.
        status: StatusCode,
    },
}

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoints cannot be used as given.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No endpoint carried the call out; nothing was changed. Try again later.
    #[error("no endpoint answers: {}", Failures(failures))]
    Unavailable {
        /// One per endpoint.
        failures: Vec<Failure>,
    },
    /// A write was sent and its outcome is not known: it may have happened, or happen yet. Read before
    /// trying again.
    #[error("the write may have happened: {reason}")]
    Uncertain {
        /// Why the outcome is not known.
        reason: String,
    },
    /// The cluster refuses; trying the same again is no use.
    #[error("{0}")]
    Refused(Refusal),
    /// An HTTP status without the keys API's error: etcd's second family of errors, or no etcd at all.
    #[error("{endpoint} answered {status}: {message}")]
    Status {
        /// Who.
        endpoint: Endpoint,
        /// What.
        status: StatusCode,
        /// The server's text, cut short.
        message: String,
    },
    /// The answer is not what the API says.
    #[error("{endpoint}: {reason}")]
    Malformed {
        /// Whose.
        endpoint: Endpoint,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The number of the cluster's refusal, if it is one; see [`code`].
    pub const fn refusal_code(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}

struct Failures<'a>(&'a [Failure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, failure) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
        }
        Ok(())
    }
}
