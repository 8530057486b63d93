//! From changes to watchers: the hub that the driver feeds, and the subscriptions that streams read.
//!
//! Subscribing happens inside a view closure, so that the subscriber knows exactly which revision its live
//! changes come after; what lies before is replayed from history. No gap, no repeat.

mod hub;

pub use hub::{Hub, Interest, Next, Subscription};
