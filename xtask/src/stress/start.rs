//! Three nodes start within milliseconds of each other and know nothing but a discovery URL. Whatever the order of
//! their first words, they become one cluster.

#![expect(clippy::print_stdout, reason = "rounds are the output of the task")]

use super::wait_one_cluster;
use crate::lab::fresh_uuid;
use crate::processes::{self, Node, Origin};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

const NODES: usize = 3;

pub(super) fn start(program: &Path, rounds: u32, is_sized: bool) -> Result<()> {
    let base = processes::fresh_directory("stress/start")?;
    let discovery = discovery(program, &base)?;
    let mut longest = Duration::ZERO;
    for round in 1..=rounds {
        let url = token(&discovery, is_sized)?;
        let mut nodes = processes::nodes(&base.join(format!("round-{round}")), NODES)?;
        let begun = Instant::now();
        for node in &mut nodes {
            let command = node.command(program, &Origin::Discovery(&url));
            node.spawn(&command)?;
        }
        let started = begun.elapsed();
        let id = wait_one_cluster(&mut nodes).with_context(|| format!("round {round}"))?;
        longest = longest.max(begun.elapsed());
        println!(
            "round {round:>3}: started within {:>3} ms, cluster {id} of {NODES} voters after {:.1} s",
            started.as_millis(),
            begun.elapsed().as_secs_f64()
        );
        drop(nodes);
        std::fs::remove_dir_all(base.join(format!("round-{round}")))?;
    }
    println!(
        "{rounds} rounds, each one cluster of {NODES} voters, the slowest after {:.1} s",
        longest.as_secs_f64()
    );
    Ok(())
}

/// A node alone that serves as discovery service.
pub(super) fn discovery(program: &Path, base: &Path) -> Result<Node> {
    let mut nodes = processes::nodes(&base.join("discovery"), 1)?;
    processes::start_all(program, &mut nodes)?;
    nodes.pop().context("there is one node")
}

/// A discovery URL that nobody has used.
pub(super) fn token(discovery: &Node, is_sized: bool) -> Result<String> {
    let path = format!("/v2/keys/{}", fresh_uuid()?);
    if is_sized {
        let answer = discovery
            .connect()?
            .put(&format!("{path}/_config/size"), &format!("value={NODES}"))?;
        ensure!(
            answer.status == 201,
            "the discovery service answers with status {}",
            answer.status
        );
    }
    Ok(format!("http://{}{path}", discovery.client))
}
