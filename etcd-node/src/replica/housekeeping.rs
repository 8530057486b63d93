//! What a leader proposes by itself: the start of its tenure, ends of leases and TTLs, compaction, the space
//! alarm, promotions. Each at most once at a time.

use proto::etcdserverpb::{AlarmType, CompactionRequest, TxnRequest, request_op::Request};
use proto::log::v2_command::Operation;
use proto::log::{Alarm, Expire, RequestId, TenureStart, alarm, expire, member_change};
use proto::time::Timestamp;
use raft::StateRole;
use store::{Command, Store};

use super::{Clock, Replica};

/// Nodes and leases that one expiry command ends: few enough for a turn, and the next follows at once.
const EXPIRE_ITEMS_MAX: usize = 256;

/// A learner this close to the commit is promoted: less than one message of lag.
const PROMOTE_LAG_MAX: u64 = 1_000;

/// Voters beyond this many add cost and no safety; further members stay learners (0.4's `activeSize`).
const VOTERS_MAX: usize = 9;

/// The space alarm ends when live data is below this share of the quota.
const SPACE_REGAINED_PERCENT: u64 = 90;

/// Whether a command can make the data grow: refused while the space alarm is up.
pub(super) fn needs_space(command: &Command) -> bool {
    match command {
        Command::V2(write) => !matches!(
            Operation::try_from(write.operation),
            Ok(Operation::Delete | Operation::CompareAndDelete)
        ),
        Command::Put(_) | Command::LeaseGrant(_) => true,
        Command::Txn(txn) => txn_puts(txn),
        Command::DeleteRange(_)
        | Command::Compact(_)
        | Command::LeaseRevoke(_)
        | Command::KeepAlive(_)
        | Command::Expire(_)
        | Command::TenureStart(_)
        | Command::MemberUpdate(_)
        | Command::Alarm(_)
        | Command::MemberBoot(_) => false,
    }
}

fn txn_puts(txn: &TxnRequest) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|op| match &op.request {
            Some(Request::RequestPut(_)) => true,
            Some(Request::RequestTxn(inner)) => txn_puts(inner),
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => false,
        })
}

impl Replica {
    /// Looks after the cluster; the driver calls it every few ticks with the store at rest.
    pub fn housekeep(&mut self, store: &Store, clock: Clock) {
        if self.is_stopped || !self.is_leader() || self.raft.raft.lead_transferee.is_some() {
            return;
        }
        let Some(now) = self.tenure.as_ref().and_then(|tenure| tenure.now(clock)) else {
            return;
        };
        self.expire_due(store, now);
        self.compact_history(store, now);
        self.watch_space(now);
        self.promote_learner(now);
    }

    /// The first applied entry of our own term: now the newest stamp of all earlier leaders is known.
    pub(super) fn open_tenure(&mut self, store: &Store, clock: Clock) {
        let Some(tenure) = &mut self.tenure else { return };
        let is_due = !tenure.is_open()
            && self.applied.term.get() == tenure.term
            && self.raft.raft.state == StateRole::Leader;
        if !is_due {
            return;
        }
        tenure.open(store.view().stamp(), clock);
        let now = tenure.now(clock).expect("the tenure was opened just now");
        let leader = self.settings.node.get();
        self.propose_own(Command::TenureStart(TenureStart { leader }), now);
        tracing::info!(term = self.raft.raft.term, "leading");
    }

    fn expire_due(&mut self, store: &Store, now: Timestamp) {
        if self.tenure.as_ref().is_none_or(|tenure| tenure.is_expiring) {
            return;
        }
        let due = store.due(now, EXPIRE_ITEMS_MAX);
        if due.nodes.is_empty() && due.leases.is_empty() {
            return;
        }
        let nodes = due
            .nodes
            .into_iter()
            .map(|(expires_at, path)| expire::Node {
                path,
                expires_at: expires_at.as_nanos(),
            })
            .collect();
        let leases = due.leases;
        let command = Command::Expire(Expire {
            nodes,
            leases: leases.clone(),
        });
        if self.propose_own(command, now)
            && let Some(tenure) = &mut self.tenure
        {
            tenure.is_expiring = true;
            tenure.ending_leases.extend(leases);
        }
    }

    fn compact_history(&mut self, store: &Store, now: Timestamp) {
        if self.tenure.as_ref().is_none_or(|tenure| tenure.is_compacting) {
            return;
        }
        let Some(revision) = store.compaction_target(now) else {
            return;
        };
        let command = Command::Compact(CompactionRequest {
            revision: revision.get(),
            physical: false,
        });
        if self.propose_own(command, now)
            && let Some(tenure) = &mut self.tenure
        {
            tenure.is_compacting = true;
        }
    }

    fn watch_space(&mut self, now: Timestamp) {
        let quota = self.settings.quota_bytes;
        let action = if !self.has_space_alarm && self.live_bytes >= quota {
            alarm::Action::Raise
        } else if self.has_space_alarm && self.live_bytes < quota / 100 * SPACE_REGAINED_PERCENT {
            alarm::Action::Clear
        } else {
            return;
        };
        let member = self.settings.node.get();
        let alarm = Alarm {
            action: action.into(),
            member,
            alarm: AlarmType::Nospace.into(),
        };
        if self.propose_own(Command::Alarm(alarm), now) {
            tracing::warn!(live_bytes = self.live_bytes, quota, ?action, "space alarm");
            // Until the command is applied; applied alarms are read from the store.
            self.has_space_alarm = action == alarm::Action::Raise;
        }
    }

    fn promote_learner(&mut self, now: Timestamp) {
        let raft = &self.raft.raft;
        if raft.has_pending_conf() || self.raft.store().conf_state().voters.len() >= VOTERS_MAX {
            return;
        }
        let committed = raft.raft_log.committed;
        let ready = self
            .raft
            .store()
            .conf_state()
            .learners
            .iter()
            .copied()
            .find(|id| {
                raft.prs().get(*id).is_some_and(|progress| {
                    progress.recent_active
                        && progress.matched > 0
                        && progress.matched + PROMOTE_LAG_MAX >= committed
                        && progress.state == raft::ProgressState::Replicate
                })
            });
        if let Some(id) = ready {
            tracing::info!(member = %proto::ids::NodeId::new(id), "learner has caught up: promoting it");
            self.propose_own_member(member_change::Action::Promote, id, now);
        }
    }

    /// Proposes a command that nobody waits for.
    fn propose_own(&mut self, command: Command, now: Timestamp) -> bool {
        self.own_counter += 1;
        let request = RequestId {
            node: self.settings.node.get(),
            boot: self.settings.boot,
            counter: OWN_COUNTERS + self.own_counter,
        };
        match self.prepare(request, command, now.as_nanos()) {
            Ok(entry) => self.step_proposal(vec![entry]),
            Err(verdict) => {
                tracing::debug!(?verdict, "own proposal refused");
                false
            }
        }
    }

    /// An entry was applied: lets the next command of its kind go.
    pub(super) fn housekeeping_applied(&mut self, command: Option<Kind>) {
        let Some(tenure) = &mut self.tenure else { return };
        match command {
            Some(Kind::Expire) => {
                tenure.is_expiring = false;
                tenure.ending_leases.clear();
            }
            Some(Kind::Compact) => tenure.is_compacting = false,
            None => {}
        }
    }

    pub(super) fn read_alarms(&mut self, store: &Store) {
        let alarms = store.view().alarms();
        let has = |kind: AlarmType| alarms.iter().any(|(_, alarm)| *alarm == i32::from(kind));
        self.has_space_alarm = has(AlarmType::Nospace);
        self.has_corrupt_alarm = has(AlarmType::Corrupt);
    }
}

/// Counters of request ids that no waiter of the driver ever has.
const OWN_COUNTERS: u64 = 1 << 63;

/// Commands whose application the leader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Expire,
    Compact,
}

/// Whether a command is one that the leader waits for.
pub(super) fn kind_of(command: Option<&Command>) -> Option<Kind> {
    match command {
        Some(Command::Expire(_)) => Some(Kind::Expire),
        Some(Command::Compact(_)) => Some(Kind::Compact),
        _ => None,
    }
}
