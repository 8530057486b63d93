//! One connection per endpoint, and the rule by which a request goes on to the next one.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint as TransportEndpoint};
use tonic::{Response, Status};

use crate::endpoint::{Endpoint, EndpointError};
use crate::v3::Config;
use crate::v3::error::{Attempt, Error, Verdict, verdict};

/// An idle-looking connection with a request on it is asked for life this often. Stock etcd closes
/// connections that ask more often than every five seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A peer that does not answer such a question within this time is gone.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection without a request on it is left to the kernel, which asks this often before it gives up.
/// Without it, the first write after a server vanished would be an uncertain one.
const KEEP_ALIVE_PROBES: u32 = 2;

/// Whether a request may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Changes nothing, or the same thing again.
    Read,
    /// Changes something.
    Write,
}

/// All endpoints of a cluster.
#[derive(Debug)]
pub(super) struct Pool {
    slots: Vec<Slot>,
    /// Position of the endpoint that answered last.
    preferred: AtomicUsize,
    request_timeout: Duration,
}

#[derive(Debug)]
struct Slot {
    name: String,
    transport: TransportEndpoint,
    connect_timeout: Duration,
    channel: Mutex<Option<Channel>>,
}

impl Pool {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(EndpointError::NoneGiven.into());
        }
        let slots = config
            .endpoints
            .iter()
            .map(|endpoint| Slot::new(endpoint, config.connect_timeout))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            slots,
            preferred: AtomicUsize::new(0),
            request_timeout: config.request_timeout,
        })
    }

    pub(super) const fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Asks one endpoint after the other, beginning with the preferred one. A write is sent at most once;
    /// a read that meets a connection which broke while it was idle is sent once more over a new one.
    pub(super) async fn call<T, F, Fut>(&self, effect: Effect, send: F) -> Result<T, Error>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut attempts = Vec::new();
        let mut is_timeout = false;
        for position in self.order() {
            let slot = &self.slots[position];
            let mut outcome = slot.ask(&send, self.request_timeout).await;
            if effect == Effect::Read && matches!(outcome, Err(Failed::Broken(_))) {
                outcome = slot.ask(&send, self.request_timeout).await;
            }
            let failed = match outcome {
                Ok(answer) => {
                    self.preferred.store(position, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            is_timeout = matches!(failed, Failed::Late);
            let (verdict, reason) = failed.judge();
            let endpoint = slot.name.clone();
            match verdict {
                Verdict::Final(error) => return Err(error),
                Verdict::Unclear if effect == Effect::Write => {
                    return Err(Error::Uncertain { endpoint, reason });
                }
                Verdict::Unclear | Verdict::NotDone => attempts.push(Attempt { endpoint, reason }),
            }
        }
        Err(if is_timeout {
            Error::Timeout {
                after: self.request_timeout,
                attempts,
            }
        } else {
            Error::Unavailable { attempts }
        })
    }

    /// Positions to try, the preferred one first.
    fn order(&self) -> impl Iterator<Item = usize> {
        let first = self.preferred.load(Ordering::Relaxed);
        let count = self.slots.len();
        (0..count).map(move |step| (first + step) % count)
    }
}

enum Failed {
    /// Nothing was sent.
    Connect(String),
    /// Sent, and silence until the limit.
    Late,
    /// The connection broke, or could not be made anew.
    Broken(Status),
    /// The server's own answer.
    Answer(Status),
}

impl Failed {
    fn judge(self) -> (Verdict, String) {
        match self {
            Self::Connect(reason) => (Verdict::NotDone, reason),
            Self::Late => (Verdict::Unclear, "no answer in time".to_owned()),
            Self::Broken(status) => (verdict(&status), reason(&status)),
            Self::Answer(status) => (verdict(&status), status.message().to_owned()),
        }
    }
}

impl Slot {
    fn new(endpoint: &Endpoint, connect_timeout: Duration) -> Result<Self, Error> {
        let malformed = |reason: String| EndpointError::Malformed {
            url: endpoint.to_string(),
            reason,
        };
        if matches!(endpoint, Endpoint::Unix { .. }) || !endpoint.base_path().is_empty() {
            return Err(malformed("the v3 API is spoken to at http://host:port alone".to_owned()).into());
        }
        let transport = TransportEndpoint::from_shared(endpoint.to_string())
            .map_err(|error| malformed(error.to_string()))?
            .connect_timeout(connect_timeout)
            .tcp_keepalive(Some(KEEP_ALIVE_INTERVAL))
            .tcp_keepalive_interval(Some(KEEP_ALIVE_TIMEOUT))
            .tcp_keepalive_retries(Some(KEEP_ALIVE_PROBES))
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        Ok(Self {
            name: endpoint.to_string(),
            transport,
            connect_timeout,
            channel: Mutex::new(None),
        })
    }

    async fn ask<T, F, Fut>(&self, send: &F, limit: Duration) -> Result<T, Failed>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self.channel().await.map_err(Failed::Connect)?;
        match timeout(limit, send(channel)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // Only what goes wrong on this side has a source.
            Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
                self.forget().await;
                Err(Failed::Broken(status))
            }
            Ok(Err(status)) => Err(Failed::Answer(status)),
            Err(_) => {
                // The connection may lead into a hole.
                self.forget().await;
                Err(Failed::Late)
            }
        }
    }

    /// The next request begins with a new connection, and with resolving the name anew.
    async fn forget(&self) {
        *self.channel.lock().await = None;
    }

    /// The connection, made if there is none. All of connecting happens here, where it certainly comes
    /// before sending; a channel that breaks later reconnects by itself and says so when it cannot.
    async fn channel(&self) -> Result<Channel, String> {
        let mut slot = self.channel.lock().await;
        if let Some(channel) = &*slot {
            return Ok(channel.clone());
        }
        let channel = timeout(self.connect_timeout, self.transport.connect())
            .await
            .map_err(|_| format!("no connection within {} ms", self.connect_timeout.as_millis()))?
            .map_err(|error| innermost(&error))?;
        *slot = Some(channel.clone());
        Ok(channel)
    }
}

/// The server's text, or what broke the connection.
fn reason(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => innermost(source),
        None => status.message().to_owned(),
    }
}

/// The text of the error at the bottom: "connection refused" says more than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
