//! `fleetd`: reads its configuration, keeps this machine in the registry and answers on its socket.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, Parser};
use daemon::listen::{self, Listener};
use daemon::log::LogConfig;
use daemon::tasks::Tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::Api;
use crate::config::Config;
use crate::machine::registration::Status;
use crate::machine::{Description, LeaseFile, Presence, describe, identity};
use crate::registry::{EtcdRegistry, MachineObject};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long the parts may take to stop: leaving the registry takes the most.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Who may use the API, beside root.
const SOCKET_GROUP: &str = "fleet";
const SOCKET_MODE: u32 = 0o660;

/// The agent of a fleet machine. Its options stand in its configuration file, or in the environment as FLEET_
/// and the option's name in capitals.
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
                anyhow::bail!(
                    "unexpected argument {word:?}: options come from the file that -config names, or the environment"
                )
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
    let (reloads, dumps) = (
        signal(SignalKind::hangup())?,
        signal(SignalKind::user_defined1())?,
    );
    info!(
        version = VERSION,
        machine = machine_id,
        etcd = config.etcd_servers.join(","),
        "fleetd starts"
    );
    let description = Description::new(machine_id, config.clone(), command_line.config).await;
    let object = description.object();
    let presence = Presence::new(registry.clone(), lease_file, object.clone(), config.agent_ttl);
    let status = presence.status();
    let api = Arc::new(Api::new(
        registry,
        status.clone(),
        object.clone(),
        config.token_limit,
    ));
    // The API outlives the presence, so that it can say that we are leaving.
    let serving = CancellationToken::new();
    for listener in sockets.listeners {
        info!(socket = listener.describe(), "the API listens");
        tasks.spawn("api", Arc::clone(&api).serve(listener, serving.clone()));
    }
    tasks.spawn("description", description.run(reloads, stop.clone()));
    tasks.spawn("dump", dump_on_request(dumps, status, object, stop.clone()));
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

/// `verbosity` above 0 asks for debug lines of ours, unless the command line asks for something itself.
fn start_log(mut log: LogConfig, verbosity: i64) -> anyhow::Result<()> {
    if verbosity > 0 && log.level == LogConfig::default().level {
        "info,fleet_agent=debug,client=debug,daemon=debug".clone_into(&mut log.level);
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

/// Writes one line of JSON on stdout for each SIGUSR1: how this machine stands.
async fn dump_on_request(
    mut requests: Signal,
    status: watch::Receiver<Status>,
    object: watch::Receiver<MachineObject>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = requests.recv() => {}
        }
        let line = dump(&status.borrow(), &object.borrow());
        if let Err(error) = writeln!(io::stdout(), "{line}") {
            warn!(%error, "the state cannot be written to stdout");
        }
    }
}

fn dump(status: &Status, object: &MachineObject) -> String {
    let status = serde_json::Value::from(describe(status, object));
    format!("{{\"machine\":{},\"status\":{status}}}", object.to_json())
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

    #[test]
    fn the_state_is_dumped_as_one_line_of_json() {
        let object = MachineObject {
            id: "abc".to_owned(),
            ..MachineObject::default()
        };
        let line = dump(&Status::Registering, &object);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["machine"]["ID"], "abc");
        assert_eq!(value["status"], "registering with etcd");
        assert!(!line.contains('\n'));
    }

    #[test]
    fn the_description_of_the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
