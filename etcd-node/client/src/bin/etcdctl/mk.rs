//! `etcdctl mk`

use clap::Args;

use crate::arguments::Global;
use crate::exit::Failure;
use crate::words::{KeyValue, Ttl};
use crate::{connection, output};

/// Make a new key with a given value.
#[derive(Debug, Args)]
pub(crate) struct Mk {
    /// Create an in-order key under the directory KEY
    #[arg(long)]
    in_order: bool,
    #[command(flatten)]
    ttl: Ttl,
    #[command(flatten)]
    words: KeyValue,
}

pub(crate) async fn run(global: &Global, mk: Mk) -> Result<(), Failure> {
    let (key, value) = mk.words.required()?;
    let ttl = mk.ttl.seconds();
    let client = connection::synced(global).await?;
    let answered = if mk.in_order {
        client.create_in_order(&key, &value, ttl).await
    } else {
        client.create(&key, &value, ttl).await
    };
    let answer = answered.map_err(|error| Failure::server(&error))?;
    output::key(&answer, global.format()?)
}
