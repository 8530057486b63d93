//! The removal of a directory with all that lies at and below it, in slices.
//!
//! Removed are the records and the clean-path keys, the key that the directory shadows included, and nothing
//! else (keyspace rules, section 2.4). Directories come first: a recorded one with keys below stays implied
//! until its last key is gone, so that each directory that existed is met once and told to the watchers.

use std::ops::Bound;
use std::sync::Arc;

use super::path;
use crate::budget::Budget;
use crate::mvcc::{Cursor, Edit, Keyspace};

/// A removal under way.
#[derive(Debug)]
pub(crate) struct Removal {
    path: String,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The directory itself.
    Named,
    /// The directories below it, after this one.
    Directories { after: Option<Arc<str>> },
    /// The key that the directory shadowed.
    Shadowed,
    /// The keys below it.
    Keys(Cursor),
}

impl Removal {
    /// Begins at a directory that exists.
    pub(crate) fn new(path: String) -> Self {
        assert_ne!(path, "/", "the root is never removed");
        Self {
            path,
            phase: Phase::Named,
        }
    }

    /// Goes on; true = complete.
    pub(crate) fn step(&mut self, keyspace: &mut Keyspace, edit: &mut Edit, budget: &mut Budget) -> bool {
        loop {
            match &mut self.phase {
                Phase::Named => {
                    remove_directory(keyspace, edit, &self.path);
                    self.phase = Phase::Directories { after: None };
                }
                Phase::Directories { after } => {
                    if !remove_directories(keyspace, edit, &self.path, (after, budget)) {
                        return false;
                    }
                    self.phase = Phase::Shadowed;
                }
                Phase::Shadowed => {
                    keyspace.delete_key(edit, self.path.as_bytes());
                    self.phase = Phase::Keys(Cursor::below(&self.path));
                }
                Phase::Keys(cursor) => {
                    while !cursor.is_done() {
                        if budget.left() == 0 {
                            return false;
                        }
                        for key in keyspace.keys.take_live(cursor, budget, path::is_clean) {
                            keyspace
                                .delete_key(edit, &key)
                                .expect("the key was live a moment ago");
                        }
                    }
                    assert!(
                        !keyspace.directories.newest(&self.path).exists(),
                        "{} is still there",
                        self.path
                    );
                    return true;
                }
            }
        }
    }
}

fn remove_directory(keyspace: &mut Keyspace, edit: &mut Edit, path: &str) {
    edit.note_removed_directory(path);
    if keyspace.directories.newest(path).record().is_some() {
        keyspace.delete_directory(edit, path);
    }
}

/// False when the budget ended first.
fn remove_directories(
    keyspace: &mut Keyspace,
    edit: &mut Edit,
    path: &str,
    (after, budget): (&mut Option<Arc<str>>, &mut Budget),
) -> bool {
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let below = keyspace.directories.below(path, from);
        let mut found = None;
        for (directory, chain) in below {
            if !budget.take() {
                return false;
            }
            *after = Some(Arc::clone(directory));
            if chain.newest().state.exists() {
                found = Some(Arc::clone(directory));
                break;
            }
        }
        match found {
            Some(directory) => remove_directory(keyspace, edit, &directory),
            None => return true,
        }
    }
}
