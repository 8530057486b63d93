//! The unsized protocol of etcd 0.4, with a founder that can be killed at any moment (bootstrap facts, 3.4).
//!
//! 1. Everybody registers under its name.
//! 2. One creates `_founder` (by the directory's own compare-and-swap) and then `_state`, as a node of 0.4 would.
//! 3. It founds a cluster of one, commits an entry, and only then swaps `_founder` from founding to committed;
//!    before that it serves nobody.
//! 4. The others join whoever belongs to the committed cluster.
//! 5. A founder that is gone before that may be replaced after a while, by the same swap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use proto::ids::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use super::directory::{Node, Written};
use super::tending::REGISTRATION_TTL;
use super::{Discovery, POLL};
use crate::bootstrap::{Decision, Intent, join};
use crate::config::Config;
use crate::peer::{self, Phase, Station};

/// Who founds, or has founded.
const FOUNDER: &str = "_founder";
/// What nodes of 0.4 look at.
const STATE: &str = "_state";
/// How long a founder may be silent before another takes over.
const TAKEOVER_AFTER: Duration = Duration::from_secs(60);

/// The content of `_founder`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Its name.
    pub name: String,
    /// Its disk's name.
    pub nonce: String,
    /// The cluster it founds, in hexadecimal.
    pub cluster: String,
    /// Its first peer URL.
    pub peer_url: String,
    /// Whether the cluster exists and serves.
    pub is_committed: bool,
}

impl Founder {
    fn of(config: &Config, intent: &Intent, is_committed: bool) -> Self {
        let node = NodeId::derive(&config.peer_urls, &intent.cluster_seed);
        Self {
            name: config.name.clone(),
            nonce: intent.incarnation.clone(),
            cluster: ClusterId::derive(&[node]).to_string(),
            peer_url: config.peer_urls.first().cloned().unwrap_or_default(),
            is_committed,
        }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("a founder is plain text")
    }
}

/// What one look at the directory calls for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nobody founds yet: try to.
    Claim,
    /// We found.
    Found,
    /// Somebody else founds: wait, and look whether it lives.
    Wait,
    /// The cluster exists: join it.
    Join,
    /// It is ours and committed, but our disk says that it never came to be used.
    LostCluster,
}

fn step(founder: Option<&Founder>, own: &Founder) -> Step {
    match founder {
        None => Step::Claim,
        Some(founder) if founder.nonce == own.nonce && founder.is_committed => Step::LostCluster,
        Some(founder) if founder.nonce == own.nonce => Step::Found,
        Some(founder) if founder.is_committed => Step::Join,
        Some(_) => Step::Wait,
    }
}

pub(super) async fn decide(
    discovery: &Discovery,
    config: &Config,
    intent: &Intent,
    station: &Arc<Station>,
) -> anyhow::Result<Decision> {
    register(discovery, config, station).await?;
    let own = Founder::of(config, intent, false);
    let own_text = own.text();
    let mut silence: Option<(u64, Instant)> = None;
    let mut told = String::new();
    loop {
        let node = discovery.patiently(|| discovery.directory.node(FOUNDER)).await?;
        let founder = node.as_ref().and_then(read);
        match step(founder.as_ref(), &own) {
            Step::Claim if node.is_some() => {
                bail!("the discovery directory has a {FOUNDER} that cannot be read: use a new discovery URL")
            }
            Step::Claim => {
                // Whoever wins, the next look tells.
                discovery
                    .patiently(|| discovery.directory.create(FOUNDER, &own_text))
                    .await?;
            }
            Step::LostCluster => bail!(
                "this node founded cluster {} and its disk has lost it: empty its --data-dir to join again as a new member",
                own.cluster
            ),
            Step::Found => {
                let created = node.map_or(0, |node| node.created_index);
                if claim_state(discovery, created).await? {
                    station.enter(Phase::Founding);
                    tracing::info!(cluster = own.cluster, "founding a cluster");
                    return Ok(founded(config, intent));
                }
            }
            Step::Join => {
                let founder = founder.expect("a step to join names the founder");
                let urls = joinable(discovery, &founder, station).await?;
                station.enter(Phase::Joining);
                match join::ask(station, &urls).await {
                    join::Round::Admitted(decision) => return Ok(decision),
                    join::Round::Refused(reason) => bail!("the cluster does not admit this node: {reason}"),
                    join::Round::Waiting(reason) => {
                        tell(&mut told, &waiting_text(discovery, &founder, &urls, &reason));
                    }
                }
            }
            Step::Wait => {
                let (node, founder) = node.zip(founder).expect("somebody founds");
                tell(
                    &mut told,
                    &format!("waiting for {} to found the cluster", founder.name),
                );
                wait_or_take_over(discovery, &node, &founder, &own, &mut silence).await?;
            }
        }
        pause(station).await;
    }
}

async fn pause(station: &Station) {
    tokio::select! {
        () = tokio::time::sleep(POLL) => {}
        () = station.invited.notified() => {}
    }
}

fn tell(told: &mut String, text: &str) {
    if told != text {
        tracing::info!("{text}");
        text.clone_into(told);
    }
    daemon::ready::status(text);
}

fn waiting_text(discovery: &Discovery, founder: &Founder, urls: &[String], reason: &str) -> String {
    if urls.is_empty() {
        format!(
            "waiting to join cluster {}: no registered member answers. If that cluster is gone, this discovery URL is used up: give all nodes a new one instead of {}",
            founder.cluster, discovery.directory.url
        )
    } else {
        format!("waiting to join cluster {}: {reason}", founder.cluster)
    }
}

fn read(node: &Node) -> Option<Founder> {
    serde_json::from_str(&node.value).ok()
}

/// Puts this node's first peer URL under its name, unless a living other machine has that name.
async fn register(discovery: &Discovery, config: &Config, station: &Station) -> anyhow::Result<()> {
    let url = config.peer_urls.first().cloned().unwrap_or_default();
    let present = discovery
        .patiently(|| discovery.directory.value(&config.name))
        .await?;
    if let Some(other) = present.filter(|present| *present != url)
        && let Ok(hello) = peer::hello(&other, ClusterId::NONE, NodeId::NONE).await
        && hello.name == config.name
        && hello.incarnation != station.identity.incarnation
    {
        bail!(
            "the name {:?} is registered by a running node at {other}: give this node another --name",
            config.name
        );
    }
    discovery
        .patiently(|| discovery.directory.set(&config.name, &url, REGISTRATION_TTL))
        .await
}

/// Creates `_state` as 0.4 does; whether it is ours. One that is older than our claim belongs to somebody else.
async fn claim_state(discovery: &Discovery, claimed_at: u64) -> anyhow::Result<bool> {
    let written = discovery
        .patiently(|| discovery.directory.create(STATE, "started"))
        .await?;
    if let Written::Done(_) = written {
        return Ok(true);
    }
    let state = discovery.patiently(|| discovery.directory.node(STATE)).await?;
    match state {
        Some(state) if state.created_index < claimed_at => {
            let _moved = discovery
                .patiently(|| discovery.directory.remove(FOUNDER, claimed_at))
                .await?;
            bail!(
                "the discovery URL {} was used by an older cluster (its {STATE} exists): give all nodes a new one",
                discovery.directory.url
            )
        }
        // Created by us in a start that was cut short, or with a lost answer.
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

fn founded(config: &Config, intent: &Intent) -> Decision {
    let node = NodeId::derive(&config.peer_urls, &intent.cluster_seed);
    Decision::Found {
        cluster: ClusterId::derive(&[node]),
        node,
        members: vec![(node, config.name.clone(), config.peer_urls.clone())],
    }
}

/// The registered nodes that belong to the founded cluster.
async fn joinable(
    discovery: &Discovery,
    founder: &Founder,
    station: &Station,
) -> anyhow::Result<Vec<String>> {
    let nodes = discovery.patiently(|| discovery.directory.list()).await?;
    let mut urls = Vec::new();
    for node in nodes.iter().filter(|node| node.name() != station.identity.name) {
        let hello = peer::hello(&node.value, ClusterId::NONE, NodeId::NONE).await;
        if hello.is_ok_and(|hello| format!("{:x}", hello.cluster) == founder.cluster) {
            urls.push(node.value.clone());
        }
    }
    Ok(urls)
}

/// Counts how long the founder is silent and unmoved; takes its place when that is too long.
async fn wait_or_take_over(
    discovery: &Discovery,
    node: &Node,
    founder: &Founder,
    own: &Founder,
    silence: &mut Option<(u64, Instant)>,
) -> anyhow::Result<()> {
    let is_alive = peer::hello(&founder.peer_url, ClusterId::NONE, NodeId::NONE)
        .await
        .is_ok();
    match silence {
        _ if is_alive => *silence = None,
        Some((index, since)) if *index == node.modified_index => {
            if since.elapsed() >= TAKEOVER_AFTER {
                tracing::warn!(founder = founder.name, "the founder is gone: taking over");
                let text = own.text();
                let swap = || discovery.directory.swap(FOUNDER, &text, node.modified_index);
                discovery.patiently(swap).await?;
                *silence = None;
            }
        }
        Some(_) | None => *silence = Some((node.modified_index, Instant::now())),
    }
    Ok(())
}

impl Discovery {
    /// Tells everybody that the cluster of this founder exists. False when another has taken over meanwhile: then
    /// this cluster must be thrown away, nobody was ever served by it.
    ///
    /// # Errors
    /// What waiting cannot mend.
    pub async fn confirm(&self, config: &Config, intent: &Intent) -> anyhow::Result<bool> {
        let own = Founder::of(config, intent, false);
        let committed = Founder::of(config, intent, true);
        let text = committed.text();
        loop {
            let Some(node) = self.patiently(|| self.directory.node(FOUNDER)).await? else {
                return Ok(false);
            };
            match read(&node) {
                Some(founder) if founder == committed => return Ok(true),
                Some(founder) if founder.nonce == own.nonce => {
                    let swap = || self.directory.swap(FOUNDER, &text, node.modified_index);
                    // A conflict, or a lost answer: the next look tells.
                    self.patiently(swap).await?;
                }
                Some(_) | None => return Ok(false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(nonce: &str, is_committed: bool) -> Founder {
        Founder {
            name: nonce.into(),
            nonce: nonce.into(),
            cluster: "1".into(),
            peer_url: "http://h:1".into(),
            is_committed,
        }
    }

    #[test]
    fn the_directory_alone_decides_what_to_do() {
        let own = founder("us", false);
        let cases = [
            (None, Step::Claim),
            (Some(founder("us", false)), Step::Found),
            (Some(founder("us", true)), Step::LostCluster),
            (Some(founder("them", false)), Step::Wait),
            (Some(founder("them", true)), Step::Join),
        ];
        for (present, expected) in cases {
            assert_eq!(step(present.as_ref(), &own), expected, "{present:?}");
        }
    }

    #[test]
    fn a_founder_reads_what_it_writes() {
        let node = Node {
            value: founder("us", true).text(),
            ..Node::default()
        };
        assert_eq!(read(&node), Some(founder("us", true)));
    }
}
