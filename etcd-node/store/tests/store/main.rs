//! Tests of the store through its public face.

mod checkpoints;
mod support;
