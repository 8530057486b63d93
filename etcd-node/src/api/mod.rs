//! The fronts: thin translations between wires and the [`crate::driver::Handle`].

pub mod admin;
pub mod answer;
pub mod context;
pub mod path;
pub mod v2;
pub mod v3;

pub use context::Context;
