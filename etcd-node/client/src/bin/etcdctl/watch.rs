//! `etcdctl watch`

use clap::Args;
use client::v2::{Answer, Error, Watcher};

use crate::arguments::Global;
use crate::exit::Failure;
use crate::words::Key;
use crate::{connection, output};

/// Watch a key for changes.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Go on until Ctrl-C instead of ending with the first change
    #[arg(long, short)]
    forever: bool,
    /// Begin with the first change after this index
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "INDEX")]
    after_index: u64,
    /// Also watch everything below the key
    #[arg(long, short)]
    recursive: bool,
    #[command(flatten)]
    key: Key,
}

pub(crate) async fn run(global: &Global, watch: Watch) -> Result<(), Failure> {
    let key = watch.key.required()?;
    let format = global.format()?;
    let client = connection::synced(global).await?;
    let mut watcher = client.watch(key, watch.recursive, after(watch.after_index));
    loop {
        let answer = next_of_file(&mut watcher)
            .await
            .map_err(|error| Failure::server(&error))?;
        if watch.recursive {
            output::lines(&[&format!("[{}] {}", answer.event.action, answer.event.node.key)])?;
        }
        output::key(&answer, format)?;
        if !watch.forever {
            return Ok(());
        }
    }
}

/// 0 means that it was not asked for.
pub(crate) fn after(index: u64) -> Option<u64> {
    Some(index).filter(|index| *index > 0)
}

/// The next event that is about a file; what happens to directories is passed over.
pub(crate) async fn next_of_file(watcher: &mut Watcher<'_>) -> Result<Answer, Error> {
    loop {
        let answer = watcher.next().await?;
        if !answer.event.node.dir {
            return Ok(answer);
        }
    }
}
