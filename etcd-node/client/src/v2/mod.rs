//! The v2 API over HTTP, against several endpoints: our node, etcd 2 and 3 with v2 on, and etcd 0.4.

mod cluster;
mod error;
mod keys;
mod path;
mod types;
mod watch;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub use crate::v2::cluster::Stats;
pub use crate::v2::error::{Error, Failure, Refusal, code};
pub use crate::v2::keys::{Condition, Read, Removal, Scope};
pub use crate::v2::types::{Answer, Event, Member, Node, Version};
pub use crate::v2::watch::Watcher;

use crate::endpoint::{Endpoint, EndpointError};
use crate::http::{self, Limits, Streaming};

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the members listen; tried in this order, sticking to the one that answered last.
    pub endpoints: Vec<Endpoint>,
    /// Limits of one call, over all its endpoints.
    pub limits: Limits,
    /// Told of every request before it is sent.
    pub observer: Option<fn(&Sent<'_>)>,
}

impl Config {
    /// These endpoints with the usual limits.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            limits: Limits::default(),
            observer: None,
        }
    }
}

/// A request as it goes out, for those who want to show it.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Method.
    pub method: &'a Method,
    /// To whom.
    pub endpoint: &'a Endpoint,
    /// Path and query.
    pub target: &'a str,
    /// Body, escaped as a form; mostly empty.
    pub form: &'a str,
}

/// A client of one cluster.
///
/// Reads go on to the next endpoint when one does not answer or has no leader. Writes do so only when
/// nothing was sent; else they end in [`Error::Uncertain`].
#[derive(Debug)]
pub struct Client {
    config: Config,
    /// Position of the endpoint that answered last.
    preferred: AtomicUsize,
}

/// One request, before it is known whom to ask.
#[derive(Clone, Debug)]
struct Call {
    method: Method,
    /// Path and query, without an endpoint's base path.
    target: String,
    form: String,
}

impl Call {
    fn get(target: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            target: target.into(),
            form: String::new(),
        }
    }

    fn is_read(&self) -> bool {
        self.method == Method::GET
    }
}

impl Client {
    /// A client of the cluster behind these endpoints. Nothing is connected yet.
    ///
    /// # Errors
    /// When there is no endpoint.
    pub fn new(config: Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(EndpointError::NoneGiven.into());
        }
        Ok(Self {
            config,
            preferred: AtomicUsize::new(0),
        })
    }

    /// Whom this client asks, in order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.config.endpoints
    }

    /// Limits the calls from here on to this long each.
    pub const fn set_total_limit(&mut self, total: Duration) {
        self.config.limits.total = total;
    }

    /// Sends a call and reads its whole answer.
    async fn call(&self, call: &Call) -> Result<http::Response, Error> {
        let deadline = Instant::now() + self.config.limits.total;
        let mut failures = Vec::new();
        for position in self.order() {
            let endpoint = &self.config.endpoints[position];
            let request = self.prepare(call, endpoint)?;
            let limits = self.share(call, deadline, failures.len());
            match http::Client::new(endpoint.clone(), limits).follow(request).await {
                Ok(response) if response.status.is_server_error() => {
                    failures.push(judge_server_error(call, &response)?);
                }
                Ok(response) => {
                    self.preferred.store(position, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => failures.push(judge(call, error)?),
            }
        }
        Err(Error::Unavailable { failures })
    }

    /// Sends a read whose answer comes when it comes.
    async fn open(&self, call: &Call) -> Result<Streaming, Error> {
        let deadline = Instant::now() + self.config.limits.total;
        let mut failures = Vec::new();
        for position in self.order() {
            let endpoint = &self.config.endpoints[position];
            let request = self.prepare(call, endpoint)?;
            let limits = self.share(call, deadline, failures.len());
            match http::Client::new(endpoint.clone(), limits).open(request).await {
                Ok(streaming) if streaming.status.is_server_error() => {
                    failures.push(Failure::NoLeader {
                        endpoint: endpoint.clone(),
                        status: streaming.status,
                    });
                }
                Ok(streaming) => {
                    self.preferred.store(position, Ordering::Relaxed);
                    return Ok(streaming);
                }
                Err(error) => failures.push(judge(call, error)?),
            }
        }
        Err(Error::Unavailable { failures })
    }

    fn prepare(&self, call: &Call, endpoint: &Endpoint) -> Result<Request<Bytes>, Error> {
        let target = format!("{}{}", endpoint.base_path(), call.target);
        if let Some(observer) = self.config.observer {
            observer(&Sent {
                method: &call.method,
                endpoint,
                target: &call.target,
                form: &call.form,
            });
        }
        http::build(call.method.clone(), &target, Bytes::from(call.form.clone())).map_err(|reason| {
            Error::Malformed {
                endpoint: endpoint.clone(),
                reason: format!("{target:?} is no request: {reason}"),
            }
        })
    }

    /// What one attempt may take: a read leaves time for the endpoints after it; a write that was sent has
    /// no second attempt to leave time for.
    fn share(&self, call: &Call, deadline: Instant, asked: usize) -> Limits {
        let left = deadline.saturating_duration_since(Instant::now());
        let endpoints_left = u32::try_from(self.config.endpoints.len() - asked).unwrap_or(u32::MAX);
        let total = if call.is_read() {
            left / endpoints_left
        } else {
            left
        };
        Limits {
            total,
            ..self.config.limits
        }
    }

    /// Positions to try, the preferred one first.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.preferred.load(Ordering::Relaxed);
        let count = self.config.endpoints.len();
        (0..count).map(move |step| (first + step) % count)
    }
}

/// A failed exchange: something to go on from, or the end of the call.
fn judge(call: &Call, error: http::Error) -> Result<Failure, Error> {
    if call.is_read() || error.is_before_sending() {
        return Ok(Failure::Http(error));
    }
    Err(Error::Uncertain {
        reason: error.to_string(),
    })
}

/// Causes of a 5xx that are given before anything is proposed.
const NOT_PROPOSED: [&str; 2] = [
    "etcdserver: too many requests",
    "etcdserver: mvcc: database space exceeded",
];

/// A 5xx: something to go on from after a read; after a write the end, and mostly an uncertain one.
fn judge_server_error(call: &Call, response: &http::Response) -> Result<Failure, Error> {
    if call.is_read() {
        return Ok(Failure::NoLeader {
            endpoint: response.endpoint.clone(),
            status: response.status,
        });
    }
    let refusal: Option<Refusal> = serde_json::from_slice(&response.body).ok();
    match refusal {
        Some(refusal) if NOT_PROPOSED.contains(&refusal.cause.as_str()) => Err(Error::Refused(refusal)),
        Some(refusal) => Err(Error::Uncertain {
            reason: refusal.to_string(),
        }),
        None => Err(Error::Uncertain {
            reason: format!("{} answered {}", response.endpoint, response.status),
        }),
    }
}

/// Reads a body, or says whose body cannot be read.
fn decode<T: DeserializeOwned>(endpoint: &Endpoint, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Malformed {
        endpoint: endpoint.clone(),
        reason: format!("not what the v2 API answers: {error}"),
    })
}

/// What an answer that is neither good nor a 5xx says.
fn refused(endpoint: &Endpoint, status: StatusCode, body: &[u8]) -> Error {
    serde_json::from_slice(body).map_or_else(
        |_| Error::Status {
            endpoint: endpoint.clone(),
            status,
            message: excerpt(body),
        },
        Error::Refused,
    )
}

/// The `message` of etcd's second family of errors, or the beginning of the text.
fn excerpt(body: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 200;
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    serde_json::from_slice(body).map_or_else(
        |_| {
            String::from_utf8_lossy(body)
                .trim()
                .chars()
                .take(CHARACTERS_MAX)
                .collect()
        },
        |Message { message }| message,
    )
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: StatusCode, body: &'static str) -> http::Response {
        http::Response {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            endpoint: Endpoint::parse("http://127.0.0.1:1").unwrap(),
        }
    }

    fn write() -> Call {
        Call {
            method: Method::PUT,
            target: "/v2/keys/a".to_owned(),
            form: "value=1".to_owned(),
        }
    }

    const TIMED_OUT: &str = r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":0}"#;
    const FULL: &str = r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: too many requests","index":0}"#;

    #[test]
    fn a_write_without_an_outcome_is_uncertain_and_a_read_goes_on() {
        let timed_out = response(StatusCode::INTERNAL_SERVER_ERROR, TIMED_OUT);
        assert!(matches!(
            judge_server_error(&write(), &timed_out),
            Err(Error::Uncertain { .. })
        ));
        let read = Call::get("/v2/keys/a");
        assert!(matches!(
            judge_server_error(&read, &timed_out),
            Ok(Failure::NoLeader { .. })
        ));
        let nonsense = response(StatusCode::BAD_GATEWAY, "<html>");
        assert!(matches!(
            judge_server_error(&write(), &nonsense),
            Err(Error::Uncertain { .. })
        ));
    }

    #[test]
    fn a_write_that_was_not_proposed_is_refused() {
        let full = response(StatusCode::INTERNAL_SERVER_ERROR, FULL);
        assert!(matches!(
            judge_server_error(&write(), &full),
            Err(Error::Refused(_))
        ));
    }

    #[test]
    fn both_families_of_errors_are_read() {
        let endpoint = Endpoint::parse("http://127.0.0.1:1").unwrap();
        let body = br#"{"errorCode":100,"message":"Key not found","cause":"/a","index":7}"#;
        let error = refused(&endpoint, StatusCode::NOT_FOUND, body);
        assert_eq!(error.to_string(), "100: Key not found (/a) [7]");
        let error = refused(
            &endpoint,
            StatusCode::FORBIDDEN,
            br#"{"message":"not current leader"}"#,
        );
        assert_eq!(
            error.to_string(),
            "http://127.0.0.1:1 answered 403 Forbidden: not current leader"
        );
        let error = refused(&endpoint, StatusCode::NOT_FOUND, b"404 page not found\n");
        assert_eq!(
            error.to_string(),
            "http://127.0.0.1:1 answered 404 Not Found: 404 page not found"
        );
    }
}
