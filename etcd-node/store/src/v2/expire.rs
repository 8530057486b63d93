//! The end of v2 nodes by time: one revision and one event for each node that is still due.

use std::sync::Arc;

use proto::time::Timestamp;

use super::event::{self, Action};
use super::remove::Removal;
use crate::budget::Budget;
use crate::mvcc::{Edit, Keyspace};

/// The expiry of one node under way.
#[derive(Debug)]
pub(crate) struct Expiry {
    removal: Option<Removal>,
}

impl Expiry {
    /// Begins with the node at this path, if it ends at exactly this time: one that was renewed or
    /// rewritten meanwhile does not.
    pub(crate) fn begin(keyspace: &mut Keyspace, edit: &mut Edit, path: &str, expires_at: Timestamp) -> Self {
        let directory = keyspace.directories.newest(path);
        if let Some(record) = directory
            .record()
            .filter(|record| record.expires_at == Some(expires_at))
        {
            let prev_node = event::directory(path, record, edit.stamp());
            let index = edit.take_v2_index();
            edit.note_event(Arc::new(event::removal(Action::Expire, prev_node, index)));
            return Self {
                removal: Some(Removal::new(path.to_owned())),
            };
        }
        let is_due = |record: &&Arc<_>| file_ends(record, expires_at);
        if keyspace.keys.newest(path.as_bytes()).filter(is_due).is_some() {
            // A shadowed key goes silently: v2 does not show it.
            keyspace.remove_shown(edit, path.as_bytes(), Action::Expire);
        }
        Self { removal: None }
    }

    /// Goes on; true = complete.
    pub(crate) fn step(&mut self, keyspace: &mut Keyspace, edit: &mut Edit, budget: &mut Budget) -> bool {
        self.removal
            .as_mut()
            .is_none_or(|removal| removal.step(keyspace, edit, budget))
    }
}

fn file_ends(record: &crate::mvcc::Record, expires_at: Timestamp) -> bool {
    record.expires_at == Some(expires_at)
}
