//! The directory behind a discovery URL, through the v2 API.

use std::time::Duration;

use bytes::Bytes;
use client::http::{Limits, Response, request_url};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::url::Url;

/// One request: to connect, and in all. The answer of a directory of 64 members is a few KiB.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(5),
    body_bytes_max: 1 << 20,
};

/// Error codes of the v2 API that mean something here.
const KEY_NOT_FOUND: u32 = 100;
const COMPARE_FAILED: u32 = 101;
const NODE_EXISTS: u32 = 105;

/// Why the directory did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    /// Nobody answered, or the answer was that of a service in trouble.
    #[error("{0}")]
    Unreachable(String),
    /// Something answered that does not speak the v2 API.
    #[error("{0} does not speak the v2 keys API (status {1}): is this really a discovery URL?")]
    Nonsense(String, u16),
    /// The v2 API refused.
    #[error("{message} ({code}, {cause})")]
    Refused {
        /// Its code.
        code: u32,
        /// Its text.
        message: String,
        /// What it was about.
        cause: String,
    },
}

impl DirectoryError {
    /// Whether waiting may help.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { code, .. } => (300..400).contains(code),
            Self::Nonsense(..) => false,
        }
    }
}

/// One registration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Node {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) dir: bool,
    pub(super) created_index: u64,
    pub(super) modified_index: u64,
    pub(super) nodes: Vec<Self>,
}

impl Node {
    /// The last part of the key.
    pub(super) fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    node: Option<Node>,
    error_code: u32,
    message: String,
    cause: String,
}

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    /// Where it is.
    pub(super) url: Url,
    base: String,
}

/// How a conditional write ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It was made.
    Done(Node),
    /// Something was there already, or it was not what it should be.
    Conflict,
}

impl Directory {
    pub(super) fn new(url: &Url) -> Self {
        Self {
            url: url.clone(),
            base: url.to_string().trim_end_matches('/').to_owned(),
        }
    }

    /// The registrations: visible children with a value, in order of creation.
    pub(super) async fn list(&self) -> Result<Vec<Node>, DirectoryError> {
        let answer = self
            .send(
                Method::GET,
                "?recursive=true&sorted=true&quorum=true",
                String::new(),
            )
            .await;
        let mut nodes = match answer {
            Ok(node) => node.nodes,
            Err(DirectoryError::Refused {
                code: KEY_NOT_FOUND, ..
            }) => Vec::new(),
            Err(error) => return Err(error),
        };
        nodes.retain(|node| !node.dir && !node.name().starts_with('_'));
        nodes.sort_by_key(|node| node.created_index);
        Ok(nodes)
    }

    /// One key's node.
    pub(super) async fn node(&self, name: &str) -> Result<Option<Node>, DirectoryError> {
        match self
            .send(Method::GET, &format!("/{name}?quorum=true"), String::new())
            .await
        {
            Ok(node) => Ok(Some(node)),
            Err(DirectoryError::Refused {
                code: KEY_NOT_FOUND, ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One key's value.
    pub(super) async fn value(&self, name: &str) -> Result<Option<String>, DirectoryError> {
        Ok(self.node(name).await?.map(|node| node.value))
    }

    /// Writes whatever was there.
    pub(super) async fn set(&self, name: &str, value: &str, ttl: Duration) -> Result<(), DirectoryError> {
        let form = format!("ttl={}&value={}", ttl.as_secs(), escape(value));
        self.send(Method::PUT, &format!("/{name}"), form).await.map(drop)
    }

    /// Writes where nothing is.
    pub(super) async fn create(&self, name: &str, value: &str) -> Result<Written, DirectoryError> {
        let form = format!("value={}", escape(value));
        conditional(
            self.send(Method::PUT, &format!("/{name}?prevExist=false"), form)
                .await,
        )
    }

    /// Writes where this version is.
    pub(super) async fn swap(&self, name: &str, value: &str, index: u64) -> Result<Written, DirectoryError> {
        let form = format!("value={}", escape(value));
        conditional(
            self.send(Method::PUT, &format!("/{name}?prevIndex={index}"), form)
                .await,
        )
    }

    /// Removes this version.
    pub(super) async fn remove(&self, name: &str, index: u64) -> Result<Written, DirectoryError> {
        conditional(
            self.send(
                Method::DELETE,
                &format!("/{name}?prevIndex={index}"),
                String::new(),
            )
            .await,
        )
    }

    async fn send(&self, method: Method, target: &str, form: String) -> Result<Node, DirectoryError> {
        let url = format!("{}{target}", self.base);
        let response = request_url(method, &url, Bytes::from(form), LIMITS)
            .await
            .map_err(|error| DirectoryError::Unreachable(error.to_string()))?;
        read(&self.base, &response)
    }
}

fn conditional(result: Result<Node, DirectoryError>) -> Result<Written, DirectoryError> {
    match result {
        Ok(node) => Ok(Written::Done(node)),
        Err(DirectoryError::Refused {
            code: NODE_EXISTS | COMPARE_FAILED | KEY_NOT_FOUND,
            ..
        }) => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}

fn read(base: &str, response: &Response) -> Result<Node, DirectoryError> {
    let status = response.status.as_u16();
    let Ok(answer) = serde_json::from_slice::<Answer>(&response.body) else {
        return Err(if status >= 500 {
            DirectoryError::Unreachable(format!("{base} answers with status {status}"))
        } else {
            DirectoryError::Nonsense(base.to_owned(), status)
        });
    };
    match answer.node {
        Some(node) => Ok(node),
        None if answer.error_code != 0 => Err(DirectoryError::Refused {
            code: answer.error_code,
            message: answer.message,
            cause: answer.cause,
        }),
        None if status >= 500 => Err(DirectoryError::Unreachable(format!(
            "{base} answers with status {status}"
        ))),
        None => Err(DirectoryError::Nonsense(base.to_owned(), status)),
    }
}

fn escape(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}
