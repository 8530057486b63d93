//! The pure join of raft and store: inputs in, effects out. No clock, thread, file or socket; the driver
//! brings the time, keeps the store behind the one lock, and performs the effects.
//!
//! A turn is: [`Replica::handle`] for each input, [`Replica::settle`], then [`Replica::apply`] while there is
//! time. Laws kept here: votes and acks leave only after the fsync that covers them (effects of a ready are
//! held until [`Input::Persisted`]), a proposal is answered only by its own applied entry, and proposals wait
//! until the leader knows what time it is.

pub mod admit;
pub mod codec;
mod housekeeping;
mod log;
mod membership;
mod proposals;
mod reads;
mod tenure;
mod traffic;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use proto::ids::{LogIndex, NodeId, Term};
use proto::log::{MemberChange, Proposal, RequestId};
use proto::peer::propose_response::Verdict;
use proto::peer::{LogFrame, RaftHardState, RaftMessage, RaftSnapshotMetadata};
use proto::time::Timestamp;
use raft::eraftpb::{ConfState, Entry as RaftLogEntry, EntryType, Message, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};
use store::command::{self, DecodeError, Position};
use store::{Applied, Change, Command, Entry, Progress, Store};

use crate::driver::{Answer, ProposeError, ReadError, Role, Status};
use admit::{Gate, Refused};
use log::LogWindow;
pub use proposals::Token;
use proposals::{Parked, Proposals};
use reads::Reads;
pub use tenure::Clock;
use tenure::Tenure;
pub use traffic::Append;

/// One entry of the log at most (keyspace rules, section 5).
pub const ENTRY_BYTES_MAX: usize = 12 << 20;

/// Entries handed to a follower in one message.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Messages on their way to one follower: enough to fill a fast link between two acknowledgements.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;

/// Entries that are proposed and not committed; beyond it proposals are refused.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// Ticks between two askings for the same reads, or two forwards after a failed one: one heartbeat.
const RETRY_TICKS: u64 = 5;

/// What a replica starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Drawn at this start of the process.
    pub boot: u64,
    /// For election timeouts; the same seed and inputs give the same effects.
    pub seed: u64,
    /// Ticks without a leader before an election at the earliest; drawn up to twice that.
    pub election_ticks: u32,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: u32,
    /// Ticks after which a request without an outcome is answered so.
    pub request_ticks: u64,
    /// Bytes of live data above which writes are refused.
    pub quota_bytes: u64,
    /// The end of the log on disk was damaged and cut: it may have held something acknowledged.
    pub log_was_cut: bool,
}

/// What the disk holds at start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Where the store's checkpoint stands; the log goes on behind it.
    pub checkpoint: RaftSnapshotMetadata,
    /// The newest hard state; none = as the checkpoint says.
    pub hard_state: Option<RaftHardState>,
    /// Entries behind the checkpoint, without gaps.
    pub entries: Vec<proto::peer::RaftEntry>,
}

/// What reaches a replica.
pub enum Input {
    /// One tick (10 ms) has passed.
    Tick,
    /// A client of this node proposes.
    Propose {
        /// Whom to answer.
        token: Token,
        /// The command.
        command: Command,
    },
    /// Another member hands a proposal to us as leader.
    Forwarded {
        /// Whom to tell the verdict.
        ticket: u64,
        /// What it proposes.
        proposal: Box<Proposal>,
    },
    /// What became of a proposal that we handed to the leader; none = nobody can tell.
    ForwardEnded {
        /// Whose it was.
        token: Token,
        /// The command, to be kept when it certainly did not arrive.
        command: Box<Command>,
        /// The leader's word.
        verdict: Option<Verdict>,
    },
    /// A linearizable read.
    Read {
        /// Whom to answer.
        token: Token,
    },
    /// A Raft message.
    Message {
        /// Whom the connection has proven to be.
        sender: NodeId,
        /// What it says.
        message: Box<RaftMessage>,
    },
    /// A checkpoint arrived, is on disk and read back.
    Snapshot {
        /// Whom the connection has proven to be.
        sender: NodeId,
        /// The message that it belongs to.
        message: Box<RaftMessage>,
        /// The state.
        store: Box<Store>,
    },
    /// Everything up to this number is on disk.
    Persisted {
        /// As in [`Persist`].
        number: u64,
    },
    /// How the sending of a checkpoint ended.
    SnapshotSent {
        /// Who should have it.
        to: NodeId,
        /// Whether it has.
        is_done: bool,
    },
    /// A member cannot be reached.
    Unreachable {
        /// Who.
        to: NodeId,
    },
    /// A checkpoint may be offered to followers that are too far behind.
    Offer {
        /// Where it stands.
        metadata: RaftSnapshotMetadata,
    },
    /// Change the membership; only a leader can.
    Member {
        /// Whom to answer.
        token: Token,
        /// What to change; the leader fills in stamp and request.
        change: Box<MemberChange>,
    },
    /// Hand leadership to the best follower, as this node is going to stop.
    TransferLeadership,
    /// Stand for election now: the sole voter of its cluster.
    Campaign,
}

/// Something to write and sync before anything of the same number leaves.
#[derive(Debug)]
pub struct Persist {
    /// Counts up.
    pub number: u64,
    /// Set when an installed checkpoint, durable already, replaces the log: the log goes on behind it.
    pub restart: Option<Position>,
    /// What to write.
    pub frame: LogFrame,
}

/// Why a node must stop.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// An entry that this build cannot apply.
    #[error(transparent)]
    Unreadable(#[from] DecodeError),
    /// The log lacks what the cluster counts on.
    #[error(transparent)]
    LostData(Refused),
    /// The log on disk failed; nothing more may be promised.
    #[error("the log on disk cannot be written; see the error before")]
    LogFailed,
    /// The cluster has removed this node.
    #[error("this node was removed from its cluster; its data directory can be deleted")]
    Removed,
}

/// What the shell must do, in this order of fields.
#[derive(Default)]
pub struct Effects {
    /// End the process.
    pub stop: Option<Stop>,
    /// Put this store in place of the present one.
    pub install: Option<Box<Store>>,
    /// Messages that need no fsync of ours, or whose fsync is done.
    pub send: Vec<RaftMessage>,
    /// Log frames to write.
    pub persist: Vec<Persist>,
    /// Commands to hand to the leader, once.
    pub forward: Vec<(NodeId, Proposal)>,
    /// Changes to announce.
    pub changes: Vec<Arc<Change>>,
    /// Outcomes.
    pub answers: Vec<(Token, Result<Answer, ProposeError>)>,
    /// Reads that may go on.
    pub reads: Vec<(Token, Result<(), ReadError>)>,
    /// Verdicts on forwarded proposals.
    pub verdicts: Vec<(u64, Verdict)>,
    /// Peer messages refused at the gate.
    pub refused: Vec<Refused>,
    /// The members changed: connect to the new ones.
    pub members_changed: bool,
    /// A follower waits for a checkpoint and none is offered.
    pub wants_checkpoint: bool,
    /// A log whose end was cut is known to be whole again: write that down.
    pub caught_up: bool,
}

/// A ready of raft whose persistence is awaited.
struct Held {
    number: u64,
    is_written: bool,
    messages: Vec<Message>,
}

/// What must be known of an entry when it is applied.
#[derive(Clone, Copy)]
struct UnderWay {
    position: Position,
    request: Option<RequestId>,
    kind: Option<housekeeping::Kind>,
}

/// One node's replica.
pub struct Replica {
    settings: Settings,
    raft: RawNode<LogWindow>,
    ticks: u64,
    random: u64,
    /// (term, role) for which the present election timeout was drawn.
    drawn_for: (u64, StateRole),
    election_timeout: usize,
    /// In order of number; the front is the oldest that is not persisted.
    held: VecDeque<Held>,
    persisted: u64,
    committed: VecDeque<RaftLogEntry>,
    /// The entry under way in the store, when it takes several slices.
    under_way: Option<UnderWay>,
    applied: Position,
    proposals: Proposals,
    /// Proposals of other members, until the end of the turn.
    inbox: Vec<(u64, Proposal)>,
    reads: Reads,
    forward_again_at: u64,
    tenure: Option<Tenure>,
    /// The state that belongs to a snapshot message which raft is deciding on.
    received: Option<(u64, Box<Store>)>,
    own_counter: u64,
    /// No votes while the log may lack something acknowledged.
    is_muted: bool,
    muted_until: u64,
    live_bytes: u64,
    superseded_bytes: u64,
    has_space_alarm: bool,
    has_corrupt_alarm: bool,
    is_stopped: bool,
}

impl Replica {
    /// A replica from what its disk holds.
    ///
    /// # Panics
    /// When the parts do not fit together: recovery must have refused them.
    pub fn new(settings: Settings, recovered: Recovered, logger: &slog::Logger) -> Self {
        let metadata = &recovered.checkpoint;
        let conf_state = metadata
            .conf_state
            .as_ref()
            .map(codec::conf_state_to_raft)
            .unwrap_or_default();
        let mut log = LogWindow::new(metadata.index, metadata.term, conf_state);
        let entries: Vec<_> = recovered
            .entries
            .into_iter()
            .map(|entry| codec::entry_to_raft(entry).expect("recovery has checked the entries"))
            .collect();
        log.append(&entries);
        if let Some(state) = &recovered.hard_state {
            let mut state = codec::hard_state_to_raft(state);
            // The checkpoint may be newer than the last hard state written.
            state.term = state.term.max(metadata.term);
            state.commit = state.commit.clamp(metadata.index, log.last());
            log.set_hard_state(state);
        }
        let config = raft_config(&settings, metadata.index);
        let raft = RawNode::new(&config, log, logger).expect("the settings are valid");
        let is_muted = settings.log_was_cut && voters(raft.store().conf_state()) > 1;
        let mut replica = Self {
            ticks: 0,
            random: settings.seed,
            drawn_for: (0, StateRole::Follower),
            election_timeout: settings.election_ticks as usize,
            held: VecDeque::new(),
            persisted: 0,
            committed: VecDeque::new(),
            under_way: None,
            applied: Position {
                index: LogIndex::new(metadata.index),
                term: Term::new(metadata.term),
            },
            proposals: Proposals::default(),
            inbox: Vec::new(),
            reads: Reads::new(settings.node.get(), settings.boot, RETRY_TICKS),
            forward_again_at: 0,
            tenure: None,
            received: None,
            own_counter: 0,
            is_muted,
            muted_until: u64::from(settings.election_ticks) * 20,
            live_bytes: 0,
            superseded_bytes: 0,
            has_space_alarm: false,
            has_corrupt_alarm: false,
            is_stopped: false,
            raft,
            settings,
        };
        replica.draw_election_timeout();
        replica
    }

    /// Whether this node alone decides.
    pub fn is_sole_voter(&self) -> bool {
        self.raft.store().conf_state().voters == [self.settings.node.get()]
    }

    /// Takes one input in. Its effects come with [`Self::settle`], refusals at once.
    pub fn handle(&mut self, input: Input, out: &mut Effects) {
        if self.is_stopped {
            return;
        }
        match input {
            Input::Tick => self.tick(out),
            Input::Propose { token, command } => self.propose(token, command, out),
            Input::Forwarded { ticket, proposal } => self.inbox.push((ticket, *proposal)),
            Input::ForwardEnded {
                token,
                command,
                verdict,
            } => self.forward_ended(token, *command, verdict, out),
            Input::Read { token } => self.read(token, out),
            Input::Message { sender, message } => self.step(sender, *message, out),
            Input::Snapshot {
                sender,
                message,
                store,
            } => {
                self.received = Some((store.applied().get(), store));
                self.step(sender, *message, out);
            }
            Input::Persisted { number } => self.persisted = self.persisted.max(number),
            Input::SnapshotSent { to, is_done } => {
                let status = if is_done {
                    SnapshotStatus::Finish
                } else {
                    SnapshotStatus::Failure
                };
                self.raft.report_snapshot(to.get(), status);
            }
            Input::Unreachable { to } => self.raft.report_unreachable(to.get()),
            Input::Offer { metadata } => self.raft.mut_store().offer(codec::snapshot_to_raft(&metadata)),
            Input::Member { token, change } => self.propose_member(token, *change, out),
            Input::TransferLeadership => self.transfer_leadership(),
            Input::Campaign => drop(self.raft.campaign()),
        }
        self.draw_election_timeout();
    }

    /// Sends what is due to raft and collects what it wants done.
    pub fn settle(&mut self, clock: Clock, out: &mut Effects) {
        if self.is_stopped {
            return;
        }
        self.flush_proposals(clock, out);
        if self.leader() != NodeId::NONE
            && let Some(context) = self.reads.ask(self.ticks)
        {
            self.raft.read_index(context);
        }
        self.release(out);
        while self.raft.has_ready() {
            self.take_ready(out);
            self.release(out);
        }
        // raft has decided on it: what was not taken is not needed.
        self.received = None;
        self.draw_election_timeout();
        out.wants_checkpoint |= self.raft.store().is_offer_wanted();
        let ready = self.reads.ready(self.applied.index.get());
        out.reads.extend(ready.into_iter().map(|token| (token, Ok(()))));
    }

    /// Whether committed entries wait for [`Self::apply`].
    pub fn has_committed(&self) -> bool {
        !self.is_stopped && (self.under_way.is_some() || !self.committed.is_empty())
    }

    /// Applies one slice: one entry, or a part of one that touches many records. Call [`Self::applied_batch`]
    /// after the last slice of a turn.
    pub fn apply(&mut self, store: &mut Store, records_max: usize, out: &mut Effects) {
        let (entry, progress) = match self.under_way.take() {
            Some(entry) => (entry, store.resume(records_max)),
            None => {
                let Some(raft_entry) = self.committed.pop_front() else {
                    return;
                };
                let position = Position {
                    index: LogIndex::new(raft_entry.index),
                    term: Term::new(raft_entry.term),
                };
                let entry = match decode(&raft_entry) {
                    Ok(entry) => entry,
                    Err(error) => return self.stop(Stop::Unreadable(error), out),
                };
                let under_way = UnderWay {
                    position,
                    request: request_of(&entry),
                    kind: kind_of(&entry),
                };
                let progress = store.apply(position, entry);
                if raft_entry.get_entry_type() != EntryType::EntryNormal {
                    self.apply_configuration(raft_entry, &progress, out);
                }
                (under_way, progress)
            }
        };
        match progress {
            Progress::More => self.under_way = Some(entry),
            Progress::Done(applied) => self.finish_entry(entry, applied, store, out),
        }
    }

    /// Ends a turn's applying: tells raft, opens a tenure, lets reads go on.
    pub fn applied_batch(&mut self, store: &Store, clock: Clock, out: &mut Effects) {
        let index = self.applied.index.get();
        self.raft.advance_apply_to(index);
        self.raft.mut_store().trim(index);
        let usage = store.usage();
        self.live_bytes = usage.live_bytes;
        self.superseded_bytes = usage.superseded_bytes;
        self.read_alarms(store);
        self.open_tenure(store, clock);
        let ready = self.reads.ready(index);
        out.reads.extend(ready.into_iter().map(|token| (token, Ok(()))));
    }

    /// Where a checkpoint of the store stands now. Only between entries.
    pub fn checkpoint_metadata(&self) -> Option<RaftSnapshotMetadata> {
        if self.under_way.is_some() {
            return None;
        }
        Some(RaftSnapshotMetadata {
            conf_state: Some(codec::conf_state_from_raft(self.raft.store().conf_state())),
            index: self.applied.index.get(),
            term: self.applied.term.get(),
        })
    }

    /// Where this node stands.
    pub fn status(&self) -> Status {
        let raft = &self.raft.raft;
        Status {
            term: Term::new(raft.term),
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            leader: self.leader(),
            committed: LogIndex::new(raft.raft_log.committed),
            applied: self.applied.index,
            is_learner: !self
                .raft
                .store()
                .conf_state()
                .voters
                .contains(&self.settings.node.get()),
            live_bytes: self.live_bytes,
            superseded_bytes: self.superseded_bytes,
            pending: self.proposals.len(),
        }
    }

    /// Tells everybody who waits that this node stops; nothing is handled afterwards.
    pub fn shut_down(&mut self, out: &mut Effects) {
        self.is_stopped = true;
        out.answers.extend(
            self.proposals
                .drain()
                .into_iter()
                .map(|(token, error)| (token, Err(error))),
        );
    }

    fn leader(&self) -> NodeId {
        NodeId::new(self.raft.raft.leader_id)
    }

    fn is_leader(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    fn stop(&mut self, reason: Stop, out: &mut Effects) {
        self.shut_down(out);
        out.stop.get_or_insert(reason);
    }

    fn tick(&mut self, out: &mut Effects) {
        self.ticks += 1;
        self.raft.tick();
        let term = self.raft.raft.term;
        let ended = self.proposals.expire(self.ticks, term);
        out.answers
            .extend(ended.into_iter().map(|(token, error)| (token, Err(error))));
        let has_leader = self.leader() != NodeId::NONE;
        let ended = self.reads.expire(self.ticks, has_leader);
        out.reads
            .extend(ended.into_iter().map(|(token, error)| (token, Err(error))));
        if self.is_muted && self.ticks >= self.muted_until {
            tracing::warn!("no leader has confirmed this log although its end was cut: voting again");
            self.is_muted = false;
            out.caught_up = true;
        }
    }

    /// raft draws its election timeouts from a generator of its own; ours replaces each draw, so that one seed
    /// gives one history.
    fn draw_election_timeout(&mut self) {
        let now = (self.raft.raft.term, self.raft.raft.state);
        if now != self.drawn_for {
            self.drawn_for = now;
            let minimum = self.settings.election_ticks as usize;
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let spread = usize::try_from(mix(self.random) % u64::from(self.settings.election_ticks))
                .expect("election ticks fit");
            self.election_timeout = minimum + spread;
        }
        self.raft
            .raft
            .set_randomized_election_timeout(self.election_timeout);
    }

    fn step(&mut self, sender: NodeId, message: RaftMessage, out: &mut Effects) {
        let log = &self.raft.raft.raft_log;
        let gate = Gate {
            node: self.settings.node,
            proven: sender,
            last_index: log.last_index(),
            committed: log.committed,
        };
        if let Err(refused) = admit::admit(&message, gate, |index| log.term(index).ok()) {
            if matches!(refused, Refused::LostData(_)) {
                return self.stop(Stop::LostData(refused), out);
            }
            out.refused.push(refused);
            return;
        }
        self.unmute(&message, out);
        let message = codec::message_to_raft(message).expect("the gate has checked the message's numbers");
        if let Err(error) = self.raft.step(message) {
            tracing::debug!(%error, %sender, "raft ignored a message");
        }
    }

    /// A log that was cut is trusted again when it reaches as far as its leader's commit.
    fn unmute(&mut self, message: &RaftMessage, out: &mut Effects) {
        let raft = &self.raft.raft;
        if self.is_muted
            && message.r#type == MessageType::MsgAppend as u32
            && message.term == raft.term
            && raft.raft_log.committed >= message.commit
        {
            tracing::info!(
                commit = message.commit,
                "the log has caught up after its end was cut: voting again"
            );
            self.is_muted = false;
            out.caught_up = true;
        }
    }

    fn read(&mut self, token: Token, out: &mut Effects) {
        let deadline = self.ticks + self.settings.request_ticks;
        if let Err(error) = self.reads.push(token, deadline) {
            out.reads.push((token, Err(error)));
        }
    }

    fn propose(&mut self, token: Token, command: Command, out: &mut Effects) {
        if self.proposals.is_full() {
            out.answers.push((token, Err(ProposeError::Overloaded)));
            return;
        }
        let request = RequestId {
            node: self.settings.node.get(),
            boot: self.settings.boot,
            counter: token,
        };
        self.proposals.park(
            Parked { request, command },
            self.ticks + self.settings.request_ticks,
        );
    }

    /// Hands the parked commands on: as leader to raft, all in one message; else to the leader that is known.
    fn flush_proposals(&mut self, clock: Clock, out: &mut Effects) {
        self.flush_forwarded(clock, out);
        if self.proposals.parked.is_empty() {
            return;
        }
        if self.is_leader() {
            if self.raft.raft.lead_transferee.is_none()
                && let Some(now) = self.tenure.as_ref().and_then(|tenure| tenure.now(clock))
            {
                self.propose_parked(now.as_nanos(), out);
            }
            return;
        }
        let leader = self.leader();
        if leader == NodeId::NONE || self.ticks < self.forward_again_at {
            return;
        }
        let term = self.raft.raft.term;
        for parked in std::mem::take(&mut self.proposals.parked) {
            self.proposals.sent(parked.request.counter, term);
            let proposal = Proposal {
                version: command::VERSION,
                stamp: 0,
                request: Some(parked.request),
                command: Some(parked.command),
            };
            out.forward.push((leader, proposal));
        }
    }

    fn propose_parked(&mut self, stamp: u64, out: &mut Effects) {
        let mut tokens = Vec::new();
        let mut entries = Vec::new();
        for parked in std::mem::take(&mut self.proposals.parked) {
            let token = parked.request.counter;
            match self.prepare(parked.request, parked.command, stamp) {
                Ok(entry) => {
                    tokens.push(token);
                    entries.push(entry);
                }
                Err(verdict) => self.refuse(token, verdict, out),
            }
        }
        if entries.is_empty() {
            return;
        }
        let is_accepted = self.step_proposal(entries);
        let term = self.raft.raft.term;
        for token in tokens {
            if is_accepted {
                self.proposals.sent(token, term);
            } else {
                self.refuse(token, Verdict::Overloaded, out);
            }
        }
    }

    fn refuse(&mut self, token: Token, verdict: Verdict, out: &mut Effects) {
        if self.proposals.finish(token) {
            out.answers.push((token, Err(error_of(verdict))));
        }
    }

    fn step_proposal(&mut self, entries: Vec<RaftLogEntry>) -> bool {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        message.from = self.settings.node.get();
        self.raft.raft.step(message).is_ok()
    }

    /// As leader: checks a command against quota and alarms, stamps it and makes it an entry.
    fn prepare(&self, request: RequestId, mut command: Command, stamp: u64) -> Result<RaftLogEntry, Verdict> {
        if self.has_corrupt_alarm && housekeeping::needs_space(&command) {
            return Err(Verdict::Corrupt);
        }
        let is_full = self.has_space_alarm || self.live_bytes >= self.settings.quota_bytes;
        if is_full && housekeeping::needs_space(&command) {
            return Err(Verdict::NoSpace);
        }
        if let (Command::KeepAlive(keep_alive), Some(tenure)) = (&mut command, &self.tenure) {
            keep_alive
                .leases
                .retain(|lease| !tenure.ending_leases.contains(lease));
        }
        let proposal = Proposal {
            version: command::VERSION,
            stamp,
            request: Some(request),
            command: Some(command),
        };
        let data = proposal.encode_to_vec();
        if data.len() > ENTRY_BYTES_MAX {
            return Err(Verdict::TooLarge);
        }
        Ok(RaftLogEntry {
            data: Bytes::from(data),
            ..RaftLogEntry::default()
        })
    }

    /// As leader: answers the proposals of other members, all in one message of raft's.
    fn flush_forwarded(&mut self, clock: Clock, out: &mut Effects) {
        if self.inbox.is_empty() {
            return;
        }
        let is_handing_over = self.raft.raft.lead_transferee.is_some();
        let now = self
            .tenure
            .as_ref()
            .and_then(|tenure| tenure.now(clock))
            .filter(|_| !is_handing_over);
        let mut tickets = Vec::new();
        let mut entries = Vec::new();
        for (ticket, proposal) in std::mem::take(&mut self.inbox) {
            match self.prepare_forwarded(proposal, now) {
                Ok(entry) => {
                    tickets.push(ticket);
                    entries.push(entry);
                }
                Err(verdict) => out.verdicts.push((ticket, verdict)),
            }
        }
        if !entries.is_empty() {
            let verdict = if self.step_proposal(entries) {
                Verdict::Accepted
            } else {
                Verdict::Overloaded
            };
            out.verdicts
                .extend(tickets.into_iter().map(|ticket| (ticket, verdict)));
        }
    }

    fn prepare_forwarded(&self, proposal: Proposal, now: Option<Timestamp>) -> Result<RaftLogEntry, Verdict> {
        let now = now.filter(|_| self.is_leader()).ok_or(Verdict::NotLeader)?;
        match (proposal.request, proposal.command) {
            (Some(request), Some(command)) if proposal.version <= command::VERSION => {
                self.prepare(request, command, now.as_nanos())
            }
            _ => Err(Verdict::NotLeader),
        }
    }

    fn forward_ended(&mut self, token: Token, command: Command, verdict: Option<Verdict>, out: &mut Effects) {
        match verdict {
            // It may be in the leader's log: only its outcome or the deadline can tell.
            None | Some(Verdict::Accepted) => {}
            Some(Verdict::NotLeader | Verdict::Stopping) => {
                if self.proposals.unsent(token) {
                    let request = RequestId {
                        node: self.settings.node.get(),
                        boot: self.settings.boot,
                        counter: token,
                    };
                    self.proposals.parked.push_back(Parked { request, command });
                    self.forward_again_at = self.ticks + RETRY_TICKS;
                }
            }
            Some(refusal) => self.refuse(token, refusal, out),
        }
    }

    fn take_ready(&mut self, out: &mut Effects) {
        let mut ready = self.raft.ready();
        if ready.ss().is_some() {
            self.role_changed();
        }
        for state in ready.take_read_states() {
            self.reads.confirm(&state.request_ctx, state.index);
        }
        let restart = self.install(ready.snapshot(), out);
        out.send.extend(self.outgoing(ready.take_messages()));
        let entries = ready.take_entries();
        let log = self.raft.mut_store();
        log.append(&entries);
        if let Some(state) = ready.hs() {
            log.set_hard_state(state.clone());
        }
        self.committed.extend(ready.take_committed_entries());
        let is_written = ready.must_sync();
        let number = ready.number();
        if is_written {
            out.persist.push(Persist {
                number,
                restart,
                frame: self.frame(entries),
            });
        }
        self.held.push_back(Held {
            number,
            is_written,
            messages: ready.take_persisted_messages(),
        });
        self.raft.advance_append_async(ready);
    }

    fn frame(&self, entries: Vec<RaftLogEntry>) -> LogFrame {
        LogFrame {
            entries: entries.into_iter().map(codec::entry_from_raft).collect(),
            hard_state: Some(codec::hard_state_from_raft(&self.raft.raft.hard_state())),
        }
    }

    /// A checkpoint that raft has accepted replaces the store and everything that waits for apply.
    fn install(&mut self, snapshot: &raft::eraftpb::Snapshot, out: &mut Effects) -> Option<Position> {
        let metadata = snapshot.get_metadata();
        if metadata.index == 0 {
            return None;
        }
        let (index, store) = self
            .received
            .take()
            .expect("a snapshot message comes with its state");
        assert_eq!(
            index, metadata.index,
            "the received state is not that of the message"
        );
        // What was committed and waits for apply is part of it.
        self.under_way = None;
        self.committed.clear();
        self.raft.mut_store().restore(snapshot);
        self.applied = store.position();
        self.read_alarms(&store);
        out.install = Some(store);
        out.members_changed = true;
        Some(Position {
            index: LogIndex::new(metadata.index),
            term: Term::new(metadata.term),
        })
    }

    /// Lets go what the disk has covered, oldest first.
    fn release(&mut self, out: &mut Effects) {
        while let Some(held) = self
            .held
            .pop_front_if(|held| !held.is_written || held.number <= self.persisted)
        {
            self.raft.on_persist_ready(held.number);
            out.send.extend(self.outgoing(held.messages));
        }
    }

    fn outgoing(&self, messages: Vec<Message>) -> impl Iterator<Item = RaftMessage> + use<> {
        let is_muted = self.is_muted;
        messages
            .into_iter()
            .filter(move |message| !(is_muted && takes_part_in_election(message)))
            .map(codec::message_from_raft)
    }

    fn role_changed(&mut self) {
        let raft = &self.raft.raft;
        let is_new_tenure = raft.state == StateRole::Leader
            && self.tenure.as_ref().is_none_or(|tenure| tenure.term != raft.term);
        if is_new_tenure {
            self.tenure = Some(Tenure::new(raft.term));
        } else if raft.state != StateRole::Leader {
            self.tenure = None;
        }
    }

    fn finish_entry(&mut self, entry: UnderWay, applied: Applied, store: &Store, out: &mut Effects) {
        let position = entry.position;
        assert_eq!(
            position.index,
            self.applied.index.next(),
            "entries are applied one after the other"
        );
        self.applied = position;
        out.changes.extend(applied.changes);
        self.housekeeping_applied(entry.kind);
        let Some(request) = entry.request else { return };
        let is_ours = request.node == self.settings.node.get() && request.boot == self.settings.boot;
        if is_ours && self.proposals.finish(request.counter) {
            let view = store.view();
            let answer = Answer {
                outcome: applied.outcome,
                index: position.index,
                term: position.term,
                revision: view.revision(),
                v2_index: view.v2_index(),
            };
            out.answers.push((request.counter, Ok(answer)));
        }
    }
}

fn raft_config(settings: &Settings, applied: u64) -> raft::Config {
    let election = settings.election_ticks as usize;
    raft::Config {
        id: settings.node.get(),
        election_tick: election,
        heartbeat_tick: settings.heartbeat_ticks as usize,
        applied,
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: election,
        max_election_tick: election * 2,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: UNCOMMITTED_BYTES_MAX,
        ..raft::Config::default()
    }
}

fn voters(state: &ConfState) -> usize {
    state.voters.len()
}

/// A vote granted, or asked for: a candidate votes for itself.
fn takes_part_in_election(message: &Message) -> bool {
    let kind = message.get_msg_type();
    let is_response =
        kind == MessageType::MsgRequestVoteResponse || kind == MessageType::MsgRequestPreVoteResponse;
    let is_request = kind == MessageType::MsgRequestVote || kind == MessageType::MsgRequestPreVote;
    is_request || (is_response && !message.reject)
}

fn decode(entry: &RaftLogEntry) -> Result<Entry, DecodeError> {
    if entry.get_entry_type() == EntryType::EntryNormal {
        command::decode(entry.data.clone())
    } else {
        command::decode_member(entry.context.clone())
    }
}

fn kind_of(entry: &Entry) -> Option<housekeeping::Kind> {
    match entry {
        Entry::Proposal(proposal) => housekeeping::kind_of(proposal.command.as_ref()),
        Entry::Empty | Entry::Member(_) => None,
    }
}

fn request_of(entry: &Entry) -> Option<RequestId> {
    match entry {
        Entry::Empty => None,
        Entry::Proposal(proposal) => proposal.request,
        Entry::Member(change) => change.request,
    }
}

fn error_of(verdict: Verdict) -> ProposeError {
    match verdict {
        Verdict::Accepted => unreachable!("an accepted proposal is not refused"),
        Verdict::NotLeader => ProposeError::NoLeader,
        Verdict::Overloaded | Verdict::LeaseEnding => ProposeError::Overloaded,
        Verdict::NoSpace => ProposeError::NoSpace,
        Verdict::Stopping => ProposeError::Stopping,
        Verdict::TooLarge => ProposeError::TooLarge,
        Verdict::Corrupt => ProposeError::Corrupt,
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): spreads a counter over all bits.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
