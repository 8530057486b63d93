//! Which subscribers a change may concern.
//!
//! Subscribers with the same interest share a topic, and topics are found by what a change touched, never by
//! asking each of them: exact keys in a hash map; ranges in an interval tree; v2 paths in ordered maps, where
//! an event looks up its own path, every directory above it (recursive watches), and, when directories were
//! removed, whatever is watched below them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use proto::key::KeyRange;
use store::Change;
use store::v2::path::is_below;

use super::Interest;
use super::intervals::{End, Interval, Intervals};
use super::seat::Seat;

type TopicId = u64;

/// All topics and their index.
#[derive(Default)]
pub(super) struct Topics {
    topics: HashMap<TopicId, Topic>,
    index: Index,
    last_id: TopicId,
}

struct Topic {
    place: Place,
    seats: HashMap<u64, Arc<Seat>>,
    /// What the batch under way holds for it.
    pending: Vec<Arc<Change>>,
}

/// Where the index holds a topic.
#[derive(Clone)]
enum Place {
    Key(Bytes),
    Range(Interval),
    Path(String),
    Tree(String),
}

#[derive(Default)]
struct Index {
    keys: HashMap<Bytes, TopicId>,
    ranges: Intervals<TopicId>,
    /// v2 watches of one path.
    paths: BTreeMap<String, TopicId>,
    /// v2 watches of a path and everything below.
    trees: BTreeMap<String, TopicId>,
}

impl Topics {
    /// Seats a subscriber; the topic to leave from later.
    pub(super) fn join(&mut self, interest: Interest, seat: Arc<Seat>) -> TopicId {
        let place = Place::of(interest);
        let id = self.index.get(&place).unwrap_or_else(|| {
            self.last_id += 1;
            self.index.insert(&place, self.last_id);
            self.topics.insert(
                self.last_id,
                Topic {
                    place,
                    seats: HashMap::new(),
                    pending: Vec::new(),
                },
            );
            self.last_id
        });
        let topic = self
            .topics
            .get_mut(&id)
            .expect("the index names topics that exist");
        topic.seats.insert(seat.id, seat);
        id
    }

    /// Frees a seat, and the topic with its last one.
    pub(super) fn leave(&mut self, id: TopicId, seat: u64) {
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        topic.seats.remove(&seat);
        if topic.seats.is_empty()
            && let Some(topic) = self.topics.remove(&id)
        {
            self.index.remove(&topic.place);
        }
    }

    /// Empties everything; whoever sat there.
    pub(super) fn clear(&mut self) -> Vec<Arc<Seat>> {
        self.index = Index::default();
        std::mem::take(&mut self.topics)
            .into_values()
            .flat_map(|topic| topic.seats.into_values())
            .collect()
    }

    /// Shows everyone whom the batch concerns what is for them: each change once, in order.
    pub(super) fn sort(
        &mut self,
        changes: &[Arc<Change>],
        mut offer: impl FnMut(&Arc<[Arc<Change>]>, &Seat),
    ) {
        if self.topics.is_empty() {
            return;
        }
        let mut concerned = Vec::new();
        for change in changes {
            let topics = &mut self.topics;
            self.index.find(change, &mut |id| {
                let topic = topics.get_mut(&id).expect("the index names topics that exist");
                if topic.pending.is_empty() {
                    concerned.push(id);
                }
                // Several writes of one change may match; the change is still offered once.
                let last = topic.pending.last();
                if last.is_none_or(|last| last.revision < change.revision) {
                    topic.pending.push(Arc::clone(change));
                }
            });
        }
        for id in concerned {
            let topic = self.topics.get_mut(&id).expect("found a moment ago");
            let batch = std::mem::take(&mut topic.pending).into();
            topic.seats.values().for_each(|seat| offer(&batch, seat));
        }
    }
}

impl Place {
    fn of(interest: Interest) -> Self {
        match interest {
            Interest::Keys(KeyRange::One(key)) => Self::Key(key),
            Interest::Keys(KeyRange::Span { start, end }) => Self::Range(Interval {
                start,
                end: End::Before(end),
            }),
            Interest::Keys(KeyRange::From(start)) => Self::Range(Interval {
                start,
                end: End::Never,
            }),
            Interest::Path {
                path,
                recursive: false,
            } => Self::Path(path),
            Interest::Path {
                path,
                recursive: true,
            } => Self::Tree(path),
        }
    }
}

impl Index {
    fn get(&self, place: &Place) -> Option<TopicId> {
        match place {
            Place::Key(key) => self.keys.get(key),
            Place::Range(interval) => self.ranges.get(interval),
            Place::Path(path) => self.paths.get(path),
            Place::Tree(path) => self.trees.get(path),
        }
        .copied()
    }

    fn insert(&mut self, place: &Place, id: TopicId) {
        match place.clone() {
            Place::Key(key) => drop(self.keys.insert(key, id)),
            Place::Range(interval) => self.ranges.insert(interval, id),
            Place::Path(path) => drop(self.paths.insert(path, id)),
            Place::Tree(path) => drop(self.trees.insert(path, id)),
        }
    }

    fn remove(&mut self, place: &Place) {
        match place {
            Place::Key(key) => self.keys.remove(key),
            Place::Range(interval) => self.ranges.remove(interval),
            Place::Path(path) => self.paths.remove(path),
            Place::Tree(path) => self.trees.remove(path),
        };
    }

    /// Shows every topic that the change may concern, some more than once.
    fn find(&self, change: &Change, found: &mut impl FnMut(TopicId)) {
        for write in &change.writes {
            if let Some(id) = self.keys.get(&write.key) {
                found(*id);
            }
            self.ranges.stab(&write.key, &mut |id| found(*id));
        }
        if self.paths.is_empty() && self.trees.is_empty() {
            return;
        }
        for event in change.events.iter().filter(|event| !event.is_refresh) {
            if let Some(id) = self.paths.get(&event.node.key) {
                found(*id);
            }
            for directory in self_and_above(&event.node.key) {
                if let Some(id) = self.trees.get(directory) {
                    found(*id);
                }
            }
        }
        let mut covered: Option<&str> = None;
        for directory in &change.removed_directories {
            // The named directory comes with all below it; one scan from the top finds them all.
            if covered.is_some_and(|top| is_below(directory, top)) {
                continue;
            }
            covered = Some(directory);
            at_and_below(&self.paths, directory, found);
            at_and_below(&self.trees, directory, found);
        }
    }
}

/// `/a/b` → `/a/b`, `/a`, `/`.
fn self_and_above(path: &str) -> impl Iterator<Item = &str> {
    let above = path
        .rmatch_indices('/')
        .map(|(at, _)| if at == 0 { "/" } else { &path[..at] });
    std::iter::once(path)
        .chain(above)
        .take(if path == "/" { 1 } else { usize::MAX })
}

fn at_and_below(map: &BTreeMap<String, TopicId>, directory: &str, found: &mut impl FnMut(TopicId)) {
    if let Some(id) = map.get(directory) {
        found(*id);
    }
    let stem = if directory == "/" {
        "/".to_owned()
    } else {
        format!("{directory}/")
    };
    let behind = map.range::<str, _>((Bound::Excluded(stem.as_str()), Bound::Unbounded));
    for (_, id) in behind.take_while(|(path, _)| path.starts_with(&stem)) {
        found(*id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_the_directories_above_it() {
        let all = |path| self_and_above(path).collect::<Vec<_>>();
        assert_eq!(all("/a/b/c"), ["/a/b/c", "/a/b", "/a", "/"]);
        assert_eq!(all("/a"), ["/a", "/"]);
        assert_eq!(all("/"), ["/"]);
    }
}
