//! From changes to watchers: the hub that the driver feeds, and the subscriptions that streams read.
//!
//! Subscribing happens inside a view closure, so that the subscriber knows exactly which revision its live
//! changes come after; what lies before is replayed from history. No gap, no repeat.
//!
//! Reading order: [`hub`] (who is offered what, when), `topics` (which subscribers a change may concern),
//! `intervals` (the same for ranges of keys), `seat` (one subscriber's bounded queue and its bell).

mod hub;
mod intervals;
mod seat;
mod topics;

pub use hub::{Hub, Interest, Next, Subscription};
pub use seat::{Attached, Bell, QUEUE_CHANGES_MAX};
