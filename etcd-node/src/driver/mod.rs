//! The shell of the replica: the raft thread, and the handle that everybody else holds.

mod handle;

pub use handle::{Answer, Handle, ProposeError, ReadError, Role, Status};
