//! The members as the replicated configuration knows them: the one truth for membership (law 6).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::ids::{ClusterId, NodeId};
use proto::log::member_change::Action;
use proto::log::{MemberBoot, MemberChange, MemberUpdate};

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

impl Members {
    /// Changes the registry beside a configuration change; the member that was changed.
    pub(crate) fn change(&mut self, change: &MemberChange) -> Result<Member, MemberRefusal> {
        let id = NodeId::new(change.id);
        if self.removed.contains(&id) {
            return Err(MemberRefusal::Removed(id));
        }
        match change.action() {
            Action::AddLearner => self.add(id, change),
            Action::Promote => {
                let member = self.present.get_mut(&id).ok_or(MemberRefusal::Unknown(id))?;
                member.is_learner = false;
                Ok(member.clone())
            }
            Action::Remove => {
                let member = self.present.remove(&id).ok_or(MemberRefusal::Unknown(id))?;
                self.removed.insert(id);
                Ok(member)
            }
        }
    }

    fn add(&mut self, id: NodeId, change: &MemberChange) -> Result<Member, MemberRefusal> {
        if id == NodeId::NONE {
            return Err(MemberRefusal::Unknown(id));
        }
        if self.present.contains_key(&id) {
            return Err(MemberRefusal::Exists(id));
        }
        self.check_urls(id, &change.peer_urls)?;
        let member = Member {
            id,
            name: change.name.clone(),
            peer_urls: sorted(&change.peer_urls),
            client_urls: sorted(&change.client_urls),
            is_learner: true,
            incarnation: Bytes::copy_from_slice(&change.incarnation),
        };
        self.present.insert(id, member.clone());
        Ok(member)
    }

    /// Publishes what a member says of itself. An empty field says nothing; peer URLs that belong to another
    /// member, and an unknown id, are passed over.
    pub(crate) fn update(&mut self, update: &MemberUpdate) {
        let id = NodeId::new(update.id);
        let takes_urls = !update.peer_urls.is_empty() && self.check_urls(id, &update.peer_urls).is_ok();
        let Some(member) = self.present.get_mut(&id) else {
            return;
        };
        if !update.name.is_empty() {
            member.name.clone_from(&update.name);
        }
        if !update.client_urls.is_empty() {
            member.client_urls = sorted(&update.client_urls);
        }
        if takes_urls {
            member.peer_urls = sorted(&update.peer_urls);
        }
    }

    /// Binds a member's id to the one data directory that may speak for it; the first one wins for ever.
    pub(crate) fn boot(&mut self, boot: &MemberBoot) {
        if let Some(member) = self.present.get_mut(&NodeId::new(boot.id))
            && member.incarnation.is_empty()
        {
            member.incarnation = Bytes::copy_from_slice(&boot.incarnation);
        }
    }

    fn check_urls(&self, id: NodeId, urls: &[String]) -> Result<(), MemberRefusal> {
        let others = self.present.values().filter(|member| member.id != id);
        for member in others {
            if let Some(url) = urls.iter().find(|url| member.peer_urls.contains(url)) {
                return Err(MemberRefusal::UrlTaken {
                    url: url.clone(),
                    id: member.id,
                });
            }
        }
        Ok(())
    }
}

fn sorted(urls: &[String]) -> Vec<String> {
    let mut urls = urls.to_vec();
    urls.sort();
    urls
}
