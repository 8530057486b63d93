//! `etcdctl update`

use clap::Args;

use crate::arguments::Global;
use crate::exit::Failure;
use crate::words::{KeyValue, Ttl};
use crate::{connection, output};

/// Update an existing key with a given value.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    ttl: Ttl,
    #[command(flatten)]
    words: KeyValue,
}

pub(crate) async fn run(global: &Global, update: Update) -> Result<(), Failure> {
    let (key, value) = update.words.required()?;
    let client = connection::synced(global).await?;
    let answered = client.update(&key, &value, update.ttl.seconds()).await;
    let answer = answered.map_err(|error| Failure::server(&error))?;
    output::key(&answer, global.format()?)
}
