//! The command line: etcdctl 2's verbs and flags, with what 0.4 and 3.4 spell differently.

use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use client::endpoint::{Endpoint, EndpointError};
use daemon::go_duration;

use crate::cluster_health::ClusterHealth;
use crate::exec_watch::ExecWatch;
use crate::exit::Failure;
use crate::get::Get;
use crate::ls::Ls;
use crate::member::MemberVerb;
use crate::mk::Mk;
use crate::mkdir::Mkdir;
use crate::output::Format;
use crate::rm::{Rm, Rmdir};
use crate::set::Set;
use crate::update::Update;
use crate::watch::Watch;

/// Where etcd listens when nobody says otherwise: its port, and that of etcd 0.4.
const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";

/// A simple command line client for etcd.
#[derive(Debug, Parser)]
#[command(name = "etcdctl", disable_version_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Check the health of the etcd cluster
    ClusterHealth(ClusterHealth),
    /// Make a new key with a given value
    Mk(Mk),
    /// Make a new directory
    Mkdir(Mkdir),
    /// Remove a key or a directory
    Rm(Rm),
    /// Remove the key if it is an empty directory or a key-value pair
    Rmdir(Rmdir),
    /// Retrieve the value of a key
    Get(Get),
    /// Retrieve a directory
    Ls(Ls),
    /// Set the value of a key
    Set(Set),
    /// Create a new directory or replace a key by one
    Setdir(Mkdir),
    /// Update an existing key with a given value
    Update(Update),
    /// Update the TTL of an existing directory
    Updatedir(Mkdir),
    /// Watch a key for changes
    Watch(Watch),
    /// Watch a key for changes and run a program at each
    ExecWatch(ExecWatch),
    /// Enumerate the cluster's members
    Member {
        #[command(subcommand)]
        verb: MemberVerb,
    },
}

/// Flags that every verb takes, before or after it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Show the requests as cURL commands, on stderr
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Do not ask the cluster for its endpoints before sending the request
    #[arg(long, global = true)]
    pub(crate) no_sync: bool,
    /// Print the response as `simple`, `extended` or `json`
    #[arg(long, short, global = true, default_value = "simple", value_name = "FORMAT")]
    output: String,
    /// Where the cluster listens, comma-separated [default: http://127.0.0.1:2379,http://127.0.0.1:4001]
    #[arg(long, global = true, env = "ETCDCTL_ENDPOINTS", value_name = "URLS")]
    endpoints: Vec<String>,
    /// The same, in an older spelling
    #[arg(long, global = true, env = "ETCDCTL_ENDPOINT", value_name = "URLS")]
    endpoint: Vec<String>,
    /// The same, in the oldest spelling
    #[arg(long, short = 'C', global = true, env = "ETCDCTL_PEERS", value_name = "URLS")]
    peers: Vec<String>,
    /// How long connecting to one endpoint may take
    #[arg(long, global = true, default_value = "1s", value_parser = go_duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// How long the command may take (except watch)
    #[arg(long, global = true, default_value = "5s", value_parser = go_duration::parse, value_name = "DURATION")]
    pub(crate) total_timeout: Duration,
    /// Print the version
    #[arg(long, short = 'v', action = ArgAction::SetTrue)]
    pub(crate) version: bool,
    #[command(flatten)]
    refused: Refused,
}

/// What etcdctl 2 has and we do not yet. They are known, so that using one gets a straight answer.
#[derive(Debug, Args)]
struct Refused {
    #[arg(long, short = 'D', global = true, hide = true, env = "ETCDCTL_DISCOVERY_SRV")]
    discovery_srv: Option<String>,
    #[arg(long, global = true, hide = true, env = "ETCDCTL_CERT_FILE")]
    cert_file: Option<String>,
    #[arg(long, global = true, hide = true, env = "ETCDCTL_KEY_FILE")]
    key_file: Option<String>,
    #[arg(long, global = true, hide = true, env = "ETCDCTL_CA_FILE")]
    ca_file: Option<String>,
    #[arg(long, short, global = true, hide = true)]
    username: Option<String>,
}

impl Global {
    /// Refuses what cannot be honoured, before anything is sent.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.refused.check()?;
        self.format()?;
        self.endpoints().map_err(|error| Failure::usage(&error))?;
        Ok(())
    }

    pub(crate) fn format(&self) -> Result<Format, Failure> {
        Format::parse(&self.output)
            .ok_or_else(|| Failure::usage(&format!("Unsupported output format: {}", self.output)))
    }

    /// The newest spelling wins, flag or environment; an empty one counts for nothing.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, EndpointError> {
        let given = [&self.endpoints, &self.endpoint, &self.peers]
            .into_iter()
            .map(|urls| urls.join(","))
            .find(|urls| !urls.trim().is_empty());
        Endpoint::parse_list(given.as_deref().unwrap_or(DEFAULT_ENDPOINTS))
    }
}

impl Refused {
    fn check(&self) -> Result<(), Failure> {
        let given = |value: &Option<String>| value.as_ref().is_some_and(|text| !text.is_empty());
        let flags = [
            (given(&self.discovery_srv), "--discovery-srv", "discovery by DNS"),
            (given(&self.cert_file), "--cert-file", "TLS"),
            (given(&self.key_file), "--key-file", "TLS"),
            (given(&self.ca_file), "--ca-file", "TLS"),
            (given(&self.username), "--username", "authentication"),
        ];
        match flags.iter().find(|(is_given, ..)| *is_given) {
            Some((_, flag, what)) => Err(Failure::usage(&format!(
                "{what} is not available in this version: leave out {flag} (and its environment variable)"
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Arguments {
        Arguments::try_parse_from([&["etcdctl"], words].concat()).unwrap()
    }

    #[test]
    fn the_description_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_newest_spelling_of_the_endpoints_wins() {
        let shown = |words: &[&str]| {
            let endpoints = parse(words).global.endpoints().unwrap();
            endpoints
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(shown(&["ls"]), "http://127.0.0.1:2379 http://127.0.0.1:4001");
        assert_eq!(
            shown(&["-C", "a:1", "-C", "b:2,c:3", "ls"]),
            "http://a:1 http://b:2 http://c:3"
        );
        assert_eq!(
            shown(&["--peers", "a:1", "--endpoint", "b:1", "ls"]),
            "http://b:1"
        );
        assert_eq!(
            shown(&["ls", "--endpoints", "c:1", "--endpoint", "b:1"]),
            "http://c:1"
        );
        assert_eq!(shown(&["--endpoints", "", "--peers", "a:1", "ls"]), "http://a:1");
    }

    #[test]
    fn what_we_do_not_have_yet_is_refused_by_name() {
        for (words, word) in [
            (["--cert-file", "x", "ls"], "TLS"),
            (["-u", "root", "ls"], "authentication"),
            (["-D", "example.com", "ls"], "DNS"),
            (["--endpoints", "https://h:2379", "ls"], "TLS"),
            (["-o", "bogus", "ls"], "Unsupported output format: bogus"),
        ] {
            let failure = parse(&words).global.check().unwrap_err();
            assert!(failure.message.contains(word), "{words:?}: {}", failure.message);
        }
    }
}
