//! Commands as they stand in the log: the message types of `log.proto`, and their reading.

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::AlarmType;
use proto::ids::{LogIndex, Term};
use proto::log::v2_command::Operation;
use proto::log::{MemberChange, Proposal, alarm, member_change};
use proto::time::Timestamp;

/// One replicated change; the payload of a log entry.
pub use proto::log::proposal::Command;

/// The newest command set that this build knows (law 9 of the design).
pub const VERSION: u32 = 1;

/// One committed log entry, decoded, as [`crate::Store::apply`] takes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Raft's own empty entry at the start of a term: moves only the applied index.
    Empty,
    /// A proposal with its command.
    Proposal(Box<Proposal>),
    /// A membership change, beside the configuration change that raft applies.
    Member(Box<MemberChange>),
}

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// Why an entry cannot be applied: the node stops before it, its data intact.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer release.
    #[error(
        "this entry needs command set {needed}, this build knows up to {VERSION}: install a newer release"
    )]
    NewerVersion {
        /// The command set that the entry names.
        needed: u32,
    },
    /// Not a message at all, or without a command although its version is known.
    #[error("this entry cannot be read: {0}")]
    Damaged(String),
}

/// Reads the data of a normal log entry; empty data is raft's own entry.
///
/// # Errors
/// [`DecodeError`], upon which nothing may be applied any more.
pub fn decode(data: Bytes) -> Result<Entry, DecodeError> {
    if data.is_empty() {
        return Ok(Entry::Empty);
    }
    let proposal = Proposal::decode(data).map_err(|error| DecodeError::Damaged(error.to_string()))?;
    check_version(proposal.version)?;
    match &proposal.command {
        None => return Err(DecodeError::Damaged("it holds no command".into())),
        // Numbers that this version does not know would be read as others.
        Some(Command::V2(command)) => known::<Operation>(command.operation)?,
        Some(Command::Alarm(alarm)) => {
            known::<alarm::Action>(alarm.action)?;
            known::<AlarmType>(alarm.alarm)?;
        }
        Some(_) => {}
    }
    Ok(Entry::Proposal(Box::new(proposal)))
}

/// Reads the context of a configuration entry; empty = raft's own leave of a joint configuration.
///
/// # Errors
/// [`DecodeError`], upon which nothing may be applied any more.
pub fn decode_member(context: Bytes) -> Result<Entry, DecodeError> {
    if context.is_empty() {
        return Ok(Entry::Empty);
    }
    let change = MemberChange::decode(context).map_err(|error| DecodeError::Damaged(error.to_string()))?;
    check_version(change.version)?;
    known::<member_change::Action>(change.action)?;
    Ok(Entry::Member(Box::new(change)))
}

fn check_version(needed: u32) -> Result<(), DecodeError> {
    if needed > VERSION {
        Err(DecodeError::NewerVersion { needed })
    } else {
        Ok(())
    }
}

fn known<E: TryFrom<i32>>(number: i32) -> Result<(), DecodeError> {
    match E::try_from(number) {
        Ok(_) => Ok(()),
        Err(_) => Err(DecodeError::Damaged(format!(
            "it asks for operation {number}, which its version lacks"
        ))),
    }
}

/// The leader's stamp of an entry that has one.
pub fn stamp(entry: &Entry) -> Option<Timestamp> {
    match entry {
        Entry::Empty => None,
        Entry::Proposal(proposal) => Some(Timestamp::from_nanos(proposal.stamp)),
        Entry::Member(change) => Some(Timestamp::from_nanos(change.stamp)),
    }
}
