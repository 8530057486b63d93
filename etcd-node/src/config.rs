//! Flags and `ETCD_*` variables of three generations of etcd, read into one configuration.
//!
//! Addresses follow the keyspace rules, section 10: without an address flag the node stays on loopback; the
//! 0.4 flags name what is advertised and open all interfaces; URL flags mean exactly what they say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use daemon::log::LogConfig;

use crate::url::Url;

/// Client ports: 4001 of the first generation, 2379 of all later ones.
const CLIENT_PORTS: [u16; 2] = [4001, 2379];
/// Peer ports, likewise.
const PEER_PORTS: [u16; 2] = [7001, 2380];
/// etcd's own upper bound.
const ELECTION_MS_MAX: u64 = 50_000;
/// One raft tick in milliseconds.
const TICK_MS: u64 = 10;
/// Longest name of a member.
const NAME_CHARACTERS_MAX: usize = 64;

/// A replicated key-value store: a drop-in for etcd, with the v2 HTTP and v3 gRPC APIs over one keyspace.
///
/// Alone, it elects itself and serves on loopback at once. With --discovery it finds the other nodes of its
/// cluster through a URL, with --initial-cluster it is told them. Every flag also exists as an environment
/// variable (--data-dir as ETCD_DATA_DIR), and may be written with one dash (-name=x).
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "etcd", version, disable_version_flag = true, max_term_width = 100)]
pub struct Args {
    /// Human-readable name of this member, unique in its cluster
    #[arg(long, env = "ETCD_NAME", value_name = "NAME", help_heading = "Member")]
    pub name: Option<String>,
    /// Directory of this member's data; default ./<name>.etcd
    #[arg(long, env = "ETCD_DATA_DIR", value_name = "DIR", help_heading = "Member")]
    pub data_dir: Option<String>,
    /// URLs to listen on for clients, comma-separated
    #[arg(
        long,
        env = "ETCD_LISTEN_CLIENT_URLS",
        value_name = "URLS",
        help_heading = "Addresses"
    )]
    pub listen_client_urls: Option<String>,
    /// Client URLs to tell the cluster, comma-separated
    #[arg(
        long,
        env = "ETCD_ADVERTISE_CLIENT_URLS",
        value_name = "URLS",
        help_heading = "Addresses"
    )]
    pub advertise_client_urls: Option<String>,
    /// URLs to listen on for other members, comma-separated
    #[arg(
        long,
        env = "ETCD_LISTEN_PEER_URLS",
        value_name = "URLS",
        help_heading = "Addresses"
    )]
    pub listen_peer_urls: Option<String>,
    /// Peer URLs to tell the cluster, comma-separated
    #[arg(
        long,
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        value_name = "URLS",
        help_heading = "Addresses"
    )]
    pub initial_advertise_peer_urls: Option<String>,
    /// etcd 0.4: advertised client address; listens on all interfaces at its port
    #[arg(long, env = "ETCD_ADDR", value_name = "IP:PORT", help_heading = "Addresses")]
    pub addr: Option<String>,
    /// etcd 0.4: narrows where --addr listens
    #[arg(
        long,
        env = "ETCD_BIND_ADDR",
        value_name = "IP[:PORT]",
        help_heading = "Addresses"
    )]
    pub bind_addr: Option<String>,
    /// etcd 0.4: advertised peer address; listens on all interfaces at its port
    #[arg(
        long,
        env = "ETCD_PEER_ADDR",
        value_name = "IP:PORT",
        help_heading = "Addresses"
    )]
    pub peer_addr: Option<String>,
    /// etcd 0.4: narrows where --peer-addr listens
    #[arg(
        long,
        env = "ETCD_PEER_BIND_ADDR",
        value_name = "IP[:PORT]",
        help_heading = "Addresses"
    )]
    pub peer_bind_addr: Option<String>,
    /// Discovery URL: http://HOST:4001/v2/keys/<any new key>, the same for all nodes of one cluster
    #[arg(long, env = "ETCD_DISCOVERY", value_name = "URL", help_heading = "Cluster")]
    pub discovery: Option<String>,
    /// All members of a new cluster, as name=peer-url pairs, comma-separated
    #[arg(
        long,
        env = "ETCD_INITIAL_CLUSTER",
        value_name = "MEMBERS",
        help_heading = "Cluster"
    )]
    pub initial_cluster: Option<String>,
    /// new: found the cluster of --initial-cluster; existing: join it
    #[arg(
        long,
        env = "ETCD_INITIAL_CLUSTER_STATE",
        value_name = "new|existing",
        help_heading = "Cluster"
    )]
    pub initial_cluster_state: Option<String>,
    /// Tells clusters apart that are founded with the same addresses
    #[arg(
        long,
        env = "ETCD_INITIAL_CLUSTER_TOKEN",
        value_name = "TOKEN",
        help_heading = "Cluster"
    )]
    pub initial_cluster_token: Option<String>,
    /// etcd 0.4: peers of an existing cluster to join, host:port, comma-separated
    #[arg(
        long,
        env = "ETCD_PEERS",
        value_name = "HOST:PORT,...",
        help_heading = "Cluster"
    )]
    pub peers: Option<String>,
    /// Milliseconds between two heartbeats of the leader [default: 50]
    #[arg(
        long,
        env = "ETCD_HEARTBEAT_INTERVAL",
        value_name = "MS",
        help_heading = "Tuning"
    )]
    pub heartbeat_interval: Option<String>,
    /// Milliseconds without a leader before an election; drawn up to twice that [default: 400]
    #[arg(
        long,
        env = "ETCD_ELECTION_TIMEOUT",
        value_name = "MS",
        help_heading = "Tuning"
    )]
    pub election_timeout: Option<String>,
    /// Write a checkpoint after so many entries, beside the default by size
    #[arg(long, env = "ETCD_SNAPSHOT_COUNT", value_name = "N", help_heading = "Tuning")]
    pub snapshot_count: Option<String>,
    /// Bytes of live data above which writes are refused; 0 = 2 GiB, or 40 % of the memory when that is less
    #[arg(
        long,
        env = "ETCD_QUOTA_BACKEND_BYTES",
        value_name = "BYTES",
        help_heading = "Tuning"
    )]
    pub quota_backend_bytes: Option<String>,
    /// Accepted for etcd 3.4: the v2 API is always on
    #[arg(long, env = "ETCD_ENABLE_V2", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true, help_heading = "Tuning")]
    pub enable_v2: Option<String>,
    /// Log settings
    #[command(flatten)]
    pub log: LogConfig,
    /// Print the version and end
    #[arg(long, short = 'V')]
    pub version: bool,
}

/// How this node comes to its cluster when its data directory is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Found a cluster of its own.
    Alone,
    /// Ask this URL.
    Discovery(Url),
    /// Found it together with these, by name; all compute the same.
    Static {
        /// Name and peer URLs of each member, this one included.
        members: Vec<(String, Vec<String>)>,
        /// Tells clusters apart.
        token: String,
    },
    /// Join through one of these peer URLs.
    Join(Vec<String>),
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// Where its data rests.
    pub data_dir: PathBuf,
    /// Where clients are listened to.
    pub listen_client: Vec<SocketAddr>,
    /// Where peers are listened to.
    pub listen_peer: Vec<SocketAddr>,
    /// What clients are told, sorted.
    pub client_urls: Vec<String>,
    /// What peers are told, sorted.
    pub peer_urls: Vec<String>,
    /// How to start with an empty data directory.
    pub origin: Origin,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: u32,
    /// Ticks before an election at the earliest.
    pub election_ticks: u32,
    /// Entries after which a checkpoint is due, if given.
    pub snapshot_count: Option<u64>,
    /// Bytes of live data above which writes are refused; none = by the machine's memory.
    pub quota_bytes: Option<u64>,
    /// Lines worth telling at start.
    pub notes: Vec<String>,
}

impl Config {
    /// How long a request may take: five seconds and two election timeouts, as in etcd.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + Duration::from_millis(u64::from(self.election_ticks) * TICK_MS * 2)
    }

    /// Checks the flags.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub fn new(args: &Args) -> Result<Self, String> {
        let name = given(&args.name).unwrap_or("default").to_owned();
        check_name(&name)?;
        let client = addresses(&Side::client(args))?;
        let peer = addresses(&Side::peer(args))?;
        let data_dir =
            given(&args.data_dir).map_or_else(|| PathBuf::from(format!("{name}.etcd")), PathBuf::from);
        let (heartbeat_ticks, election_ticks) = timing(args)?;
        let mut notes = Vec::new();
        if client.is_default && peer.is_default {
            notes.push(
                "listening on loopback only; --addr IP:4001 and --peer-addr IP:7001 (or the --listen-…-urls flags) open it to other machines"
                    .to_owned(),
            );
        }
        let is_open = client
            .listen
            .iter()
            .chain(&peer.listen)
            .any(|address| !address.ip().is_loopback());
        if is_open {
            notes.push("listening beyond loopback without TLS and authentication: anybody who reaches these ports can read and change everything".to_owned());
        }
        let origin = origin(args, &name, &peer.advertise)?;
        Ok(Self {
            name,
            data_dir,
            listen_client: client.listen,
            listen_peer: peer.listen,
            client_urls: client.advertise,
            peer_urls: peer.advertise,
            origin,
            heartbeat_ticks,
            election_ticks,
            snapshot_count: number("--snapshot-count", &args.snapshot_count)?.filter(|count| *count > 0),
            quota_bytes: number("--quota-backend-bytes", &args.quota_backend_bytes)?
                .filter(|bytes| *bytes > 0),
            notes,
        })
    }
}

/// An empty variable counts as not set, as in etcd.
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = name.len() <= NAME_CHARACTERS_MAX
        && name
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "._-".contains(character));
    if fits {
        Ok(())
    } else {
        Err(format!(
            "--name {name:?} does not fit: use up to {NAME_CHARACTERS_MAX} of A-Z a-z 0-9 . _ -"
        ))
    }
}

fn number(flag: &str, value: &Option<String>) -> Result<Option<u64>, String> {
    given(value)
        .map(|text| {
            text.parse()
                .map_err(|_| format!("{flag} {text:?} is not a whole number"))
        })
        .transpose()
}

fn timing(args: &Args) -> Result<(u32, u32), String> {
    let heartbeat = number("--heartbeat-interval", &args.heartbeat_interval)?.unwrap_or(50);
    let election =
        number("--election-timeout", &args.election_timeout)?.unwrap_or_else(|| (heartbeat * 8).max(400));
    if heartbeat < TICK_MS {
        return Err(format!(
            "--heartbeat-interval {heartbeat} is below {TICK_MS} milliseconds"
        ));
    }
    if election < heartbeat * 5 {
        return Err(format!(
            "--election-timeout {election} should be at least 5 times --heartbeat-interval {heartbeat}"
        ));
    }
    if election > ELECTION_MS_MAX {
        return Err(format!(
            "--election-timeout {election} is above {ELECTION_MS_MAX} milliseconds"
        ));
    }
    let ticks = |ms: u64| u32::try_from(ms.div_ceil(TICK_MS)).map_err(|_| "timeouts are too long".to_owned());
    Ok((ticks(heartbeat)?, ticks(election)?))
}

/// One side of the node, clients or peers, with the flags that describe it.
struct Side<'a> {
    listen: (&'static str, Option<&'a str>),
    advertise: (&'static str, Option<&'a str>),
    addr: (&'static str, Option<&'a str>),
    bind: (&'static str, Option<&'a str>),
    ports: [u16; 2],
    /// etcd refuses to listen on URLs without being told what to advertise, for clients only.
    must_advertise: bool,
}

impl<'a> Side<'a> {
    fn client(args: &'a Args) -> Self {
        Self {
            listen: ("--listen-client-urls", given(&args.listen_client_urls)),
            advertise: ("--advertise-client-urls", given(&args.advertise_client_urls)),
            addr: ("--addr", given(&args.addr)),
            bind: ("--bind-addr", given(&args.bind_addr)),
            ports: CLIENT_PORTS,
            must_advertise: true,
        }
    }

    fn peer(args: &'a Args) -> Self {
        Self {
            listen: ("--listen-peer-urls", given(&args.listen_peer_urls)),
            advertise: (
                "--initial-advertise-peer-urls",
                given(&args.initial_advertise_peer_urls),
            ),
            addr: ("--peer-addr", given(&args.peer_addr)),
            bind: ("--peer-bind-addr", given(&args.peer_bind_addr)),
            ports: PEER_PORTS,
            must_advertise: false,
        }
    }
}

struct Addresses {
    listen: Vec<SocketAddr>,
    advertise: Vec<String>,
    is_default: bool,
}

fn addresses(side: &Side<'_>) -> Result<Addresses, String> {
    let old = [side.addr, side.bind]
        .into_iter()
        .find(|(_, value)| value.is_some());
    let new = [side.listen, side.advertise]
        .into_iter()
        .find(|(_, value)| value.is_some());
    if let (Some((old, _)), Some((new, _))) = (old, new) {
        return Err(format!("set only one of {old} and {new}"));
    }
    if old.is_some() {
        return old_addresses(side);
    }
    if side.must_advertise && side.listen.1.is_some() && side.advertise.1.is_none() {
        return Err(format!(
            "{} is set without {}: say at which URLs clients reach this node",
            side.listen.0, side.advertise.0
        ));
    }
    let loopback = || {
        side.ports
            .iter()
            .flat_map(|port| {
                [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                    .map(|ip| SocketAddr::new(ip, *port))
            })
            .collect()
    };
    let listen = match side.listen.1 {
        Some(urls) => listen_urls(side.listen.0, urls)?,
        None => loopback(),
    };
    let advertise = match (side.advertise.1, side.listen.1) {
        (Some(urls), _) => advertise_urls(side.advertise.0, urls)?,
        (None, Some(urls)) => advertise_urls(side.listen.0, urls)?,
        (None, None) => side
            .ports
            .iter()
            .map(|port| format!("http://localhost:{port}"))
            .collect(),
    };
    Ok(Addresses {
        listen,
        advertise: sorted(advertise),
        is_default: new.is_none(),
    })
}

/// The flags of etcd 0.4.
fn old_addresses(side: &Side<'_>) -> Result<Addresses, String> {
    let default = format!("127.0.0.1:{}", side.ports[0]);
    let text = side.addr.1.unwrap_or(&default);
    let flag = side.addr.0;
    let address: SocketAddr = text.parse().map_err(|_| {
        format!(
            "{flag} {text:?} is not IP:PORT; for host names use {} and {}",
            side.listen.0, side.advertise.0
        )
    })?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(format!(
            "{flag} {text:?} cannot be reached by others: name this machine's own address and a port"
        ));
    }
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port());
    let listen = match side.bind.1 {
        None => any,
        Some(bind) => bind_address(bind, address.port())
            .ok_or_else(|| format!("{} {bind:?} is not IP or IP:PORT", side.bind.0))?,
    };
    Ok(Addresses {
        listen: vec![listen],
        advertise: vec![format!("http://{address}")],
        is_default: false,
    })
}

fn bind_address(text: &str, port: u16) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let ip: IpAddr = text.trim_matches(['[', ']']).parse().ok()?;
        Some(SocketAddr::new(ip, port))
    })
}

fn listen_urls(flag: &str, urls: &str) -> Result<Vec<SocketAddr>, String> {
    let mut out = Vec::new();
    for text in split(urls) {
        let url = Url::parse(text).map_err(|error| format!("{flag}: {error}"))?;
        out.extend(
            url.listen_addresses()
                .map_err(|error| format!("{flag}: {error}"))?,
        );
    }
    if out.is_empty() {
        Err(format!("{flag} names no URL"))
    } else {
        Ok(out)
    }
}

fn advertise_urls(flag: &str, urls: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for text in split(urls) {
        let url = Url::parse(text).map_err(|error| format!("{flag}: {error}"))?;
        url.check_reachable()
            .map_err(|error| format!("{flag}: {error}"))?;
        out.push(url.origin());
    }
    if out.is_empty() {
        Err(format!("{flag} names no URL"))
    } else {
        Ok(out)
    }
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|text| !text.is_empty())
}

fn sorted(mut urls: Vec<String>) -> Vec<String> {
    urls.sort();
    urls.dedup();
    urls
}

fn origin(args: &Args, name: &str, peer_urls: &[String]) -> Result<Origin, String> {
    let (discovery, cluster, peers) = (
        given(&args.discovery),
        given(&args.initial_cluster),
        given(&args.peers),
    );
    if discovery.is_some() && cluster.is_some() {
        return Err("set only one of --discovery and --initial-cluster".to_owned());
    }
    let is_existing = match given(&args.initial_cluster_state) {
        None | Some("new") => false,
        Some("existing") => true,
        Some(other) => {
            return Err(format!(
                "--initial-cluster-state {other:?} is neither new nor existing"
            ));
        }
    };
    if let Some(url) = discovery {
        if is_existing {
            return Err(
                "--discovery founds or joins by itself: leave out --initial-cluster-state existing"
                    .to_owned(),
            );
        }
        let url = Url::parse(url).map_err(|error| format!("--discovery: {error}"))?;
        if url.path.trim_matches('/').is_empty() {
            return Err("--discovery names no key: use http://HOST:4001/v2/keys/<any new key>".to_owned());
        }
        return Ok(Origin::Discovery(url));
    }
    if let Some(list) = cluster {
        let members = initial_cluster(list)?;
        if is_existing {
            let others = members
                .into_iter()
                .filter(|(other, _)| other != name)
                .flat_map(|(_, urls)| urls)
                .collect();
            return Ok(Origin::Join(others));
        }
        check_own_entry(&members, name, peer_urls)?;
        let token = given(&args.initial_cluster_token)
            .unwrap_or("etcd-cluster")
            .to_owned();
        return Ok(Origin::Static { members, token });
    }
    if is_existing {
        return Err(
            "--initial-cluster-state existing needs --initial-cluster with the members to join".to_owned(),
        );
    }
    let Some(peers) = peers else {
        return Ok(Origin::Alone);
    };
    let mut urls = Vec::new();
    for peer in split(peers) {
        let text = if peer.contains("://") {
            peer.to_owned()
        } else {
            format!("http://{peer}")
        };
        urls.push(
            Url::parse(&text)
                .map_err(|error| format!("--peers: {error}"))?
                .origin(),
        );
    }
    Ok(Origin::Join(urls))
}

/// Reads `a=http://h1:2380,b=http://h2:2380,a=http://h1:7001` into members with their URLs, in order of mention.
fn initial_cluster(list: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    let mut seen = Vec::new();
    for pair in split(list) {
        let (name, url) = pair
            .split_once('=')
            .ok_or_else(|| format!("--initial-cluster: {pair:?} is not name=url"))?;
        check_name(name)?;
        let url = Url::parse(url).map_err(|error| format!("--initial-cluster: {error}"))?;
        url.check_reachable()
            .map_err(|error| format!("--initial-cluster: {error}"))?;
        let url = url.origin();
        if seen.contains(&url) {
            return Err(format!("--initial-cluster names {url} twice"));
        }
        seen.push(url.clone());
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name.to_owned(), vec![url])),
        }
    }
    for (_, urls) in &mut members {
        urls.sort();
    }
    Ok(members)
}

fn check_own_entry(
    members: &[(String, Vec<String>)],
    name: &str,
    peer_urls: &[String],
) -> Result<(), String> {
    let Some((_, urls)) = members.iter().find(|(other, _)| other == name) else {
        return Err(format!(
            "--initial-cluster has no entry for this node's --name {name:?}"
        ));
    };
    if urls != peer_urls {
        return Err(format!(
            "--initial-cluster gives {name} the peer URLs {}, --initial-advertise-peer-urls (or --peer-addr) says {}: make them equal",
            urls.join(","),
            peer_urls.join(",")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        use clap::CommandFactory;
        let words = std::iter::once("etcd")
            .chain(line.split_whitespace())
            .map(Into::into);
        let args = daemon::flags::go_style(&Args::command(), words);
        Config::new(&Args::try_parse_from(args).map_err(|error| error.to_string())?)
    }

    #[test]
    fn without_address_flags_a_node_stays_on_loopback() {
        let config = parse("").unwrap();
        assert_eq!(
            (config.name.as_str(), config.data_dir.to_str()),
            ("default", Some("default.etcd"))
        );
        assert!(
            config
                .listen_client
                .iter()
                .all(|address| address.ip().is_loopback())
        );
        let mut ports: Vec<u16> = config
            .listen_client
            .iter()
            .chain(&config.listen_peer)
            .map(SocketAddr::port)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports, [2379, 2380, 4001, 7001]);
        assert!(config.notes[0].contains("--addr"));
        assert_eq!(config.origin, Origin::Alone);
    }

    #[test]
    fn the_flags_of_0_4_advertise_exactly_and_listen_everywhere() {
        let config = parse("-name=n1 -addr 172.17.8.101:4001 -peer-addr=172.17.8.101:7001").unwrap();
        assert_eq!(config.client_urls, ["http://172.17.8.101:4001"]);
        assert_eq!(config.listen_client, ["[::]:4001".parse().unwrap()]);
        assert_eq!(config.listen_peer, ["[::]:7001".parse().unwrap()]);
        let narrowed = parse("-addr 10.0.0.1:4001 -bind-addr 127.0.0.1").unwrap();
        assert_eq!(narrowed.listen_client, ["127.0.0.1:4001".parse().unwrap()]);
        let ipv6 = parse("-addr [fd00::1]:4001").unwrap();
        assert_eq!(ipv6.client_urls, ["http://[fd00::1]:4001"]);
    }

    #[test]
    fn url_flags_mean_what_they_say() {
        let config = parse(
            "--listen-client-urls http://127.0.0.1:5001 --advertise-client-urls http://etcd.example:5001 \
             --listen-peer-urls http://[::1]:5002",
        )
        .unwrap();
        assert_eq!(config.listen_client, ["127.0.0.1:5001".parse().unwrap()]);
        assert_eq!(config.client_urls, ["http://etcd.example:5001"]);
        assert_eq!(config.peer_urls, ["http://[::1]:5002"]);
    }

    #[test]
    fn a_static_cluster_must_name_this_node_as_it_names_itself() {
        let line = "--name a --initial-advertise-peer-urls http://h1:1 --listen-peer-urls http://127.0.0.1:1 \
                    --initial-cluster b=http://h2:1,a=http://h1:1";
        let Origin::Static { members, token } = parse(line).unwrap().origin else {
            panic!("static")
        };
        assert_eq!((members.len(), token.as_str()), (2, "etcd-cluster"));
        let Origin::Join(urls) = parse(&format!("{line} --initial-cluster-state existing"))
            .unwrap()
            .origin
        else {
            panic!("join")
        };
        assert_eq!(urls, ["http://h2:1"]);
    }

    #[test]
    fn each_mistake_is_one_line_that_says_what_to_do() {
        let cases = [
            (
                "--listen-client-urls http://127.0.0.1:1",
                "--advertise-client-urls",
            ),
            ("-addr host:4001", "is not IP:PORT"),
            ("-addr 0.0.0.0:4001", "cannot be reached"),
            (
                "-addr 1.2.3.4:1 --advertise-client-urls http://a:1",
                "set only one of",
            ),
            ("--initial-advertise-peer-urls http://:7001", "http://:7001"),
            ("--initial-advertise-peer-urls ftp://a:7001", "ftp"),
            ("--initial-advertise-peer-urls http://a", "port"),
            (
                "--election-timeout 100 --heartbeat-interval 50",
                "at least 5 times",
            ),
            ("--election-timeout 60000", "50000"),
            ("--snapshot-count many", "not a whole number"),
            ("--name a --initial-cluster b=http://h:1", "no entry for"),
            ("--name a --initial-cluster a=http://h:1,a=http://h:1", "twice"),
            ("--name a/b", "does not fit"),
            ("--discovery http://h:1/", "names no key"),
            ("--discovery nonsense", "--discovery"),
            (
                "--discovery http://h:1/v2/keys/x --initial-cluster a=http://h:1",
                "set only one of",
            ),
            ("--initial-cluster-state maybe", "neither new nor existing"),
        ];
        for (line, part) in cases {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{line}: {error}");
        }
    }
}
