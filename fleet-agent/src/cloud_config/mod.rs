//! `#cloud-config` files of the CoreOS kind, on a plain Linux machine.
//!
//! The way of a file: bytes are recognised ([`input`]), read as YAML with lines ([`yaml`]), checked
//! ([`parse`]), their addresses filled in ([`substitute`], [`address`]), turned into files and jobs
//! ([`plan`]) and carried out ([`apply`]). Up to the plan everything is pure and runs in a test
//! without a machine; only `address`, `disk`, `systemctl`, `discovery` and `apply` touch one.

pub mod accounts;
pub mod address;
pub mod apply;
pub mod command;
pub mod config;
pub mod decide;
pub mod discovery;
pub mod disk;
pub mod environment;
mod fields;
mod files;
pub mod input;
pub mod message;
pub mod options;
pub mod parse;
pub mod plan;
pub mod record;
pub mod report;
pub mod substitute;
pub mod systemctl;
pub mod yaml;
