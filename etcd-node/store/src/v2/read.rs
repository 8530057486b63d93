//! Reading nodes and listings of the v2 tree, in slices at a pinned revision.

use proto::time::Timestamp;

use crate::View;
use crate::v2::{Error, Event};

/// What a v2 GET asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeQuery {
    /// Clean path, `/` for the root.
    pub path: String,
    /// The whole subtree instead of one level.
    pub recursive: bool,
    /// Cluster time by which `ttl` is shown.
    pub now: Timestamp,
}

/// A v2 GET under way; reads at the revision of its first step.
pub struct Listing {
    _private: (),
}

impl Listing {
    /// Begins reading.
    pub fn new(_query: NodeQuery) -> Self {
        todo!()
    }

    /// Reads on, at most `records_max` records. The answer is an event with action `get` whose `index` is
    /// the v2 index at the first step; none = call again with a later view.
    ///
    /// # Errors
    /// 100 with the first missing component, or 104 with the file in the way.
    pub fn step(&mut self, _view: &View<'_>, _records_max: usize) -> Result<Option<Event>, Error> {
        todo!()
    }
}
