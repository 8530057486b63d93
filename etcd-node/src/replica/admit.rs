//! The gate before raft's `step`: raft 0.7 trusts its peers so far that a crafted message makes it panic or
//! move its commit. What does not pass here never reaches it (keyspace rules, section 6).

use proto::ids::NodeId;
use proto::peer::{RaftConfState, RaftMessage};
use raft::eraftpb::MessageType;

use crate::replica::codec;

/// Terms above this are nobody's honest count: at a thousand elections a second it takes 146 million years.
const TERM_MAX: u64 = 1 << 62;

/// Members that one configuration may name; far above any sensible cluster.
const CONFIGURATION_MEMBERS_MAX: usize = 64;

/// What the gate must know of this node.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// This node.
    pub node: NodeId,
    /// The member that the connection has proven to be.
    pub proven: NodeId,
    /// Index of the last entry of our log.
    pub last_index: u64,
    /// Index of the last entry known to be committed.
    pub committed: u64,
}

/// Why a message does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The message is malformed, or not for us, or not from who sent it: it is dropped.
    #[error("peer message refused: {0}")]
    Malformed(String),
    /// The cluster has committed what this log lacks: the node must stop.
    #[error(
        "this node's log is missing acknowledged data ({0}): its disk was wiped or rolled back; remove the member and join it with an empty data directory"
    )]
    LostData(String),
}

/// Whether a message may be stepped. `term_at` gives the term of an entry of our log, if it is there.
///
/// # Errors
/// [`Refused`].
pub fn admit(message: &RaftMessage, gate: Gate, term_at: impl Fn(u64) -> Option<u64>) -> Result<(), Refused> {
    let kind = codec::message_type(message.r#type).map_err(|error| malformed(error.to_string()))?;
    if message.from != gate.proven.get() {
        return Err(malformed(format!(
            "it says {:x}, the connection belongs to {}",
            message.from, gate.proven
        )));
    }
    if message.to != gate.node.get() {
        return Err(malformed(format!(
            "it is for {:x}, this is {}",
            message.to, gate.node
        )));
    }
    if !travels(kind) {
        return Err(malformed(format!("{kind:?} never crosses the wire")));
    }
    check_terms(message, kind)?;
    check_entries(message, kind)?;
    check_snapshot(message, kind)?;
    check_commit(message, kind, gate)?;
    check_conflict(message, kind, gate, term_at)
}

fn malformed(text: String) -> Refused {
    Refused::Malformed(text)
}

/// Local types would drive raft from outside, and proposals go by their own call.
fn travels(kind: MessageType) -> bool {
    match kind {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => true,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => false,
    }
}

fn check_terms(message: &RaftMessage, kind: MessageType) -> Result<(), Refused> {
    if message.term == 0 && kind != MessageType::MsgReadIndex {
        return Err(malformed(format!("{kind:?} without a term")));
    }
    if message.term > TERM_MAX || message.log_term > TERM_MAX || message.commit_term > TERM_MAX {
        return Err(malformed(format!("{kind:?} with a term beyond reason")));
    }
    let is_log_index_sane = message.index <= TERM_MAX && message.commit <= TERM_MAX;
    if !is_log_index_sane {
        return Err(malformed(format!("{kind:?} with an index beyond reason")));
    }
    Ok(())
}

fn check_entries(message: &RaftMessage, kind: MessageType) -> Result<(), Refused> {
    match kind {
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            if message.entries.len() != 1 {
                return Err(malformed(format!(
                    "{kind:?} with {} entries",
                    message.entries.len()
                )));
            }
            Ok(())
        }
        MessageType::MsgAppend => check_append(message),
        _ if message.entries.is_empty() => Ok(()),
        _ => Err(malformed(format!("{kind:?} with entries"))),
    }
}

fn check_append(message: &RaftMessage) -> Result<(), Refused> {
    let mut term = message.log_term;
    for (entry, index) in message.entries.iter().zip(message.index + 1..) {
        if entry.index != index {
            return Err(malformed(format!("entry {} where {index} belongs", entry.index)));
        }
        if entry.term < term || entry.term > message.term || entry.term == 0 {
            return Err(malformed(format!(
                "entry {index} has term {} after {term}",
                entry.term
            )));
        }
        if entry.r#type == 1 {
            return Err(malformed(format!(
                "entry {index} has a form that this project never writes"
            )));
        }
        term = entry.term;
    }
    Ok(())
}

fn check_snapshot(message: &RaftMessage, kind: MessageType) -> Result<(), Refused> {
    match (&message.snapshot, kind) {
        (Some(metadata), MessageType::MsgSnapshot) => {
            let Some(conf_state) = &metadata.conf_state else {
                return Err(malformed("a snapshot without a configuration".into()));
            };
            if metadata.index == 0 || metadata.term == 0 || metadata.term > message.term {
                return Err(malformed("a snapshot of nowhere".into()));
            }
            check_configuration(conf_state)
        }
        (None, MessageType::MsgSnapshot) => Err(malformed("a snapshot message without one".into())),
        (Some(_), _) => Err(malformed(format!("{kind:?} with a snapshot"))),
        (None, _) => Ok(()),
    }
}

/// A configuration that raft can restore: voters, nobody twice, learners-to-be only among outgoing voters.
pub fn check_configuration(state: &RaftConfState) -> Result<(), Refused> {
    let all = state.voters.iter().chain(&state.learners);
    let mut ids: Vec<u64> = all.copied().collect();
    if state.voters.is_empty() || ids.len() > CONFIGURATION_MEMBERS_MAX || ids.contains(&0) {
        return Err(malformed(
            "a configuration without voters, with too many members, or with member 0".into(),
        ));
    }
    ids.sort_unstable();
    let distinct = ids.windows(2).all(|pair| pair[0] != pair[1]);
    let mut outgoing = state.voters_outgoing.clone();
    outgoing.sort_unstable();
    outgoing.dedup();
    let outgoing_distinct = outgoing.len() == state.voters_outgoing.len()
        && !outgoing.contains(&0)
        && outgoing.len() <= CONFIGURATION_MEMBERS_MAX;
    let mut next = state.learners_next.clone();
    next.sort_unstable();
    next.dedup();
    let next_fits = next.len() == state.learners_next.len()
        && next
            .iter()
            .all(|id| outgoing.contains(id) && ids.binary_search(id).is_err());
    // A learner must not be a voter of the outgoing half.
    let learners_fit = state.learners.iter().all(|id| !outgoing.contains(id));
    let leave_fits = !state.auto_leave || !outgoing.is_empty();
    if distinct && outgoing_distinct && next_fits && learners_fit && leave_fits {
        Ok(())
    } else {
        Err(malformed("a configuration that contradicts itself".into()))
    }
}

/// A leader never tells a follower of commits beyond what that follower has acknowledged.
fn check_commit(message: &RaftMessage, kind: MessageType, gate: Gate) -> Result<(), Refused> {
    if kind == MessageType::MsgHeartbeat && message.commit > gate.last_index {
        return Err(Refused::LostData(format!(
            "the leader counts on entry {}, the log ends at {}",
            message.commit, gate.last_index
        )));
    }
    Ok(())
}

/// raft would panic: an append that contradicts an entry which is committed here.
fn check_conflict(
    message: &RaftMessage,
    kind: MessageType,
    gate: Gate,
    term_at: impl Fn(u64) -> Option<u64>,
) -> Result<(), Refused> {
    if kind != MessageType::MsgAppend {
        return Ok(());
    }
    // Only appends that continue from a point we agree on are applied at all.
    if term_at(message.index).is_some_and(|term| term != message.log_term) {
        return Ok(());
    }
    for entry in message
        .entries
        .iter()
        .take_while(|entry| entry.index <= gate.committed)
    {
        if term_at(entry.index).is_some_and(|term| term != entry.term) {
            return Err(Refused::LostData(format!(
                "entry {} of term {} contradicts a committed one",
                entry.index, entry.term
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proto::peer::{RaftEntry, RaftSnapshotMetadata};

    use super::*;

    fn gate() -> Gate {
        Gate {
            node: NodeId::new(1),
            proven: NodeId::new(2),
            last_index: 10,
            committed: 8,
        }
    }

    fn term_at(index: u64) -> Option<u64> {
        (1..=10).contains(&index).then_some(3)
    }

    fn message(kind: MessageType) -> RaftMessage {
        RaftMessage {
            r#type: kind as u32,
            from: 2,
            to: 1,
            term: 5,
            ..RaftMessage::default()
        }
    }

    fn entry(index: u64, term: u64) -> RaftEntry {
        RaftEntry {
            index,
            term,
            ..RaftEntry::default()
        }
    }

    fn append(index: u64, log_term: u64, entries: Vec<RaftEntry>) -> RaftMessage {
        RaftMessage {
            index,
            log_term,
            entries,
            ..message(MessageType::MsgAppend)
        }
    }

    fn snapshot(conf_state: RaftConfState) -> RaftMessage {
        let metadata = RaftSnapshotMetadata {
            conf_state: Some(conf_state),
            index: 20,
            term: 5,
        };
        RaftMessage {
            snapshot: Some(metadata),
            ..message(MessageType::MsgSnapshot)
        }
    }

    fn voters(ids: &[u64]) -> RaftConfState {
        RaftConfState {
            voters: ids.to_vec(),
            ..RaftConfState::default()
        }
    }

    #[test]
    fn honest_messages_pass() {
        let honest = [
            append(10, 3, vec![entry(11, 5), entry(12, 5)]),
            append(8, 3, vec![entry(9, 4)]),
            append(10, 3, vec![]),
            RaftMessage {
                commit: 10,
                ..message(MessageType::MsgHeartbeat)
            },
            message(MessageType::MsgRequestVote),
            snapshot(voters(&[1, 2, 3])),
            RaftMessage {
                term: 0,
                entries: vec![entry(0, 0)],
                ..message(MessageType::MsgReadIndex)
            },
        ];
        for message in honest {
            assert_eq!(admit(&message, gate(), term_at), Ok(()), "{message:?}");
        }
    }

    #[test]
    fn crafted_messages_are_refused() {
        let crafted = [
            RaftMessage {
                r#type: 99,
                ..message(MessageType::MsgAppend)
            },
            RaftMessage {
                r#type: u32::MAX,
                ..message(MessageType::MsgAppend)
            },
            RaftMessage {
                from: 3,
                ..message(MessageType::MsgAppend)
            },
            RaftMessage {
                to: 3,
                ..message(MessageType::MsgAppend)
            },
            RaftMessage {
                to: 0,
                ..message(MessageType::MsgAppend)
            },
            message(MessageType::MsgHup),
            message(MessageType::MsgBeat),
            RaftMessage {
                entries: vec![entry(0, 0)],
                ..message(MessageType::MsgPropose)
            },
            message(MessageType::MsgPropose),
            message(MessageType::MsgUnreachable),
            message(MessageType::MsgSnapStatus),
            message(MessageType::MsgCheckQuorum),
            message(MessageType::MsgTransferLeader),
            RaftMessage {
                term: 0,
                ..message(MessageType::MsgAppend)
            },
            RaftMessage {
                term: 0,
                ..message(MessageType::MsgRequestVote)
            },
            RaftMessage {
                term: u64::MAX,
                ..message(MessageType::MsgRequestVote)
            },
            RaftMessage {
                commit: u64::MAX,
                ..message(MessageType::MsgRequestVote)
            },
            append(10, 3, vec![entry(12, 5)]),
            append(10, 3, vec![entry(11, 5), entry(13, 5)]),
            append(10, 3, vec![entry(11, 2)]),
            append(10, 3, vec![entry(11, 5), entry(12, 4)]),
            append(10, 3, vec![entry(11, 6)]),
            append(u64::MAX, 3, vec![entry(0, 5)]),
            append(
                10,
                3,
                vec![RaftEntry {
                    r#type: 1,
                    ..entry(11, 5)
                }],
            ),
            RaftMessage {
                entries: vec![entry(1, 1)],
                ..message(MessageType::MsgHeartbeat)
            },
            message(MessageType::MsgReadIndex),
            message(MessageType::MsgReadIndexResp),
            RaftMessage {
                entries: vec![entry(0, 0); 2],
                ..message(MessageType::MsgReadIndex)
            },
            message(MessageType::MsgSnapshot),
            snapshot(voters(&[])),
            snapshot(voters(&[1, 1])),
            snapshot(voters(&[0])),
            snapshot(RaftConfState {
                learners: vec![2],
                ..voters(&[1, 2])
            }),
            snapshot(RaftConfState {
                learners_next: vec![2],
                ..voters(&[1])
            }),
            snapshot(RaftConfState {
                auto_leave: true,
                ..voters(&[1])
            }),
            RaftMessage {
                snapshot: snapshot(voters(&[1])).snapshot,
                ..message(MessageType::MsgHeartbeat)
            },
        ];
        for message in crafted {
            let verdict = admit(&message, gate(), term_at);
            assert!(
                matches!(verdict, Err(Refused::Malformed(_))),
                "{message:?}: {verdict:?}"
            );
        }
    }

    #[test]
    fn a_commit_beyond_our_log_and_a_contradiction_stop_the_node() {
        let beyond = RaftMessage {
            commit: 11,
            ..message(MessageType::MsgHeartbeat)
        };
        let contradiction = append(5, 3, vec![entry(6, 4)]);
        for message in [beyond, contradiction] {
            let verdict = admit(&message, gate(), term_at);
            assert!(
                matches!(verdict, Err(Refused::LostData(_))),
                "{message:?}: {verdict:?}"
            );
        }
    }
}
