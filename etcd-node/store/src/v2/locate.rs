//! What stands at a path.

use std::sync::Arc;

use proto::ids::{Revision, V2Index};

use super::error::ErrorCode;
use super::path;
use crate::budget::Budget;
use crate::mvcc::{Cursor, Directory, Keyspace, Record};

/// What stands at a path at some revision.
#[derive(Debug)]
pub(crate) enum Located<'k> {
    /// The root, or a directory.
    Directory(&'k Directory),
    /// A file.
    File(&'k Arc<Record>),
}

/// Why nothing does: the code, and the path that makes it so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nothing {
    pub(crate) code: ErrorCode,
    pub(crate) cause: String,
}

/// The root as a directory: it has no indexes of its own.
const ROOT: &Directory = &Directory::Implied;

/// What stands at a clean path: a directory shadows a key of the same path.
pub(crate) fn locate<'k>(keyspace: &'k Keyspace, path: &str, at: Revision) -> Result<Located<'k>, Nothing> {
    if path == "/" {
        return Ok(Located::Directory(ROOT));
    }
    let directory = keyspace.directories.at(path, at);
    if directory.exists() {
        return Ok(Located::Directory(directory));
    }
    match keyspace.keys.at(path.as_bytes(), at) {
        // Below a file nothing is shown, for what lies below would make it a directory.
        Some(record) => Ok(Located::File(record)),
        None => Err(first_missing(keyspace, path, at)),
    }
}

/// Which component of a path where nothing stands is the first that misses, or is a file in the way.
fn first_missing(keyspace: &Keyspace, path: &str, at: Revision) -> Nothing {
    for (end, _) in path.match_indices('/').skip(1) {
        let ancestor = &path[..end];
        if keyspace.directories.at(ancestor, at).exists() {
            continue;
        }
        let is_file = keyspace.keys.at(ancestor.as_bytes(), at).is_some();
        let code = if is_file {
            ErrorCode::NotADirectory
        } else {
            ErrorCode::KeyNotFound
        };
        return Nothing {
            code,
            cause: ancestor.to_owned(),
        };
    }
    Nothing {
        code: ErrorCode::KeyNotFound,
        cause: path.to_owned(),
    }
}

/// A search for the indexes of a directory that only v3 keys imply: those of the first shown key below it.
#[derive(Debug)]
pub(crate) struct FirstShown {
    cursor: Cursor,
}

/// Created and modified index.
pub(crate) type Indexes = (V2Index, V2Index);

impl FirstShown {
    pub(crate) fn new(path: &str) -> Self {
        Self {
            cursor: Cursor::below(path),
        }
    }

    /// Searches on; none when the budget ended first.
    pub(crate) fn step(&mut self, keyspace: &Keyspace, at: Revision, budget: &mut Budget) -> Option<Indexes> {
        let mut stopped_at = None;
        for (key, versions) in keyspace.keys.scan(&self.cursor) {
            if !budget.take() {
                stopped_at = Some(key.clone());
                break;
            }
            let Some(record) = versions.at(at).and_then(|version| version.state.as_ref()) else {
                continue;
            };
            let Some(path) = path::of_key(key) else { continue };
            if !keyspace.directories.at(path, at).exists() {
                return Some((record.created_index, record.modified_index));
            }
        }
        self.cursor.stop_at(Some(
            stopped_at.expect("a directory without a record has a shown key below it"),
        ));
        None
    }
}
