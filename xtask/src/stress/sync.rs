//! The node runs under strace while marked writes go through it, one after the other and then several at once. The
//! trace must show each of them written, synced and only then answered.

#![expect(clippy::print_stdout, reason = "the verdict is the output of the task")]

use super::trace;
use crate::http::Connection;
use crate::processes::{self, Node, Origin};
use crate::wait;
use anyhow::{Context as _, Result, anyhow, ensure};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// How many write at once in the second half.
const WRITERS: usize = 16;
/// strace writes the rest of its log after the node has ended.
const TRACE_LIMIT: Duration = Duration::from_secs(30);
/// Longer than any frame of the log that these writes can fill.
const TEXT_BYTES: &str = "1048576";
/// Every call that can write to a disk or to a socket, or sync.
const CALLS: &str =
    "trace=fdatasync,fsync,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,sendfile,splice";

pub(super) fn sync(program: &Path, count: u32) -> Result<()> {
    let base = processes::fresh_directory("stress/sync")?;
    let mut nodes = processes::nodes(&base, 1)?;
    let log = base.join("strace");
    let command = traced(&nodes[0], program, &log);
    nodes[0].spawn(&command)?;
    nodes[0].wait_ready()?;
    let markers: Vec<_> = (0..count)
        .map(|number| format!("hawser-{number:06}-marked"))
        .collect();
    let (single, crowd) = markers.split_at(markers.len() / 2);
    write(nodes[0].client, single)?;
    write_at_once(nodes[0].client, crowd)?;
    nodes[0].stop()?;
    let is_whole = || fs::read_to_string(&log).is_ok_and(|text| text.trim_end().ends_with("+++"));
    wait::until_true("the end of the trace", TRACE_LIMIT, is_whole)?;
    let text = fs::read_to_string(&log).context("read the trace")?;
    let data = nodes[0].data();
    let data = data.to_str().context("the data directory's path is not text")?;
    let judged = trace::judge(&text, &format!("{data}/"), &markers)
        .with_context(|| format!("see {}", log.display()))?;
    println!(
        "{} writes answered, each after the fdatasync that covers it; {} syncs in all",
        judged.replies, judged.syncs
    );
    fs::remove_dir_all(&base)?;
    Ok(())
}

/// The node below strace, which stands aside as its grandchild: the process that is started is the node.
fn traced(node: &Node, program: &Path, log: &Path) -> Command {
    let own = node.command(program, &Origin::Static(std::slice::from_ref(node)));
    let mut strace = Command::new("strace");
    strace
        .args([
            "-D", "-f", "-q", "-ttt", "-y", "-s", TEXT_BYTES, "-e", CALLS, "-o",
        ])
        .arg(log)
        .arg(own.get_program())
        .args(own.get_args());
    strace
}

fn write(node: SocketAddr, markers: &[String]) -> Result<()> {
    let mut connection = Connection::open(node)?;
    for marker in markers {
        let answer = connection.put(&format!("/v2/keys/sync/{marker}"), &format!("value={marker}"))?;
        ensure!(
            answer.status == 201,
            "{marker} is answered with status {}",
            answer.status
        );
        ensure!(answer.body.contains(marker), "the answer does not carry {marker}");
    }
    Ok(())
}

fn write_at_once(node: SocketAddr, markers: &[String]) -> Result<()> {
    thread::scope(|scope| {
        let shares = markers.chunks(markers.len().div_ceil(WRITERS).max(1));
        let threads: Vec<_> = shares
            .map(|share| scope.spawn(move || write(node, share)))
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        outcomes
            .into_iter()
            .try_for_each(|outcome| outcome.map_err(|_| anyhow!("a writer panicked"))?)
    })
}
