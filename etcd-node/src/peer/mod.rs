//! Nodes among themselves: Raft traffic, forwarded proposals, checkpoints and joining, over gRPC.
//!
//! [`Station`] is what this node tells others of itself, from its first moment on; [`server`] answers,
//! [`pool`] sends, [`join`] admits newcomers.

mod call;
pub mod join;
mod pool;
mod server;
mod snapshot;
mod station;

pub use call::{CallError, hello, invite, join_request};
pub use pool::Pool;
pub use server::service;
pub use station::{Identity, Membership, Phase, Station};

/// Version of the peer protocol; both sides must speak the same.
pub const PROTOCOL: u32 = 1;

/// One message between peers at most (keyspace rules, section 5): an entry of 12 MiB and its company.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
