//! The ordered, versioned index of v2's directories (keyspace rules, section 2).
//!
//! A path is here while it is a directory: because it has a record, or because clean keys lie below it. For
//! that, each directory counts what stands directly in it; the first child makes an implied directory of its
//! parent, and so on upwards, and the last one that goes takes it along. So whether a path is a directory
//! is one look-up at any revision, and a write pays for its ancestors only when they come or go. No v3
//! operation sees any of this.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proto::ids::Revision;

use super::chain::{Chain, Replaced};
use super::edit::Edit;
use super::record::{Directory, DirectoryRecord};
use super::sizes::{self, Sizes};
use crate::v2::path;

#[derive(Debug)]
struct Entry {
    chain: Chain<Directory>,
    /// Live clean keys and directories that stand directly in this one, visible or not: an entry under way
    /// decides by it. A key that is shadowed counts beside the directory that shadows it.
    children: u64,
}

/// All directories but the root, which always is one.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    map: BTreeMap<Arc<str>, Entry>,
    sizes: Sizes,
}

const ABSENT: &Directory = &Directory::Absent;

impl Directories {
    /// What a reader at this revision finds.
    pub(crate) fn at(&self, path: &str, revision: Revision) -> &Directory {
        let version = self.map.get(path).and_then(|entry| entry.chain.at(revision));
        version.map_or(ABSENT, |version| &version.state)
    }

    /// What stands there now, visible or not.
    pub(crate) fn newest(&self, path: &str) -> &Directory {
        self.map
            .get(path)
            .map_or(ABSENT, |entry| &entry.chain.newest().state)
    }

    /// Whether anything stands directly in this directory.
    pub(crate) fn has_children(&self, path: &str) -> bool {
        self.map.get(path).is_some_and(|entry| entry.children > 0)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Directories strictly below `path`, from `from` on, in order.
    pub(crate) fn below<'a>(
        &'a self,
        path: &str,
        from: Bound<&str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Chain<Directory>)> + use<'a> {
        let root = path.trim_end_matches('/');
        let (first, end) = (format!("{root}/"), format!("{root}0"));
        let lower = match from {
            Bound::Unbounded => Bound::Included(first.as_str()),
            Bound::Included(text) | Bound::Excluded(text) => {
                assert!(
                    text >= first.as_str() && text <= end.as_str(),
                    "{text} does not lie below {path}"
                );
                from
            }
        };
        let range = self.map.range::<str, _>((lower, Bound::Excluded(end.as_str())));
        range.map(|(path, entry)| (path, &entry.chain))
    }

    /// All directories from `from` on, in order, with their versions.
    pub(crate) fn all<'a>(
        &'a self,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Chain<Directory>)> + use<'a> {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.map
            .range::<str, _>((lower, Bound::Unbounded))
            .map(|(path, entry)| (path, &entry.chain))
    }

    /// Gives the directory a record, or another one.
    pub(crate) fn record(&mut self, edit: &mut Edit, path: &str, record: DirectoryRecord) {
        let existed = self.newest(path).exists();
        self.set(edit, path, Directory::Recorded(Arc::new(record)));
        if !existed {
            self.child_added(edit, path);
        }
    }

    /// Takes the directory's record away; it stays a directory while anything stands in it.
    pub(crate) fn unrecord(&mut self, edit: &mut Edit, path: &str) {
        assert!(
            self.newest(path).record().is_some(),
            "{path} has no record to take away"
        );
        if self.has_children(path) {
            self.set(edit, path, Directory::Implied);
        } else {
            self.set(edit, path, Directory::Absent);
            self.child_removed(edit, path);
        }
    }

    /// Counts a new key or directory in its parent.
    pub(crate) fn child_added(&mut self, edit: &mut Edit, child: &str) {
        let mut child = child;
        while let Some(parent) = path::parent(child) {
            let existed = self.newest(parent).exists();
            if !existed {
                self.set(edit, parent, Directory::Implied);
            }
            self.map.get_mut(parent).expect("it was just set").children += 1;
            if existed {
                return;
            }
            child = parent;
        }
    }

    /// Counts a key or directory out of its parent.
    pub(crate) fn child_removed(&mut self, edit: &mut Edit, child: &str) {
        let mut child = child;
        while let Some(parent) = path::parent(child) {
            let entry = self
                .map
                .get_mut(parent)
                .expect("what holds a child is a directory");
            assert!(entry.children > 0, "{parent} holds more than it counted");
            entry.children -= 1;
            if entry.children > 0 || entry.chain.newest().state.record().is_some() {
                return;
            }
            self.set(edit, parent, Directory::Absent);
            child = parent;
        }
    }

    fn set(&mut self, edit: &mut Edit, path: &str, state: Directory) {
        let revision = edit.revision();
        edit.fold_directory(path, &state);
        let exists = state.exists();
        let Some((stored, _)) = self.map.get_key_value(path) else {
            let stored: Arc<str> = Arc::from(path);
            edit.note_directory(&stored);
            self.map.insert(
                stored,
                Entry {
                    chain: Chain::new(revision, state),
                    children: 0,
                },
            );
            self.sizes.live += sizes::directory(path);
            return;
        };
        let stored = Arc::clone(stored);
        let entry = self.map.get_mut(path).expect("it was just found");
        let existed = match entry.chain.push(revision, state) {
            Replaced::Superseded(old) => {
                edit.note_directory(&stored);
                self.sizes.supersede(weight(&old));
                old.exists()
            }
            Replaced::SameRevision(old) => old.exists(),
        };
        let is_void = entry.chain.is_void();
        match (existed, exists) {
            (false, true) => {
                self.sizes.live += sizes::directory(path);
                self.sizes.superseded -= sizes::directory(path);
            }
            (true, false) => {
                self.sizes.live -= sizes::directory(path);
                if is_void {
                    assert_eq!(
                        entry.children, 0,
                        "{path} is no directory and yet holds something"
                    );
                    self.map.remove(path);
                } else {
                    self.sizes.supersede(sizes::directory(path));
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Drops the versions of a directory that no reader at or above `floor` sees.
    pub(crate) fn forget_before(&mut self, path: &str, floor: Revision) {
        let Some(entry) = self.map.get_mut(path) else {
            return;
        };
        let mut freed = 0;
        entry.chain.forget_before(floor, |state| freed += weight(state));
        let gone = entry.chain.is_void();
        self.sizes.superseded -= freed;
        if gone {
            assert_eq!(
                entry.children, 0,
                "{path} is no directory and yet holds something"
            );
            self.map.remove(path);
            self.sizes.superseded -= sizes::directory(path);
        }
    }

    /// Takes over what a checkpoint held; the children are counted in afterwards, one by one.
    pub(crate) fn restore(directories: Vec<(Arc<str>, Chain<Directory>)>) -> Self {
        let mut restored = Self::default();
        for (path, chain) in &directories {
            let newest = chain.newest();
            let versions = chain.readable(Revision::ZERO, newest.revision);
            let bytes: u64 = versions.map(|version| weight(&version.state)).sum();
            restored.sizes.supersede(bytes - weight(&newest.state));
            if newest.state.exists() {
                restored.sizes.live += sizes::directory(path);
            } else {
                restored.sizes.supersede(sizes::directory(path));
            }
        }
        let entries = directories
            .into_iter()
            .map(|(path, chain)| (path, Entry { chain, children: 0 }));
        restored.map = entries.collect();
        restored
    }

    /// Counts all restored directories in their parents.
    pub(crate) fn count_restored_directories(&mut self) -> Result<(), String> {
        let existing = self
            .map
            .iter()
            .filter(|(_, entry)| entry.chain.newest().state.exists());
        let paths: Vec<Arc<str>> = existing.map(|(path, _)| Arc::clone(path)).collect();
        match paths.iter().find(|path| !self.count_restored(path)) {
            Some(path) => Err(format!("{path} stands in no directory")),
            None => Ok(()),
        }
    }

    /// Counts a restored key or directory in its parent; false when the parent is no directory.
    pub(crate) fn count_restored(&mut self, child: &str) -> bool {
        let Some(parent) = path::parent(child) else {
            return true;
        };
        match self.map.get_mut(parent) {
            Some(entry) if entry.chain.newest().state.exists() => {
                entry.children += 1;
                true
            }
            Some(_) | None => false,
        }
    }
}

/// What a superseded version of a directory weighs; an absence weighs nothing, for a chain may drop it.
fn weight(state: &Directory) -> u64 {
    if state.exists() { sizes::version() } else { 0 }
}
