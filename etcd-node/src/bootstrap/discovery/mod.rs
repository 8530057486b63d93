//! Finding the other nodes through a URL, in both generations of the protocol.
//!
//! A directory with `_config/size` is sized (etcd 2.x): the first N that register are the members. One without
//! is unsized (etcd 0.4): one node founds, every later one joins. The directory decides, not a flag.

mod directory;
mod sized;
mod tending;
mod unsized_mode;

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use daemon::backoff::Backoff;

use super::{Decision, Intent, random};
use crate::config::Config;
use crate::peer::Station;
use crate::url::Url;
use directory::{Directory, DirectoryError};

pub use tending::tend;
pub use unsized_mode::Founder;

/// Pauses between two attempts to reach the discovery service; it never gives up.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Between two looks at the directory while waiting for others.
const POLL: Duration = Duration::from_millis(500);

/// The discovery URL of one cluster.
#[derive(Clone, Debug)]
pub struct Discovery {
    directory: Directory,
}

impl Discovery {
    /// For this URL.
    pub fn new(url: &Url) -> Self {
        Self {
            directory: Directory::new(url),
        }
    }

    /// Registers this node and finds out what it is to do.
    ///
    /// # Errors
    /// What waiting cannot mend.
    pub(super) async fn decide(
        &self,
        config: &Config,
        intent: &Intent,
        station: &Arc<Station>,
    ) -> anyhow::Result<Decision> {
        self.check_own_urls(config)?;
        let size = self.patiently(|| self.directory.value("_config/size")).await?;
        match size {
            Some(size) => sized::decide(self, &size, config, intent, station).await,
            None => unsized_mode::decide(self, config, intent, station).await,
        }
    }

    /// Others would try to reach a loopback address on their own machine.
    fn check_own_urls(&self, config: &Config) -> anyhow::Result<()> {
        let is_local = |url: &Url| url.host == "localhost" || url.ip().is_some_and(|ip| ip.is_loopback());
        if is_local(&self.directory.url) {
            return Ok(());
        }
        for text in &config.peer_urls {
            if is_local(&Url::parse(text)?) {
                bail!(
                    "peer URL {text} is loopback and the discovery host {} is not: name this machine's own address with --peer-addr or --initial-advertise-peer-urls",
                    self.directory.url.host
                );
            }
        }
        Ok(())
    }

    /// Asks until there is an answer, and says what it waits for.
    async fn patiently<T, F: Future<Output = Result<T, DirectoryError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> anyhow::Result<T> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1, random());
        loop {
            match ask().await {
                Ok(value) => return Ok(value),
                Err(error) if error.is_passing() => {
                    if backoff.failures() == 0 {
                        tracing::warn!(url = %self.directory.url, %error, "waiting for the discovery service");
                    }
                    daemon::ready::status(&format!("waiting for the discovery service: {error}"));
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                Err(error) => bail!("discovery at {}: {error}", self.directory.url),
            }
        }
    }
}
