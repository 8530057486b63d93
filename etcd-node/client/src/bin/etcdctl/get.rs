//! `etcdctl get`

use clap::Args;
use client::v2::Read;

use crate::arguments::Global;
use crate::exit::{Exit, Failure};
use crate::words::Key;
use crate::{connection, output};

/// Retrieve the value of a key.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Return the result in sorted order
    #[arg(long)]
    sort: bool,
    /// Ask for what the cluster agrees on now, not for what the member asked last heard
    #[arg(long, short, alias = "consistent")]
    quorum: bool,
    #[command(flatten)]
    key: Key,
}

pub(crate) async fn run(global: &Global, get: Get) -> Result<(), Failure> {
    let key = get.key.required()?;
    let client = connection::synced(global).await?;
    let read = Read {
        is_recursive: false,
        is_sorted: get.sort,
        is_quorum: get.quorum,
    };
    let answer = client
        .get(key, read)
        .await
        .map_err(|error| Failure::server(&error))?;
    if answer.event.node.dir {
        let key = &answer.event.node.key;
        return Err(Failure::new(
            Exit::BadArguments,
            format!("{key}: is a directory\n"),
        ));
    }
    output::key(&answer, global.format()?)
}
