//! The state machine of the node: one keyspace with revisions and history under two grammars, v2 and v3.
//!
//! [`Store::apply`] takes one committed log entry at a time and answers with an [`Outcome`] and the
//! [`Change`]s that it made; [`Store::view`] reads. Applying is a function of (state, entry): the only time
//! is the stamp in the entry, and nothing here knows a clock, a random number, a file or a socket.
//! The rules are `specs/keyspace.md`, cited by section.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod command;

mod apply;
mod budget;
mod change;
mod digest;
mod outcome;
mod store;
mod view;

pub mod checkpoint;
pub mod lease;
pub mod members;
pub mod mvcc;
pub mod v2;
pub mod v3;

pub use change::{Change, KeyWrite};
pub use command::{Command, Entry};
pub use outcome::{Applied, LeaseRenewal, Outcome, Progress};
pub use store::{Due, Founding, Store, Usage};
pub use view::{Compacted, View};
