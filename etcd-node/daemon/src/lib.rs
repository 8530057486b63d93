//! What every daemon shares, so that each of them starts, logs, listens, waits and stops the same way.
//!
//! In reading order: the command line ([`flags`], [`completion`], [`go_duration`]), the log ([`log`]), the life
//! of a process ([`signal`], [`tasks`], [`ready`]), sockets and HTTP ([`listen`], [`http`]), and [`backoff`].
//! Imports nothing of ours.

pub mod flags;

pub mod completion;

pub mod go_duration;

pub mod log;

pub mod signal;

pub mod tasks;

pub mod ready;

pub mod listen;

pub mod http;

mod authority;

pub mod backoff;
