//! Tests of the store through its public face.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod checkpoints;
mod dump;
mod golden;
mod keyspace_rules;
mod lease_rules;
mod long_work;
mod model;
mod model_runs;
mod random;
mod support;
mod v2_rules;
mod v3_rules;
