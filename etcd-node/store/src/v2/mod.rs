//! The v2 grammar: paths, directories, conditions and events.

pub mod error;
pub mod event;
pub mod path;
pub mod read;

pub(crate) mod expire;
mod locate;
mod remove;
pub(crate) mod window;
pub(crate) mod write;

pub use error::{Error, ErrorCode};
pub use event::{Action, Event, Node};
pub use read::{Listing, NodeQuery};

use proto::ids::V2Index;

/// How many events the window keeps (keyspace rules, section 1).
pub const WINDOW_EVENTS: usize = 1000;

/// The v2 index of a fresh cluster, so that its first user write is index 4 (keyspace rules, section 1).
pub const V2_INDEX_FOUNDED: V2Index = V2Index::new(3);

/// The window does not reach back far enough: error 401 of the v2 API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// The oldest index that can be asked for.
    pub oldest: V2Index,
}
