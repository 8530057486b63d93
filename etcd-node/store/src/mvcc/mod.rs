//! The keyspace: every key with its versions, directories beside them, and the log of changes.

mod record;

pub use record::Record;
