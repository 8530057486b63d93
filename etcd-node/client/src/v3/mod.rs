//! The v3 API over gRPC, against several endpoints: our node or a stock etcd.

mod channel;
mod error;
mod kv;
mod lease;
mod transaction;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{Member, MemberListRequest, StatusRequest, StatusResponse};
pub use tonic::Code;

pub use crate::v3::error::{Attempt, Error};
pub use crate::v3::kv::Listing;
pub use crate::v3::lease::{Grant, KeepAlive, Keys, LeaseId, RETRY_PAUSE};
pub use crate::v3::transaction::{Transaction, compare, operation};
pub use crate::v3::watch::{Batch, Watch};

use crate::endpoint::{Endpoint, EndpointError};
use crate::v3::channel::{Effect, Pool};

/// Largest message in either direction: a page of a thousand large values fits, and a server gone mad
/// cannot fill our memory.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the members listen; tried in this order, sticking to the one that answered last.
    pub endpoints: Vec<Endpoint>,
    /// Until a connection stands, name resolution included.
    pub connect_timeout: Duration,
    /// Until one endpoint has answered one request. A read may take this long once per endpoint.
    pub request_timeout: Duration,
}

impl Config {
    /// These endpoints with two seconds to connect and five per request: an etcd that lost its leader
    /// answers or refuses within that time.
    ///
    /// # Errors
    /// When a text is not an endpoint, or there is none.
    pub fn new<I>(endpoints: I) -> Result<Self, EndpointError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let endpoints: Vec<Endpoint> = endpoints
            .into_iter()
            .map(|text| Endpoint::parse(text.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            endpoints,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
        })
    }
}

/// A client of one cluster. Cheap to clone; clones share connections. Connects with the first request.
///
/// Reads go on to the next endpoint when one does not answer. Writes do so only when the last endpoint
/// certainly did nothing; else they end in [`Error::Uncertain`].
#[derive(Clone, Debug)]
pub struct Client {
    pool: Arc<Pool>,
}

impl Client {
    /// A client of the cluster behind these endpoints. Nothing is connected yet.
    ///
    /// # Errors
    /// When there is no endpoint, or one is not a TCP endpoint.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            pool: Arc::new(Pool::new(config)?),
        })
    }

    /// As [`Self::new`], from texts and with the usual limits.
    ///
    /// # Errors
    /// When a text is not an endpoint, or there is none.
    pub fn connect<I>(endpoints: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new(&Config::new(endpoints)?)
    }

    /// The members of the cluster.
    ///
    /// # Errors
    /// When no endpoint answers.
    pub async fn member_list(&self) -> Result<Vec<Member>, Error> {
        let response = self
            .pool
            .call(Effect::Read, |channel| async move {
                ClusterClient::new(channel)
                    .member_list(MemberListRequest::default())
                    .await
            })
            .await?;
        Ok(response.members)
    }

    /// What the member behind the preferred endpoint says of itself.
    ///
    /// # Errors
    /// When no endpoint answers.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        self.pool
            .call(Effect::Read, |channel| async move {
                MaintenanceClient::new(channel)
                    .status(StatusRequest::default())
                    .await
            })
            .await
    }
}
