//! The node. Reading order: [`driver::Handle`] is what the fronts hold; behind it the driver turns inputs
//! into effects of the pure [`replica`], and in front of it `api` speaks v2 HTTP and v3 gRPC.

pub mod api;
pub mod bootstrap;
pub mod config;
pub mod disk;
pub mod driver;
pub mod metrics;
pub mod node;
pub mod peer;
pub mod replica;
pub mod server;
pub mod snap;
pub mod url;
pub mod wal;
pub mod watch;
