//! Random commands through both grammars, interleaved, against the naive model.
//!
//! Every entry is applied in slices of a few records; between two slices the store must look as before the
//! entry. A failing run names its seed, and a seed gives the same run again.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::ids::V2Index;
use proto::log::Expire;
use proto::log::expire::Node as Ending;
use store::command::Position;
use store::v3::Refusal;
use store::{Applied, Command, Outcome, Progress, Store};

use crate::dump::Dump;
use crate::model::Model;
use crate::random::Random;
use crate::support::{Machine, revision};

const SEEDS: std::ops::Range<u64> = 1..7;
const STEPS: usize = 900;

#[test]
fn both_grammars_agree_with_the_model_at_every_step() {
    let mut met = BTreeSet::new();
    for seed in SEEDS {
        let run = std::panic::catch_unwind(|| Run::new(seed).steps(STEPS));
        met.extend(run.unwrap_or_else(|_| panic!("the run with seed {seed} failed, see above")));
    }
    // What a run never meets it says nothing about.
    for label in EXPECTED {
        assert!(met.contains(*label), "no run met {label}, only {met:?}");
    }
}

/// Outcomes that the runs must have met.
const EXPECTED: &[&str] = &[
    "set",
    "create",
    "update",
    "compareAndSwap",
    "delete",
    "compareAndDelete",
    "expire",
    "refresh",
    "100",
    "101",
    "102",
    "104",
    "105",
    "107",
    "108",
    "put",
    "delete range",
    "txn",
    "compact",
    "grant",
    "revoke",
    "keep alive",
    "Compacted",
    "FutureRevision",
    "KeyNotFound",
    "DuplicateKey",
    "LeaseNotFound",
    "LeaseExists",
    "several slices",
    "several revisions",
    "put and delete in one revision",
    "removed directories",
    "restored",
];

struct Run {
    random: Random,
    machine: Machine,
    model: Model,
    met: BTreeSet<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            machine: Machine::new(),
            model: Model::new(),
            met: BTreeSet::new(),
        }
    }

    /// What it met.
    fn steps(mut self, count: usize) -> BTreeSet<String> {
        for step in 0..count {
            self.machine.slice = 1 + usize::try_from(self.random.below(4)).unwrap();
            if self.random.one_in(3) {
                let nanos = self.random.below(2_500_000_000);
                self.machine.now = proto::time::Timestamp::from_nanos(self.machine.now.as_nanos() + nanos);
            }
            let command = self.command();
            self.apply(&command);
            self.check_reads();
            if step % 10 == 0 {
                self.check_history();
            }
            if self.random.one_in(8) {
                self.machine.store.collect(3);
            }
            if self.random.one_in(60) {
                self.machine.store = self.restored();
                self.met.insert("restored".into());
            }
        }
        self.met
    }

    /// Mostly a random command; now and then what is due ends, together with what is not.
    fn command(&mut self) -> Command {
        if !self.random.one_in(6) {
            return self.random.command(self.model.revision, self.model.index);
        }
        let due = self.machine.store.due(self.machine.now, 100);
        let mut nodes: Vec<Ending> = due
            .nodes
            .into_iter()
            .map(|(at, path)| Ending {
                path,
                expires_at: at.as_nanos(),
            })
            .collect();
        let stale = Ending {
            path: self.random.path().to_owned(),
            expires_at: self.machine.now.as_nanos(),
        };
        nodes.push(stale);
        let mut leases = due.leases;
        leases.push(2);
        Command::Expire(Expire { nodes, leases })
    }

    /// Applies to both; the outcome and the changes must be the same, and nothing shows in between.
    fn apply(&mut self, command: &Command) {
        let (expected, changes) = self.model.apply(command, self.machine.now);
        let before = Dump::shallow(&self.machine.store, self.machine.now);
        let last = self.machine.store.position();
        let position = Position {
            index: last.index.next(),
            term: last.term,
        };
        let entry = self.machine.proposal(command.clone());
        let mut progress = self
            .machine
            .store
            .apply_slice(position, entry, self.machine.slice);
        let applied = loop {
            match progress {
                Progress::Done(applied) => break applied,
                Progress::More => {
                    let between = Dump::shallow(&self.machine.store, self.machine.now);
                    if !matches!(command, Command::TenureStart(_)) {
                        assert_eq!(between, before, "an unfinished {command:?} shows");
                    }
                    self.met.insert("several slices".into());
                    progress = self.machine.store.resume(self.machine.slice);
                }
            }
        };
        assert_eq!(applied.outcome, expected, "{command:#?}");
        let made: Vec<_> = applied
            .changes
            .iter()
            .map(|change| change.as_ref().clone())
            .collect();
        assert_eq!(made, changes, "{command:#?}");
        self.note(&applied);
        if let Outcome::V2(Ok(event)) = &applied.outcome {
            let told = applied
                .changes
                .iter()
                .flat_map(|change| &change.events)
                .any(|there| Arc::ptr_eq(there, event));
            assert!(told, "the answer is the event");
        }
    }

    fn note(&mut self, applied: &Applied) {
        let refused = |refusal: &Refusal| format!("{refusal:?}");
        let told = |name: &str| name.to_owned();
        let label = match &applied.outcome {
            Outcome::V2(Err(error)) => error.code.number().to_string(),
            Outcome::V2(Ok(event)) => told(event.action.as_str()),
            Outcome::Put(result) => result.as_ref().map_or_else(refused, |_| told("put")),
            Outcome::DeleteRange(result) => result.as_ref().map_or_else(refused, |_| told("delete range")),
            Outcome::Txn(result) => result.as_ref().map_or_else(refused, |_| told("txn")),
            Outcome::Compact(result) => result.as_ref().map_or_else(refused, |_| told("compact")),
            Outcome::LeaseGrant(result) => result.as_ref().map_or_else(refused, |_| told("grant")),
            Outcome::LeaseRevoke(result) => result.as_ref().map_or_else(refused, |_| told("revoke")),
            Outcome::KeepAlive(_) => told("keep alive"),
            Outcome::Done | Outcome::Member(_) => told("done"),
        };
        self.met.insert(label);
        if applied.changes.len() > 1 {
            self.met.insert(told("several revisions"));
        }
        for change in &applied.changes {
            let times = |key: &[u8]| change.writes.iter().filter(|write| write.key == key).count();
            if change.writes.iter().any(|write| times(&write.key) > 1) {
                self.met.insert(told("put and delete in one revision"));
            }
            if !change.removed_directories.is_empty() {
                self.met.insert(told("removed directories"));
            }
            for event in &change.events {
                self.met.insert(told(if event.is_refresh {
                    "refresh"
                } else {
                    event.action.as_str()
                }));
            }
        }
    }

    fn check_reads(&mut self) {
        let path = self.random.path();
        let recursive = self.random.one_in(2);
        let expected = self.model.get(path, recursive, self.machine.now);
        assert_eq!(self.machine.list(path, recursive), expected, "GET {path}");
        let request = self.random.range(self.model.revision);
        assert_eq!(
            self.machine.range(request.clone()),
            self.model.range(&request),
            "{request:?}"
        );
        let view = self.machine.store.view();
        assert_eq!(view.revision().get(), self.model.revision);
        assert_eq!(view.v2_index().get(), self.model.index);
        let id = i64::try_from(self.random.below(5)).unwrap();
        assert_eq!(view.lease(id, true), self.model.lease(id));
    }

    fn check_history(&self) {
        let view = self.machine.store.view();
        let floor = self.model.compacted.unwrap_or(0);
        let since = |from: i64| view.changes_since(revision(from), usize::MAX);
        let kept: Vec<_> = self
            .model
            .changes
            .iter()
            .filter(|change| change.revision.get() >= floor)
            .cloned()
            .collect();
        let there: Vec<_> = since(floor)
            .unwrap()
            .iter()
            .map(|change| change.as_ref().clone())
            .collect();
        assert_eq!(there, kept, "history from {floor}");
        if floor > 0 {
            assert_eq!(since(floor - 1).unwrap_err().revision.get(), floor);
        }
        let told: Vec<_> = self
            .model
            .changes
            .iter()
            .flat_map(|change| &change.events)
            .cloned()
            .collect();
        let window = &told[told.len().saturating_sub(1000)..];
        let first = window.first().map_or(V2Index::ZERO, |event| event.index);
        assert_eq!(view.events_since(first, usize::MAX).unwrap(), window);
        if told.len() > 1000 {
            assert_eq!(
                view.events_since(V2Index::new(first.get() - 1), 1)
                    .unwrap_err()
                    .oldest,
                first
            );
        }
        let usage = self.machine.store.usage();
        assert_eq!(usage.keys, u64::try_from(self.model.now.keys.len()).unwrap());
        assert_eq!(usage.leases, u64::try_from(self.model.leases.len()).unwrap());
    }

    /// The store through a checkpoint: nothing may tell it from the first one.
    fn restored(&mut self) -> Store {
        let before = Dump::deep(&self.machine.store, self.machine.now);
        let restored = self.machine.restored();
        assert_eq!(
            Dump::deep(&restored.store, self.machine.now),
            before,
            "a restored store"
        );
        self.machine.collect();
        assert_eq!(
            restored.store.usage(),
            self.machine.store.usage(),
            "what a restored store weighs"
        );
        restored.store
    }
}
