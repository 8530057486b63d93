//! The node: a replicated key-value store, v2 HTTP and v3 gRPC over one keyspace.

pub mod disk;
pub mod snap;
pub mod wal;
