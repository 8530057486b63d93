//! Nodes as plain processes on loopback, each with ports and a directory of its own: what needs no machines, but many
//! starts or undisturbed measuring. Any program that takes etcd's flags can be run.

use crate::http::{Connection, get};
use crate::wait::{self, Look};
use crate::{command, workspace};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A node alone is ready within a second; a loaded machine takes longer.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// After a clean stop was asked for.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How much of a node's log is shown with a failure.
const LOG_LINES: usize = 15;

/// Where a node's cluster comes from.
pub(crate) enum Origin<'a> {
    /// All of these, of which it is one.
    Static(&'a [Node]),
    Discovery(&'a str),
}

/// A node that may run.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) client: SocketAddr,
    peer: SocketAddr,
    /// Holds its data and its log.
    directory: PathBuf,
    child: Option<Child>,
}

/// The program under test: what `ETCD_BIN` names, else ours, freshly built.
pub(crate) fn program() -> Result<PathBuf> {
    match std::env::var_os("ETCD_BIN") {
        Some(named) => Ok(std::path::absolute(&named)?),
        None => Ok(workspace::binaries(None)?.join("etcd")),
    }
}

/// An empty directory below the target directory, which is on a real disk.
pub(crate) fn fresh_directory(name: &str) -> Result<PathBuf> {
    let directory = workspace::target().join(name);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", directory.display()));
        }
        _ => {}
    }
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    Ok(directory)
}

/// Nodes `n1`, `n2`, ... with directories below `base`; none runs yet.
pub(crate) fn nodes(base: &Path, count: usize) -> Result<Vec<Node>> {
    // Held together, so that no port is given out twice.
    let held: Vec<_> = (0..2 * count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<_>>()?;
    let addresses: Vec<_> = held
        .iter()
        .map(TcpListener::local_addr)
        .collect::<std::io::Result<_>>()?;
    let node = |(number, pair): (usize, &[SocketAddr])| {
        let name = format!("n{}", number + 1);
        let directory = base.join(&name);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Node {
            name,
            client: pair[0],
            peer: pair[1],
            directory,
            child: None,
        })
    };
    addresses.chunks(2).enumerate().map(node).collect()
}

/// Starts nodes that are to know each other, and waits until all serve.
pub(crate) fn start_all(program: &Path, nodes: &mut [Node]) -> Result<()> {
    let lines: Vec<_> = nodes
        .iter()
        .map(|node| node.command(program, &Origin::Static(nodes)))
        .collect();
    for (node, line) in nodes.iter_mut().zip(lines) {
        node.spawn(&line)?;
    }
    nodes.iter_mut().try_for_each(Node::wait_ready)
}

impl Node {
    /// The command line that starts it, in the words that every generation since 2.0 knows.
    pub(crate) fn command(&self, program: &Path, origin: &Origin<'_>) -> Command {
        let mut command = Command::new(program);
        let flag = |command: &mut Command, name: &str, value: &str| {
            command.arg(format!("--{name}")).arg(value);
        };
        let client = format!("http://{}", self.client);
        let peer = format!("http://{}", self.peer);
        flag(&mut command, "name", &self.name);
        command.arg("--data-dir").arg(self.data());
        flag(&mut command, "listen-client-urls", &client);
        flag(&mut command, "advertise-client-urls", &client);
        flag(&mut command, "listen-peer-urls", &peer);
        flag(&mut command, "initial-advertise-peer-urls", &peer);
        match origin {
            Origin::Static(nodes) => {
                let member = |node: &Self| format!("{}=http://{}", node.name, node.peer);
                let members: Vec<_> = nodes.iter().map(member).collect();
                flag(&mut command, "initial-cluster", &members.join(","));
            }
            Origin::Discovery(url) => flag(&mut command, "discovery", url),
        }
        // A stock etcd serves v2 only when told.
        command.arg("--enable-v2=true");
        command
    }

    /// Starts a command that is this node.
    pub(crate) fn spawn(&mut self, command: &Command) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .context("open the log")?;
        // The kernel ends it with us, however we end.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(tied.spawn().context("cannot run `setpriv` of util-linux")?);
        Ok(())
    }

    /// Its process.
    ///
    /// # Panics
    /// When it was not started.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the node was started"))
    }

    /// Ends it as a power failure of the process: nothing is flushed.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Asks it to stop, and waits.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        kill_process(Pid::from_child(&child), Signal::TERM).ok();
        let stopped = wait::until_true(&format!("{} to stop", self.name), STOP_LIMIT, || {
            child.try_wait().is_ok_and(|status| status.is_some())
        });
        child.kill().ok();
        child.wait().ok();
        stopped
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::open(self.client)
    }

    /// Waits until it serves what the cluster agrees on.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let (what, client) = (format!("{} to serve", self.name), self.client);
        wait::until(&what, READY_LIMIT, || {
            self.check_alive()?;
            Ok(match get(client, "/v2/keys/?quorum=true") {
                Ok(answer) if answer.status == 200 => Look::Found(()),
                Ok(answer) => Look::Missing(format!("it answers with status {}", answer.status)),
                Err(error) => Look::Missing(format!("{error:#}")),
            })
        })
    }

    /// An error with its last words when it has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        match ended {
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.tail()),
            None => Ok(()),
        }
    }

    /// Its cluster's id and members' ids, as it tells them.
    pub(crate) fn cluster(&self) -> Result<(String, BTreeSet<String>)> {
        let answer = get(self.client, "/v2/members")?;
        ensure!(
            answer.status == 200,
            "{} answers with status {}",
            self.name,
            answer.status
        );
        let id = answer.header("x-etcd-cluster-id").unwrap_or_default().to_owned();
        let list: Value = serde_json::from_str(&answer.body).context("read the member list")?;
        let members = list["members"].as_array().into_iter().flatten();
        Ok((
            id,
            members
                .filter_map(|member| member["id"].as_str().map(str::to_owned))
                .collect(),
        ))
    }

    /// Its last words.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The member list of a node as a stock client prints it: `id, status, name, peers, clients, is learner`.
pub(crate) fn member_list(etcdctl: &str, node: &Node) -> Result<String> {
    let mut list = Command::new(etcdctl);
    list.env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=http://{}", node.client))
        .args(["member", "list"]);
    command::capture(&mut list)
}

/// The last words of all, for a failure.
pub(crate) fn tails(nodes: &[Node]) -> String {
    let tail = |node: &Node| format!("--- {}\n{}", node.name, node.tail());
    nodes.iter().map(tail).collect::<Vec<_>>().join("\n")
}
