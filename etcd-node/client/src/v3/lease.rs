//! Leases: a promise that keys vanish when their owner falls silent.

use std::fmt;
use std::time::Duration;

use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::v3::channel::Effect;
use crate::v3::watch::demand_leader;
use crate::v3::{Client, Error};

/// Beats that may wait to be sent; each is answered before the next.
const BEATS_QUEUED_MAX: usize = 1;

/// How long [`KeepAlive::next`] waits after a beat that failed.
pub const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The id of a lease; never 0 and, from a server, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(i64);

impl LeaseId {
    /// The id with this number; none for 0, which means "no lease" on the wire.
    pub const fn new(id: i64) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The plain number, for wires and files.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Hexadecimal, as etcdctl prints it.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a beat; the server may choose more than was asked for.
    pub ttl: Duration,
}

impl Client {
    /// Asks for a lease of this many seconds, under this id or one that the server chooses.
    ///
    /// # Errors
    /// As for every write. With an id of one's own an [`Error::Uncertain`] can be cleared up: grant it
    /// again, and [`Code::FailedPrecondition`] means that it is there.
    pub async fn lease_grant(&self, ttl_seconds: i64, id: Option<LeaseId>) -> Result<Grant, Error> {
        let request = LeaseGrantRequest {
            ttl: ttl_seconds,
            id: id.map_or(0, LeaseId::get),
        };
        let response = self
            .pool
            .call(Effect::Write, |channel| async move {
                LeaseClient::new(channel).lease_grant(request).await
            })
            .await?;
        let granted = LeaseId::new(response.id).filter(|_| response.error.is_empty());
        let refused = || Error::Refused {
            code: Code::Unknown,
            message: response.error.clone(),
        };
        Ok(Grant {
            id: granted.ok_or_else(refused)?,
            ttl: seconds(response.ttl),
        })
    }

    /// Ends a lease now; its keys vanish.
    ///
    /// # Errors
    /// As for every write; [`Error::LeaseGone`] when it is gone already.
    pub async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let request = LeaseRevokeRequest { id: lease.get() };
        let revoked = self
            .pool
            .call(Effect::Write, |channel| async move {
                LeaseClient::new(channel).lease_revoke(request).await
            })
            .await;
        match revoked {
            Ok(_) => Ok(()),
            Err(Error::Refused {
                code: Code::NotFound, ..
            }) => Err(Error::LeaseGone { lease }),
            Err(error) => Err(error),
        }
    }

    /// One sign of life: the lease starts anew. Answers how long it lives from here on.
    ///
    /// # Errors
    /// [`Error::LeaseGone`] when it is gone; else as for every read, as a beat twice is a beat.
    pub async fn lease_keep_alive_once(&self, lease: LeaseId) -> Result<Duration, Error> {
        let (_stream, first) = self.open_keep_alive(lease).await?;
        alive(lease, &first)
    }

    /// A stream of signs of life; see [`KeepAlive`].
    pub fn lease_keep_alive(&self, lease: LeaseId) -> KeepAlive {
        KeepAlive {
            client: self.clone(),
            lease,
            stream: None,
            next_beat: Instant::now(),
        }
    }

    /// What is left of a lease; with `Keys::Listed` also the keys under it. A lease that is gone has a
    /// TTL of -1.
    ///
    /// # Errors
    /// As for every read.
    pub async fn lease_time_to_live(
        &self,
        lease: LeaseId,
        keys: Keys,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        let request = LeaseTimeToLiveRequest {
            id: lease.get(),
            keys: keys == Keys::Listed,
        };
        self.pool
            .call(Effect::Read, |channel| async move {
                LeaseClient::new(channel).lease_time_to_live(request).await
            })
            .await
    }

    /// All leases.
    ///
    /// # Errors
    /// As for every read.
    pub async fn lease_list(&self) -> Result<Vec<LeaseId>, Error> {
        let response = self
            .pool
            .call(Effect::Read, |channel| async move {
                LeaseClient::new(channel)
                    .lease_leases(LeaseLeasesRequest::default())
                    .await
            })
            .await?;
        Ok(response
            .leases
            .into_iter()
            .filter_map(|lease| LeaseId::new(lease.id))
            .collect())
    }

    /// Opens a stream of beats; the first one is sent and answered with it.
    async fn open_keep_alive(&self, lease: LeaseId) -> Result<(Beats, LeaseKeepAliveResponse), Error> {
        self.pool
            .call(Effect::Read, |channel| Beats::open(channel, lease))
            .await
    }
}

/// Whether to list the keys under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Answer them.
    Listed,
    /// Leave them out.
    Omitted,
}

/// Keeps one lease alive over a stream that is opened anew, on any endpoint, when it breaks.
#[derive(Debug)]
pub struct KeepAlive {
    client: Client,
    lease: LeaseId,
    stream: Option<Beats>,
    next_beat: Instant,
}

impl KeepAlive {
    /// Which lease.
    pub const fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Waits until a third of the TTL has passed since the last beat (the first time: not at all), then
    /// beats. Call it in a loop; after an error that passes it waits [`RETRY_PAUSE`]. Cancel-safe.
    ///
    /// # Errors
    /// As [`Self::beat`].
    pub async fn next(&mut self) -> Result<Duration, Error> {
        sleep_until(self.next_beat).await;
        self.beat().await
    }

    /// One beat now; answers how long the lease lives from here on. Cancel-safe: an abandoned beat costs
    /// the stream, which the next one opens anew.
    ///
    /// # Errors
    /// [`Error::LeaseGone`] when the lease is gone: there is no point in going on. Otherwise as for every
    /// read; the lease may still live, so go on.
    pub async fn beat(&mut self) -> Result<Duration, Error> {
        let answered = self
            .exchange()
            .await
            .and_then(|answer| alive(self.lease, &answer));
        let pause = answered.as_ref().map_or(RETRY_PAUSE, |ttl| *ttl / 3);
        self.next_beat = Instant::now() + pause;
        answered
    }

    /// A beat over the stream there is, else over a new one.
    async fn exchange(&mut self) -> Result<LeaseKeepAliveResponse, Error> {
        if let Some(mut stream) = self.stream.take()
            && let Ok(Ok(answer)) = timeout(self.client.pool.request_timeout(), stream.beat(self.lease)).await
        {
            self.stream = Some(stream);
            return Ok(answer);
        }
        let (stream, answer) = self.client.open_keep_alive(self.lease).await?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// The two ends of a stream of beats.
#[derive(Debug)]
struct Beats {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl Beats {
    async fn open(
        channel: Channel,
        lease: LeaseId,
    ) -> Result<Response<(Self, LeaseKeepAliveResponse)>, Status> {
        let (requests, queue) = mpsc::channel(BEATS_QUEUED_MAX);
        // The first beat goes in before the stream is opened: a stock etcd sends no head before it.
        requests
            .try_send(beat(lease))
            .map_err(|error| Status::internal(error.to_string()))?;
        let stream = demand_leader(Request::new(ReceiverStream::new(queue)));
        let mut answers = LeaseClient::new(channel)
            .lease_keep_alive(stream)
            .await?
            .into_inner();
        let first = next_answer(&mut answers).await?;
        Ok(Response::new((Self { requests, answers }, first)))
    }

    async fn beat(&mut self, lease: LeaseId) -> Result<LeaseKeepAliveResponse, Status> {
        self.requests
            .try_send(beat(lease))
            .map_err(|error| Status::unavailable(error.to_string()))?;
        next_answer(&mut self.answers).await
    }
}

const fn beat(lease: LeaseId) -> LeaseKeepAliveRequest {
    LeaseKeepAliveRequest { id: lease.get() }
}

async fn next_answer(
    answers: &mut Streaming<LeaseKeepAliveResponse>,
) -> Result<LeaseKeepAliveResponse, Status> {
    answers
        .message()
        .await?
        .ok_or_else(|| Status::unavailable("the server ended the stream"))
}

/// A lease that is gone answers a TTL of 0.
fn alive(lease: LeaseId, answer: &LeaseKeepAliveResponse) -> Result<Duration, Error> {
    if answer.ttl > 0 {
        Ok(seconds(answer.ttl))
    } else {
        Err(Error::LeaseGone { lease })
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
