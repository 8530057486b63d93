//! Lease: granted, kept alive, looked at and ended through the log, so that every member tells the same.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use proto::etcdserverpb::lease_server::Lease;
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use proto::time::Timestamp;
use store::lease::LeaseInfo;
use store::v3::Refusal;
use store::{Command, Outcome};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::header::{complete, header_now};
use super::stream::{Answers, Outlet, answers};
use super::{SLICE_RECORDS, leader, random, refuse};
use crate::api::Context;
use crate::driver::{Answer, ProposeError};

/// The shortest time to live: what is asked below it becomes it. etcd's rule is one and a half election
/// timeouts, in whole seconds: 2 with its default timeout, and the same here so that clients see the same.
pub(super) const TTL_SECONDS_MIN: i64 = 2;

/// Ids drawn for one grant before giving up: with 63 random bits the first is free.
const DRAWS_MAX: usize = 3;

/// Keep-alives of one stream that wait for their answer. They are renewed together, at most every 500 ms, so a
/// stream that sent them one after the other could keep only a few leases alive.
const KEEP_ALIVES_MAX: usize = 1000;

/// The service.
pub(super) struct Service {
    context: Arc<Context>,
}

impl Service {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    async fn propose(&self, command: Command) -> Result<Answer, Status> {
        self.context
            .handle
            .propose(command)
            .await
            .map_err(refuse::unproposed)
    }

    async fn grant(&self, request: LeaseGrantRequest) -> Result<Result<LeaseGrantResponse, Refusal>, Status> {
        let answer = self.propose(Command::LeaseGrant(request)).await?;
        let Outcome::LeaseGrant(outcome) = answer.outcome else {
            return Err(refuse::mismatched("lease grant"));
        };
        Ok(outcome.map(|mut response| {
            complete(&self.context, &mut response.header, answer.term);
            response
        }))
    }

    /// Every lease with its end; the ids at one moment, the ends a thousand at a time.
    fn ends(&self) -> Vec<(Timestamp, i64)> {
        let ids = self.context.handle.view(|view| view.lease_ids());
        let mut ends = Vec::with_capacity(ids.len());
        for slice in ids.chunks(SLICE_RECORDS) {
            self.context.handle.view(|view| {
                let leases = slice.iter().filter_map(|id| view.lease(*id, false));
                ends.extend(leases.map(|lease| (lease.expires_at, lease.id)));
            });
        }
        ends
    }
}

/// A random id; positive, as etcd's are.
fn draw_id() -> i64 {
    (random() >> 1).max(1).cast_signed()
}

/// Whole seconds left, rounded down; 0 when the lease is about to end.
fn seconds_left(lease: &LeaseInfo, now: Timestamp) -> i64 {
    i64::try_from(lease.expires_at.saturating_since(now).as_secs()).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl Lease for Service {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let mut request = request.into_inner();
        request.ttl = request.ttl.max(TTL_SECONDS_MIN);
        let draws = if request.id == 0 { DRAWS_MAX } else { 0 };
        for _ in 0..draws {
            request.id = draw_id();
            let outcome = self.grant(request).await?;
            if outcome != Err(Refusal::LeaseExists) {
                return outcome
                    .map(Response::new)
                    .map_err(|refusal| refuse::refusal(&refusal));
            }
        }
        let outcome = self.grant(request).await?;
        outcome
            .map(Response::new)
            .map_err(|refusal| refuse::refusal(&refusal))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let answer = self.propose(Command::LeaseRevoke(request.into_inner())).await?;
        let Outcome::LeaseRevoke(outcome) = answer.outcome else {
            return Err(refuse::mismatched("lease revoke"));
        };
        let mut response = outcome.map_err(|refusal| refuse::refusal(&refusal))?;
        complete(&self.context, &mut response.header, answer.term);
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let needs_leader = leader::is_required(request.metadata());
        let context = Arc::clone(&self.context);
        let requests = request.into_inner();
        Ok(Response::new(answers(move |out| {
            keep_alive(context, requests, out, needs_leader)
        })))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let handle = &self.context.handle;
        handle.read_barrier().await.map_err(refuse::unread)?;
        let lease = handle.view(|view| view.lease(id, keys));
        let header = Some(header_now(&self.context));
        let unknown = LeaseTimeToLiveResponse {
            header,
            id,
            ttl: -1,
            ..Default::default()
        };
        let response = lease.map_or(unknown, |lease| LeaseTimeToLiveResponse {
            header,
            id,
            ttl: seconds_left(&lease, handle.now()),
            granted_ttl: lease.granted_ttl,
            keys: lease.keys,
        });
        Ok(Response::new(response))
    }

    /// In the order in which they end, as etcd lists them.
    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.context.handle.read_barrier().await.map_err(refuse::unread)?;
        let mut ends = self.ends();
        ends.sort_unstable();
        let leases = ends.into_iter().map(|(_, id)| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(header_now(&self.context)),
            leases,
        }))
    }
}

type Renewal = AbortOnDropHandle<(i64, Result<i64, ProposeError>)>;

/// Answers each keep-alive after it was applied, in the order asked; the tasks die with the stream.
async fn keep_alive(
    context: Arc<Context>,
    mut requests: Streaming<LeaseKeepAliveRequest>,
    out: Outlet<LeaseKeepAliveResponse>,
    needs_leader: bool,
) -> Result<(), Status> {
    let mut stopping = pin!(context.handle.stopping());
    let mut look = interval(leader::LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks_without = 0;
    let mut asked: VecDeque<Renewal> = VecDeque::new();
    let mut has_more = true;
    while has_more || !asked.is_empty() {
        tokio::select! {
            () = &mut stopping => return Err(refuse::stopping()),
            request = requests.message(), if has_more && asked.len() < KEEP_ALIVES_MAX => match request? {
                Some(LeaseKeepAliveRequest { id }) => asked.push_back(renew(&context, id)),
                None => has_more = false,
            },
            renewed = first(&mut asked), if !asked.is_empty() => {
                asked.pop_front();
                let (id, ttl) = renewed?;
                let ttl = ttl.map_err(refuse::unproposed)?;
                out.send(LeaseKeepAliveResponse { header: Some(header_now(&context)), id, ttl }).await;
            }
            _ = look.tick(), if needs_leader => {
                looks_without = if leader::is_known(&context.handle) { 0 } else { looks_without + 1 };
                if looks_without >= leader::LOOKS_WITHOUT_MAX {
                    return Err(refuse::no_leader());
                }
            }
        }
    }
    Ok(())
}

fn renew(context: &Arc<Context>, id: i64) -> Renewal {
    let handle = context.handle.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { (id, handle.keep_alive(id).await) }))
}

/// Waits for the oldest renewal without taking it out, so that it may be given up and asked again.
async fn first(asked: &mut VecDeque<Renewal>) -> Result<(i64, Result<i64, ProposeError>), Status> {
    let oldest = asked.front_mut().expect("asked only when there is one");
    oldest
        .await
        .map_err(|error| Status::internal(format!("the renewal ended without an answer: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_rounded_down_and_never_negative() {
        let now = Timestamp::from_nanos(10_000_000_000);
        let lease = |nanos| LeaseInfo {
            id: 1,
            granted_ttl: 10,
            expires_at: Timestamp::from_nanos(nanos),
            keys: Vec::new(),
        };
        for (end, expected) in [
            (20_000_000_000, 10),
            (19_999_999_999, 9),
            (10_500_000_000, 0),
            (1, 0),
        ] {
            assert_eq!(seconds_left(&lease(end), now), expected);
        }
    }

    #[test]
    fn drawn_ids_are_positive_and_differ() {
        let mut drawn: Vec<i64> = (0..1000).map(|_| draw_id()).collect();
        assert!(drawn.iter().all(|id| *id > 0));
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 1000);
    }
}
