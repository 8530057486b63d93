//! v3 Range, in slices at a pinned revision.

use proto::etcdserverpb::{RangeRequest, RangeResponse};

use crate::View;
use crate::v3::Refusal;

/// A v3 Range under way; reads at the revision that the request names, or at that of its first step.
pub struct RangeScan {
    _private: (),
}

impl RangeScan {
    /// Begins reading.
    ///
    /// # Errors
    /// An empty key, or a sort option out of range.
    pub fn new(_request: RangeRequest) -> Result<Self, Refusal> {
        todo!()
    }

    /// Reads on, at most `records_max` records; none = call again with a later view. The response's header
    /// carries the view's revision of the first step.
    ///
    /// # Errors
    /// A compacted or future revision.
    pub fn step(&mut self, _view: &View<'_>, _records_max: usize) -> Result<Option<RangeResponse>, Refusal> {
        todo!()
    }
}
