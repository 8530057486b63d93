//! `cargo xtask stress`: what takes too long for every change, and must hold all the same. Plain processes on
//! loopback, of our release build or of what `ETCD_BIN` names; a failure leaves their directories and shows their
//! last words.

#![expect(clippy::print_stdout, reason = "rounds are the output of the task")]

mod founder;
mod gate;
mod kill;
mod start;
mod sync;
mod trace;

use crate::check;
use crate::processes::{self, Node};
use crate::wait::{self, Look};
use anyhow::Result;
use std::time::Duration;

/// A stock client that tells voters from learners.
const ETCDCTL: &str = "/usr/bin/etcdctl";
/// However the founding goes, a cluster stands within this time.
const FORM_LIMIT: Duration = Duration::from_secs(90);

/// What is stressed.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum Arguments {
    /// Three nodes start at once on a fresh discovery URL: always one cluster, three voters
    Start {
        #[arg(long, value_name = "N", default_value_t = 20)]
        rounds: u32,
        /// Tell the discovery directory the cluster's size, as etcd 2.0 and later want it
        #[arg(long)]
        sized: bool,
    },
    /// The founder is killed after each thing that it says to the discovery service: always one cluster
    Founder {
        /// Only where the founder comes back, which waits for no takeover
        #[arg(long)]
        returning: bool,
    },
    /// Nodes are killed under load: every acknowledged write is there afterwards
    Kill {
        #[arg(long, value_name = "N", default_value_t = 20)]
        rounds: u32,
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
    },
    /// No write is answered before the fdatasync that covers it, as strace sees it
    Sync {
        #[arg(long, value_name = "N", default_value_t = 1000)]
        writes: u32,
    },
}

/// Runs one of them.
pub(crate) fn stress(arguments: &Arguments) -> Result<()> {
    let program = processes::program()?;
    println!("{}", program.display());
    match *arguments {
        Arguments::Start { rounds, sized } => start::start(&program, rounds, sized),
        Arguments::Founder { returning } => founder::founder(&program, returning),
        Arguments::Kill { rounds, nodes } => kill::kill(&program, rounds, nodes.into()),
        Arguments::Sync { writes } => sync::sync(&program, writes),
    }
}

/// Waits until all nodes tell of one cluster of which they all are voters; returns its id.
fn wait_one_cluster(nodes: &mut [Node]) -> Result<String> {
    wait::until("one cluster", FORM_LIMIT, || {
        nodes.iter_mut().try_for_each(Node::check_alive)?;
        Ok(match judge(nodes) {
            Ok(id) => Look::Found(id),
            Err(error) => Look::Missing(format!("{error:#}")),
        })
    })
    .map_err(|error| error.context(processes::tails(nodes)))
}

fn judge(nodes: &[Node]) -> Result<String> {
    let mut told = Vec::new();
    for node in nodes {
        told.push((node, node.cluster()?));
    }
    let (first, model) = &told[0];
    for (node, cluster) in &told {
        anyhow::ensure!(
            cluster == model && !cluster.0.is_empty(),
            "{} and {} differ: {cluster:?}, {model:?}",
            node.name,
            first.name
        );
        check::judge_voters(&processes::member_list(ETCDCTL, node)?, nodes.len())?;
    }
    Ok(model.0.clone())
}

/// A number below `end`, from the kernel's randomness.
fn random_below(end: u64) -> Result<u64> {
    let uuid = crate::lab::fresh_uuid()?.replace('-', "");
    // The first 12 digits of a random UUID are random.
    Ok(u64::from_str_radix(&uuid[..12], 16)? % end)
}
