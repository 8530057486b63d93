//! The newest 1000 v2 events: what a v2 watch can go back to (keyspace rules, section 1).

use std::collections::VecDeque;
use std::sync::Arc;

use proto::ids::V2Index;

use super::{Event, Outdated, WINDOW_EVENTS};

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
        match self.events.front() {
            Some(first) if from < first.index => return Err(Outdated { oldest: first.index }),
            Some(_) | None => {}
        }
        let start = self.events.partition_point(|event| event.index < from);
        Ok(self.events.iter().skip(start).take(events_max).cloned().collect())
    }
}
