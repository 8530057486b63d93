//! Writes of keys that v2 shows too: what v3 and the end of leases do, with the v2 events that follow from it.
//!
//! This is the whole bridge from v3 to v2: a put is v2's `set`, a delete is `delete`, a lease's end by time
//! is `expire` (keyspace rules, section 1).

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::V2Index;

use super::edit::Edit;
use super::keyspace::{Content, Keyspace};
use super::record::Record;
use crate::v2::event::{self, Action};
use crate::v2::{Event, path};

impl Keyspace {
    /// The path at which v2 shows this key, if it does: a clean path that is no directory.
    pub(crate) fn shown_path<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        path::of_key(key).filter(|path| !self.directories.newest(path).exists())
    }

    /// Writes a key as v3 does; what stood there before. The value is in its final allocation.
    pub(crate) fn put_shown(
        &mut self,
        edit: &mut Edit,
        key: &Bytes,
        value: Bytes,
        lease: i64,
    ) -> Option<Arc<Record>> {
        let path = path::of_key(key);
        let shown = path.filter(|path| !self.directories.newest(path).exists());
        let index = match (shown, path) {
            (Some(_), _) => edit.take_v2_index(),
            (None, Some(_)) => edit.v2_index(),
            (None, None) => V2Index::ZERO,
        };
        let content = Content {
            value,
            lease,
            created_index: index,
            modified_index: index,
            expires_at: None,
        };
        let (record, prev) = self.put_key(edit, key, content);
        if let Some(path) = shown {
            let node = event::file(path, &record, self.expires_at(&record), edit.stamp());
            let prev_node = prev
                .as_ref()
                .map(|prev| event::file(path, prev, self.expires_at(prev), edit.stamp()));
            edit.note_event(Arc::new(Event {
                action: Action::Set,
                node,
                prev_node,
                index,
                is_refresh: false,
            }));
        }
        prev
    }

    /// Deletes a key as v3 does; what stood there.
    pub(crate) fn delete_shown(&mut self, edit: &mut Edit, key: &[u8]) -> Option<(Bytes, Arc<Record>)> {
        self.remove_shown(edit, key, Action::Delete)
    }

    /// Removes a key, which v2 calls by the name of the action; what stood there.
    pub(crate) fn remove_shown(
        &mut self,
        edit: &mut Edit,
        key: &[u8],
        action: Action,
    ) -> Option<(Bytes, Arc<Record>)> {
        let shown = self.shown_path(key);
        let (key, prev) = self.delete_key(edit, key)?;
        if let Some(path) = shown {
            let index = edit.take_v2_index();
            let prev_node = event::file(path, &prev, self.expires_at(&prev), edit.stamp());
            edit.note_event(Arc::new(event::removal(action, prev_node, index)));
        }
        Some((key, prev))
    }
}
