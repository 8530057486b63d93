//! Founding a cluster, and opening what a disk holds.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use proto::ids::{ClusterId, LogIndex, NodeId, Term};
use proto::peer::{RaftConfState, RaftEntry, RaftSnapshotMetadata};
use store::command::Position;
use store::members::Member as StoreMember;
use store::{Founding, Store};

use super::disk::{DataDir, Intent, KnownPeer, Member};
use super::{Decision, random};
use crate::config::Config;
use crate::driver::{CheckpointFiles, position, read_back, write_whole};
use crate::peer;
use crate::replica::Recovered;
use crate::wal::{self, Continuity, Identity, Log, LogPosition, Options};

/// Where every cluster's log begins: the base checkpoint, from which joiners start.
const BASE: (u64, u64) = (1, 1);

/// Entries read back from the log at once.
const READ_BYTES: usize = 16 << 20;

/// Whether somebody must be told of a founded cluster before it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Nobody decides over it any more.
    Given,
    /// A discovery directory still may give the cluster to another founder.
    Pending,
}

/// What runs on a data directory.
pub struct Opened {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The state at the newest checkpoint.
    pub store: Store,
    /// For the replica.
    pub recovered: Recovered,
    /// The log, open.
    pub log: Log,
    /// The checkpoints.
    pub checkpoints: CheckpointFiles,
}

/// A cluster whose founders are listed: all compute the same ids and the same base.
///
/// # Errors
/// When one of the others knows this node with another disk.
pub(super) async fn static_cluster(
    config: &Config,
    members: &[(String, Vec<String>)],
    token: &str,
    intent: &Intent,
) -> anyhow::Result<Decision> {
    let founders: Vec<_> = members
        .iter()
        .map(|(name, urls)| (NodeId::derive(urls, token), name.clone(), urls.clone()))
        .collect();
    let ids: Vec<NodeId> = founders.iter().map(|(id, ..)| *id).collect();
    if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
        bail!("--initial-cluster gives two members the same peer URLs");
    }
    let cluster = ClusterId::derive(&ids);
    let node = NodeId::derive(&config.peer_urls, token);
    let others = founders
        .iter()
        .filter(|(id, ..)| *id != node)
        .flat_map(|(.., urls)| urls.clone());
    refuse_lost_disk(others.collect(), node, intent).await?;
    Ok(Decision::Found {
        cluster,
        node,
        members: founders,
    })
}

/// A member whose disk was wiped must not come back under its old id: its votes and acknowledgements are
/// forgotten (keyspace rules, section 7).
pub(super) async fn refuse_lost_disk(urls: Vec<String>, node: NodeId, intent: &Intent) -> anyhow::Result<()> {
    let ours = super::disk::incarnation(&intent.incarnation)?;
    for url in urls {
        // Nobody there yet is the usual case at founding.
        let Ok(hello) = peer::hello(&url, ClusterId::NONE, NodeId::NONE).await else {
            continue;
        };
        let is_other = hello.members.iter().any(|member| {
            member.id == node.get() && !member.incarnation.is_empty() && member.incarnation != ours
        });
        if is_other {
            bail!(
                "member {node} has already been bootstrapped; remove and add it, or start with --initial-cluster-state existing"
            );
        }
    }
    Ok(())
}

/// Writes what a decision says to an empty directory, and binds it last: until then nobody is promised anything,
/// and a start that was cut short begins anew.
///
/// # Errors
/// What the disk refuses.
pub fn found(
    directory: &DataDir,
    decision: &Decision,
    intent: &Intent,
    confirmation: Confirmation,
) -> anyhow::Result<()> {
    directory.clear_unbound()?;
    let layout = directory.layout()?;
    let (cluster, node, peers) = match decision {
        Decision::Found {
            cluster,
            node,
            members,
        } => {
            let checkpoints = CheckpointFiles::open(layout.checkpoints, *cluster)?;
            let metadata = RaftSnapshotMetadata {
                conf_state: Some(RaftConfState {
                    voters: members.iter().map(|(id, ..)| id.get()).collect(),
                    ..RaftConfState::default()
                }),
                index: BASE.0,
                term: BASE.1,
            };
            let store = Store::found(Founding {
                cluster: *cluster,
                members: members.iter().map(founder).collect(),
                position: Position {
                    index: LogIndex::new(BASE.0),
                    term: Term::new(BASE.1),
                },
            });
            write_whole(&checkpoints, metadata, &store)?;
            (*cluster, *node, Vec::new())
        }
        Decision::Joined { cluster, node, peers } => (*cluster, *node, peers.clone()),
    };
    let start = match decision {
        Decision::Found { .. } => LogPosition {
            index: LogIndex::new(BASE.0),
            term: Term::new(BASE.1),
        },
        Decision::Joined { .. } => LogPosition::default(),
    };
    let identity = Identity { cluster, node };
    let log = wal::create(layout.wal, identity, start, random(), Options::default())?;
    log.writer.close()?;
    directory.bind(&Member {
        cluster: cluster.to_string(),
        node: node.to_string(),
        incarnation: intent.incarnation.clone(),
        is_unconfirmed: confirmation == Confirmation::Pending,
        peers,
    })
}

fn founder((id, name, urls): &(NodeId, String, Vec<String>)) -> StoreMember {
    StoreMember {
        id: *id,
        name: name.clone(),
        peer_urls: urls.clone(),
        ..StoreMember::default()
    }
}

/// Opens a bound directory: the newest checkpoint that is whole and that the log goes on from.
///
/// # Errors
/// Damage, in words that say which file and what to do.
pub fn open(directory: &DataDir, member: &Member) -> anyhow::Result<Opened> {
    let (cluster, node, _) = member.ids()?;
    let layout = directory.layout()?;
    let checkpoints = CheckpointFiles::open(layout.checkpoints, cluster)?;
    let found = wal::recover(layout.wal, Identity { cluster, node }, Options::default())?;
    let (metadata, store) = newest_state(&checkpoints, &found, member)?;
    let log = found.open(position(&metadata))?;
    let entries = read_entries(&log, metadata.index)?;
    let hard_state = Some(log.hard_state).filter(|state| state.term > 0);
    let recovered = Recovered {
        checkpoint: metadata,
        hard_state,
        entries,
    };
    Ok(Opened {
        cluster,
        node,
        store,
        recovered,
        log,
        checkpoints,
    })
}

/// A joiner that never received anything has no checkpoint: it starts empty and waits for one.
fn newest_state(
    checkpoints: &CheckpointFiles,
    log: &wal::Recovered,
    member: &Member,
) -> anyhow::Result<(RaftSnapshotMetadata, Store)> {
    let names = checkpoints.list()?;
    if names.is_empty() {
        let (cluster, ..) = member.ids()?;
        let members = member
            .peers
            .iter()
            .map(known_peer)
            .collect::<anyhow::Result<_>>()?;
        let position = Position {
            index: LogIndex::ZERO,
            term: Term::ZERO,
        };
        let founding = Founding {
            cluster,
            members,
            position,
        };
        return Ok((RaftSnapshotMetadata::default(), Store::found(founding)));
    }
    let mut last_error = None;
    for name in names {
        if log.continuity(name.position)? == Continuity::Gap {
            continue;
        }
        match read_back(checkpoints, name) {
            Ok(state) => return Ok(state),
            Err(error) => {
                tracing::error!(%error, "a checkpoint cannot be used, trying the one before it");
                last_error = Some(error);
            }
        }
    }
    match last_error {
        Some(error) => Err(error).context(
            "no checkpoint can be used: restore the files, or remove this member and join it with an empty --data-dir",
        ),
        None => bail!("the log begins after every checkpoint: restore the missing files, or remove this member and join it with an empty --data-dir"),
    }
}

fn known_peer(peer: &KnownPeer) -> anyhow::Result<StoreMember> {
    let id = NodeId::parse(&peer.id)?;
    Ok(StoreMember {
        id,
        peer_urls: peer.peer_urls.clone(),
        ..StoreMember::default()
    })
}

fn read_entries(log: &Log, checkpoint: u64) -> anyhow::Result<Vec<RaftEntry>> {
    let Some(last) = log.reader.last_index() else {
        return Ok(Vec::new());
    };
    let mut entries: Vec<RaftEntry> = Vec::new();
    let mut next = LogIndex::new(checkpoint).next();
    while next <= last {
        let part = log.reader.entries(next, last.next(), READ_BYTES)?;
        let Some(end) = part.last() else { break };
        next = LogIndex::new(end.index).next();
        entries.extend(part);
    }
    Ok(entries)
}
