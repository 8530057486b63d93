//! The members as the replicated configuration knows them: the one truth for membership (law 6).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::ids::{ClusterId, NodeId};

/// One member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id, never given twice.
    pub id: NodeId,
    /// Its name; empty until it has published itself.
    pub name: String,
    /// Where other members reach it, sorted.
    pub peer_urls: Vec<String>,
    /// Where clients reach it, sorted; empty until it has published itself.
    pub client_urls: Vec<String>,
    /// A learner receives the log and neither votes nor counts.
    pub is_learner: bool,
    /// The one data directory that may speak for this id; empty until its first boot is committed.
    pub incarnation: Bytes,
}

/// Why a membership change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberRefusal {
    /// The id was removed; removed ids never come back.
    #[error("member {0} was removed from this cluster")]
    Removed(NodeId),
    /// No such member.
    #[error("there is no member {0}")]
    Unknown(NodeId),
    /// The id is taken.
    #[error("member {0} exists already")]
    Exists(NodeId),
    /// Another member has this peer URL.
    #[error("peer URL {url} belongs to member {id}")]
    UrlTaken {
        /// The URL.
        url: String,
        /// Who has it.
        id: NodeId,
    },
}

/// All members, present and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Of the cluster they form.
    pub cluster: ClusterId,
    /// By id.
    pub present: BTreeMap<NodeId, Member>,
    /// Ids that may never be used again.
    pub removed: BTreeSet<NodeId>,
}
