//! `etcdctl exec-watch`: a program is run at each change, one after the other, and no change is missed
//! while it runs.

use clap::Args;
use client::v2::Answer;
use tokio::process::Command;

use crate::arguments::Global;
use crate::exit::{Exit, Failure};
use crate::{connection, watch};

/// Watch a key for changes and run a program at each.
///
/// It finds what happened in `ETCD_WATCH_ACTION`, `ETCD_WATCH_KEY`, `ETCD_WATCH_MODIFIED_INDEX` and
/// `ETCD_WATCH_VALUE`.
#[derive(Debug, Args)]
pub(crate) struct ExecWatch {
    /// Begin with the first change after this index
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "INDEX")]
    after_index: u64,
    /// Also watch everything below the key
    #[arg(long, short)]
    recursive: bool,
    /// The key
    key: Option<String>,
    /// The program and its arguments, after '--'
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(global: &Global, exec: ExecWatch) -> Result<(), Failure> {
    let (Some(key), Some((program, arguments))) = (&exec.key, exec.command.split_first()) else {
        return Err(Failure::argument("key and command to exec required"));
    };
    let client = connection::synced(global).await?;
    let mut watcher = client.watch(key, exec.recursive, watch::after(exec.after_index));
    loop {
        let answer = watch::next_of_file(&mut watcher)
            .await
            .map_err(|error| Failure::server(&error))?;
        // What the program makes of it is its own affair; that it cannot be run is ours.
        let _status = Command::new(program)
            .args(arguments)
            .envs(environment(&answer))
            .status()
            .await
            .map_err(|error| {
                Failure::new(Exit::BadArguments, format!("cannot run {program:?}: {error}\n"))
            })?;
    }
}

fn environment(answer: &Answer) -> [(&'static str, String); 4] {
    let node = &answer.event.node;
    [
        ("ETCD_WATCH_ACTION", answer.event.action.clone()),
        ("ETCD_WATCH_KEY", node.key.clone()),
        ("ETCD_WATCH_MODIFIED_INDEX", node.modified_index.to_string()),
        ("ETCD_WATCH_VALUE", node.value.clone().unwrap_or_default()),
    ]
}
