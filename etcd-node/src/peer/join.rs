//! Admitting a newcomer: by the leader, after it has dialled the newcomer back at the address that it gives
//! (keyspace rules, section 7). Safe to ask again: an incarnation is admitted once.

use std::time::Duration;

use proto::ids::NodeId;
use proto::log::{MemberChange, member_change::Action};
use proto::peer::join_response::Verdict;
use proto::peer::{JoinRequest, JoinResponse};
use store::Outcome;
use store::members::{Member, Members};

use super::station::{Membership, booted_member};
use super::{PROTOCOL, call};
use crate::driver::{ProposeError, Role};

/// Members at most, removed ones not counted: beyond it a newcomer is refused.
const MEMBERS_MAX: usize = 64;
/// Bytes of an incarnation.
const INCARNATION_BYTES: usize = 16;
/// How long one leader works on one change, when another is under way.
const CHANGE_ATTEMPTS: u32 = 20;
/// Between two attempts.
const CHANGE_PAUSE: Duration = Duration::from_millis(100);

/// Answers a newcomer, as leader or through the leader.
pub(super) async fn answer(membership: &Membership, request: JoinRequest) -> JoinResponse {
    let status = membership.handle.status();
    if status.role == Role::Leader {
        return admit(membership, &request).await;
    }
    if request.forwarded {
        return refusal(Verdict::NotReady, "the leader has just changed");
    }
    let urls = membership.handle.view(|view| {
        view.members()
            .present
            .get(&status.leader)
            .map(|leader| leader.peer_urls.clone())
            .unwrap_or_default()
    });
    let request = JoinRequest {
        forwarded: true,
        ..request
    };
    for url in urls {
        match call::join_request(&url, request.clone()).await {
            Ok(response) => return response,
            Err(error) => tracing::debug!(%error, "the leader could not be asked"),
        }
    }
    refusal(Verdict::NotReady, "no leader is known")
}

fn refusal(verdict: Verdict, reason: impl Into<String>) -> JoinResponse {
    JoinResponse {
        verdict: verdict.into(),
        reason: reason.into(),
        ..JoinResponse::default()
    }
}

/// What is to be done with a newcomer.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It was admitted before.
    Known(NodeId),
    /// It is new.
    Add,
    /// It is a member's machine with a new disk: the old id goes, if nobody speaks for it any more.
    Replace(Box<Member>),
    /// It cannot be admitted as it is.
    Refuse(String),
}

/// Decides by the members alone.
fn plan(members: &Members, request: &JoinRequest) -> Plan {
    if request.protocol != PROTOCOL {
        return Plan::Refuse(format!("peer protocol {} is not {PROTOCOL}", request.protocol));
    }
    if request.name.is_empty()
        || request.peer_urls.is_empty()
        || request.incarnation.len() != INCARNATION_BYTES
    {
        return Plan::Refuse("a newcomer needs a name, a peer URL and an incarnation".to_owned());
    }
    if let Some(member) = members
        .present
        .values()
        .find(|member| member.incarnation == request.incarnation)
    {
        return Plan::Known(member.id);
    }
    let shares_url = |member: &&Member| member.peer_urls.iter().any(|url| request.peer_urls.contains(url));
    let same_name = members
        .present
        .values()
        .find(|member| member.name == request.name);
    match (members.present.values().find(shares_url), same_name) {
        (Some(by_url), _) if by_url.name == request.name || by_url.name.is_empty() => {
            Plan::Replace(Box::new(by_url.clone()))
        }
        (Some(by_url), _) => Plan::Refuse(format!(
            "peer URL {} belongs to member {:?}: give this node its own, or remove that member",
            request.peer_urls.join(","),
            by_url.name
        )),
        (None, Some(by_name)) => Plan::Refuse(format!(
            "a member named {:?} is at {}: give this node another --name, or remove that member",
            request.name,
            by_name.peer_urls.join(",")
        )),
        (None, None) if members.present.len() >= MEMBERS_MAX => {
            Plan::Refuse(format!("the cluster has {MEMBERS_MAX} members already"))
        }
        (None, None) => Plan::Add,
    }
}

async fn admit(membership: &Membership, request: &JoinRequest) -> JoinResponse {
    let plan = membership.handle.view(|view| plan(view.members(), request));
    match plan {
        Plan::Refuse(reason) => return refusal(Verdict::Refused, reason),
        Plan::Known(id) => return admitted(membership, id),
        Plan::Add | Plan::Replace(_) => {}
    }
    if let Err(reason) = dial_back(membership, request).await {
        return refusal(Verdict::Refused, reason);
    }
    if let Plan::Replace(old) = plan {
        tracing::warn!(member = %old.id, name = request.name, "a member came back with an empty disk: replacing it");
        let remove = MemberChange {
            action: Action::Remove.into(),
            id: old.id.get(),
            ..MemberChange::default()
        };
        if let Err(response) = change(membership, remove).await {
            return response;
        }
    }
    let id = fresh_id(membership);
    let add = MemberChange {
        action: Action::AddLearner.into(),
        id: id.get(),
        name: request.name.clone(),
        peer_urls: request.peer_urls.clone(),
        client_urls: request.client_urls.clone(),
        incarnation: request.incarnation.clone(),
        ..MemberChange::default()
    };
    match change(membership, add).await {
        Ok(()) => {
            tracing::info!(member = %id, name = request.name, "admitted a newcomer as learner");
            admitted(membership, id)
        }
        Err(response) => response,
    }
}

fn admitted(membership: &Membership, id: NodeId) -> JoinResponse {
    JoinResponse {
        verdict: Verdict::Admitted.into(),
        reason: String::new(),
        cluster: membership.cluster.get(),
        node: id.get(),
        members: membership
            .handle
            .view(|view| view.members().present.values().map(booted_member).collect()),
    }
}

/// The address that a newcomer gives must lead to that very process.
async fn dial_back(membership: &Membership, request: &JoinRequest) -> Result<(), String> {
    for url in &request.peer_urls {
        let hello = call::hello(url, membership.cluster, membership.node)
            .await
            .map_err(|error| format!("the leader cannot reach this node at its peer URL: {error}"))?;
        if hello.boot != request.boot || hello.incarnation != request.incarnation {
            return Err(format!(
                "peer URL {url} leads to another process ({:?})",
                hello.name
            ));
        }
    }
    Ok(())
}

fn fresh_id(membership: &Membership) -> NodeId {
    loop {
        let id = NodeId::new(daemon::backoff::random_seed());
        let is_taken = membership
            .handle
            .view(|view| view.members().present.contains_key(&id) || view.members().removed.contains(&id));
        if id != NodeId::NONE && !is_taken {
            return id;
        }
    }
}

/// Makes one change; waits while another is under way.
async fn change(membership: &Membership, change: MemberChange) -> Result<(), JoinResponse> {
    for _ in 0..CHANGE_ATTEMPTS {
        match membership.handle.change_membership(change.clone()).await {
            Ok(answer) => {
                return match answer.outcome {
                    Outcome::Member(Ok(_)) => Ok(()),
                    Outcome::Member(Err(error)) => Err(refusal(Verdict::Refused, error.to_string())),
                    // raft turned the change into an empty entry: another one was under way.
                    _ => Err(refusal(Verdict::Busy, "another membership change is under way")),
                };
            }
            Err(ProposeError::Overloaded) => tokio::time::sleep(CHANGE_PAUSE).await,
            Err(error) => return Err(refusal(Verdict::Busy, error.to_string())),
        }
    }
    Err(refusal(Verdict::Busy, "another membership change is under way"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn members() -> Members {
        let member = Member {
            id: NodeId::new(1),
            name: "a".into(),
            peer_urls: vec!["http://a:1".into()],
            incarnation: Bytes::from_static(&[1; 16]),
            ..Member::default()
        };
        Members {
            present: [(member.id, member)].into(),
            ..Members::default()
        }
    }

    fn request(name: &str, url: &str, incarnation: u8) -> JoinRequest {
        JoinRequest {
            protocol: PROTOCOL,
            name: name.into(),
            peer_urls: vec![url.into()],
            incarnation: vec![incarnation; 16].into(),
            ..JoinRequest::default()
        }
    }

    #[test]
    fn a_newcomer_is_told_apart_from_a_returning_and_a_wiped_member() {
        assert_eq!(plan(&members(), &request("b", "http://b:1", 2)), Plan::Add);
        assert_eq!(
            plan(&members(), &request("a", "http://a:1", 1)),
            Plan::Known(NodeId::new(1))
        );
        assert!(matches!(
            plan(&members(), &request("a", "http://a:1", 2)),
            Plan::Replace(_)
        ));
    }

    #[test]
    fn names_and_urls_are_unique_and_the_refusal_says_whose_they_are() {
        let Plan::Refuse(reason) = plan(&members(), &request("a", "http://b:1", 2)) else {
            panic!("refused")
        };
        assert!(reason.contains("http://a:1"), "{reason}");
        let Plan::Refuse(reason) = plan(&members(), &request("b", "http://a:1", 2)) else {
            panic!("refused")
        };
        assert!(reason.contains("\"a\""), "{reason}");
    }

    #[test]
    fn a_request_without_its_parts_is_refused() {
        let incomplete = [
            JoinRequest {
                name: String::new(),
                ..request("b", "http://b:1", 2)
            },
            JoinRequest {
                peer_urls: vec![],
                ..request("b", "http://b:1", 2)
            },
            JoinRequest {
                incarnation: Bytes::new(),
                ..request("b", "http://b:1", 2)
            },
            JoinRequest {
                protocol: 9,
                ..request("b", "http://b:1", 2)
            },
        ];
        for request in incomplete {
            assert!(
                matches!(plan(&members(), &request), Plan::Refuse(_)),
                "{request:?}"
            );
        }
    }
}
