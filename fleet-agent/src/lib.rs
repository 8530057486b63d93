//! fleetd, fleetctl and cluster-init: systemd units across machines.

pub mod cloud_config;

mod path;

pub mod config;

pub mod registry;

pub mod machine;

pub mod api;

pub mod fleetd;

pub mod fleetctl;
