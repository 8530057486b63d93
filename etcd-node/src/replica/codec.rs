//! The one place where raft's messages and ours meet, field by field. raft's own protobuf parser never
//! sees bytes from the network or the disk; what is read there are our prost types.

use bytes::Bytes;
use prost::Message as _;
use proto::peer::{
    RaftConfChange, RaftConfState, RaftEntry, RaftHardState, RaftMessage, RaftSnapshotMetadata,
};
use protobuf::{ProtobufEnum, RepeatedField};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
    HardState, Message, MessageType, Snapshot, SnapshotMetadata,
};

/// What a peer or a disk says that raft has no word for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A number outside of an enum.
    #[error("{what} {value} is unknown")]
    Unknown {
        /// Which enum.
        what: &'static str,
        /// The number.
        value: u32,
    },
    /// Bytes that are not the message they should be.
    #[error("a configuration change cannot be read")]
    ConfChange,
}

/// Our form of one of raft's messages.
pub fn message_from_raft(mut message: Message) -> RaftMessage {
    let snapshot = message.has_snapshot().then(|| {
        let metadata = message.get_snapshot().get_metadata();
        RaftSnapshotMetadata {
            conf_state: Some(conf_state_from_raft(metadata.get_conf_state())),
            index: metadata.index,
            term: metadata.term,
        }
    });
    RaftMessage {
        r#type: enum_number(message.get_msg_type()),
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.take_entries().into_iter().map(entry_from_raft).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.take_context(),
        priority: message.priority,
    }
}

/// raft's form of one of our messages.
///
/// # Errors
/// A type that raft does not know, of the message or of an entry.
pub fn message_to_raft(message: RaftMessage) -> Result<Message, CodecError> {
    let mut out = Message::default();
    out.set_msg_type(message_type(message.r#type)?);
    out.to = message.to;
    out.from = message.from;
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    let entries = message
        .entries
        .into_iter()
        .map(entry_to_raft)
        .collect::<Result<Vec<_>, _>>()?;
    out.set_entries(RepeatedField::from_vec(entries));
    out.commit = message.commit;
    out.commit_term = message.commit_term;
    if let Some(metadata) = message.snapshot {
        out.set_snapshot(snapshot_to_raft(&metadata));
    }
    out.request_snapshot = message.request_snapshot;
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context;
    out.priority = message.priority;
    Ok(out)
}

/// raft's name of a message type's number.
///
/// # Errors
/// A number that raft does not know.
pub fn message_type(number: u32) -> Result<MessageType, CodecError> {
    enum_value(number).ok_or(CodecError::Unknown {
        what: "message type",
        value: number,
    })
}

/// Our form of a log entry.
pub fn entry_from_raft(entry: Entry) -> RaftEntry {
    RaftEntry {
        r#type: enum_number(entry.get_entry_type()),
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
    }
}

/// raft's form of a log entry.
///
/// # Errors
/// An entry type that raft does not know.
pub fn entry_to_raft(entry: RaftEntry) -> Result<Entry, CodecError> {
    let entry_type = enum_value::<EntryType>(entry.r#type).ok_or(CodecError::Unknown {
        what: "entry type",
        value: entry.r#type,
    })?;
    Ok(Entry {
        entry_type,
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
        ..Entry::default()
    })
}

/// Our form of the hard state.
pub fn hard_state_from_raft(state: &HardState) -> RaftHardState {
    RaftHardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
    }
}

/// raft's form of the hard state.
pub fn hard_state_to_raft(state: &RaftHardState) -> HardState {
    HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..HardState::default()
    }
}

/// Our form of a configuration.
pub fn conf_state_from_raft(state: &ConfState) -> RaftConfState {
    RaftConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

/// raft's form of a configuration.
pub fn conf_state_to_raft(state: &RaftConfState) -> ConfState {
    let mut out = ConfState::default();
    out.voters.clone_from(&state.voters);
    out.learners.clone_from(&state.learners);
    out.voters_outgoing.clone_from(&state.voters_outgoing);
    out.learners_next.clone_from(&state.learners_next);
    out.auto_leave = state.auto_leave;
    out
}

/// raft's form of a checkpoint's metadata: the content itself travels and rests outside of raft.
pub fn snapshot_to_raft(metadata: &RaftSnapshotMetadata) -> Snapshot {
    let mut inner = SnapshotMetadata::default();
    if let Some(conf_state) = &metadata.conf_state {
        inner.set_conf_state(conf_state_to_raft(conf_state));
    }
    inner.index = metadata.index;
    inner.term = metadata.term;
    let mut out = Snapshot::default();
    out.set_metadata(inner);
    out
}

/// Reads the data of a configuration entry (our message has raft's field numbers).
///
/// # Errors
/// Bytes that are no configuration change.
pub fn conf_change_to_raft(data: Bytes) -> Result<ConfChangeV2, CodecError> {
    let change = RaftConfChange::decode(data).map_err(|_| CodecError::ConfChange)?;
    let mut out = ConfChangeV2::default();
    let transition = enum_value::<ConfChangeTransition>(change.transition).ok_or(CodecError::Unknown {
        what: "configuration transition",
        value: change.transition,
    })?;
    out.set_transition(transition);
    let mut changes = Vec::with_capacity(change.changes.len());
    for single in change.changes {
        changes.push(single_change(single.r#type, single.node)?);
    }
    out.set_changes(RepeatedField::from_vec(changes));
    out.context = change.context;
    Ok(out)
}

/// One step of a configuration change: 0 add voter, 1 remove, 2 add learner.
///
/// # Errors
/// Another number.
pub fn single_change(kind: u32, node: u64) -> Result<ConfChangeSingle, CodecError> {
    let kind = enum_value::<ConfChangeType>(kind).ok_or(CodecError::Unknown {
        what: "configuration change type",
        value: kind,
    })?;
    let mut out = ConfChangeSingle::default();
    out.set_change_type(kind);
    out.node_id = node;
    Ok(out)
}

fn enum_number(value: impl ProtobufEnum) -> u32 {
    u32::try_from(value.value()).expect("raft numbers its enums from zero")
}

fn enum_value<E: ProtobufEnum>(number: u32) -> Option<E> {
    i32::try_from(number).ok().and_then(E::from_i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RaftMessage {
        RaftMessage {
            r#type: 3,
            to: 1,
            from: 2,
            term: 3,
            log_term: 4,
            index: 5,
            entries: vec![RaftEntry {
                r#type: 2,
                term: 3,
                index: 6,
                data: Bytes::from_static(b"data"),
                context: Bytes::from_static(b"context"),
            }],
            commit: 7,
            commit_term: 8,
            snapshot: Some(RaftSnapshotMetadata {
                conf_state: Some(RaftConfState {
                    voters: vec![1, 2],
                    learners: vec![3],
                    voters_outgoing: vec![4],
                    learners_next: vec![5],
                    auto_leave: true,
                }),
                index: 9,
                term: 10,
            }),
            request_snapshot: 11,
            reject: true,
            reject_hint: 12,
            context: Bytes::from_static(b"ctx"),
            priority: -13,
        }
    }

    #[test]
    fn every_field_of_a_message_survives_both_ways() {
        let ours = sample();
        assert_eq!(message_from_raft(message_to_raft(ours.clone()).unwrap()), ours);
    }

    #[test]
    fn unknown_numbers_are_refused() {
        for kind in [19, 1 << 31] {
            let unknown = RaftMessage {
                r#type: kind,
                ..sample()
            };
            assert!(matches!(
                message_to_raft(unknown),
                Err(CodecError::Unknown { .. })
            ));
        }
        let mut bad_entry = sample();
        bad_entry.entries[0].r#type = 3;
        assert!(message_to_raft(bad_entry).is_err());
    }

    #[test]
    fn our_configuration_change_reads_what_raft_writes() {
        use protobuf::Message as _;
        let mut change = ConfChangeV2::default();
        change.set_changes(RepeatedField::from_vec(vec![
            single_change(0, 7).unwrap(),
            single_change(2, 9).unwrap(),
        ]));
        let bytes = change.write_to_bytes().unwrap();
        assert_eq!(conf_change_to_raft(Bytes::from(bytes)).unwrap(), change);
        assert!(conf_change_to_raft(Bytes::from_static(b"\xff\xff")).is_err());
    }
}
