//! What one revision did: the unit of history and of watching.

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::Revision;

use crate::mvcc::Record;
use crate::v2;

/// Everything that one revision did. Both grammars render their watch events from this.
///
/// Invariant: never empty; a command that changed no key and no directory makes no revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The revision that this change made.
    pub revision: Revision,
    /// Keys written, in operation order; the position is the sub-revision. A revision that only touched
    /// directories has none.
    pub writes: Vec<KeyWrite>,
    /// The v2 events of this revision, with consecutive indexes in operation order (keyspace rules, section 1).
    pub events: Vec<Arc<v2::Event>>,
    /// Directories that a recursive delete or a directory's expiry removed, the named one included.
    /// A v2 watch registered exactly on one of them is woken by the one event of the deletion.
    pub removed_directories: Vec<String>,
}

/// One key written or deleted within a [`Change`].
#[derive(Clone, Debug, PartialEq)]
pub struct KeyWrite {
    /// The key as v3 knows it.
    pub key: Bytes,
    /// What stands there now; none = deleted.
    pub record: Option<Arc<Record>>,
    /// What stood there before this revision's operation; none = the key was created.
    pub prev: Option<Arc<Record>>,
}
