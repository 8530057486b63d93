//! How programs talk to a store: the v3 API over gRPC, the v2 API over HTTP, and the small HTTP/1 client
//! that the latter stands on. Everything fails over between endpoints, and nothing is ever said twice
//! that may have been done once: an unanswered write is reported as uncertain, not repeated.

pub mod endpoint;
pub mod http;
mod pause;
pub mod v2;
pub mod v3;
