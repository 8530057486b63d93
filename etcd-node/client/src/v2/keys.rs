//! Reading and writing keys.

use std::num::NonZeroU64;

use ::http::Method;

use crate::endpoint::Endpoint;
use crate::http;
use crate::v2::path::{Pairs, of_key};
use crate::v2::{Answer, Call, Client, Error, Event, decode, number, refused};

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// A directory with everything below it.
    pub is_recursive: bool,
    /// Children in the order of their keys.
    pub is_sorted: bool,
    /// As the cluster agrees now, not as the member asked last heard.
    pub is_quorum: bool,
}

/// What must be true of a key before it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has this value.
    Value(String),
    /// Its modified index is this.
    Index(NonZeroU64),
    /// Both.
    Both(String, NonZeroU64),
}

/// What may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A file only.
    File,
    /// A file or an empty directory.
    EmptyDirectory,
    /// A file, or a directory with everything below it.
    Recursive,
}

/// Which directories a call that makes one is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One that does not exist; it is an error if anything is there.
    New,
    /// One that does not exist, or a file to replace; it is an error if a directory is there.
    Any,
    /// One that exists; only its TTL changes.
    Existing,
}

impl Client {
    /// Reads a key or a directory.
    ///
    /// # Errors
    /// As for every read: [`Error::Unavailable`], or [`Error::Refused`] ([`crate::v2::code::KEY_NOT_FOUND`]).
    pub async fn get(&self, key: &str, read: Read) -> Result<Answer, Error> {
        let mut query = Pairs::default();
        query.add("quorum", truth(read.is_quorum));
        query.add("recursive", truth(read.is_recursive));
        query.add("sorted", truth(read.is_sorted));
        self.event(&Call::get(query.append_to(of_key(key)))).await
    }

    /// Writes a file, whatever is there, for so many seconds or for good.
    ///
    /// # Errors
    /// As for every write: [`Error::Uncertain`] when it may have happened, [`Error::Unavailable`] when it
    /// certainly has not, or [`Error::Refused`].
    pub async fn set(&self, key: &str, value: &str, ttl: Option<u64>) -> Result<Answer, Error> {
        self.write(Method::PUT, key, Pairs::default(), form(Some(value), ttl))
            .await
    }

    /// Writes a file that does not exist yet.
    ///
    /// # Errors
    /// As for every write.
    pub async fn create(&self, key: &str, value: &str, ttl: Option<u64>) -> Result<Answer, Error> {
        self.write(Method::PUT, key, exists(false), form(Some(value), ttl))
            .await
    }

    /// Writes a file under a directory, with a name that sorts after all those before.
    ///
    /// # Errors
    /// As for every write.
    pub async fn create_in_order(
        &self,
        directory: &str,
        value: &str,
        ttl: Option<u64>,
    ) -> Result<Answer, Error> {
        self.write(Method::POST, directory, Pairs::default(), form(Some(value), ttl))
            .await
    }

    /// Writes a file that exists. Without a TTL it loses the one it has.
    ///
    /// # Errors
    /// As for every write.
    pub async fn update(&self, key: &str, value: &str, ttl: Option<u64>) -> Result<Answer, Error> {
        self.write(Method::PUT, key, exists(true), form(Some(value), ttl))
            .await
    }

    /// Gives a key that exists a new TTL and nothing else; nobody who watches it is woken.
    ///
    /// # Errors
    /// As for every write.
    pub async fn refresh(&self, key: &str, ttl: u64) -> Result<Answer, Error> {
        let mut pairs = Pairs::default();
        pairs.add("refresh", "true");
        pairs.add("ttl", &ttl.to_string());
        self.write(Method::PUT, key, exists(true), pairs).await
    }

    /// Writes a file if the condition holds.
    ///
    /// # Errors
    /// As for every write; [`crate::v2::code::COMPARE_FAILED`] when it does not hold.
    pub async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        condition: &Condition,
        ttl: Option<u64>,
    ) -> Result<Answer, Error> {
        self.write(Method::PUT, key, condition.pairs(), form(Some(value), ttl))
            .await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// As for every write.
    pub async fn delete(&self, key: &str, removal: Removal) -> Result<Answer, Error> {
        let mut query = Pairs::default();
        match removal {
            Removal::File => {}
            Removal::EmptyDirectory => query.add("dir", "true"),
            Removal::Recursive => query.add("recursive", "true"),
        }
        self.write(Method::DELETE, key, query, Pairs::default()).await
    }

    /// Deletes a file if the condition holds.
    ///
    /// # Errors
    /// As for every write; [`crate::v2::code::COMPARE_FAILED`] when it does not hold.
    pub async fn compare_and_delete(&self, key: &str, condition: &Condition) -> Result<Answer, Error> {
        self.write(Method::DELETE, key, condition.pairs(), Pairs::default())
            .await
    }

    /// Makes a directory, or changes the TTL of one.
    ///
    /// # Errors
    /// As for every write.
    pub async fn make_directory(&self, key: &str, ttl: Option<u64>, scope: Scope) -> Result<Answer, Error> {
        let mut query = Pairs::default();
        query.add("dir", "true");
        match scope {
            Scope::New => query.add("prevExist", "false"),
            Scope::Any => {}
            Scope::Existing => query.add("prevExist", "true"),
        }
        self.write(Method::PUT, key, query, form(None, ttl)).await
    }

    async fn write(&self, method: Method, key: &str, query: Pairs, form: Pairs) -> Result<Answer, Error> {
        let call = Call {
            method,
            target: query.append_to(of_key(key)),
            form: form.into_form(),
        };
        self.event(&call).await
    }

    async fn event(&self, call: &Call) -> Result<Answer, Error> {
        let response = self.call(call).await?;
        let http::Response {
            status,
            headers,
            body,
            endpoint,
        } = response;
        if !status.is_success() {
            return Err(refused(&endpoint, status, &body));
        }
        answer(&endpoint, &headers, &body)
    }
}

/// The event of a good answer and what its headers say.
pub(super) fn answer(endpoint: &Endpoint, headers: &::http::HeaderMap, body: &[u8]) -> Result<Answer, Error> {
    let event: Event = decode(endpoint, body)?;
    Ok(Answer {
        event,
        index: number(headers, "x-etcd-index").unwrap_or(0),
        raft_index: number(headers, "x-raft-index"),
        raft_term: number(headers, "x-raft-term"),
        cluster_id: headers
            .get("x-etcd-cluster-id")
            .and_then(|id| id.to_str().ok())
            .map(str::to_owned),
    })
}

impl Condition {
    fn pairs(&self) -> Pairs {
        let (value, index) = match self {
            Self::Value(value) => (Some(value), None),
            Self::Index(index) => (None, Some(index)),
            Self::Both(value, index) => (Some(value), Some(index)),
        };
        let mut pairs = Pairs::default();
        if let Some(index) = index {
            pairs.add("prevIndex", &index.to_string());
        }
        if let Some(value) = value {
            pairs.add("prevValue", value);
        }
        pairs
    }
}

fn exists(does: bool) -> Pairs {
    let mut pairs = Pairs::default();
    pairs.add("prevExist", truth(does));
    pairs
}

fn form(value: Option<&str>, ttl: Option<u64>) -> Pairs {
    let mut pairs = Pairs::default();
    if let Some(ttl) = ttl {
        pairs.add("ttl", &ttl.to_string());
    }
    if let Some(value) = value {
        pairs.add("value", value);
    }
    pairs
}

pub(super) const fn truth(is_true: bool) -> &'static str {
    if is_true { "true" } else { "false" }
}
