//! What every front needs to know of its node.

use std::time::Instant;

use proto::ids::{ClusterId, NodeId};

use crate::driver::Handle;

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
    /// When this node started, for stats.
    pub started: Instant,
}
