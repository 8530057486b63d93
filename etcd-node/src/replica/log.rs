//! The part of the log that stays in memory, as raft reads it. The write-ahead log on disk is its durable
//! twin; entries below the window reach a follower by checkpoint.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Bytes of applied entries kept for followers that are a little behind (keyspace rules, section 5).
const WINDOW_BYTES_MAX: usize = 64 << 20;

/// What one entry costs beside its data.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Log entries in memory, after a base that is covered by a checkpoint or by earlier applied entries.
pub(super) struct LogWindow {
    hard_state: HardState,
    conf_state: ConfState,
    /// Index and term of the entry before the first one kept.
    base_index: u64,
    base_term: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Newest checkpoint that may be offered to a follower: its metadata. The driver keeps the content.
    offer: Option<Snapshot>,
    /// A follower needs a checkpoint and none that is new enough is offered.
    is_offer_wanted: std::cell::Cell<bool>,
}

fn cost(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES
}

impl LogWindow {
    /// A log that begins behind a checkpoint.
    pub(super) fn new(base_index: u64, base_term: u64, conf_state: ConfState) -> Self {
        let hard_state = HardState {
            term: base_term,
            commit: base_index,
            ..HardState::default()
        };
        Self {
            hard_state,
            conf_state,
            base_index,
            base_term,
            entries: VecDeque::new(),
            bytes: 0,
            offer: None,
            is_offer_wanted: std::cell::Cell::new(false),
        }
    }

    /// Index of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    /// The term of an entry, if it is known.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        let offset = index.checked_sub(self.base_index + 1)?;
        self.entries
            .get(usize::try_from(offset).ok()?)
            .map(|entry| entry.term)
    }

    /// Takes entries over; they replace what stands at their indexes and everything after.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.base_index,
            "entry {} is below the window's base {}",
            first.index,
            self.base_index
        );
        assert!(
            first.index <= self.last() + 1,
            "entry {} leaves a gap after {}",
            first.index,
            self.last()
        );
        while self.last() >= first.index {
            let gone = self
                .entries
                .pop_back()
                .expect("the last entry is at or after the first new one");
            self.bytes -= cost(&gone);
        }
        for entry in entries {
            self.bytes += cost(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Remembers the newest hard state.
    pub(super) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    /// Remembers the configuration as of the newest applied entry.
    pub(super) fn set_conf_state(&mut self, state: ConfState) {
        self.conf_state = state;
    }

    /// The configuration as of the newest applied entry.
    pub(super) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Drops the oldest applied entries beyond the memory limit.
    pub(super) fn trim(&mut self, applied: u64) {
        while self.bytes > WINDOW_BYTES_MAX && self.base_index < applied {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= cost(&entry);
            self.base_index = entry.index;
            self.base_term = entry.term;
        }
    }

    /// Begins anew behind a received checkpoint.
    pub(super) fn restore(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        assert!(
            metadata.index >= self.base_index,
            "a checkpoint took the log back"
        );
        self.base_index = metadata.index;
        self.base_term = metadata.term;
        self.entries.clear();
        self.bytes = 0;
        self.conf_state = metadata.get_conf_state().clone();
        self.offer = None;
    }

    /// Offers a checkpoint to followers that need one.
    pub(super) fn offer(&mut self, snapshot: Snapshot) {
        self.is_offer_wanted.set(false);
        self.offer = Some(snapshot);
    }

    /// Whether a follower waits for a checkpoint that is not offered yet.
    pub(super) fn is_offer_wanted(&self) -> bool {
        self.is_offer_wanted.get()
    }
}

impl Storage for LogWindow {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last() + 1,
            "raft asks for entry {high}, the log ends at {}",
            self.last()
        );
        let limit = max_size.into().unwrap_or(u64::MAX);
        let start = usize::try_from(low - self.base_index - 1).expect("the window fits memory");
        let count = usize::try_from(high - low).expect("the window fits memory");
        let mut size = 0;
        let mut out = Vec::new();
        for entry in self.entries.iter().skip(start).take(count) {
            size += cost(entry) as u64;
            if size > limit && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = if index < self.base_index {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        };
        self.term_at(index).ok_or(raft::Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // A follower ignores a checkpoint of a time when it was no member.
        let fits = |offer: &&Snapshot| {
            let metadata = offer.get_metadata();
            let configuration = metadata.get_conf_state();
            let knows = configuration.voters.contains(&to) || configuration.learners.contains(&to);
            knows && metadata.index >= request_index.max(self.base_index)
        };
        match self.offer.as_ref().filter(fits) {
            Some(offer) => Ok(offer.clone()),
            None => {
                self.is_offer_wanted.set(true);
                Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            ..Entry::default()
        }
    }

    fn window() -> LogWindow {
        let mut log = LogWindow::new(5, 2, ConfState::default());
        log.append(&[entry(6, 2), entry(7, 2), entry(8, 3)]);
        log
    }

    #[test]
    fn later_entries_replace_the_tail() {
        let mut log = window();
        log.append(&[entry(7, 4)]);
        assert_eq!((log.last(), log.term_at(7), log.term_at(8)), (7, Some(4), None));
    }

    #[test]
    fn terms_are_known_from_the_base_on() {
        let log = window();
        assert_eq!(log.term_at(5), Some(2));
        assert!(matches!(
            log.term(4),
            Err(raft::Error::Store(StorageError::Compacted))
        ));
        assert!(matches!(
            log.term(9),
            Err(raft::Error::Store(StorageError::Unavailable))
        ));
    }

    #[test]
    fn a_follower_below_the_window_makes_a_checkpoint_wanted() {
        let mut log = window();
        assert!(log.snapshot(0, 2).is_err() && log.is_offer_wanted());
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = 7;
        snapshot.mut_metadata().mut_conf_state().learners = vec![2];
        log.offer(snapshot);
        assert!(log.snapshot(6, 2).is_ok() && !log.is_offer_wanted());
        assert!(log.snapshot(8, 2).is_err());
        assert!(
            log.snapshot(6, 3).is_err() && log.is_offer_wanted(),
            "member 3 came later"
        );
    }

    #[test]
    fn applied_entries_beyond_the_limit_leave_memory() {
        let mut log = window();
        let mut large = entry(9, 3);
        large.data = vec![0; WINDOW_BYTES_MAX].into();
        log.append(&[large]);
        log.trim(7);
        assert_eq!((log.first_index().unwrap(), log.last()), (8, 9));
    }
}
