//! Leases of the v3 API: granted, kept alive, ended; each with the keys attached to it.

use bytes::Bytes;
use proto::time::Timestamp;

/// What can be known of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its id.
    pub id: i64,
    /// The time to live that was granted, in seconds.
    pub granted_ttl: i64,
    /// When it ends unless renewed.
    pub expires_at: Timestamp,
    /// The keys attached to it, in order; only when asked for.
    pub keys: Vec<Bytes>,
}
