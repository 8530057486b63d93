//! Ranges of keys, asked the other way round: which of them hold this key?
//!
//! A treap ordered by (start, end) in which every node also knows the latest end below it. A question walks
//! only into subtrees whose latest end lies behind the key and stops at starts behind it, so it costs
//! O(log n + answers) whatever the ranges look like; buckets by common prefix would be shorter to write, but a
//! client could put thousands of ranges into one bucket. Priorities come from a keyed hash of a counter, so a
//! client cannot choose an order of insertion that makes the tree deep.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

/// Where a range ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Never,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Never => true,
        }
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for End {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Before(mine), Self::Before(theirs)) => mine.cmp(theirs),
            (Self::Before(_), Self::Never) => Ordering::Less,
            (Self::Never, Self::Before(_)) => Ordering::Greater,
            (Self::Never, Self::Never) => Ordering::Equal,
        }
    }
}

/// A range with its two bounds; the order of the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    /// First key inside.
    pub(super) start: Bytes,
    /// First key after it.
    pub(super) end: End,
}

/// A map from intervals to values.
pub(super) struct Intervals<T> {
    root: Link<T>,
    hasher: RandomState,
    drawn: u64,
}

type Link<T> = Option<Box<Node<T>>>;

struct Node<T> {
    interval: Interval,
    value: T,
    priority: u64,
    /// Invariant: the greatest end of this node and of all below it.
    latest_end: End,
    left: Link<T>,
    right: Link<T>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self {
            root: None,
            hasher: RandomState::new(),
            drawn: 0,
        }
    }
}

impl<T> Intervals<T> {
    /// The value of exactly this interval.
    pub(super) fn get(&self, interval: &Interval) -> Option<&T> {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match interval.cmp(&node.interval) {
                Ordering::Less => &node.left,
                Ordering::Equal => return Some(&node.value),
                Ordering::Greater => &node.right,
            };
        }
        None
    }

    /// Adds an interval that is not there yet.
    pub(super) fn insert(&mut self, interval: Interval, value: T) {
        debug_assert!(
            self.get(&interval).is_none(),
            "an interval stands in the tree once"
        );
        self.drawn += 1;
        let (left, right) = split(self.root.take(), &interval);
        let latest_end = interval.end.clone();
        let priority = self.hasher.hash_one(self.drawn);
        let node = Node {
            interval,
            value,
            priority,
            latest_end,
            left: None,
            right: None,
        };
        self.root = merge(merge(left, Some(Box::new(node))), right);
    }

    /// Takes an interval out.
    pub(super) fn remove(&mut self, interval: &Interval) -> Option<T> {
        let (removed, root) = remove(self.root.take(), interval);
        self.root = root;
        removed
    }

    /// Shows the value of every interval that holds the key.
    pub(super) fn stab(&self, key: &[u8], visit: &mut impl FnMut(&T)) {
        stab(&self.root, key, visit);
    }
}

fn stab<T>(link: &Link<T>, key: &[u8], visit: &mut impl FnMut(&T)) {
    let Some(node) = link else { return };
    if !node.latest_end.is_after(key) {
        return;
    }
    stab(&node.left, key, visit);
    if node.interval.start.as_ref() <= key {
        if node.interval.end.is_after(key) {
            visit(&node.value);
        }
        stab(&node.right, key, visit);
    }
}

impl<T> Node<T> {
    fn refresh(&mut self) {
        let below = [&self.left, &self.right]
            .into_iter()
            .flatten()
            .map(|child| &child.latest_end);
        let latest = below.fold(&self.interval.end, |latest, end| latest.max(end));
        self.latest_end = latest.clone();
    }
}

/// Everything before the interval, and the rest.
fn split<T>(link: Link<T>, interval: &Interval) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    if node.interval < *interval {
        let (left, right) = split(node.right.take(), interval);
        node.right = left;
        node.refresh();
        (Some(node), right)
    } else {
        let (left, right) = split(node.left.take(), interval);
        node.left = right;
        node.refresh();
        (left, Some(node))
    }
}

/// Joins two trees of which the first lies wholly before the second.
fn merge<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, only) | (only, None) => only,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = merge(left.right.take(), Some(right));
                left.refresh();
                Some(left)
            } else {
                right.left = merge(Some(left), right.left.take());
                right.refresh();
                Some(right)
            }
        }
    }
}

fn remove<T>(link: Link<T>, interval: &Interval) -> (Option<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    let removed = match interval.cmp(&node.interval) {
        Ordering::Equal => {
            let Node {
                value, left, right, ..
            } = *node;
            return (Some(value), merge(left, right));
        }
        Ordering::Less => {
            let (removed, left) = remove(node.left.take(), interval);
            node.left = left;
            removed
        }
        Ordering::Greater => {
            let (removed, right) = remove(node.right.take(), interval);
            node.right = right;
            removed
        }
    };
    node.refresh();
    (removed, Some(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: u16, end: Option<u16>) -> Interval {
        let key = |number: u16| Bytes::copy_from_slice(&number.to_be_bytes());
        Interval {
            start: key(start),
            end: end.map_or(End::Never, |end| End::Before(key(end))),
        }
    }

    fn depth<T>(link: &Link<T>) -> usize {
        link.as_ref()
            .map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    /// A small generator, so that the table is the same in every run.
    fn draw(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn answers_are_those_of_a_plain_list() {
        let mut state = 1;
        let mut tree = Intervals::default();
        let mut list: Vec<(Interval, u64)> = Vec::new();
        for step in 0..4000_u64 {
            let start = u16::try_from(draw(&mut state) % 300).unwrap();
            let length = u16::try_from(draw(&mut state) % 40).unwrap();
            let new = interval(start, (length < 38).then_some(start + length));
            match list.iter().position(|(old, _)| *old == new) {
                Some(found) => {
                    assert_eq!(tree.get(&new), Some(&list[found].1));
                    assert_eq!(tree.remove(&new), Some(list.swap_remove(found).1));
                    assert_eq!(tree.get(&new), None);
                }
                None => {
                    tree.insert(new.clone(), step);
                    list.push((new, step));
                }
            }
            let key = u16::try_from(draw(&mut state) % 340).unwrap().to_be_bytes();
            let mut found = Vec::new();
            tree.stab(&key, &mut |value| found.push(*value));
            found.sort_unstable();
            let mut expected: Vec<u64> = list
                .iter()
                .filter(|(old, _)| old.start.as_ref() <= &key[..] && old.end.is_after(&key))
                .map(|(_, value)| *value)
                .collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "at step {step}");
        }
        assert!(list.len() > 100, "the table must have had something to find");
    }

    #[test]
    fn rising_starts_do_not_make_a_list() {
        let mut tree = Intervals::default();
        for start in 0..10_000 {
            tree.insert(interval(start, Some(start + 1)), start);
        }
        assert!(depth(&tree.root) < 64, "depth {}", depth(&tree.root));
        assert_eq!(tree.remove(&interval(10_001, None)), None);
    }
}
