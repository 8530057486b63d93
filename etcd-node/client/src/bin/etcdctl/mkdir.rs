//! `etcdctl mkdir`, `setdir` and `updatedir`: one call with three scopes. They print nothing.

use clap::Args;
use client::v2::Scope;

use crate::arguments::Global;
use crate::connection;
use crate::exit::Failure;
use crate::words::{Key, Ttl};

/// `mkdir`
pub(crate) const MAKE: Scope = Scope::New;
/// `setdir`
pub(crate) const SET: Scope = Scope::Any;
/// `updatedir`
pub(crate) const UPDATE: Scope = Scope::Existing;

/// A directory and its TTL.
#[derive(Debug, Args)]
pub(crate) struct Mkdir {
    #[command(flatten)]
    ttl: Ttl,
    #[command(flatten)]
    key: Key,
}

pub(crate) async fn run(global: &Global, mkdir: Mkdir, scope: Scope) -> Result<(), Failure> {
    let key = mkdir.key.required()?;
    let client = connection::synced(global).await?;
    client
        .make_directory(key, mkdir.ttl.seconds(), scope)
        .await
        .map_err(|error| Failure::server(&error))?;
    Ok(())
}
