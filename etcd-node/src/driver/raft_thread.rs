//! The raft thread: the only owner of the replica. It never waits for a disk, a peer or a reader's slice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use proto::ids::NodeId;
use proto::peer::propose_response::Verdict;
use tokio::sync::oneshot;

use super::checkpoints::Checkpoints;
use super::handle::wall_clock;
use super::traffic::Traffic;
use super::{Answer, Handle, Order, ProposeError, ReadError, Status, Transport};
use crate::metrics::Metrics;
use crate::replica::{Clock, Effects, Input, Persist, Replica, Token};
use crate::wal::LogPosition;
use crate::wal::thread::{Job, LogThread, Report, ReportHook, SubmitError};

/// Length of raft's tick.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// What one turn applies at most: ticks and peers' messages never wait longer (keyspace rules, section 5).
pub(super) const TURN_MAX: Duration = Duration::from_millis(2);

/// Orders taken in one turn.
const TURN_ORDERS_MAX: usize = 4_096;

/// Records that one slice of a long command touches.
const SLICE_RECORDS: usize = 1_000;

/// Entries applied between two looks at the clock.
const ENTRIES_PER_LOOK: usize = 16;

/// Ticks between two rounds of housekeeping.
const HOUSEKEEPING_TICKS: u64 = 10;

/// Compacted records freed per turn.
const COLLECT_RECORDS: usize = 1_000;

/// What the log's thread tells, without ever waiting for the raft thread.
#[derive(Clone, Default)]
pub(super) struct LogEnd {
    persisted: Arc<AtomicU64>,
    has_failed: Arc<AtomicBool>,
}

impl LogEnd {
    pub(super) fn report_hook(&self, handle: Handle) -> ReportHook {
        let end = self.clone();
        Box::new(move |report| {
            match report {
                Report::Persisted { number } => {
                    end.persisted.fetch_max(number, Ordering::AcqRel);
                }
                Report::Full { error } => {
                    tracing::error!(%error, "the disk is full: writes wait until there is room");
                }
                Report::SpareMissing { error, spares_ready } => {
                    tracing::warn!(%error, spares_ready, "the disk is almost full");
                }
                Report::Failed { error } => {
                    tracing::error!(%error, "the log cannot be written: this node ends, nothing more is promised");
                    end.has_failed.store(true, Ordering::Release);
                }
            }
            // A full queue means that the thread is busy and looks by itself.
            let _full = handle.order(Order::Wake);
        })
    }
}

pub(super) struct RaftThread {
    pub(super) handle: Handle,
    pub(super) orders: Receiver<Order>,
    pub(super) replica: Replica,
    pub(super) log: LogThread,
    pub(super) end: LogEnd,
    pub(super) checkpoints: Checkpoints,
    pub(super) transport: Box<dyn Transport>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traffic: Traffic,
    pub(super) waiters: Waiters,
    pub(super) started: Instant,
}

/// Who waits for what, by token.
#[derive(Default)]
pub(super) struct Waiters {
    next: Token,
    proposals: HashMap<Token, oneshot::Sender<Result<Answer, ProposeError>>>,
    reads: HashMap<Token, oneshot::Sender<Result<(), ReadError>>>,
    verdicts: HashMap<u64, oneshot::Sender<Verdict>>,
    /// Frames that found the log's queue full, in order.
    jobs: std::collections::VecDeque<Job>,
}

impl RaftThread {
    pub(super) fn run(mut self) {
        let mut effects = Effects::default();
        if self.replica.is_sole_voter() {
            self.replica.handle(Input::Campaign, &mut effects);
        }
        self.announce_members();
        let mut next_tick = Instant::now() + TICK;
        let mut ticks = 0_u64;
        let mut is_busy = false;
        loop {
            let is_stopping = self.take_orders(next_tick, is_busy, &mut effects);
            let now = Instant::now();
            if now >= next_tick {
                // Missed ticks collapse into one: a paused machine must not think that all its peers are silent.
                next_tick = now + TICK;
                ticks += 1;
                self.replica.handle(Input::Tick, &mut effects);
                if ticks.is_multiple_of(HOUSEKEEPING_TICKS) {
                    self.housekeep();
                }
            }
            if self.end.has_failed.load(Ordering::Acquire) {
                return self.fail();
            }
            let number = self.end.persisted.load(Ordering::Acquire);
            self.replica.handle(Input::Persisted { number }, &mut effects);
            is_busy = self.turn(&mut effects);
            if effects.stop.is_some() || is_stopping {
                return self.finish(effects);
            }
        }
    }

    /// Waits for orders at most until the next tick, takes all that are there; whether to stop.
    fn take_orders(&mut self, next_tick: Instant, is_busy: bool, effects: &mut Effects) -> bool {
        let wait = if is_busy {
            Duration::ZERO
        } else {
            next_tick.saturating_duration_since(Instant::now())
        };
        let mut order = match self.orders.recv_timeout(wait) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return true,
        };
        let mut taken = 0;
        while let Some(next) = order {
            if matches!(next, Order::Stop) {
                return true;
            }
            self.take(next, effects);
            taken += 1;
            order = if taken < TURN_ORDERS_MAX {
                self.orders.try_recv().ok()
            } else {
                None
            };
        }
        false
    }

    fn take(&mut self, order: Order, effects: &mut Effects) {
        let input = match order {
            Order::Propose { command, reply } => Input::Propose {
                token: self.waiters.proposal(reply),
                command: *command,
            },
            Order::Member { change, reply } => Input::Member {
                token: self.waiters.proposal(reply),
                change,
            },
            Order::Read { reply } => Input::Read {
                token: self.waiters.read(reply),
            },
            Order::Forwarded { proposal, reply } => Input::Forwarded {
                ticket: self.waiters.verdict(reply),
                proposal,
            },
            Order::ForwardEnded { proposal, verdict } => match (proposal.request, proposal.command) {
                (Some(request), Some(command)) => Input::ForwardEnded {
                    token: request.counter,
                    command: Box::new(command),
                    verdict,
                },
                _ => return,
            },
            Order::Message { sender, message } => {
                self.traffic.received(sender, &message);
                Input::Message { sender, message }
            }
            Order::Snapshot {
                sender,
                message,
                store,
            } => Input::Snapshot {
                sender,
                message,
                store,
            },
            Order::SnapshotSent { to, is_done } => Input::SnapshotSent { to, is_done },
            Order::Unreachable { to } => {
                self.traffic.lost(to);
                Input::Unreachable { to }
            }
            Order::CheckpointDone { metadata, bytes } => {
                self.checkpoints.done(&metadata, bytes, &self.log.handle());
                Input::Offer { metadata }
            }
            Order::CheckpointFailed => return self.checkpoints.failed(),
            Order::TransferLeadership => Input::TransferLeadership,
            Order::Wake | Order::Stop => return,
        };
        self.replica.handle(input, effects);
    }

    /// Settles, performs, applies for a while; whether more is committed than there was time for.
    fn turn(&mut self, effects: &mut Effects) -> bool {
        let clock = self.clock();
        self.replica.settle(clock, effects);
        self.perform(effects);
        if self.replica.has_committed() && effects.stop.is_none() {
            self.apply(effects);
            // What was applied opens tenures and lets reads and configuration changes go on.
            self.replica.settle(clock, effects);
            self.perform(effects);
        }
        if effects.wants_checkpoint || self.checkpoints.is_due() {
            let is_wanted = std::mem::take(&mut effects.wants_checkpoint);
            self.checkpoints
                .begin_if_due(&self.handle, &self.replica, is_wanted);
        }
        let status = self.replica.status();
        self.note_leader(&status);
        self.handle.shared.status.send_if_modified(|old| {
            let is_new = *old != status;
            *old = status;
            is_new
        });
        self.replica.has_committed()
    }

    fn note_leader(&mut self, status: &Status) {
        let old = self.handle.shared.status.borrow().leader;
        if old == status.leader {
            return;
        }
        if status.leader == NodeId::NONE {
            tracing::warn!(term = %status.term, "no leader is known");
        } else {
            tracing::info!(leader = %status.leader, term = %status.term, "leader known");
            self.metrics.server.leader_changed(status.leader);
            self.traffic.leader_changed();
        }
    }

    fn apply(&mut self, effects: &mut Effects) {
        let until = Instant::now() + TURN_MAX;
        let clock = self.clock();
        let replica = &mut self.replica;
        self.handle.shared.store.write(|store| {
            while replica.has_committed() {
                for _ in 0..ENTRIES_PER_LOOK {
                    replica.apply(store, SLICE_RECORDS, effects);
                }
                if Instant::now() >= until {
                    break;
                }
            }
            store.collect(COLLECT_RECORDS);
            replica.applied_batch(store, clock, effects);
        });
    }

    /// Does what the replica wants, in the order that the effects' documentation gives.
    fn perform(&mut self, effects: &mut Effects) {
        if let Some(store) = effects.install.take() {
            self.install(*store);
        }
        if !effects.send.is_empty() {
            self.traffic.sent(&effects.send);
            self.transport.send(std::mem::take(&mut effects.send));
        }
        self.persist(std::mem::take(&mut effects.persist));
        for (leader, proposal) in effects.forward.drain(..) {
            self.transport.forward(leader, proposal);
        }
        if !effects.changes.is_empty() {
            self.metrics.store.changed(&effects.changes);
            self.handle.shared.hub.publish(&effects.changes);
            effects.changes.clear();
        }
        let failed = effects
            .answers
            .iter()
            .filter(|(_, outcome)| outcome.is_err())
            .count();
        self.metrics.server.proposals_failed.inc_by(failed as u64);
        self.waiters.answer(effects);
        for refused in effects.refused.drain(..) {
            tracing::warn!(%refused, "dropped");
        }
        if std::mem::take(&mut effects.members_changed) {
            self.announce_members();
        }
        if effects.caught_up && self.log.handle().caught_up() {
            effects.caught_up = false;
        }
    }

    fn install(&mut self, store: store::Store) {
        let shared = &self.handle.shared;
        let revision = store.view().revision();
        let index = store.applied();
        let old = shared.store.write(|present| {
            shared.generation.fetch_add(1, Ordering::AcqRel);
            std::mem::replace(present, store)
        });
        shared.hub.interrupt(revision);
        self.checkpoints.installed(&self.log.handle());
        tracing::info!(%index, %revision, "a checkpoint of the leader was installed");
        // Freeing a large store takes long: not here.
        let _detached = std::thread::Builder::new()
            .name("free".to_owned())
            .spawn(move || drop(old));
    }

    fn persist(&mut self, persists: Vec<Persist>) {
        for Persist {
            number,
            restart,
            frame,
        } in persists
        {
            self.checkpoints.logged(&frame);
            let restart = restart.map(|at| LogPosition {
                index: at.index,
                term: at.term,
            });
            self.waiters.jobs.push_back(Job {
                number,
                restart,
                frame,
            });
        }
        let log = self.log.handle();
        while let Some(job) = self.waiters.jobs.pop_front() {
            match log.submit(job) {
                Ok(()) => {}
                // The disk has stalled: what waits is bounded by raft's limit on uncommitted entries.
                Err(SubmitError::Full(job) | SubmitError::Stopped(job)) => {
                    self.waiters.jobs.push_front(*job);
                    return;
                }
            }
        }
    }

    fn housekeep(&mut self) {
        let clock = self.clock();
        let replica = &mut self.replica;
        self.handle
            .shared
            .store
            .read(|store| replica.housekeep(store, clock));
    }

    fn announce_members(&mut self) {
        let transport = &mut self.transport;
        self.handle
            .shared
            .store
            .read(|store| transport.members_changed(store.view().members()));
    }

    fn clock(&self) -> Clock {
        Clock {
            monotonic: self.started.elapsed(),
            wall: wall_clock(),
        }
    }

    /// The log has failed: nobody is promised anything any more, and the process ends (law 3).
    fn fail(self) {
        let stop = crate::replica::Stop::LogFailed;
        let _nobody = self.handle.shared.stopped.send(Some(Arc::new(stop)));
    }

    fn finish(mut self, mut effects: Effects) {
        self.replica.shut_down(&mut effects);
        self.perform(&mut effects);
        self.checkpoints.at_stop(&self.handle, &self.replica);
        if let Err(error) = self.log.close() {
            tracing::error!(%error, "the log could not be closed cleanly");
        }
        if let Some(stop) = effects.stop {
            let _nobody = self.handle.shared.stopped.send(Some(Arc::new(stop)));
        }
    }
}

impl Waiters {
    fn token(&mut self) -> Token {
        self.next += 1;
        self.next
    }

    fn proposal(&mut self, reply: oneshot::Sender<Result<Answer, ProposeError>>) -> Token {
        let token = self.token();
        self.proposals.insert(token, reply);
        token
    }

    fn read(&mut self, reply: oneshot::Sender<Result<(), ReadError>>) -> Token {
        let token = self.token();
        self.reads.insert(token, reply);
        token
    }

    fn verdict(&mut self, reply: oneshot::Sender<Verdict>) -> u64 {
        let ticket = self.token();
        self.verdicts.insert(ticket, reply);
        ticket
    }

    /// Whoever no longer waits has dropped the other end: that is no error.
    fn answer(&mut self, effects: &mut Effects) {
        for (token, outcome) in effects.answers.drain(..) {
            if let Some(reply) = self.proposals.remove(&token) {
                let _gone = reply.send(outcome);
            }
        }
        for (token, permission) in effects.reads.drain(..) {
            if let Some(reply) = self.reads.remove(&token) {
                let _gone = reply.send(permission);
            }
        }
        for (ticket, verdict) in effects.verdicts.drain(..) {
            if let Some(reply) = self.verdicts.remove(&ticket) {
                let _gone = reply.send(verdict);
            }
        }
    }
}

/// raft's own log lines, at the debug level of ours.
pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

impl slog::Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            slog::Level::Critical | slog::Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            slog::Level::Warning => tracing::debug!(target: "raft", "{}", record.msg()),
            slog::Level::Info | slog::Level::Debug | slog::Level::Trace => {
                tracing::trace!(target: "raft", "{}", record.msg());
            }
        }
        Ok(())
    }
}
