//! Who waits for what: proposals of this node from their acceptance to their outcome or their deadline.

use std::collections::{BTreeMap, VecDeque};

use proto::log::RequestId;
use store::Command;

use crate::driver::ProposeError;

/// Names a waiter of this node: the counter of its request id, or of its read.
pub type Token = u64;

/// Proposals without an outcome that one node keeps; beyond it callers are refused at once.
/// At 64 bytes of bookkeeping each, and as many commands as one log window holds.
pub(super) const WAITING_MAX: usize = 16_384;

/// A command that has not left this node yet.
#[derive(Debug)]
pub(super) struct Parked {
    /// Whose it is.
    pub(super) request: RequestId,
    /// What it asks.
    pub(super) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No leader was known yet: it certainly did not happen.
    Parked,
    /// With the leader of this term: it may have happened.
    Sent { term: u64 },
}

/// The waiters of this node.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// Commands to hand to the leader, in order of arrival.
    pub(super) parked: VecDeque<Parked>,
    waiting: BTreeMap<Token, Stage>,
    /// All requests have one timeout, so deadlines come in order of arrival.
    deadlines: VecDeque<(u64, Token)>,
}

impl Proposals {
    /// Whether another one may wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a command in; its outcome is due by the tick `deadline`.
    pub(super) fn park(&mut self, parked: Parked, deadline: u64) {
        let token = parked.request.counter;
        assert!(
            self.waiting.insert(token, Stage::Parked).is_none(),
            "request {token} waits twice"
        );
        self.deadlines.push_back((deadline, token));
        self.parked.push_back(parked);
    }

    /// Lets a token wait for a command that is in the log already.
    pub(super) fn expect(&mut self, token: Token, term: u64, deadline: u64) {
        assert!(
            self.waiting.insert(token, Stage::Sent { term }).is_none(),
            "request {token} waits twice"
        );
        self.deadlines.push_back((deadline, token));
    }

    /// The command went to the leader of this term.
    pub(super) fn sent(&mut self, token: Token, term: u64) {
        if let Some(stage) = self.waiting.get_mut(&token) {
            *stage = Stage::Sent { term };
        }
    }

    /// The leader certainly has not taken the command; whether somebody still waits for it.
    pub(super) fn unsent(&mut self, token: Token) -> bool {
        let stage = self.waiting.get_mut(&token);
        stage.is_some_and(|stage| {
            *stage = Stage::Parked;
            true
        })
    }

    /// The outcome is known; whether somebody still waits for it.
    pub(super) fn finish(&mut self, token: Token) -> bool {
        self.waiting.remove(&token).is_some()
    }

    /// Ends what is due at this tick: each with the most that can be said of it.
    pub(super) fn expire(&mut self, tick: u64, term: u64) -> Vec<(Token, ProposeError)> {
        let mut ended = Vec::new();
        while let Some((_, token)) = self.deadlines.pop_front_if(|(deadline, _)| *deadline <= tick) {
            match self.waiting.remove(&token) {
                None => {}
                Some(Stage::Parked) => {
                    self.parked.retain(|parked| parked.request.counter != token);
                    ended.push((token, ProposeError::NoLeader));
                }
                Some(Stage::Sent { term: sent }) if sent == term => {
                    ended.push((token, ProposeError::TimedOut));
                }
                Some(Stage::Sent { .. }) => ended.push((token, ProposeError::Uncertain)),
            }
        }
        ended
    }

    /// Everybody who still waits, as the node stops.
    pub(super) fn drain(&mut self) -> Vec<(Token, ProposeError)> {
        self.parked.clear();
        self.deadlines.clear();
        let error = |stage| {
            if stage == Stage::Parked {
                ProposeError::Stopping
            } else {
                ProposeError::Uncertain
            }
        };
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(token, stage)| (token, error(stage)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(counter: u64) -> Parked {
        Parked {
            request: RequestId {
                node: 1,
                boot: 2,
                counter,
            },
            command: Command::TenureStart(proto::log::TenureStart { leader: 1 }),
        }
    }

    #[test]
    fn a_deadline_tells_what_may_have_happened() {
        let mut proposals = Proposals::default();
        for token in 1..=4 {
            proposals.park(parked(token), 10);
        }
        proposals.sent(2, 7);
        proposals.sent(3, 6);
        assert!(proposals.finish(4) && !proposals.finish(4));
        assert_eq!(proposals.expire(9, 7), []);
        let ended = proposals.expire(10, 7);
        assert_eq!(
            ended,
            [
                (1, ProposeError::NoLeader),
                (2, ProposeError::TimedOut),
                (3, ProposeError::Uncertain)
            ]
        );
        assert_eq!(
            proposals
                .parked
                .iter()
                .map(|parked| parked.request.counter)
                .collect::<Vec<_>>(),
            [2, 3, 4]
        );
    }
}
