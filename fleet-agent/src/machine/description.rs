//! What this machine says about itself, from its configuration and its interfaces, and how that changes while
//! fleetd runs: a new address, or a configuration that SIGHUP has read anew.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::address;
use crate::config::Config;
use crate::registry::MachineObject;

/// How often the address is looked for again, as fleet does.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(60);
/// The same while there is none: a machine that boots gets its address within seconds.
const ADDRESS_MISSING_INTERVAL: Duration = Duration::from_secs(5);
/// How long one search may take: what is slow is the resolver, for servers that are given by name.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps a machine's object up to date.
#[derive(Debug)]
pub struct Description {
    id: String,
    config: Config,
    /// The file to read again.
    config_file: Option<PathBuf>,
    object: watch::Sender<MachineObject>,
}

impl Description {
    /// Describes the machine as it is now.
    pub async fn new(id: String, config: Config, config_file: Option<PathBuf>) -> Self {
        let object = object(&id, &config, find_address(&config).await);
        if object.public_ip.is_empty() {
            warn!("no address to publish is found yet; public_ip sets one");
        }
        Self {
            id,
            config,
            config_file,
            object: watch::Sender::new(object),
        }
    }

    /// The object, now and from now on.
    pub fn object(&self) -> watch::Receiver<MachineObject> {
        self.object.subscribe()
    }

    /// Follows the address and the configuration until the stop.
    pub async fn run(mut self, mut reload: Signal, stop: CancellationToken) {
        loop {
            let is_missing = self.object.borrow().public_ip.is_empty();
            let wait = if is_missing {
                ADDRESS_MISSING_INTERVAL
            } else {
                ADDRESS_INTERVAL
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                _ = reload.recv() => self.reload(),
            }
            let found = find_address(&self.config).await;
            self.update(object(&self.id, &self.config, found));
        }
    }

    /// A configuration that cannot be used changes nothing.
    fn reload(&mut self) {
        match Config::load(self.config_file.as_deref(), |name| std::env::var(name).ok()) {
            Ok((config, notices)) => {
                for notice in notices {
                    warn!("{notice}");
                }
                info!(
                    "the configuration is read anew; options beside public_ip and metadata wait for a restart"
                );
                self.config = config;
            }
            Err(error) => warn!("the configuration stays as it is: {error}"),
        }
    }

    fn update(&self, mut new: MachineObject) {
        self.object.send_if_modified(|object| {
            if new.public_ip.is_empty() {
                // A cable that was pulled out comes back: others know us by the old address until then.
                new.public_ip.clone_from(&object.public_ip);
            }
            let is_new = *object != new;
            if is_new {
                info!(address = new.public_ip, "the machine describes itself anew");
                *object = new;
            }
            is_new
        });
    }
}

/// As fleet 1.0 would say it, with the address that was found when none is configured.
fn object(id: &str, config: &Config, found: Option<Ipv4Addr>) -> MachineObject {
    let found = || found.map(|address| address.to_string()).unwrap_or_default();
    let capabilities = [("DISABLE_ENGINE", config.disable_engine), ("GRPC", false)];
    MachineObject {
        id: id.to_owned(),
        public_ip: if config.public_ip.is_empty() {
            found()
        } else {
            config.public_ip.clone()
        },
        metadata: config.metadata.clone(),
        capabilities: capabilities.map(|(name, has)| (name.to_owned(), has)).into(),
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// None as well when the search takes too long. It blocks, so it is not done on the runtime's threads.
async fn find_address(config: &Config) -> Option<Ipv4Addr> {
    if !config.public_ip.is_empty() {
        return None;
    }
    let servers = config.etcd_servers.clone();
    let search = tokio::task::spawn_blocking(move || address::detect(&servers));
    tokio::time::timeout(ADDRESS_TIMEOUT, search).await.ok()?.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_sources(&crate::config::ini::parse(text).unwrap(), |_| None)
            .unwrap()
            .0
    }

    #[test]
    fn the_object_is_what_fleet_would_write() {
        let config = config("public_ip=10.0.0.1\nmetadata=role=core\ndisable_engine=true\nenable_grpc=true");
        let expected = format!(
            "{{\"ID\":\"abc\",\"PublicIP\":\"10.0.0.1\",\"Metadata\":{{\"role\":\"core\"}},\
             \"Capabilities\":{{\"DISABLE_ENGINE\":true,\"GRPC\":false}},\"Version\":\"v{}\"}}",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(
            object("abc", &config, Some(Ipv4Addr::new(10, 0, 0, 2))).to_json(),
            expected
        );
    }

    #[test]
    fn an_address_is_published_as_found_only_when_none_is_configured() {
        let found = Some(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(object("abc", &config(""), found).public_ip, "10.0.0.2");
        assert_eq!(object("abc", &config(""), None).public_ip, "");
        assert_eq!(
            object("abc", &config("public_ip=name.example"), found).public_ip,
            "name.example"
        );
    }

    #[tokio::test]
    async fn a_lost_address_is_kept_and_a_new_one_told() {
        let description = Description::new("abc".to_owned(), config("public_ip=10.0.0.1"), None).await;
        let mut seen = description.object();
        let other = |ip: &str| MachineObject {
            public_ip: ip.to_owned(),
            ..description.object.borrow().clone()
        };
        let (lost, moved) = (other(""), other("10.0.0.2"));
        description.update(lost);
        assert!(!seen.has_changed().unwrap());
        description.update(moved);
        assert_eq!(seen.borrow_and_update().public_ip, "10.0.0.2");
    }
}
