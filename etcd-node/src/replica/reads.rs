//! Linearizable reads (ReadIndex, Raft thesis 6.4): one round for all that wait, then wait for apply.

use std::collections::VecDeque;

use crate::driver::ReadError;
use crate::replica::proposals::Token;

/// Reads that wait on one node; beyond it callers are refused at once.
pub(super) const READS_MAX: usize = 65_536;

/// Bytes of a read context: node, boot nonce, counter.
const CONTEXT_BYTES: usize = 24;

#[derive(Debug)]
struct Round {
    context: u64,
    tokens: Vec<Token>,
    /// When to ask again under a new context: raft drops a read silently where it cannot serve it yet.
    repeat_at: u64,
}

/// The reads of this node.
#[derive(Debug)]
pub(super) struct Reads {
    node: u64,
    boot: u64,
    counter: u64,
    repeat_ticks: u64,
    /// Not asked for yet.
    fresh: Vec<Token>,
    /// The one round under way: reads that come meanwhile share the next.
    round: Option<Round>,
    /// Confirmed, waiting for apply: (index, tokens), indexes never fall.
    confirmed: VecDeque<(u64, Vec<Token>)>,
    deadlines: VecDeque<(u64, Token)>,
    waiting: usize,
}

impl Reads {
    /// No reads; asks are repeated after so many ticks.
    pub(super) fn new(node: u64, boot: u64, repeat_ticks: u64) -> Self {
        Self {
            node,
            boot,
            counter: 0,
            repeat_ticks,
            fresh: Vec::new(),
            round: None,
            confirmed: VecDeque::new(),
            deadlines: VecDeque::new(),
            waiting: 0,
        }
    }

    /// Takes a read in.
    ///
    /// # Errors
    /// When too many wait.
    pub(super) fn push(&mut self, token: Token, deadline: u64) -> Result<(), ReadError> {
        if self.waiting >= READS_MAX {
            return Err(ReadError::Overloaded);
        }
        self.waiting += 1;
        self.fresh.push(token);
        self.deadlines.push_back((deadline, token));
        Ok(())
    }

    /// The context to ask raft with now, if any. Call it only while a leader is known.
    pub(super) fn ask(&mut self, tick: u64) -> Option<Vec<u8>> {
        let tokens = match self.round.take() {
            Some(round) if tick < round.repeat_at => {
                self.round = Some(round);
                return None;
            }
            Some(mut round) => {
                round.tokens.append(&mut self.fresh);
                round.tokens
            }
            None if self.fresh.is_empty() => return None,
            None => std::mem::take(&mut self.fresh),
        };
        self.counter += 1;
        self.round = Some(Round {
            context: self.counter,
            tokens,
            repeat_at: tick + self.repeat_ticks,
        });
        Some(self.context(self.counter))
    }

    /// raft confirmed a context at this index; others' and outdated contexts are ignored.
    pub(super) fn confirm(&mut self, context: &[u8], index: u64) {
        let Some(round) = self.round.take() else { return };
        if context != self.context(round.context) {
            self.round = Some(round);
            return;
        }
        self.confirmed.push_back((index, round.tokens));
    }

    /// The reads that may go on once this much is applied.
    pub(super) fn ready(&mut self, applied: u64) -> Vec<Token> {
        let mut out = Vec::new();
        while let Some((_, mut tokens)) = self.confirmed.pop_front_if(|(index, _)| *index <= applied) {
            out.append(&mut tokens);
        }
        self.waiting -= out.len();
        out
    }

    /// Ends what is due at this tick.
    pub(super) fn expire(&mut self, tick: u64, has_leader: bool) -> Vec<(Token, ReadError)> {
        let error = if has_leader {
            ReadError::TimedOut
        } else {
            ReadError::NoLeader
        };
        let mut ended = Vec::new();
        while let Some((_, token)) = self.deadlines.pop_front_if(|(deadline, _)| *deadline <= tick) {
            if self.remove(token) {
                ended.push((token, error));
            }
        }
        ended
    }

    fn remove(&mut self, token: Token) -> bool {
        let lists = [
            Some(&mut self.fresh),
            self.round.as_mut().map(|round| &mut round.tokens),
        ];
        let confirmed = self.confirmed.iter_mut().map(|(_, tokens)| tokens);
        for list in lists.into_iter().flatten().chain(confirmed) {
            if let Some(at) = list.iter().position(|other| *other == token) {
                list.swap_remove(at);
                self.waiting -= 1;
                return true;
            }
        }
        false
    }

    fn context(&self, counter: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(CONTEXT_BYTES);
        for part in [self.node, self.boot, counter] {
            out.extend_from_slice(&part.to_be_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_come_during_a_round_share_the_next() {
        let mut reads = Reads::new(1, 2, 5);
        reads.push(1, 100).unwrap();
        let first = reads.ask(0).unwrap();
        reads.push(2, 100).unwrap();
        assert_eq!(reads.ask(1), None, "one round at a time");
        reads.confirm(&first, 7);
        assert_eq!(reads.ready(6), Vec::<Token>::new());
        assert_eq!(reads.ready(7), [1]);
        assert!(reads.ask(1).is_some());
    }

    #[test]
    fn an_unanswered_round_is_repeated_under_a_new_context() {
        let mut reads = Reads::new(1, 2, 5);
        reads.push(1, 100).unwrap();
        let first = reads.ask(0).unwrap();
        let second = reads.ask(5).unwrap();
        assert_ne!(first, second);
        reads.confirm(&first, 3);
        assert_eq!(
            reads.ready(10),
            Vec::<Token>::new(),
            "an old context confirms nothing"
        );
        reads.confirm(&second, 4);
        assert_eq!(reads.ready(10), [1]);
    }

    #[test]
    fn a_read_ends_at_its_deadline_wherever_it_waits() {
        let mut reads = Reads::new(1, 2, 5);
        reads.push(1, 10).unwrap();
        let context = reads.ask(0).unwrap();
        reads.confirm(&context, 50);
        reads.push(2, 11).unwrap();
        assert_eq!(
            reads.expire(11, true),
            [(1, ReadError::TimedOut), (2, ReadError::TimedOut)]
        );
        assert_eq!(reads.expire(99, false), []);
        assert_eq!(reads.ready(60), Vec::<Token>::new());
    }
}
