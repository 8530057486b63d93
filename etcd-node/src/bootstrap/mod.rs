//! How a node comes to its cluster: from its disk, by founding, or by joining.
//!
//! An empty data directory first gets an intent: a name for its disk (the incarnation) and for the cluster that
//! it would found, written down before anybody else hears of them, so that a start that was cut short goes on
//! where it stopped. A data directory with an identity never asks anybody again.

pub mod discovery;
pub mod disk;
mod founding;
mod join;
mod memory;

use std::sync::Arc;

use proto::ids::{ClusterId, NodeId};

pub use disk::{DataDir, Intent, KnownPeer, Member};
pub use founding::{Confirmation, Opened, found, open};
pub use memory::quota_bytes;

use crate::config::{Config, Origin};
use crate::peer::{Phase, Station};
use discovery::Discovery;

/// What a start without a cluster comes to.
#[derive(Debug)]
pub enum Decision {
    /// Found this cluster; all its founders compute the same.
    Found {
        /// The cluster.
        cluster: ClusterId,
        /// This node in it.
        node: NodeId,
        /// Every founder, this one included: id, name, peer URLs.
        members: Vec<(NodeId, String, Vec<String>)>,
    },
    /// This node was admitted.
    Joined {
        /// To this cluster.
        cluster: ClusterId,
        /// Under this id.
        node: NodeId,
        /// Its other members, to answer them before the first checkpoint names them.
        peers: Vec<KnownPeer>,
    },
}

/// Finds or is given a cluster. Waits as long as it takes, and says what it waits for.
///
/// # Errors
/// What waiting cannot mend: one line that says what to do.
pub async fn decide(
    config: &Config,
    intent: &Intent,
    station: &Arc<Station>,
    discovery: Option<&Discovery>,
) -> anyhow::Result<Decision> {
    match &config.origin {
        Origin::Alone => {
            station.enter(Phase::Founding);
            Ok(alone(config, intent))
        }
        Origin::Static { members, token } => {
            station.enter(Phase::Founding);
            founding::static_cluster(config, members, token, intent).await
        }
        Origin::Join(urls) => {
            station.enter(Phase::Joining);
            join::until_admitted(station, || async { urls.clone() }).await
        }
        Origin::Discovery(_) => {
            let discovery = discovery.expect("a discovery URL comes with its client");
            discovery.decide(config, intent, station).await
        }
    }
}

/// A cluster of one: its ids come from the intent, so that a founding that was cut short is repeated equally.
fn alone(config: &Config, intent: &Intent) -> Decision {
    let node = NodeId::derive(&config.peer_urls, &intent.cluster_seed);
    Decision::Found {
        cluster: ClusterId::derive(&[node]),
        node,
        members: vec![(node, config.name.clone(), config.peer_urls.clone())],
    }
}

/// A number from the system's generator.
pub(crate) fn random() -> u64 {
    daemon::backoff::random_seed()
}
