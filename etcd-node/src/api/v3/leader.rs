//! Callers that would rather have an error than a node without a leader: they say so in the metadata
//! `hasleader: true`, as Kubernetes does for its watches.

use std::time::Duration;

use proto::ids::NodeId;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::refuse;
use crate::driver::Handle;

/// How often a stream that requires a leader looks for it.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// After this many looks without a leader the stream ends: an election takes one or two.
pub(super) const LOOKS_WITHOUT_MAX: u32 = 3;

/// Whether the caller requires a leader.
pub(super) fn is_required(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}

/// Whether a leader is known here.
pub(super) fn is_known(handle: &Handle) -> bool {
    handle.status().leader != NodeId::NONE
}

/// Refuses calls that require a leader while there is none.
#[derive(Clone)]
pub(super) struct Required {
    handle: Handle,
}

impl Required {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

impl Interceptor for Required {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if is_required(request.metadata()) && !is_known(&self.handle) {
            return Err(refuse::no_leader());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_true_requires_a_leader() {
        for (value, expected) in [("true", true), ("false", false), ("1", false)] {
            let mut metadata = MetadataMap::new();
            metadata.insert("hasleader", value.parse().unwrap());
            assert_eq!(is_required(&metadata), expected, "{value}");
        }
        assert!(!is_required(&MetadataMap::new()));
    }
}
