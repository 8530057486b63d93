//! Seeded runs of crashes: what was acknowledged is there, what is there was written, and an honest crash is
//! never taken for damage.

use proto::ids::{LogIndex, Term};
use proto::peer::LogFrame;

use super::support::*;
use crate::disk::memory::{MemoryDisk, Random};
use crate::wal::{Log, LogPosition, Tail, WalError};

const RUNS: u64 = 2000;
const SESSIONS: u64 = 3;
const STEPS: u64 = 12;

/// One run: a log, and the states that it may be in after a crash.
struct Run {
    random: Random,
    disk: MemoryDisk,
    log: Option<Log>,
    /// Acknowledged.
    acked: Model,
    /// Acknowledged, or perhaps written: the states that a crash now may leave, `acked` first.
    possible: Vec<Model>,
    /// A durable checkpoint; the log need not hold what is in it.
    checkpoint: LogPosition,
    term: u64,
    torn: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let disk = MemoryDisk::new(seed);
        let log = Some(create_log(&disk));
        let acked = Model::new();
        let possible = vec![acked.clone()];
        Self {
            random: Random(!seed),
            disk,
            log,
            acked,
            possible,
            checkpoint: START,
            term: 2,
            torn: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn newest(&self) -> Model {
        self.possible.last().unwrap().clone()
    }

    /// Entries at random, sometimes replacing what is not committed, sometimes with a hard state.
    fn stage(&mut self) {
        let mut model = self.newest();
        let floor = model.hard_state.commit.max(model.begins_after.index.get()) + 1;
        let mut from = model.last_index() + 1;
        if self.random.below(5) == 0 {
            self.term += 1;
            from = floor + self.random.below(from - floor + 1);
        }
        let mut frame = LogFrame::default();
        for index in from..from + self.random.below(4) {
            let fill = u8::try_from(self.random.below(256)).unwrap();
            let bytes_max = if self.random.coin() { 60 } else { 3000 };
            let bytes = usize::try_from(self.random.below(bytes_max)).unwrap();
            frame.entries.push(entry(index, self.term, &vec![fill; bytes]));
        }
        if self.random.coin() {
            let last = frame
                .entries
                .last()
                .map_or(model.last_index(), |entry| entry.index);
            let commit = model
                .hard_state
                .commit
                .max(floor - 1 + self.random.below(last + 2 - floor));
            frame.hard_state = Some(hard_state(self.term, self.random.below(3), commit));
        }
        self.possible.extend(parts(&model, &frame));
        model.append(&frame);
        self.possible.push(model);
        self.log().writer.append(&frame).unwrap();
    }

    /// A checkpoint came from a leader, beyond our commit index.
    fn restart(&mut self) {
        let mut model = self.newest();
        self.term += 1;
        let index = LogIndex::new(
            model.hard_state.commit.max(model.begins_after.index.get()) + 1 + self.random.below(20),
        );
        let position = LogPosition {
            index,
            term: Term::new(self.term),
        };
        model.restart(position);
        self.possible.push(model);
        self.checkpoint = position;
        self.log().writer.restart(position);
    }

    fn commit(&mut self) -> Result<(), WalError> {
        self.log().writer.commit()?;
        self.acked = self.newest();
        self.possible = vec![self.acked.clone()];
        Ok(())
    }

    /// A checkpoint of our own at a committed entry, and the log before it released.
    fn release(&mut self) {
        let commit = self.acked.hard_state.commit;
        let Some(entry) = self.acked.entries.iter().find(|entry| entry.index == commit) else {
            return;
        };
        if self.possible.len() == 1 {
            let index = LogIndex::new(commit);
            self.checkpoint = LogPosition {
                index,
                term: Term::new(entry.term),
            };
            self.log().keeper.release(index).unwrap();
        }
    }

    fn session(&mut self) {
        let fault_at = self.random.below(STEPS * 2);
        for step in 0..STEPS {
            if step == fault_at {
                let syncs = self.random.below(3);
                self.disk.fail_sync_after(syncs);
            }
            let choice = self.random.below(20);
            match choice {
                0 => self.restart(),
                1 => self.release(),
                2 => drop(self.log().keeper.prepare()),
                _ => self.stage(),
            }
            if self.random.below(3) > 0 && self.commit().is_err() {
                let again = self.log().writer.commit();
                assert!(matches!(again, Err(WalError::Stopped { .. })), "{again:?}");
                return;
            }
        }
    }

    /// Ends the session in one of three ways; whether the log was closed.
    fn end(&mut self) -> bool {
        let log = self.log.take().unwrap();
        let is_closed = match self.random.below(4) {
            0 => log.writer.close().is_ok(),
            1 => {
                drop(log);
                self.disk.process_killed();
                false
            }
            _ => {
                drop(log);
                self.disk.power_cut();
                false
            }
        };
        self.disk.clear_faults();
        if is_closed {
            self.possible = vec![self.newest()];
            self.disk.power_cut();
        }
        is_closed
    }

    fn recover(&mut self, is_closed: bool) {
        let recovered = recover_log(&self.disk).unwrap();
        if is_closed {
            assert_eq!(*recovered.tail(), Tail::Closed);
        }
        self.torn += u64::from(matches!(recovered.tail(), Tail::Torn { .. }));
        let is_behind = recovered.is_behind();
        let mut log = recovered.open(self.checkpoint).unwrap();
        assert_eq!(log.is_behind, is_behind);
        let found = self.found(&log);
        let expected: Vec<_> = self
            .possible
            .iter()
            .map(|model| self.seen_from_checkpoint(model))
            .collect();
        let briefs: Vec<_> = expected.iter().map(Model::brief).collect();
        assert!(
            expected.contains(&found),
            "found {}, expected one of {briefs:#?}",
            found.brief()
        );
        if log.is_behind && self.random.coin() {
            log.writer.caught_up().unwrap();
        }
        self.acked = found;
        self.possible = vec![self.acked.clone()];
        self.log = Some(log);
    }

    fn found(&self, log: &Log) -> Model {
        let (from, until) = (
            self.checkpoint.index.next(),
            log.reader.last_index().unwrap().next(),
        );
        let entries = log.reader.entries(from, until, usize::MAX).unwrap();
        for entry in &entries {
            assert_eq!(
                log.reader.term(LogIndex::new(entry.index)),
                Some(Term::new(entry.term))
            );
        }
        Model {
            begins_after: self.checkpoint,
            entries,
            hard_state: log.hard_state,
        }
    }

    /// A model without what the checkpoint holds; empty when the checkpoint replaced its history.
    fn seen_from_checkpoint(&self, model: &Model) -> Model {
        let mut seen = model.clone();
        let Self { checkpoint, .. } = self;
        let index = checkpoint.index.get();
        let follows = model.begins_after == *checkpoint
            || model
                .entries
                .iter()
                .any(|entry| (entry.index, entry.term) == (index, checkpoint.term.get()));
        seen.begins_after = *checkpoint;
        seen.entries.retain(|entry| follows && entry.index > index);
        seen.hard_state.commit = seen.hard_state.commit.max(index);
        seen
    }
}

/// What a frame that fills several leaves after some of them: new term and vote, the commit index as it was.
fn parts(before: &Model, frame: &LogFrame) -> Vec<Model> {
    let part = |count| {
        let mut model = before.clone();
        model.append(&LogFrame {
            entries: frame.entries[..count].to_vec(),
            hard_state: None,
        });
        if let Some(new) = &frame.hard_state {
            model.hard_state = hard_state(new.term, new.vote, before.hard_state.commit);
        }
        model
    };
    (0..frame.entries.len()).map(part).collect()
}

#[test]
fn acknowledged_entries_survive_every_crash() {
    let mut torn = 0;
    for seed in 0..RUNS {
        let mut run = Run::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..SESSIONS {
                run.session();
                let is_closed = run.end();
                run.recover(is_closed);
            }
        }));
        torn += run.torn;
        assert!(outcome.is_ok(), "seed {seed}");
    }
    // Runs that never tear a frame would prove nothing.
    assert!(torn > RUNS / 20, "{torn} torn frames in {RUNS} runs");
}
