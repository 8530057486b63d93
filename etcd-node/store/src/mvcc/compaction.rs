//! Forgetting: compaction forbids readers the past at once, collection frees it in slices.

use proto::ids::Revision;

use super::keyspace::Keyspace;
use crate::budget::Budget;

impl Keyspace {
    /// Forbids reading below this revision. What stands at the revision itself stays, a deletion's change
    /// included, so that a watch may begin exactly there.
    pub(crate) fn compact(&mut self, revision: Revision) {
        assert!(
            self.compacted.is_none_or(|compacted| revision > compacted),
            "compaction went back to {revision}"
        );
        assert!(
            revision <= self.revision,
            "compaction of {revision}, which is not yet made"
        );
        self.compacted = Some(revision);
        self.retention.forget_before(revision);
    }

    /// Frees what no reader can ask for, at most `records_max` records; whether there is more to do now.
    pub(crate) fn collect(&mut self, records_max: usize) -> bool {
        let mut budget = Budget::new(records_max);
        let compacted = self.compacted.unwrap_or(Revision::ZERO);
        let floor = self
            .pins
            .lowest()
            .map_or(compacted, |pinned| pinned.min(compacted));
        while self.collected < floor {
            if !self.collect_change(&mut budget) {
                return true;
            }
        }
        self.history.empty_trash(budget.left().max(1))
    }

    /// Frees what the change after `collected` superseded; false when the budget ended before.
    fn collect_change(&mut self, budget: &mut Budget) -> bool {
        let revision = self.collected.next();
        loop {
            let moment = self
                .history
                .get(revision)
                .expect("history keeps what is not collected");
            let writes = &moment.change.writes;
            if let Some(write) = writes.get(self.collected_within) {
                if !budget.take() {
                    return false;
                }
                self.keys.forget_before(&write.key, revision);
            } else if let Some(path) = moment.directories.get(self.collected_within - writes.len()) {
                if !budget.take() {
                    return false;
                }
                self.directories.forget_before(path, revision);
            } else {
                break;
            }
            self.collected_within += 1;
        }
        self.collected = revision;
        self.collected_within = 0;
        self.history.forget_before(revision);
        true
    }
}
