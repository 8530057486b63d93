//! The keyspace: every key with its versions, directories beside them, and the log of changes.

mod chain;
mod compaction;
mod directory;
mod edit;
mod history;
mod index;
mod keyspace;
mod pins;
mod record;
mod retention;
mod shown;
mod sizes;

pub use record::{DirectoryRecord, Record};

pub(crate) use chain::{Chain, State};
pub(crate) use directory::Directories;
pub(crate) use edit::Edit;
pub(crate) use history::{History, Moment};
pub(crate) use index::{Cursor, KeyIndex, Versions};
pub(crate) use keyspace::{Content, Keyspace};
pub(crate) use pins::Pin;
pub(crate) use record::Directory;
pub(crate) use retention::{Reading, Retention};
pub(crate) use sizes::exact;
