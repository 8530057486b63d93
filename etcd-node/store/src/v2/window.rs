//! The newest 1000 v2 events: what a v2 watch can go back to (keyspace rules, section 1).

use std::collections::VecDeque;
use std::sync::Arc;

use proto::ids::V2Index;

use super::{Event, Outdated, WINDOW_EVENTS};
use crate::store::V2_INDEX_FOUNDED;

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

    /// Events from this index on. What founding itself took as indexes was no event: a window that still holds
    /// the first event of all reaches back to any index.
    pub(crate) fn since(&self, from: V2Index, events_max: usize) -> Result<Vec<Arc<Event>>, Outdated> {
        let first = self.events.front().map_or(V2Index::ZERO, |event| event.index);
        if from < first && first > V2_INDEX_FOUNDED.next() {
            return Err(Outdated { oldest: first });
        }
        let start = self.events.partition_point(|event| event.index < from);
        Ok(self.events.iter().skip(start).take(events_max).cloned().collect())
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
    fn the_window_reaches_back_to_the_founding_until_it_loses_an_event() {
        let mut window = Window::default();
        assert_eq!(window.since(V2Index::new(1), 10), Ok(Vec::new()));
        for index in 4..1004 {
            window.extend(&[event(index)]);
        }
        assert_eq!(
            window.since(V2Index::new(1), 1).unwrap()[0].index,
            V2Index::new(4)
        );
        window.extend(&[event(1004)]);
        let oldest = V2Index::new(5);
        assert_eq!(window.since(V2Index::new(4), 1), Err(Outdated { oldest }));
        assert_eq!(window.since(oldest, 1).unwrap()[0].index, oldest);
    }
}
