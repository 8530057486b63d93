//! What fleetd is told: every option of fleet 1.0 from its file and its environment, and a few of ours.
//!
//! `FLEET_<KEY>` in the environment beats the file, also when it is empty; the file beats the default. Options
//! that this version has no use for are read all the same, so that an old file keeps working; what an operator
//! should know about them is said once, as a [`Notice`].

pub mod ini;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::flags::go_bool;
use daemon::go_duration;

/// Read when no `-config` names another file and it exists.
pub const DEFAULT_FILE: &str = "/etc/fleet/fleet.conf";
/// What fleet 1.0 asks when nobody names its servers.
const DEFAULT_SERVERS: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";
/// Where fleet keeps everything it knows.
pub const DEFAULT_KEY_PREFIX: &str = "/_coreos.com/fleet/";
/// Where the API listens when systemd hands over no socket, and where fleetctl looks for it.
pub const DEFAULT_SOCKET: &str = "/var/run/fleet.sock";
/// Leases are counted in seconds: less cannot be promised.
const AGENT_TTL_MIN: Duration = Duration::from_secs(1);
/// A day: an agent that is missed only after longer is not watched at all.
const AGENT_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest wait for one answer of etcd that makes sense, in seconds.
const REQUEST_TIMEOUT_MAX: f64 = 3600.0;

/// Why fleetd cannot start with what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not `key = value` lines.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// Which one.
        path: PathBuf,
        /// Where and why.
        source: ini::SyntaxError,
    },
    /// `agent_ttl` is no duration.
    #[error("agent_ttl: {0}")]
    AgentTtl(#[from] go_duration::DurationError),
    /// `agent_ttl` is a duration that cannot be kept.
    #[error("agent_ttl {0:?} is not between 1s and 24h: presence is counted in whole seconds")]
    AgentTtlRange(Duration),
}

/// Something that the operator should know once, and that stops nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The value cannot be read as what the option is; its default holds.
    Unreadable {
        /// Which option.
        key: &'static str,
        /// What was written.
        value: String,
    },
    /// The option was given, and nothing comes of it.
    Unused {
        /// Which option.
        key: &'static str,
        /// Why nothing comes of it.
        why: &'static str,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { key, value } => {
                write!(f, "{key}={value:?} cannot be read, its default is used")
            }
            Self::Unused { key, why } => write!(f, "{key} is accepted and not used: {why}"),
        }
    }
}

/// Everything that fleetd is told.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// Above 0: log at debug level.
    pub verbosity: i64,
    /// Client URLs of the cluster, tried in this order.
    pub etcd_servers: Vec<String>,
    /// User name for etcd; no credentials are sent in this version.
    pub etcd_username: String,
    /// Password for etcd. Never shown.
    pub etcd_password: String,
    /// Authority that signed etcd's certificate.
    pub etcd_cafile: String,
    /// Our certificate for etcd.
    pub etcd_certfile: String,
    /// The key of our certificate.
    pub etcd_keyfile: String,
    /// Under which all of fleet's keys stand.
    pub etcd_key_prefix: String,
    /// For one answer of one etcd server.
    pub etcd_request_timeout: Duration,
    /// Period of the engine, in seconds.
    pub engine_reconcile_interval: f64,
    /// The address to publish; empty: find one.
    pub public_ip: String,
    /// What the machine says about itself.
    pub metadata: BTreeMap<String, String>,
    /// How long the machine counts as present without a sign of life; whole seconds.
    pub agent_ttl: Duration,
    /// Where unit files are written.
    pub units_directory: PathBuf,
    /// Run units of a user's systemd.
    pub systemd_user: bool,
    /// Machines on one page of the API.
    pub token_limit: u16,
    /// Run no engine here; published among the machine's capabilities.
    pub disable_engine: bool,
    /// Poll instead of watching.
    pub disable_watches: bool,
    /// Ours: the file that names the machine.
    pub machine_id_file: PathBuf,
    /// Ours: where fleetd keeps what a restart needs and a reboot does not.
    pub runtime_directory: PathBuf,
    /// Ours: the API's socket when systemd hands over none.
    pub api_socket: PathBuf,
}

/// The password stays out of logs and panics.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("etcd_servers", &self.etcd_servers)
            .field("etcd_key_prefix", &self.etcd_key_prefix)
            .field("public_ip", &self.public_ip)
            .field("metadata", &self.metadata)
            .field("agent_ttl", &self.agent_ttl)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the file (`path`, else the default one if it exists) and the environment.
    ///
    /// # Errors
    /// When the file cannot be read or parsed, or `agent_ttl` makes no sense.
    pub fn load(
        path: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Notice>), ConfigError> {
        let file = match path {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).is_file() => read(Path::new(DEFAULT_FILE))?,
            None => Vec::new(),
        };
        Self::from_sources(&file, environment)
    }

    /// As [`Self::load`], from a file's entries.
    ///
    /// # Errors
    /// When `agent_ttl` makes no sense.
    pub fn from_sources(
        file: &[ini::Entry],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Notice>), ConfigError> {
        let mut options = Options::gather(file, environment);
        let config = Self {
            verbosity: options.parsed("verbosity", 0),
            etcd_servers: list(&options.text("etcd_servers", DEFAULT_SERVERS)),
            etcd_username: options.text("etcd_username", ""),
            etcd_password: options.text("etcd_password", ""),
            etcd_cafile: options.text("etcd_cafile", ""),
            etcd_certfile: options.text("etcd_certfile", ""),
            etcd_keyfile: options.text("etcd_keyfile", ""),
            etcd_key_prefix: options.text("etcd_key_prefix", DEFAULT_KEY_PREFIX),
            etcd_request_timeout: options.seconds("etcd_request_timeout", 1.0),
            engine_reconcile_interval: options.parsed("engine_reconcile_interval", 2.0),
            public_ip: options.text("public_ip", ""),
            metadata: metadata(&options.text("metadata", "")),
            agent_ttl: agent_ttl(&options.text("agent_ttl", "30s"))?,
            units_directory: options.path("units_directory", "/run/fleet/units/"),
            systemd_user: options.boolean("systemd_user"),
            token_limit: options.token_limit(),
            disable_engine: options.boolean("disable_engine"),
            disable_watches: options.boolean("disable_watches"),
            machine_id_file: options.path("machine_id_file", "/etc/machine-id"),
            runtime_directory: options.path("runtime_directory", "/run/fleet"),
            api_socket: options.path("api_socket", DEFAULT_SOCKET),
        };
        options.note_unused();
        Ok((config, options.notices))
    }
}

fn read(path: &Path) -> Result<Vec<ini::Entry>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    ini::parse(&text).map_err(|source| ConfigError::Syntax {
        path: path.to_owned(),
        source,
    })
}

/// Options that are known and of which nothing comes, with the reason.
const UNUSED: [(&str, &str); 8] = [
    ("verify_units", "signed units are no longer supported"),
    ("authorized_keys_file", "signed units are no longer supported"),
    (
        "enable_grpc",
        "agents of this version do not speak fleet's experimental gRPC",
    ),
    ("etcd_username", "this version sends no credentials to etcd"),
    ("etcd_password", "this version sends no credentials to etcd"),
    ("etcd_cafile", "this version speaks to etcd without TLS"),
    ("etcd_certfile", "this version speaks to etcd without TLS"),
    ("etcd_keyfile", "this version speaks to etcd without TLS"),
];

/// The texts of all options that were given, and what there is to say about them.
struct Options {
    given: BTreeMap<&'static str, String>,
    notices: Vec<Notice>,
}

/// Every option that can be given: fleet 1.0's, then ours.
const KEYS: [&str; 24] = [
    "verbosity",
    "etcd_servers",
    "etcd_username",
    "etcd_password",
    "etcd_cafile",
    "etcd_certfile",
    "etcd_keyfile",
    "etcd_key_prefix",
    "etcd_request_timeout",
    "engine_reconcile_interval",
    "public_ip",
    "metadata",
    "agent_ttl",
    "units_directory",
    "systemd_user",
    "token_limit",
    "enable_grpc",
    "disable_engine",
    "disable_watches",
    "verify_units",
    "authorized_keys_file",
    "machine_id_file",
    "runtime_directory",
    "api_socket",
];

impl Options {
    fn gather(file: &[ini::Entry], environment: impl Fn(&str) -> Option<String>) -> Self {
        let mut given = BTreeMap::new();
        for key in KEYS {
            let from_environment = environment(&format!("FLEET_{}", key.to_uppercase()));
            let from_file = || {
                file.iter()
                    .rev()
                    .find(|entry| entry.key == key)
                    .map(|entry| entry.value.clone())
            };
            if let Some(value) = from_environment.or_else(from_file) {
                given.insert(key, value);
            }
        }
        Self {
            given,
            notices: Vec::new(),
        }
    }

    fn text(&self, key: &str, default: &str) -> String {
        self.given.get(key).map_or(default, String::as_str).to_owned()
    }

    fn path(&self, key: &str, default: &str) -> PathBuf {
        PathBuf::from(self.text(key, default))
    }

    /// The value as its type; the default, with a notice, when it is not of that type.
    fn read<T>(&mut self, key: &'static str, default: T, read: impl Fn(&str) -> Option<T>) -> T {
        let Some(value) = self.given.get(key) else {
            return default;
        };
        if let Some(value) = read(value.trim()) {
            return value;
        }
        self.notices.push(Notice::Unreadable {
            key,
            value: value.clone(),
        });
        default
    }

    fn parsed<T: std::str::FromStr>(&mut self, key: &'static str, default: T) -> T {
        self.read(key, default, |value| value.parse().ok())
    }

    fn boolean(&mut self, key: &'static str) -> bool {
        self.read(key, false, go_bool)
    }

    fn seconds(&mut self, key: &'static str, default: f64) -> Duration {
        let fits = |seconds: &f64| *seconds > 0.0 && *seconds <= REQUEST_TIMEOUT_MAX;
        Duration::from_secs_f64(self.read(key, default, |value| value.parse().ok().filter(fits)))
    }

    fn token_limit(&mut self) -> u16 {
        self.read("token_limit", 100, |value| {
            value.parse().ok().filter(|limit| *limit > 0)
        })
    }

    fn note_unused(&mut self) {
        let used = |value: &str| !value.is_empty() && go_bool(value) != Some(false);
        for (key, why) in UNUSED {
            if self.given.get(key).is_some_and(|value| used(value)) {
                self.notices.push(Notice::Unused { key, why });
            }
        }
    }
}

/// A list with commas, perhaps in brackets, its items perhaps in quotes.
fn list(text: &str) -> Vec<String> {
    let text = text.trim();
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let items = inner
        .split(',')
        .map(|item| item.trim().trim_matches(['"', '\'']).trim());
    items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// `k=v,k2=v2`: both sides trimmed, items without `=` ignored, later ones win.
fn metadata(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|item| item.split_once('='));
    pairs
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// In whole seconds, rounded up: a lease knows nothing finer.
fn agent_ttl(text: &str) -> Result<Duration, ConfigError> {
    let ttl = go_duration::parse(text.trim())?;
    if !(AGENT_TTL_MIN..=AGENT_TTL_MAX).contains(&ttl) {
        return Err(ConfigError::AgentTtlRange(ttl));
    }
    let up = u64::from(ttl.subsec_nanos() > 0);
    Ok(Duration::from_secs(ttl.as_secs() + up))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(file: &str, environment: &[(&str, &str)]) -> (Config, Vec<Notice>) {
        let find = |name: &str| {
            environment
                .iter()
                .find(|(each, _)| *each == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Config::from_sources(&ini::parse(file).unwrap(), find).unwrap()
    }

    #[test]
    fn nothing_given_is_what_fleet_assumes() {
        let (config, notices) = config("", &[]);
        assert_eq!(
            config.etcd_servers,
            ["http://127.0.0.1:2379", "http://127.0.0.1:4001"]
        );
        assert_eq!(config.etcd_key_prefix, "/_coreos.com/fleet/");
        assert_eq!(config.etcd_request_timeout, Duration::from_secs(1));
        assert_eq!(config.agent_ttl, Duration::from_secs(30));
        assert_eq!(config.token_limit, 100);
        assert_eq!(config.units_directory, Path::new("/run/fleet/units/"));
        assert_eq!(config.api_socket, Path::new("/var/run/fleet.sock"));
        assert!(config.public_ip.is_empty() && config.metadata.is_empty());
        assert!(notices.is_empty());
    }

    #[test]
    fn the_environment_beats_the_file_even_when_empty() {
        let (config, _) = config(
            "public_ip=10.0.0.1\nmetadata=\"a=b\"\nverbosity=1",
            &[("FLEET_PUBLIC_IP", ""), ("FLEET_METADATA", "c=d")],
        );
        assert_eq!(config.public_ip, "");
        assert_eq!(
            config.metadata,
            BTreeMap::from([("c".to_owned(), "d".to_owned())])
        );
        assert_eq!(config.verbosity, 1);
    }

    #[test]
    fn every_option_can_be_given_both_ways() {
        for key in KEYS {
            let file = [ini::Entry {
                key: key.to_owned(),
                value: "7s".to_owned(),
                line: 1,
            }];
            let from_file = Options::gather(&file, |_| None);
            assert_eq!(
                from_file.given.get(key).map(String::as_str),
                Some("7s"),
                "{key} in a file"
            );
            let name = format!("FLEET_{}", key.to_uppercase());
            let from_environment = Options::gather(&[], |asked| (asked == name).then(|| "8s".to_owned()));
            assert_eq!(
                from_environment.given.get(key).map(String::as_str),
                Some("8s"),
                "{key} as {name}"
            );
        }
    }

    #[test]
    fn servers_are_read_in_every_way_that_people_write_them() {
        let expected = ["http://a:2379", "http://b:4001"];
        for text in [
            "http://a:2379,http://b:4001",
            "http://a:2379, http://b:4001,",
            "[\"http://a:2379\",\"http://b:4001\"]",
            "[ 'http://a:2379' , 'http://b:4001' ]",
            "\"http://a:2379\",\"http://b:4001\"",
        ] {
            assert_eq!(list(text), expected, "of {text:?}");
        }
    }

    #[test]
    fn metadata_is_pairs_and_the_rest_is_ignored() {
        let expected = [("k", "v"), ("k2", "v=2"), ("last", "wins")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(
            metadata(" k = v , k2=v=2,alone,last=no,last=wins"),
            BTreeMap::from(expected)
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_reported_and_the_default_holds() {
        let (config, notices) = config(
            "token_limit=many\nverbosity=x\netcd_request_timeout=-1\ndisable_engine=maybe",
            &[],
        );
        assert_eq!(
            (config.token_limit, config.verbosity, config.disable_engine),
            (100, 0, false)
        );
        assert_eq!(config.etcd_request_timeout, Duration::from_secs(1));
        assert_eq!(notices.len(), 4);
        assert!(
            notices.iter().any(
                |notice| notice.to_string() == "token_limit=\"many\" cannot be read, its default is used"
            )
        );
    }

    #[test]
    fn options_without_effect_are_said_once_each_and_only_when_they_ask_for_something() {
        let (_, notices) = config("verify_units=true\nenable_grpc=false\nauthorized_keys_file=", &[]);
        let why = "signed units are no longer supported";
        assert_eq!(
            notices,
            [Notice::Unused {
                key: "verify_units",
                why
            }]
        );
    }

    #[test]
    fn agent_ttl_is_whole_seconds_and_never_less_than_one() {
        assert_eq!(agent_ttl("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(agent_ttl("1500ms").unwrap(), Duration::from_secs(2));
        assert!(matches!(agent_ttl("500ms"), Err(ConfigError::AgentTtlRange(_))));
        assert!(matches!(agent_ttl("48h"), Err(ConfigError::AgentTtlRange(_))));
        assert!(matches!(agent_ttl("30"), Err(ConfigError::AgentTtl(_))));
    }

    #[test]
    fn a_password_is_never_shown() {
        let (config, _) = config("etcd_password=hunter2", &[]);
        assert_eq!(config.etcd_password, "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_file_that_was_named_must_be_readable() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().to_owned(), directory.path().join("none")] {
            assert!(
                matches!(Config::load(Some(&path), |_| None), Err(ConfigError::Read { .. })),
                "{path:?}"
            );
        }
        let path = directory.path().join("fleet.conf");
        std::fs::write(&path, "words").unwrap();
        let error = Config::load(Some(&path), |_| None).unwrap_err().to_string();
        assert!(
            error.ends_with("fleet.conf: line 1: expected key = value: \"words\""),
            "{error}"
        );
    }
}
