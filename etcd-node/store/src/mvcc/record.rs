//! One version of one key.

use bytes::Bytes;
use proto::ids::{Revision, V2Index};
use proto::time::Timestamp;

/// One version of a key, immutable and shared between index, history and watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value.
    pub value: Bytes,
    /// Revision at which this life of the key began.
    pub create_revision: Revision,
    /// Revision of this version.
    pub mod_revision: Revision,
    /// 1 for the first version of this life.
    pub version: i64,
    /// The lease that the key is attached to; 0 = none.
    pub lease: i64,
    /// v2: index of the event that created the node; zero for keys that v2 does not show.
    pub created_index: V2Index,
    /// v2: index of the event that made this version; zero for keys that v2 does not show.
    pub modified_index: V2Index,
    /// v2: when the node ends; none = it does not, or its lease says when.
    pub expires_at: Option<Timestamp>,
}
