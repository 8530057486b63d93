//! What every front needs to know of its node.

use std::sync::Arc;
use std::time::Instant;

use proto::ids::{ClusterId, NodeId};
use proto::time::Timestamp;

use crate::driver::Handle;
use crate::metrics::Metrics;

/// The etcd whose APIs this node speaks. Clients decide by it what they may use: python-etcd by the first
/// three letters, Kubernetes wants at least 3.5.13. v3's `Status.version` is the same.
pub const SERVER_VERSION: &str = "3.6.5";
/// The cluster version that goes with [`SERVER_VERSION`].
pub const CLUSTER_VERSION: &str = "3.6.0";
/// Our own version.
pub const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Shared by all requests; cheap to clone behind an `Arc`.
pub struct Context {
    /// The way to the replica.
    pub handle: Handle,
    /// This node's cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This node's name.
    pub name: String,
    /// When this node started, for durations.
    pub started: Instant,
    /// When this node started, for people.
    pub started_wall: Timestamp,
    /// What this node counts.
    pub metrics: Arc<Metrics>,
}
