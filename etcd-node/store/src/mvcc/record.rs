//! One version of one key, and one version of one directory.

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{Revision, V2Index};
use proto::time::Timestamp;

use super::chain::State;

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
    /// v2: index of the event that created the node; of the newest event for a key that was shadowed when
    /// it was written; zero for keys that are no clean paths.
    pub created_index: V2Index,
    /// v2: index of the event that made this version; otherwise as `created_index`.
    pub modified_index: V2Index,
    /// v2: when the node ends; none = it does not, or its lease says when.
    pub expires_at: Option<Timestamp>,
}

impl State for Option<Arc<Record>> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

/// One version of a directory that has a record (keyspace rules, section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryRecord {
    /// Index of the event that created the directory.
    pub created_index: V2Index,
    /// Index shown as `modifiedIndex`; an update of the directory leaves it as it was.
    pub modified_index: V2Index,
    /// When the directory ends with all that lies below; none = it does not.
    pub expires_at: Option<Timestamp>,
}

/// What stands at a path of the directory index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Directory {
    /// No directory.
    Absent,
    /// A directory only because keys lie below; shown with the indexes of the first of them.
    Implied,
    /// A directory in its own right.
    Recorded(Arc<DirectoryRecord>),
}

impl Directory {
    pub(crate) fn exists(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    pub(crate) fn record(&self) -> Option<&Arc<DirectoryRecord>> {
        match self {
            Self::Recorded(record) => Some(record),
            Self::Absent | Self::Implied => None,
        }
    }
}

impl State for Directory {
    fn is_absent(&self) -> bool {
        !self.exists()
    }
}
