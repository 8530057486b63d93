//! Asking to be admitted, until it happens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use daemon::backoff::Backoff;
use proto::ids::{ClusterId, NodeId};
use proto::peer::join_response::Verdict;
use proto::peer::{BootedMember, JoinRequest};

use super::{Decision, KnownPeer, random};
use crate::peer::{self, PROTOCOL, Station};

/// Pauses between two rounds over all known members.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What one round over the members came to.
pub(super) enum Round {
    /// Admitted.
    Admitted(Decision),
    /// Nobody could admit us now; the last reason.
    Waiting(String),
    /// A leader refuses us as we are.
    Refused(String),
}

/// Asks each URL once.
pub(super) async fn ask(station: &Station, urls: &[String]) -> Round {
    let identity = &station.identity;
    let request = JoinRequest {
        protocol: PROTOCOL,
        name: identity.name.clone(),
        incarnation: identity.incarnation.clone(),
        boot: identity.boot,
        peer_urls: identity.peer_urls.clone(),
        client_urls: identity.client_urls.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        forwarded: false,
    };
    let mut reason = "no member is known".to_owned();
    for url in urls.iter().filter(|url| !identity.peer_urls.contains(url)) {
        match peer::join_request(url, request.clone()).await {
            Ok(response) => match response.verdict() {
                Verdict::Admitted => {
                    let (cluster, node) = (ClusterId::new(response.cluster), NodeId::new(response.node));
                    let others = response
                        .members
                        .into_iter()
                        .filter(|member| member.id != response.node);
                    let peers = others.map(known_peer).collect();
                    return Round::Admitted(Decision::Joined { cluster, node, peers });
                }
                Verdict::Refused => return Round::Refused(response.reason),
                Verdict::Busy | Verdict::NotReady => reason = format!("{url}: {}", response.reason),
            },
            Err(error) => reason = error.to_string(),
        }
    }
    Round::Waiting(reason)
}

fn known_peer(member: BootedMember) -> KnownPeer {
    KnownPeer {
        id: NodeId::new(member.id).to_string(),
        peer_urls: member.peer_urls,
    }
}

/// Asks until admitted; the list is made anew for each round.
///
/// # Errors
/// When a leader refuses this node as it is.
pub(super) async fn until_admitted<F: Future<Output = Vec<String>>>(
    station: &Arc<Station>,
    urls: impl Fn() -> F,
) -> anyhow::Result<Decision> {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1, random());
    let mut told = String::new();
    loop {
        match ask(station, &urls().await).await {
            Round::Admitted(decision) => return Ok(decision),
            Round::Refused(reason) => bail!("the cluster does not admit this node: {reason}"),
            Round::Waiting(reason) if reason != told => {
                tracing::info!(reason, "waiting to be admitted");
                daemon::ready::status(&format!("waiting to be admitted: {reason}"));
                told = reason;
            }
            Round::Waiting(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            () = station.invited.notified() => {}
        }
    }
}
