//! `etcdctl rm` and `rmdir`

use clap::Args;
use client::v2::{Answer, Error, Removal};

use crate::arguments::Global;
use crate::exit::Failure;
use crate::words::Key;
use crate::{connection, output, set};

/// Remove a key or a directory.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Remove the key if it is an empty directory or a key-value pair
    #[arg(long)]
    dir: bool,
    /// Remove the key, and if it is a directory everything below it
    #[arg(long, short)]
    recursive: bool,
    /// Only if the key has this value
    #[arg(long, default_value = "", hide_default_value = true, value_name = "VALUE")]
    with_value: String,
    /// Only if the key's modified index is this
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "INDEX")]
    with_index: u64,
    #[command(flatten)]
    key: Key,
}

/// Remove an empty directory or a key-value pair.
#[derive(Debug, Args)]
pub(crate) struct Rmdir {
    #[command(flatten)]
    key: Key,
}

pub(crate) async fn run(global: &Global, rm: Rm) -> Result<(), Failure> {
    let key = rm.key.required()?;
    let client = connection::synced(global).await?;
    let removal = match (rm.recursive, rm.dir) {
        (true, _) => Removal::Recursive,
        (false, true) => Removal::EmptyDirectory,
        (false, false) => Removal::File,
    };
    let answered = match set::condition(rm.with_value, rm.with_index) {
        Some(condition) => client.compare_and_delete(key, &condition).await,
        None => client.delete(key, removal).await,
    };
    print(global, answered)
}

pub(crate) async fn run_rmdir(global: &Global, rmdir: Rmdir) -> Result<(), Failure> {
    let key = rmdir.key.required()?;
    let client = connection::synced(global).await?;
    print(global, client.delete(key, Removal::EmptyDirectory).await)
}

/// A directory goes without a word.
fn print(global: &Global, answered: Result<Answer, Error>) -> Result<(), Failure> {
    let answer = answered.map_err(|error| Failure::server(&error))?;
    if answer.event.node.dir {
        return Ok(());
    }
    output::key(&answer, global.format()?)
}
