//! Measures replication for the stats: appends out and in, and how long each follower takes to answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use proto::ids::NodeId;
use proto::peer::RaftMessage;

use crate::metrics::Metrics;
use crate::replica::Append;

/// What is on its way to followers.
pub(super) struct Traffic {
    metrics: Arc<Metrics>,
    /// When the oldest append left that a follower has not answered. Appends are pipelined and answers do not
    /// name theirs, so latency is taken from one to the next answer: exact for a follower that is up to date.
    sent_at: HashMap<NodeId, Instant>,
}

impl Traffic {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            sent_at: HashMap::new(),
        }
    }

    /// These messages leave now.
    pub(super) fn sent(&mut self, messages: &[RaftMessage]) {
        for message in messages
            .iter()
            .filter(|message| Append::of(message) == Some(Append::Entries))
        {
            self.metrics.peers.append_sent(message.encoded_len());
            self.sent_at
                .entry(NodeId::new(message.to))
                .or_insert_with(Instant::now);
        }
    }

    /// This message came from a proven sender.
    pub(super) fn received(&mut self, sender: NodeId, message: &RaftMessage) {
        match Append::of(message) {
            Some(Append::Entries) => self.metrics.peers.append_received(message.encoded_len()),
            Some(Append::Answer) => {
                if let Some(sent_at) = self.sent_at.remove(&sender) {
                    self.metrics.peers.follower_answered(sender, sent_at.elapsed());
                }
            }
            None => {}
        }
    }

    /// A member cannot be reached: what was on its way is lost.
    pub(super) fn lost(&mut self, to: NodeId) {
        if self.sent_at.remove(&to).is_some() {
            self.metrics.peers.follower_failed(to);
        }
    }

    /// Another leader: followers are measured anew.
    pub(super) fn leader_changed(&mut self) {
        self.sent_at.clear();
        self.metrics.peers.forget_followers();
    }
}

#[cfg(test)]
mod tests {
    use proto::peer::RaftEntry;

    use super::*;

    const APPEND: u32 = 3;
    const APPEND_RESPONSE: u32 = 4;
    const HEARTBEAT: u32 = 8;

    fn message(kind: u32, to: u64) -> RaftMessage {
        let entries = vec![RaftEntry {
            data: vec![0; 100].into(),
            ..RaftEntry::default()
        }];
        RaftMessage {
            r#type: kind,
            to,
            entries,
            ..RaftMessage::default()
        }
    }

    #[test]
    fn each_append_counts_and_the_next_answer_ends_its_time() {
        let metrics = Arc::new(Metrics::new());
        let mut traffic = Traffic::new(Arc::clone(&metrics));
        let (two, three) = (NodeId::new(2), NodeId::new(3));
        traffic.sent(&[
            message(APPEND, 2),
            message(APPEND, 2),
            message(APPEND, 3),
            message(HEARTBEAT, 2),
        ]);
        assert_eq!(metrics.peers.sent().0, 3);
        traffic.received(two, &message(APPEND_RESPONSE, 1));
        traffic.received(two, &message(APPEND_RESPONSE, 1));
        traffic.lost(three);
        traffic.lost(three);
        let (answered, lost) = (metrics.peers.follower(two), metrics.peers.follower(three));
        assert_eq!((answered.succeeded, answered.failed), (1, 0));
        assert_eq!((lost.succeeded, lost.failed), (0, 1));
        traffic.received(two, &message(APPEND, 1));
        assert_eq!(metrics.peers.received().0, 1);
        traffic.leader_changed();
        assert_eq!(metrics.peers.follower(two).succeeded, 0);
    }
}
