//! The newest 1000 v2 events: what a v2 watch can go back to (keyspace rules, section 1).

use std::collections::VecDeque;
use std::sync::Arc;

use proto::ids::V2Index;

use super::{Event, Outdated, V2_INDEX_FOUNDED, WINDOW_EVENTS};

/// The ring. Compaction does not touch it, and a checkpoint carries it.
#[derive(Debug, Default)]
pub(crate) struct Window {
    events: VecDeque<Arc<Event>>,
}

impl Window {
    /// Adds the events of one change.
    pub(crate) fn extend(&mut self, events: &[Arc<Event>]) {
        for event in &events[events.len().saturating_sub(WINDOW_EVENTS)..] {
            if self.events.len() == WINDOW_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(Arc::clone(event));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter()
    }

    /// Events from this index on.
    pub(crate) fn since(&self, from: V2Index, events_max: usize) -> Result<Vec<Arc<Event>>, Outdated> {
        let oldest = self.oldest();
        if from < oldest {
            return Err(Outdated { oldest });
        }
        let start = self.events.partition_point(|event| event.index < from);
        Ok(self.events.iter().skip(start).take(events_max).cloned().collect())
    }

    /// The oldest index that can be asked for. The indexes that founding used up hold no events; they count
    /// as if they did, as in the originals, until the ring has turned past them.
    fn oldest(&self) -> V2Index {
        let (Some(first), Some(last)) = (self.events.front(), self.events.back()) else {
            return V2Index::ZERO;
        };
        if first.index > V2_INDEX_FOUNDED.next() {
            return first.index;
        }
        let events = u64::try_from(WINDOW_EVENTS).expect("a small number");
        V2Index::new((last.index.get() + 1).saturating_sub(events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2::{Action, Node};

    fn event(index: u64) -> Arc<Event> {
        Arc::new(Event {
            action: Action::Set,
            node: Node::default(),
            prev_node: None,
            index: V2Index::new(index),
            is_refresh: false,
        })
    }

    #[test]
    fn the_window_reaches_back_to_the_newest_index_less_999() {
        let mut window = Window::default();
        assert_eq!(window.since(V2Index::new(1), 10), Ok(Vec::new()));
        let mut next = 4;
        for last in [4, 900, 1002, 1003, 1004, 2500] {
            while next <= last {
                window.extend(&[event(next)]);
                next += 1;
            }
            let oldest = V2Index::new(last.saturating_sub(999));
            let first = V2Index::new(oldest.get().max(4));
            assert_eq!(window.since(oldest, 1).unwrap()[0].index, first, "newest {last}");
            if oldest.get() > 0 {
                let before = V2Index::new(oldest.get() - 1);
                assert_eq!(window.since(before, 1), Err(Outdated { oldest }), "newest {last}");
            }
        }
    }
}
