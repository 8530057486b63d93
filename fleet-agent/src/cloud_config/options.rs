//! The vocabulary: which keys stand where, and which option becomes which variable.
//!
//! The tables follow the structs of coreos-cloudinit 1.x, whose order is also the order of the
//! lines in a drop-in. Keys are in their `_` form.

/// What an option's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any scalar, as written.
    Text,
    /// A YAML 1.1 boolean.
    Flag,
    /// A whole number.
    Integer,
    /// A number, perhaps with a fraction.
    Number,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A URL with http or https.
    Url,
}

/// One option of a service.
#[derive(Clone, Copy, Debug)]
pub struct OptionRule {
    /// The key in the file.
    pub key: &'static str,
    /// The variable, without the service's prefix; None means the key in upper case.
    pub variable: Option<&'static str>,
    /// What it takes.
    pub kind: Kind,
    /// Whether the key is of etcd 2 and only tolerated under `coreos.etcd`.
    pub is_newer: bool,
}

const fn rule(key: &'static str, kind: Kind) -> OptionRule {
    OptionRule {
        key,
        variable: None,
        kind,
        is_newer: false,
    }
}

const fn named(key: &'static str, variable: &'static str, kind: Kind) -> OptionRule {
    OptionRule {
        variable: Some(variable),
        ..rule(key, kind)
    }
}

const fn newer(key: &'static str, kind: Kind) -> OptionRule {
    OptionRule {
        is_newer: true,
        ..rule(key, kind)
    }
}

use Kind::{Flag, Integer, Number, OneOf, Text, Url};

/// `coreos.etcd`: etcd 0.4.
const ETCD: &[OptionRule] = &[
    rule("addr", Text),
    newer("advertise_client_urls", Text),
    rule("bind_addr", Text),
    rule("ca_file", Text),
    rule("cert_file", Text),
    rule("cluster_active_size", Integer),
    rule("cluster_remove_delay", Number),
    rule("cluster_sync_interval", Number),
    rule("cors", Text),
    rule("data_dir", Text),
    rule("discovery", Url),
    newer("discovery_fallback", Text),
    newer("discovery_proxy", Text),
    newer("discovery_srv", Text),
    newer("election_timeout", Integer),
    newer("force_new_cluster", Flag),
    rule("graphite_host", Text),
    newer("heartbeat_interval", Integer),
    rule("http_read_timeout", Number),
    rule("http_write_timeout", Number),
    newer("initial_advertise_peer_urls", Text),
    newer("initial_cluster", Text),
    newer("initial_cluster_state", Text),
    newer("initial_cluster_token", Text),
    rule("key_file", Text),
    newer("listen_client_urls", Text),
    newer("listen_peer_urls", Text),
    rule("max_result_buffer", Integer),
    rule("max_retry_attempts", Integer),
    newer("max_snapshots", Integer),
    newer("max_wals", Integer),
    rule("name", Text),
    rule("peer_addr", Text),
    rule("peer_bind_addr", Text),
    rule("peer_ca_file", Text),
    rule("peer_cert_file", Text),
    rule("peer_key_file", Text),
    rule("peer_election_timeout", Integer),
    rule("peer_heartbeat_interval", Integer),
    rule("peers", Text),
    rule("peers_file", Text),
    newer("proxy", OneOf(PROXY)),
    rule("retry_interval", Number),
    rule("snapshot", Flag),
    named("snapshot_count", "SNAPSHOTCOUNT", Integer),
    rule("trace", Text),
    rule("verbose", Flag),
    rule("very_verbose", Flag),
    rule("very_very_verbose", Flag),
];

const PROXY: &[&str] = &["on", "off", "readonly"];

/// `coreos.etcd2`: etcd 2.x.
const ETCD2: &[OptionRule] = &[
    rule("advertise_client_urls", Text),
    rule("ca_file", Text),
    rule("cert_file", Text),
    rule("key_file", Text),
    rule("client_cert_auth", Flag),
    rule("trusted_ca_file", Text),
    rule("cors", Text),
    rule("data_dir", Text),
    rule("debug", Flag),
    rule("discovery", Url),
    rule("discovery_fallback", Text),
    rule("discovery_srv", Text),
    rule("discovery_proxy", Text),
    rule("election_timeout", Integer),
    rule("heartbeat_interval", Integer),
    rule("enable_pprof", Flag),
    rule("force_new_cluster", Flag),
    rule("initial_advertise_peer_urls", Text),
    rule("initial_cluster", Text),
    rule("initial_cluster_state", Text),
    rule("initial_cluster_token", Text),
    rule("listen_client_urls", Text),
    rule("listen_peer_urls", Text),
    rule("log_package_levels", Text),
    rule("max_snapshots", Integer),
    rule("max_wals", Integer),
    rule("name", Text),
    rule("peer_ca_file", Text),
    rule("peer_cert_file", Text),
    rule("peer_key_file", Text),
    rule("peer_trusted_ca_file", Text),
    rule("peer_client_cert_auth", Flag),
    rule("proxy", OneOf(PROXY)),
    rule("proxy_dial_timeout", Integer),
    rule("proxy_failure_wait", Integer),
    rule("proxy_read_timeout", Integer),
    rule("proxy_refresh_interval", Integer),
    rule("proxy_write_timeout", Integer),
    rule("snapshot_count", Integer),
    rule("strict_reconfig_check", Flag),
    rule("wal_dir", Text),
];

/// `coreos.fleet`: fleet 0.8 to 1.0.
const FLEET: &[OptionRule] = &[
    rule("agent_ttl", Text),
    rule("authorized_keys_file", Text),
    rule("disable_engine", Flag),
    rule("engine_reconcile_interval", Number),
    rule("etcd_cafile", Text),
    rule("etcd_certfile", Text),
    rule("etcd_keyfile", Text),
    rule("etcd_key_prefix", Text),
    rule("etcd_request_timeout", Number),
    rule("etcd_servers", Text),
    rule("etcd_username", Text),
    rule("etcd_password", Text),
    rule("metadata", Text),
    rule("public_ip", Text),
    rule("token_limit", Integer),
    rule("verbosity", Integer),
    rule("verify_units", Flag),
];

const FLANNEL: &[OptionRule] = &[
    rule("etcd_endpoints", Text),
    rule("etcd_cafile", Text),
    rule("etcd_certfile", Text),
    rule("etcd_keyfile", Text),
    rule("etcd_prefix", Text),
    rule("etcd_username", Text),
    rule("etcd_password", Text),
    rule("ip_masq", Flag),
    rule("subnet_file", Text),
    rule("interface", Text),
    rule("public_ip", Text),
];

const LOCKSMITH: &[OptionRule] = &[
    rule("endpoint", Text),
    rule("etcd_cafile", Text),
    rule("etcd_certfile", Text),
    rule("etcd_keyfile", Text),
    rule("etcd_username", Text),
    rule("etcd_password", Text),
    rule("group", Text),
    rule("window_start", Text),
    rule("window_length", Text),
];

const UPDATE: &[OptionRule] = &[
    rule(
        "reboot_strategy",
        OneOf(&["etcd-lock", "reboot", "off", "best-effort"]),
    ),
    rule("group", Text),
    rule("server", Text),
];

const OEM: &[OptionRule] = &[
    rule("id", Text),
    rule("name", Text),
    rule("version_id", Text),
    rule("home_url", Text),
    rule("bug_report_url", Text),
];

/// A section below `coreos` that is a flat set of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// etcd 0.4's names.
    Etcd,
    /// etcd 2.x's names; our one etcd reads both.
    Etcd2,
    /// The fleet agent.
    Fleet,
    /// The overlay network; not ours.
    Flannel,
    /// The reboot manager; not ours.
    Locksmith,
    /// CoreOS's updater; not ours.
    Update,
    /// The image's origin; not ours.
    Oem,
}

impl Section {
    /// All of them, in the order of the original's struct.
    pub const ALL: [Self; 7] = [
        Self::Etcd,
        Self::Etcd2,
        Self::Flannel,
        Self::Fleet,
        Self::Locksmith,
        Self::Oem,
        Self::Update,
    ];

    /// Its key below `coreos`.
    pub fn key(self) -> &'static str {
        let path = self.path();
        path.strip_prefix("coreos.").unwrap_or(path)
    }

    /// Its place in the file.
    pub fn path(self) -> &'static str {
        match self {
            Self::Etcd => "coreos.etcd",
            Self::Etcd2 => "coreos.etcd2",
            Self::Fleet => "coreos.fleet",
            Self::Flannel => "coreos.flannel",
            Self::Locksmith => "coreos.locksmith",
            Self::Update => "coreos.update",
            Self::Oem => "coreos.oem",
        }
    }

    /// Its options in the order of the drop-in's lines.
    pub fn rules(self) -> &'static [OptionRule] {
        match self {
            Self::Etcd => ETCD,
            Self::Etcd2 => ETCD2,
            Self::Fleet => FLEET,
            Self::Flannel => FLANNEL,
            Self::Locksmith => LOCKSMITH,
            Self::Update => UPDATE,
            Self::Oem => OEM,
        }
    }

    /// The service that it configures and the prefix of its variables; None when this version
    /// does not apply the section.
    pub fn service(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Etcd | Self::Etcd2 => Some(("etcd.service", "ETCD_")),
            Self::Fleet => Some(("fleet.service", "FLEET_")),
            Self::Flannel | Self::Locksmith | Self::Update | Self::Oem => None,
        }
    }
}

/// How messages name the outermost mapping.
pub const TOP_PATH: &str = "the top of the file";

/// Keys at the top of the file.
pub const TOP_KEYS: &[&str] = &[
    "coreos",
    "hostname",
    "manage_etc_hosts",
    "ssh_authorized_keys",
    "users",
    "write_files",
];

/// Keys below `coreos`.
pub const COREOS_KEYS: &[&str] = &[
    "etcd",
    "etcd2",
    "flannel",
    "fleet",
    "locksmith",
    "oem",
    "units",
    "update",
];

/// Keys of an entry of `coreos.units`.
pub const UNIT_KEYS: &[&str] = &[
    "command", "content", "drop_ins", "enable", "mask", "name", "runtime",
];

/// Keys of an entry of a unit's `drop_ins`.
pub const DROP_IN_KEYS: &[&str] = &["content", "name"];

/// Keys of an entry of `write_files`.
pub const FILE_KEYS: &[&str] = &["content", "encoding", "owner", "path", "permissions"];

/// Keys of an entry of `users`.
pub const USER_KEYS: &[&str] = &[
    "coreos_ssh_import_github",
    "coreos_ssh_import_github_users",
    "coreos_ssh_import_url",
    "gecos",
    "groups",
    "homedir",
    "name",
    "no_create_home",
    "no_log_init",
    "no_user_group",
    "passwd",
    "primary_group",
    "shell",
    "ssh_authorized_keys",
    "system",
];

/// Keys that cloud-init reads in the same file and that never meant anything to coreos-cloudinit.
pub const CLOUD_INIT_KEYS: &[&str] = &[
    "apt",
    "bootcmd",
    "ca_certs",
    "chpasswd",
    "disable_root",
    "disk_setup",
    "final_message",
    "fqdn",
    "fs_setup",
    "groups",
    "growpart",
    "locale",
    "mounts",
    "ntp",
    "package_reboot_if_required",
    "package_update",
    "package_upgrade",
    "packages",
    "phone_home",
    "power_state",
    "preserve_hostname",
    "resize_rootfs",
    "runcmd",
    "ssh_deletekeys",
    "ssh_genkeytypes",
    "ssh_import_id",
    "ssh_keys",
    "ssh_pwauth",
    "swap",
    "timezone",
    "yum_repos",
];

/// Keys that people took for others, from old documentation or other versions.
const CONFUSED: &[(&str, &str)] = &[
    ("etcd_hosts", "etcd_servers"),
    ("etcd_endpoints", "etcd_servers"),
    ("discovery_url", "discovery"),
    ("dropins", "drop_ins"),
    ("contents", "content"),
    ("enabled", "enable"),
    ("mode", "permissions"),
    ("public_ipv4", "public_ip"),
];

/// The key of `known` that was probably meant.
pub fn guess<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let confused = CONFUSED
        .iter()
        .find(|(wrong, right)| *wrong == unknown && known.contains(right));
    if let Some((_, right)) = confused {
        return known.iter().find(|key| *key == right).copied();
    }
    let edits_max = (unknown.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|key| (edits(unknown, key), *key))
        .filter(|(count, _)| *count <= edits_max)
        .min()
        .map(|(_, key)| key)
}

/// Levenshtein distance, with a swap of neighbours as one edit.
fn edits(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            let is_swap = i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if is_swap {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

/// Where a key would mean something, as a path like `coreos.fleet`; None when nowhere.
pub fn home_of(key: &str, here: &str) -> Option<String> {
    let mut homes: Vec<(String, &str)> = Vec::new();
    homes.extend(COREOS_KEYS.iter().map(|key| ("coreos".to_owned(), *key)));
    homes.extend(TOP_KEYS.iter().map(|key| (TOP_PATH.to_owned(), *key)));
    for section in [Section::Etcd, Section::Etcd2, Section::Fleet] {
        let path = section.path().to_owned();
        homes.extend(section.rules().iter().map(|rule| (path.clone(), rule.key)));
    }
    homes
        .into_iter()
        .find(|(path, known)| *known == key && path != here)
        .map(|(path, _)| path)
}
