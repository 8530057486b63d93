//! The ordered index of keys, and cursors that go on where a slice ended.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::Revision;
use proto::key::KeyRange;

use super::chain::{Chain, Replaced};
use super::record::Record;
use super::sizes::{self, Sizes};
use crate::budget::Budget;

/// The versions of one key.
pub(crate) type Versions = Chain<Option<Arc<Record>>>;

/// How many keys a batch holds at most: one descent of the tree serves them all.
const BATCH_KEYS_MAX: usize = 256;

/// Every key with its versions.
#[derive(Debug, Default)]
pub(crate) struct KeyIndex {
    map: BTreeMap<Bytes, Versions>,
    live: u64,
    sizes: Sizes,
}

impl KeyIndex {
    /// What a reader at this revision finds.
    pub(crate) fn at(&self, key: &[u8], revision: Revision) -> Option<&Arc<Record>> {
        self.map.get(key)?.at(revision)?.state.as_ref()
    }

    /// What stands there now, visible or not.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Arc<Record>> {
        self.map.get(key)?.newest().state.as_ref()
    }

    /// The key in the index' own allocation.
    pub(crate) fn stored_key(&self, key: &[u8]) -> Option<Bytes> {
        self.map.get_key_value(key).map(|(key, _)| key.clone())
    }

    /// All keys from the cursor on.
    pub(crate) fn scan<'a>(
        &'a self,
        cursor: &Cursor,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Versions)> + use<'a> {
        let bounds = (borrow(&cursor.lower), borrow(&cursor.upper));
        (!cursor.done)
            .then(|| self.map.range::<[u8], _>(bounds))
            .into_iter()
            .flatten()
    }

    /// Number of live keys.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Writes a version; the key as it is stored and what stood there before.
    pub(crate) fn put(&mut self, key: &Bytes, record: Arc<Record>) -> (Bytes, Option<Arc<Record>>) {
        let (revision, new_bytes) = (record.mod_revision, sizes::record(&record));
        let (stored, replaced) = match self.map.entry(key.clone()) {
            Entry::Occupied(entry) => {
                let stored = entry.key().clone();
                (stored, Some(entry.into_mut().push(revision, Some(record))))
            }
            Entry::Vacant(_) => {
                let stored = sizes::exact(key);
                self.map
                    .insert(stored.clone(), Chain::new(revision, Some(record)));
                (stored, None)
            }
        };
        self.sizes.live += new_bytes;
        let had_slot = replaced.is_some();
        let prev = replaced.and_then(|replaced| self.weigh_replaced(replaced));
        if prev.is_none() {
            self.live += 1;
            self.sizes.live += sizes::key(key);
            if had_slot {
                self.sizes.superseded -= sizes::key(key);
            }
        }
        (stored, prev)
    }

    /// Writes a deletion; the key as it is stored and what stood there, none when nothing did.
    pub(crate) fn delete(&mut self, key: &[u8], revision: Revision) -> Option<(Bytes, Arc<Record>)> {
        let (stored, versions) = self
            .map
            .range_mut::<[u8], _>((Bound::Included(key), Bound::Included(key)))
            .next()?;
        versions.newest().state.as_ref()?;
        let stored = stored.clone();
        let replaced = versions.push(revision, None);
        let is_void = versions.is_void();
        let prev = self.weigh_replaced(replaced).expect("only a live key is deleted");
        self.live -= 1;
        self.sizes.live -= sizes::key(key);
        if is_void {
            self.map.remove(key);
        } else {
            self.sizes.supersede(sizes::key(key));
        }
        Some((stored, prev))
    }

    fn weigh_replaced(&mut self, replaced: Replaced<Option<Arc<Record>>>) -> Option<Arc<Record>> {
        let (state, stays) = match replaced {
            Replaced::Superseded(state) => (state, true),
            Replaced::SameRevision(state) => (state, false),
        };
        if let Some(record) = &state {
            self.sizes.live -= sizes::record(record);
            if stays {
                self.sizes.supersede(sizes::record(record));
            }
        }
        state
    }

    /// Drops the versions of a key that no reader at or above `floor` sees.
    pub(crate) fn forget_before(&mut self, key: &Bytes, floor: Revision) {
        let Some(versions) = self.map.get_mut(key) else {
            return;
        };
        let mut freed = 0;
        versions.forget_before(floor, |state| freed += state.as_deref().map_or(0, sizes::record));
        let gone = versions.is_void();
        self.sizes.superseded -= freed;
        if gone {
            self.map.remove(key);
            self.sizes.superseded -= sizes::key(key);
        }
    }

    /// The next live keys from the cursor on that are wanted; empty only when the cursor came to its end or
    /// the budget did.
    pub(crate) fn take_live(
        &self,
        cursor: &mut Cursor,
        budget: &mut Budget,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Vec<Bytes> {
        let mut keys = Vec::new();
        let mut stopped_at = None;
        for (key, versions) in self.scan(cursor) {
            if keys.len() == BATCH_KEYS_MAX || !budget.take() {
                stopped_at = Some(key.clone());
                break;
            }
            if versions.newest().state.is_some() && wanted(key) {
                keys.push(key.clone());
            }
        }
        cursor.stop_at(stopped_at);
        keys
    }

    /// Takes over what a checkpoint held, in key order.
    pub(crate) fn restore(keys: Vec<(Bytes, Versions)>) -> Self {
        let mut index = Self {
            map: keys.into_iter().collect(),
            ..Self::default()
        };
        for (key, versions) in &index.map {
            let newest = versions.newest();
            let all = versions.readable(Revision::ZERO, newest.revision);
            let bytes: u64 = all
                .filter_map(|version| version.state.as_deref())
                .map(sizes::record)
                .sum();
            let live = newest.state.as_deref().map(sizes::record);
            index.live += u64::from(live.is_some());
            match live {
                Some(live) => {
                    index.sizes.live += live + sizes::key(key);
                    index.sizes.supersede(bytes - live);
                }
                None => index.sizes.supersede(bytes + sizes::key(key)),
            }
        }
        index
    }
}

fn borrow(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(AsRef::as_ref)
}

/// A place in a range of keys; owns its bounds, so that it outlives the slice.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    lower: Bound<Bytes>,
    upper: Bound<Bytes>,
    done: bool,
}

impl Cursor {
    /// At the start of a v3 range.
    pub(crate) fn new(range: &KeyRange) -> Self {
        let done = range.is_empty();
        let (lower, upper) = match range {
            KeyRange::One(key) => (Bound::Included(key.clone()), Bound::Included(key.clone())),
            KeyRange::Span { start, end } => (Bound::Included(start.clone()), Bound::Excluded(end.clone())),
            KeyRange::From(start) => (Bound::Included(start.clone()), Bound::Unbounded),
        };
        Self { lower, upper, done }
    }

    /// At the first key of all.
    pub(crate) fn everything() -> Self {
        Self {
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
            done: false,
        }
    }

    /// At the start of everything strictly below a v2 path.
    pub(crate) fn below(path: &str) -> Self {
        let root = path.trim_end_matches('/');
        Self {
            lower: Bound::Included(Bytes::from(format!("{root}/"))),
            upper: Bound::Excluded(Bytes::from(format!("{root}0"))),
            done: false,
        }
    }

    /// Goes on at this key, or is at the end.
    pub(crate) fn stop_at(&mut self, key: Option<Bytes>) {
        match key {
            Some(key) => self.lower = Bound::Included(key),
            None => self.done = true,
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }
}
