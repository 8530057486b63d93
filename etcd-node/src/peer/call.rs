//! Single calls to a peer that is known by its URL alone.

use std::time::Duration;

use proto::ids::{ClusterId, NodeId};
use proto::peer::peer_client::PeerClient;
use proto::peer::{HelloRequest, HelloResponse, InviteRequest, InviteResponse, JoinRequest, JoinResponse};
use tonic::transport::{Channel, Endpoint};

use super::{MESSAGE_BYTES_MAX, PROTOCOL};

/// Until a connection stands.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Until a hello is answered.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Until a newcomer is admitted: two committed entries and a dial back.
const JOIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not a URL that can be dialled.
    #[error("{url:?} is no peer URL")]
    Url {
        /// The URL.
        url: String,
    },
    /// Nobody there, or not ours.
    #[error("{url} does not answer as a peer: {reason}")]
    Failed {
        /// The URL.
        url: String,
        /// What the transport said.
        reason: String,
    },
    /// Speaks another protocol.
    #[error(
        "{url} speaks peer protocol {theirs}, this node {PROTOCOL}: run releases that are at most one apart"
    )]
    Protocol {
        /// The URL.
        url: String,
        /// Their version.
        theirs: u32,
    },
}

/// A channel that connects when it is used, resolving names anew each time.
pub(super) fn channel(url: &str) -> Result<Channel, CallError> {
    let endpoint =
        Endpoint::from_shared(url.to_owned()).map_err(|_| CallError::Url { url: url.to_owned() })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// A client with the limits of peers.
pub(super) fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Asks who is there.
///
/// # Errors
/// [`CallError`].
pub async fn hello(url: &str, cluster: ClusterId, node: NodeId) -> Result<HelloResponse, CallError> {
    let mut request = tonic::Request::new(HelloRequest {
        protocol: PROTOCOL,
        cluster: cluster.get(),
        node: node.get(),
    });
    request.set_timeout(HELLO_TIMEOUT);
    let mut client = client(channel(url)?);
    let response = within(url, HELLO_TIMEOUT, client.hello(request)).await?;
    if response.protocol == PROTOCOL {
        Ok(response)
    } else {
        Err(CallError::Protocol {
            url: url.to_owned(),
            theirs: response.protocol,
        })
    }
}

/// Asks to be admitted.
///
/// # Errors
/// [`CallError`]; asking again is safe, for an incarnation is admitted once.
pub async fn join_request(url: &str, request: JoinRequest) -> Result<JoinResponse, CallError> {
    let mut client = client(channel(url)?);
    within(url, JOIN_TIMEOUT, client.join(request)).await
}

/// Tells a waiting node that it may join.
///
/// # Errors
/// [`CallError`].
pub async fn invite(url: &str, request: InviteRequest) -> Result<InviteResponse, CallError> {
    let mut client = client(channel(url)?);
    within(url, HELLO_TIMEOUT, client.invite(request)).await
}

async fn within<T>(
    url: &str,
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CallError> {
    let failed = |reason: String| CallError::Failed {
        url: url.to_owned(),
        reason,
    };
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed(reason(&status))),
        Err(_) => Err(failed(format!("no answer within {limit:?}"))),
    }
}

/// The innermost cause is the one that helps ("connection refused").
pub(super) fn reason(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}
