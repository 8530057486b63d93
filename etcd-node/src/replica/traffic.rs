//! Which messages count as replication, for those who measure and know nothing of raft.

use proto::peer::RaftMessage;
use raft::eraftpb::MessageType;

/// One step of replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// A leader's entries, or its question where a follower stands.
    Entries,
    /// The follower's answer.
    Answer,
}

impl Append {
    /// What a message is; none for votes, heartbeats, reads and snapshots.
    pub fn of(message: &RaftMessage) -> Option<Self> {
        match i32::try_from(message.r#type) {
            Ok(kind) if kind == MessageType::MsgAppend as i32 => Some(Self::Entries),
            Ok(kind) if kind == MessageType::MsgAppendResponse as i32 => Some(Self::Answer),
            _ => None,
        }
    }
}
