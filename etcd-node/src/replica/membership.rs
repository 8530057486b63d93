//! Membership: configuration entries whose context is our own `MemberChange`, so that raft and the store learn
//! of a change from one log position; and handing leadership over.

use prost::Message as _;
use proto::ids::NodeId;
use proto::log::{MemberChange, RequestId, member_change::Action};
use proto::time::Timestamp;
use raft::StateRole;
use raft::eraftpb::{ConfChangeV2, Entry};
use store::{Outcome, Progress, command};

use super::{Effects, Replica, Stop, Token, codec};
use crate::driver::ProposeError;

impl Replica {
    /// Proposes a change for somebody who waits for it; the shell has checked that it makes sense.
    pub(super) fn propose_member(&mut self, token: Token, mut change: MemberChange, out: &mut Effects) {
        let is_ready = self.is_leader()
            && self.tenure.as_ref().is_some_and(super::Tenure::is_open)
            && self.raft.raft.lead_transferee.is_none();
        if !is_ready {
            out.answers.push((token, Err(ProposeError::NoLeader)));
            return;
        }
        if self.raft.raft.has_pending_conf() || self.proposals.is_full() {
            out.answers.push((token, Err(ProposeError::Overloaded)));
            return;
        }
        change.request = Some(RequestId {
            node: self.settings.node.get(),
            boot: self.settings.boot,
            counter: token,
        });
        if self.step_member(change) {
            let deadline = self.ticks + self.settings.request_ticks;
            self.proposals.expect(token, self.raft.raft.term, deadline);
        } else {
            out.answers.push((token, Err(ProposeError::Overloaded)));
        }
    }

    /// Proposes a change that nobody waits for.
    pub(super) fn propose_own_member(&mut self, action: Action, id: u64, now: Timestamp) {
        let change = MemberChange {
            action: action.into(),
            id,
            stamp: now.as_nanos(),
            ..MemberChange::default()
        };
        if !self.step_member(change) {
            tracing::debug!(?action, "own membership change refused");
        }
    }

    fn step_member(&mut self, mut change: MemberChange) -> bool {
        change.version = command::VERSION;
        let kind = match change.action() {
            Action::AddLearner => 2,
            Action::Promote => 0,
            Action::Remove => 1,
        };
        let single = codec::single_change(kind, change.id).expect("the three kinds are raft's");
        let mut configuration = ConfChangeV2::default();
        configuration.set_changes(vec![single].into());
        self.raft
            .propose_conf_change(change.encode_to_vec(), configuration)
            .is_ok()
    }

    /// Applies a configuration entry to raft, unless the store refused it: then neither changes.
    pub(super) fn apply_configuration(&mut self, entry: Entry, progress: &Progress, out: &mut Effects) {
        let is_refused = matches!(
            progress,
            Progress::Done(applied) if matches!(applied.outcome, Outcome::Member(Err(_)))
        );
        if is_refused {
            return;
        }
        let change = match codec::conf_change_to_raft(entry.data) {
            Ok(change) => change,
            Err(error) => {
                let damaged = command::DecodeError::Damaged(error.to_string());
                return self.stop(Stop::Unreadable(damaged), out);
            }
        };
        let state = self
            .raft
            .apply_conf_change(&change)
            .expect("the configuration was checked when proposed");
        let us = self.settings.node.get();
        let is_member = state.voters.contains(&us) || state.learners.contains(&us);
        tracing::info!(voters = ?hex(&state.voters), learners = ?hex(&state.learners), "membership changed");
        self.raft.mut_store().set_conf_state(state);
        out.members_changed = true;
        if !is_member {
            self.stop(Stop::Removed, out);
        }
    }

    /// Hands leadership to the follower that has the most of the log.
    pub(super) fn transfer_leadership(&mut self) {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        let us = self.settings.node.get();
        let voters = &self.raft.store().conf_state().voters;
        let best = voters
            .iter()
            .copied()
            .filter(|id| *id != us)
            .filter_map(|id| {
                raft.prs()
                    .get(id)
                    .map(|progress| (progress.recent_active, progress.matched, id))
            })
            .filter(|(is_active, ..)| *is_active)
            .max();
        if let Some((_, _, id)) = best {
            tracing::info!(to = %NodeId::new(id), "handing leadership over");
            self.raft.transfer_leader(id);
        }
    }
}

fn hex(ids: &[u64]) -> Vec<String> {
    ids.iter().map(|id| NodeId::new(*id).to_string()).collect()
}
