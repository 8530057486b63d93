//! The sized protocol of etcd 2.x: the first N registrations, by creation, are the members. Every one of them
//! computes the same configuration, so nobody has to lead.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::bail;
use proto::ids::{ClusterId, NodeId};

use super::directory::{Node, Written};
use super::{Discovery, POLL};
use crate::bootstrap::founding::refuse_lost_disk;
use crate::bootstrap::{Decision, Intent, join};
use crate::config::Config;
use crate::peer::{Phase, Station};
use crate::url::Url;

/// Founders at most; more voters cost and do not protect.
const SIZE_MAX: usize = 64;

/// One founder as its registration tells it.
type Registration = (String, Vec<String>);

pub(super) async fn decide(
    discovery: &Discovery,
    size: &str,
    config: &Config,
    intent: &Intent,
    station: &Arc<Station>,
) -> anyhow::Result<Decision> {
    let size = parse_size(size)?;
    // The token of the ids is the whole URL, as in etcd.
    let token = discovery.directory.url.to_string();
    let node = NodeId::derive(&config.peer_urls, &token);
    let value: Vec<String> = config
        .peer_urls
        .iter()
        .map(|url| format!("{}={url}", config.name))
        .collect();
    let value = value.join(",");
    let key = node.to_string();
    register(discovery, &key, &value).await?;
    let mut told = 0;
    let founders = loop {
        let nodes = discovery.patiently(|| discovery.directory.list()).await?;
        let found = registrations(&nodes);
        if found.len() >= size {
            break found.into_iter().take(size).collect::<Vec<_>>();
        }
        if found.len() != told {
            told = found.len();
            tracing::info!(found = told, size, "waiting for the other members");
        }
        daemon::ready::status(&format!("waiting for members: {told} of {size} registered"));
        tokio::time::sleep(POLL).await;
    };
    if !founders.iter().any(|(id, _)| *id == key) {
        tracing::info!(size, "the founders are complete: joining them");
        station.enter(Phase::Joining);
        let urls: Vec<String> = founders.into_iter().flat_map(|(_, (_, urls))| urls).collect();
        return join::until_admitted(station, || async { urls.clone() }).await;
    }
    station.enter(Phase::Founding);
    let members = members(founders, &token)?;
    let ids: Vec<NodeId> = members.iter().map(|(id, ..)| *id).collect();
    let others = members
        .iter()
        .filter(|(id, ..)| *id != node)
        .flat_map(|(.., urls)| urls.clone())
        .collect();
    refuse_lost_disk(others, node, intent).await?;
    Ok(Decision::Found {
        cluster: ClusterId::derive(&ids),
        node,
        members,
    })
}

fn parse_size(text: &str) -> anyhow::Result<usize> {
    match text.trim().parse::<usize>() {
        Ok(size) if (1..=SIZE_MAX).contains(&size) => Ok(size),
        _ => bail!("the discovery URL's _config/size is {text:?}: it must be a number from 1 to {SIZE_MAX}"),
    }
}

/// The key is this node's id: when it exists, it is from an earlier start, or its answer was lost.
async fn register(discovery: &Discovery, key: &str, value: &str) -> anyhow::Result<()> {
    let written = discovery
        .patiently(|| discovery.directory.create(key, value))
        .await?;
    if let Written::Done(_) = written {
        return Ok(());
    }
    let present = discovery.patiently(|| discovery.directory.value(key)).await?;
    match present {
        Some(present) if present != value => bail!(
            "another node is registered with this peer URL as {present:?}: give each node its own name and peer URL"
        ),
        _ => Ok(()),
    }
}

/// Registrations that can be read, in order of creation; others are told once and left out.
fn registrations(nodes: &[Node]) -> Vec<(String, Registration)> {
    nodes
        .iter()
        .filter_map(|node| match parse(&node.value) {
            Some(registration) => Some((node.name().to_owned(), registration)),
            None => {
                tracing::warn!(key = node.key, "not a registration: ignored");
                None
            }
        })
        .collect()
}

/// `name=url`, or `name=url1,name=url2` (some write `&` between them).
fn parse(value: &str) -> Option<Registration> {
    let mut name = None;
    let mut urls = Vec::new();
    for pair in value.split([',', '&']) {
        let (this, url) = pair.split_once('=')?;
        if name.is_some_and(|name| name != this) || this.is_empty() {
            return None;
        }
        name = Some(this);
        let url = Url::parse(url).ok()?;
        url.check_reachable().ok()?;
        urls.push(url.origin());
    }
    urls.sort();
    name.map(|name| (name.to_owned(), urls))
}

fn members(
    founders: Vec<(String, Registration)>,
    token: &str,
) -> anyhow::Result<Vec<(NodeId, String, Vec<String>)>> {
    let mut names = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut members = Vec::new();
    for (_, (name, urls)) in founders {
        if !names.insert(name.clone()) {
            bail!(
                "duplicate name {name:?} in the discovery directory: give each node its own --name, with a new discovery URL"
            );
        }
        for url in &urls {
            if !seen.insert(url.clone()) {
                bail!(
                    "two nodes are registered with peer URL {url}: give each its own, with a new discovery URL"
                );
            }
        }
        members.push((NodeId::derive(&urls, token), name, urls));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, value: &str, created_index: u64) -> Node {
        Node {
            key: format!("/t/{name}"),
            value: value.into(),
            created_index,
            ..Node::default()
        }
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused() {
        assert_eq!(parse_size("3").unwrap(), 3);
        for bad in ["0", "-1", "x", "", "1000"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn registrations_are_read_and_garbage_is_left_out() {
        let nodes = [
            node("1", "a=http://h1:1", 5),
            node("2", "garbage", 6),
            node("3", "b=http://h2:1,b=http://h2:2", 7),
            node("4", "c=http://h:1,d=http://h:2", 8),
            node("5", "e=http://0.0.0.0:1", 9),
        ];
        let found = registrations(&nodes);
        let names: Vec<&str> = found.iter().map(|(_, (name, _))| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(found[1].1.1.len(), 2);
    }

    #[test]
    fn ids_are_those_of_etcd_and_twins_are_refused() {
        let token = "http://127.0.0.1:45379/v2/keys/disc/tokA";
        let founder = |name: &str, port: u16| {
            (
                String::new(),
                (name.to_owned(), vec![format!("http://127.0.0.1:{port}")]),
            )
        };
        let three = members(
            vec![founder("a", 45411), founder("b", 45421), founder("c", 45431)],
            token,
        )
        .unwrap();
        let ids: Vec<NodeId> = three.iter().map(|(id, ..)| *id).collect();
        assert_eq!(ClusterId::derive(&ids).to_string(), "ae1901eae6ebb0b9");
        assert!(members(vec![founder("a", 1), founder("a", 2)], token).is_err());
        assert!(members(vec![founder("a", 1), founder("b", 1)], token).is_err());
    }
}
