//! fleetd, fleetctl and cluster-init: systemd units across machines.

pub mod cloud_config;
