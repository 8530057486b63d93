//! How programs talk to a store: the v3 API over gRPC, and a small HTTP/1 client. Everything fails over between endpoints, and nothing is ever said twice
//! that may have been done once: an unanswered write is reported as uncertain, not repeated.

pub mod endpoint;
pub mod http;
pub mod v3;
