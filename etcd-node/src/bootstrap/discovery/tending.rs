//! After the start: keeping this node's registration alive, and, on the leader, looking for newcomers that wait.
//! Nothing here touches Raft; a discovery service that is gone changes nothing for the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use daemon::backoff::Backoff;
use proto::ids::{ClusterId, NodeId};
use proto::peer::InviteRequest;
use proto::peer::hello_response::State;

use super::Discovery;
use crate::bootstrap::random;
use crate::driver::Role;
use crate::peer::{self, Station};

/// How long a registration lasts, as in etcd 0.4.
pub(super) const REGISTRATION_TTL: Duration = Duration::from_secs(604_800);
/// Between two renewals, as in etcd 0.4: an eighth of the time.
const RENEW_EVERY: Duration = Duration::from_secs(75_600);
/// Pauses after a renewal that failed.
const RENEW_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// Between two looks for newcomers.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// Runs until the node stops.
pub async fn tend(discovery: Discovery, station: Arc<Station>) {
    tokio::join!(renew(&discovery, &station), invite(&discovery, &station));
}

/// Only unsized directories carry a time to live; a sized one has no key under our name.
async fn renew(discovery: &Discovery, station: &Station) {
    let name = &station.identity.name;
    let url = station.identity.peer_urls.first().cloned().unwrap_or_default();
    let mut backoff = Backoff::new(RENEW_PAUSES.0, RENEW_PAUSES.1, random());
    loop {
        let renewed = async {
            if discovery.directory.value("_config/size").await?.is_none() {
                discovery.directory.set(name, &url, REGISTRATION_TTL).await?;
            }
            Ok::<(), super::DirectoryError>(())
        };
        let wait = match renewed.await {
            Ok(()) => {
                backoff.reset();
                RENEW_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "the registration could not be renewed; the cluster is not affected");
                backoff.next_wait()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// A newcomer joins by itself; one that waits for something else is told that it may.
async fn invite(discovery: &Discovery, station: &Station) {
    let mut ignored = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(membership) = station.membership() else {
            continue;
        };
        if membership.handle.status().role != Role::Leader {
            continue;
        }
        let Ok(nodes) = discovery.directory.list().await else {
            continue;
        };
        let known: BTreeSet<String> = membership.handle.view(|view| {
            view.members()
                .present
                .values()
                .flat_map(|member| member.peer_urls.clone())
                .collect()
        });
        for node in nodes {
            let url = node
                .value
                .split_once('=')
                .map_or(node.value.as_str(), |(_, url)| url)
                .to_owned();
            if known.contains(&url) {
                continue;
            }
            let hello = peer::hello(&url, membership.cluster, NodeId::NONE).await;
            let is_waiting = hello.as_ref().is_ok_and(|hello| {
                matches!(hello.state(), State::Waiting) && hello.cluster == ClusterId::NONE.get()
            });
            if is_waiting {
                let peer_urls = known.iter().cloned().collect();
                let request = InviteRequest {
                    cluster: membership.cluster.get(),
                    peer_urls,
                };
                let _next_look_tells = peer::invite(&url, request).await;
            } else if hello.is_err() && ignored.insert(url.clone()) {
                tracing::info!(url, "a registration in the discovery directory does not answer");
            }
        }
    }
}
