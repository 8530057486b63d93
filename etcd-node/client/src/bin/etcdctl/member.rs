//! `etcdctl member`

use clap::Subcommand;
use client::v2::Member;

use crate::arguments::Global;
use crate::exit::Failure;
use crate::{connection, output};

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberVerb {
    /// Enumerate existing cluster members
    List,
}

pub(crate) async fn run(global: &Global, verb: MemberVerb) -> Result<(), Failure> {
    match verb {
        MemberVerb::List => list(global).await,
    }
}

async fn list(global: &Global) -> Result<(), Failure> {
    let client = connection::synced(global).await?;
    let members = client.members().await.map_err(|error| Failure::server(&error))?;
    let leader = client.leader().await.map_err(|error| Failure::server(&error))?;
    let leader = leader.map(|member| member.id);
    output::text(
        &members
            .iter()
            .map(|member| line(member, leader.as_deref()))
            .collect::<String>(),
    )
}

fn line(member: &Member, leader: Option<&str>) -> String {
    let Member {
        id,
        name,
        peer_urls,
        client_urls,
    } = member;
    let peers = peer_urls.join(",");
    if name.is_empty() {
        return format!("{id}[unstarted]: peerURLs={peers}\n");
    }
    let clients = client_urls.join(",");
    let is_leader = leader == Some(id.as_str());
    format!("{id}: name={name} peerURLs={peers} clientURLs={clients} isLeader={is_leader}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_member_started_or_not() {
        let mut member = Member {
            id: "2f74aac306f9093a".to_owned(),
            name: "n238".to_owned(),
            peer_urls: vec!["http://a:7001".to_owned(), "http://b:7001".to_owned()],
            client_urls: vec!["http://a:4001".to_owned()],
        };
        assert_eq!(
            line(&member, Some("2f74aac306f9093a")),
            "2f74aac306f9093a: name=n238 peerURLs=http://a:7001,http://b:7001 clientURLs=http://a:4001 isLeader=true\n"
        );
        assert!(line(&member, None).ends_with("isLeader=false\n"));
        member.name.clear();
        assert_eq!(
            line(&member, None),
            "2f74aac306f9093a[unstarted]: peerURLs=http://a:7001,http://b:7001\n"
        );
    }
}
