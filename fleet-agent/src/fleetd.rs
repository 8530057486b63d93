//! `fleetd`: reads its configuration, keeps this machine in the registry and answers on its socket.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, Parser};
use daemon::listen::{self, Listener};
use daemon::log::LogConfig;
use daemon::tasks::Tasks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::Api;
use crate::config::Config;
use crate::machine::{LeaseFile, Presence, address, identity};
use crate::registry::{EtcdRegistry, MachineObject};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How often the address is looked for again, as fleet does.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(60);
/// The same while there is none: a machine that boots gets its address within seconds.
const ADDRESS_MISSING_INTERVAL: Duration = Duration::from_secs(5);
/// How long one search may take: what is slow is the resolver, for servers that are given by name.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the parts may take to stop: leaving the registry takes the most.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Who may use the API, beside root.
const SOCKET_GROUP: &str = "fleet";
const SOCKET_MODE: u32 = 0o660;

/// The agent of a fleet machine. Everything else is told in its configuration file, or as FLEET_<KEY> in its
/// environment.
#[derive(Debug, Parser)]
#[command(name = "fleetd", version = VERSION, disable_version_flag = true)]
pub struct CommandLine {
    /// The configuration file [default: /etc/fleet/fleet.conf if it exists]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print the version and exit
    #[arg(long)]
    version: bool,
    #[command(flatten)]
    log: LogConfig,
    /// The word "version" prints it, too
    #[arg(hide = true)]
    word: Option<String>,
}

impl CommandLine {
    /// Reads the arguments, in Go's flag syntax too; the program's name comes first.
    ///
    /// # Errors
    /// clap's, which also stand for `--help`.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(daemon::flags::go_style(&Self::command(), args))
    }

    /// What to print instead of running, if the arguments ask for that.
    ///
    /// # Errors
    /// When there is an argument that means nothing.
    pub fn instead(&self) -> anyhow::Result<Option<String>> {
        match self.word.as_deref() {
            Some("version") => {}
            Some(word) => {
                anyhow::bail!("unexpected argument {word:?}: options come from -config or the environment")
            }
            None if !self.version => return Ok(None),
            None => {}
        }
        Ok(Some(format!("fleetd version {VERSION}\n")))
    }
}

/// Runs fleetd until it is told to stop.
///
/// # Errors
/// When it cannot start: the configuration, the machine's id, the runtime directory or the socket.
pub async fn run(command_line: CommandLine) -> anyhow::Result<()> {
    let (config, notices) = Config::load(command_line.config.as_deref(), |name| std::env::var(name).ok())?;
    start_log(command_line.log, config.verbosity)?;
    for notice in notices {
        warn!("{notice}");
    }
    let stop = daemon::signal::stop_token().context("signals cannot be caught")?;
    let tasks = Tasks::new(stop.clone());
    let machine_id = identity::machine_id(&config.machine_id_file)?;
    let registry = connect(&config)?;
    let lease_file = LeaseFile::open(&config.runtime_directory, &machine_id)?;
    let sockets = Sockets::open(&config.api_socket)?;
    let object = watch::Sender::new(describe_machine(&config, machine_id).await);
    let presence = Presence::new(registry.clone(), lease_file, object.subscribe(), config.agent_ttl);
    let api = Arc::new(Api::new(
        registry,
        presence.status(),
        object.subscribe(),
        config.token_limit,
    ));
    info!(version = VERSION, machine = %object.borrow().id, etcd = config.etcd_servers.join(","), "fleetd starts");
    // The API outlives the presence, so that it can say that we are leaving.
    let serving = CancellationToken::new();
    for listener in sockets.listeners {
        info!(socket = listener.describe(), "the API listens");
        tasks.spawn("api", Arc::clone(&api).serve(listener, serving.clone()));
    }
    if config.public_ip.is_empty() {
        tasks.spawn(
            "address",
            follow_address(object, config.etcd_servers, stop.clone()),
        );
    }
    let leaving = stop.clone();
    tasks.spawn("presence", async move {
        presence.run(leaving).await;
        serving.cancel();
    });
    daemon::ready::ready();
    stop.cancelled().await;
    daemon::ready::stopping();
    let joined = tasks.join(STOP_TIMEOUT).await;
    if let Some(own) = sockets.own {
        // A socket that nobody listens on only misleads; the directory may be gone already.
        let _ignored = std::fs::remove_file(own);
    }
    joined.context("the stop was not clean")
}

/// `verbosity` above 0 asks for debug lines, unless the command line asks for something itself.
fn start_log(mut log: LogConfig, verbosity: i64) -> anyhow::Result<()> {
    if verbosity > 0
        && log
            == (LogConfig {
                format: log.format,
                ..LogConfig::default()
            })
    {
        "debug".clone_into(&mut log.level);
    }
    Ok(daemon::log::init(&log)?)
}

fn connect(config: &Config) -> anyhow::Result<EtcdRegistry> {
    let mut etcd = client::v3::Config::new(&config.etcd_servers).context("etcd_servers")?;
    etcd.connect_timeout = config.etcd_request_timeout;
    etcd.request_timeout = config.etcd_request_timeout;
    let client = client::v3::Client::new(&etcd).context("etcd_servers")?;
    Ok(EtcdRegistry::new(client, &config.etcd_key_prefix))
}

/// Where the API listens.
struct Sockets {
    listeners: Vec<Listener>,
    /// The file that we made ourselves and have to remove.
    own: Option<PathBuf>,
}

impl Sockets {
    /// Those of systemd, or our own without them.
    fn open(path: &Path) -> anyhow::Result<Self> {
        let inherited = listen::inherited()?;
        if !inherited.is_empty() {
            return Ok(Self {
                listeners: inherited,
                own: None,
            });
        }
        let listener = listen::unix(path, SOCKET_MODE, Some(SOCKET_GROUP))?;
        Ok(Self {
            listeners: vec![listener],
            own: Some(path.to_owned()),
        })
    }
}

/// What this machine says about itself, as fleet 1.0 would say it.
async fn describe_machine(config: &Config, id: String) -> MachineObject {
    let public_ip = if config.public_ip.is_empty() {
        detect(config.etcd_servers.clone())
            .await
            .map(|address| address.to_string())
            .unwrap_or_default()
    } else {
        config.public_ip.clone()
    };
    if public_ip.is_empty() {
        warn!("no address to publish is found yet; public_ip sets one");
    }
    let capabilities = [("DISABLE_ENGINE", config.disable_engine), ("GRPC", false)];
    MachineObject {
        id,
        public_ip,
        metadata: config.metadata.clone(),
        capabilities: capabilities.map(|(name, has)| (name.to_owned(), has)).into(),
        version: format!("v{VERSION}"),
    }
}

/// None as well when the search takes too long. It blocks, so it is not done on the runtime's threads.
async fn detect(servers: Vec<String>) -> Option<Ipv4Addr> {
    let search = tokio::task::spawn_blocking(move || address::detect(&servers));
    tokio::time::timeout(ADDRESS_TIMEOUT, search).await.ok()?.ok()?
}

/// Publishes the address anew when it changes. Losing it changes nothing: a cable pulled out comes back.
async fn follow_address(object: watch::Sender<MachineObject>, servers: Vec<String>, stop: CancellationToken) {
    loop {
        let is_missing = object.borrow().public_ip.is_empty();
        let wait = if is_missing {
            ADDRESS_MISSING_INTERVAL
        } else {
            ADDRESS_INTERVAL
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let Some(found) = detect(servers.clone()).await else {
            continue;
        };
        object.send_if_modified(|object| {
            let found = found.to_string();
            let is_new = object.public_ip != found;
            if is_new {
                info!(
                    from = object.public_ip,
                    to = found,
                    "the machine's address changes"
                );
                object.public_ip = found;
            }
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> CommandLine {
        CommandLine::read(std::iter::once(&"fleetd").chain(args).map(OsString::from)).unwrap()
    }

    #[test]
    fn the_version_is_asked_for_in_three_ways() {
        for args in [["-version"], ["--version"], ["version"]] {
            assert_eq!(
                read(&args).instead().unwrap(),
                Some(format!("fleetd version {VERSION}\n")),
                "{args:?}"
            );
        }
        assert_eq!(read(&[]).instead().unwrap(), None);
        assert!(
            read(&["start"])
                .instead()
                .unwrap_err()
                .to_string()
                .contains("\"start\"")
        );
    }

    #[test]
    fn the_file_is_named_with_one_dash_or_two() {
        for args in [&["-config", "/x"][..], &["--config=/x"], &["-config=/x"]] {
            assert_eq!(read(args).config.as_deref(), Some(Path::new("/x")), "{args:?}");
        }
        assert!(CommandLine::read(["fleetd", "-bogus"].map(OsString::from)).is_err());
    }

    #[tokio::test]
    async fn the_object_is_what_fleet_would_write() {
        let entries =
            crate::config::ini::parse("public_ip=10.0.0.1\nmetadata=role=core\ndisable_engine=true").unwrap();
        let (config, _) = Config::from_sources(&entries, |_| None).unwrap();
        let json = describe_machine(&config, "abc".to_owned()).await.to_json();
        let expected = format!(
            "{{\"ID\":\"abc\",\"PublicIP\":\"10.0.0.1\",\"Metadata\":{{\"role\":\"core\"}},\
             \"Capabilities\":{{\"DISABLE_ENGINE\":true,\"GRPC\":false}},\"Version\":\"v{VERSION}\"}}"
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn the_description_of_the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
