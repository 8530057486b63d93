//! Calls of the differential test: how they are drawn, made, and what of their answers is compared.

mod maker;
mod watching;

use proto::etcdserverpb::response_op::Response as Nested;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use tonic::Status;

pub(crate) use maker::Maker;
pub(crate) use watching::Watching;

use crate::support::Clients;

/// One call, to be made on both sides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    /// A lease too short to be left alone: granted and revoked at once.
    GrantShort(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    KeepAlive(LeaseKeepAliveRequest),
    Watch(WatchCreateRequest),
    /// Ends a watch that exists.
    Unwatch(i64),
}

/// A refusal: its code and text.
pub(crate) type Refused = (i32, String);

/// What came back, without what must differ.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Refused(Refused),
    Range(RangeResponse),
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    GrantShort(LeaseGrantResponse, LeaseRevokeResponse),
    Revoke(LeaseRevokeResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    Leases(LeaseLeasesResponse),
    KeepAlive(LeaseKeepAliveResponse),
    Watch(WatchResponse),
}

impl Answer {
    /// The revision that it tells.
    pub(crate) fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Refused(_) => None,
            Self::Range(response) => response.header,
            Self::Put(response) => response.header,
            Self::Delete(response) => response.header,
            Self::Txn(response) => response.header,
            Self::Compact(response) => response.header,
            Self::Grant(response) | Self::GrantShort(response, _) => response.header,
            Self::Revoke(response) => response.header,
            Self::TimeToLive(response) => response.header,
            Self::Leases(response) => response.header,
            Self::KeepAlive(response) => response.header,
            Self::Watch(response) => response.header,
        };
        header.map(|header| header.revision)
    }
}

/// A header without who answered.
fn anonymous(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        *header = ResponseHeader {
            revision: header.revision,
            ..ResponseHeader::default()
        };
    }
}

/// Headers inside a transaction too.
fn anonymous_txn(response: &mut TxnResponse) {
    anonymous(&mut response.header);
    for nested in response
        .responses
        .iter_mut()
        .filter_map(|operation| operation.response.as_mut())
    {
        match nested {
            Nested::ResponseRange(response) => anonymous(&mut response.header),
            Nested::ResponsePut(response) => anonymous(&mut response.header),
            Nested::ResponseDeleteRange(response) => anonymous(&mut response.header),
            Nested::ResponseTxn(response) => anonymous_txn(response),
        }
    }
}

/// Makes calls to one side.
pub(crate) struct Caller {
    pub(crate) clients: Clients,
    pub(crate) watching: Watching,
}

impl Caller {
    pub(crate) async fn new(mut clients: Clients) -> Self {
        let watching = Watching::begin(&mut clients).await;
        Self { clients, watching }
    }

    /// Makes the call.
    pub(crate) async fn perform(&mut self, call: &Call) -> Answer {
        self.try_perform(call)
            .await
            .unwrap_or_else(|status| Answer::Refused((status.code() as i32, status.message().to_owned())))
    }

    /// Waits until every watch that reads history has read it, so that a compaction cannot come in between: both
    /// sides read it for all such watches at once or in turn, so a watch begun after them all shows its event
    /// when the others are served.
    pub(crate) async fn settle(&mut self) {
        const MARKER: &str = "~marker";
        let put = PutRequest {
            key: MARKER.into(),
            ..PutRequest::default()
        };
        let header = self.clients.kv.put(put).await.expect("a put").into_inner().header;
        let start_revision = header.expect("a header").revision;
        let watch = WatchCreateRequest {
            key: MARKER.into(),
            start_revision,
            ..WatchCreateRequest::default()
        };
        let id = self.watching.create(&watch).await.watch_id;
        self.watching.event_at(id, start_revision).await;
        self.watching.cancel(id).await;
    }

    async fn try_perform(&mut self, call: &Call) -> Result<Answer, Status> {
        Ok(match call {
            Call::Range(request) => {
                let mut response = self.clients.kv.range(request.clone()).await?.into_inner();
                anonymous(&mut response.header);
                Answer::Range(response)
            }
            Call::Put(request) => {
                let mut response = self.clients.kv.put(request.clone()).await?.into_inner();
                anonymous(&mut response.header);
                Answer::Put(response)
            }
            Call::Delete(request) => {
                let mut response = self.clients.kv.delete_range(request.clone()).await?.into_inner();
                anonymous(&mut response.header);
                Answer::Delete(response)
            }
            Call::Txn(request) => {
                let mut response = self.clients.kv.txn(request.clone()).await?.into_inner();
                anonymous_txn(&mut response);
                Answer::Txn(response)
            }
            Call::Compact(request) => {
                let mut response = self.clients.kv.compact(*request).await?.into_inner();
                anonymous(&mut response.header);
                Answer::Compact(response)
            }
            Call::Watch(request) => Answer::Watch(self.watching.create(request).await),
            Call::Unwatch(id) => Answer::Watch(self.watching.cancel(*id).await),
            _ => return self.perform_lease(call).await,
        })
    }

    async fn perform_lease(&mut self, call: &Call) -> Result<Answer, Status> {
        Ok(match call {
            Call::Grant(request) => Answer::Grant(self.grant(*request).await?),
            Call::GrantShort(request) => {
                let granted = self.grant(*request).await?;
                Answer::GrantShort(granted, self.revoke(LeaseRevokeRequest { id: request.id }).await?)
            }
            Call::Revoke(request) => Answer::Revoke(self.revoke(*request).await?),
            Call::TimeToLive(request) => {
                let mut response = self
                    .clients
                    .lease
                    .lease_time_to_live(*request)
                    .await?
                    .into_inner();
                anonymous(&mut response.header);
                response.ttl = response.ttl.signum();
                response.keys.sort();
                Answer::TimeToLive(response)
            }
            Call::Leases => {
                let mut response = self
                    .clients
                    .lease
                    .lease_leases(LeaseLeasesRequest {})
                    .await?
                    .into_inner();
                anonymous(&mut response.header);
                Answer::Leases(response)
            }
            Call::KeepAlive(request) => {
                let requests = tokio_stream::once(*request);
                let mut answers = self.clients.lease.lease_keep_alive(requests).await?.into_inner();
                let mut response = answers.message().await?.expect("each keep-alive is answered");
                anonymous(&mut response.header);
                Answer::KeepAlive(response)
            }
            other => unreachable!("{other:?} is no call about leases"),
        })
    }

    async fn grant(&mut self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        let mut response = self.clients.lease.lease_grant(request).await?.into_inner();
        anonymous(&mut response.header);
        if request.id == 0 {
            assert!(response.id > 0, "a drawn id is positive: {response:?}");
            response.id = 0;
        }
        Ok(response)
    }

    async fn revoke(&mut self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
        let mut response = self.clients.lease.lease_revoke(request).await?.into_inner();
        anonymous(&mut response.header);
        Ok(response)
    }
}
