//! Nodes are killed with kill -9 in the midst of writing, and started again from their disks. Whatever was
//! acknowledged is there, on every node.

#![expect(clippy::print_stdout, reason = "rounds are the output of the task")]

use super::random_below;
use crate::load::{self, Journal, Writer};
use crate::processes::{self, Node};
use crate::wait;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Writers through each node: enough that a frame of the log holds several writes.
const WRITERS_PER_NODE: usize = 8;
/// The pace of each: some thousand writes a round, which can be listed and compared.
const PAUSE: Duration = Duration::from_millis(1);
/// The victim dies at a moment within this after the first acknowledged write.
const MOMENT_MS_MAX: u64 = 1500;
/// The others take over and write on.
const FIRST_WRITE_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn kill(program: &Path, rounds: u32, count: usize) -> Result<()> {
    let base = processes::fresh_directory("stress/kill")?;
    let mut nodes = processes::nodes(&base, count)?;
    processes::start_all(program, &mut nodes)?;
    let mut journals = Vec::new();
    for round in 1..=rounds {
        let victim = usize::try_from(random_below(count as u64)?)?;
        let after = Duration::from_millis(random_below(MOMENT_MS_MAX)?);
        let seen =
            play(program, &mut nodes, round, (victim, after)).with_context(|| format!("round {round}"))?;
        let written = verify(&nodes, &seen).with_context(|| format!("round {round}"))?;
        let unknown: u64 = seen.iter().map(|journal| journal.unknown).sum();
        println!(
            "round {round:>3}: {} killed after {:>4} ms, {written} acknowledged writes are there, {unknown} unanswered",
            nodes[victim].name,
            after.as_millis()
        );
        journals.extend(seen);
    }
    let written = verify(&nodes, &journals).context("all rounds together")?;
    println!("{rounds} kills of {count} nodes: {written} acknowledged writes, all there");
    nodes.iter_mut().try_for_each(Node::stop)?;
    std::fs::remove_dir_all(&base)?;
    Ok(())
}

/// One round: load, a death in its midst, a return.
fn play(
    program: &Path,
    nodes: &mut [Node],
    round: u32,
    (victim, after): (usize, Duration),
) -> Result<Vec<Journal>> {
    let writers = writers(nodes, round);
    let line = nodes[victim].command(program, &processes::Origin::Static(nodes));
    let probe = nodes[victim].client;
    let ((), journals) = load::during(&writers, || {
        let first = format!("/v2/keys/stress/{round}/0");
        wait::until_true("the first write", FIRST_WRITE_LIMIT, || {
            crate::http::get(probe, &first).is_ok_and(|answer| answer.status == 200)
        })?;
        thread::sleep(after);
        nodes[victim].kill();
        nodes[victim].spawn(&line)?;
        nodes[victim].wait_ready()
    })?;
    Ok(journals)
}

fn writers(nodes: &[Node], round: u32) -> Vec<Writer<'static>> {
    let through = nodes
        .iter()
        .flat_map(|node| std::iter::repeat_n(node, WRITERS_PER_NODE));
    let writer = |(number, node): (usize, &Node)| {
        let client = node.client;
        Writer {
            name: node.name.clone(),
            directory: format!("/stress/{round}/{number}"),
            pause: PAUSE,
            connect: Box::new(move || crate::http::Connection::open(client)),
        }
    };
    through.enumerate().map(writer).collect()
}

fn verify(nodes: &[Node], journals: &[Journal]) -> Result<u64> {
    let mut count = 0;
    for node in nodes {
        let found = load::verify(journals, &mut node.connect()?);
        count = found.with_context(|| format!("on {}:\n{}", node.name, node.tail()))?;
    }
    ensure!(count > 0, "no write was acknowledged at all");
    Ok(count)
}
