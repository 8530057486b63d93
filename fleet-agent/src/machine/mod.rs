//! This machine's place in the cluster: who it is, where it is, and its object in the registry.

pub mod identity;

pub mod address;

pub mod registration;

mod description;
mod lease_file;
mod presence;

pub use description::Description;
pub use lease_file::{LeaseFile, LeaseFileError};
pub use presence::{Presence, describe};
