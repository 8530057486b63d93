//! `fleetctl`: one cluster's machines, from any of them. One verb per file; this one reads the command line.

mod list_machines;
mod source;
mod table;

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};

use self::list_machines::ListMachines;
use self::source::Source;
use crate::config::DEFAULT_KEY_PREFIX;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Something was asked for and could not be done.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What to say on stderr, without a newline at its end.
    pub message: String,
}

impl Failure {
    fn failed(message: String) -> Self {
        Self {
            code: FAILED,
            message,
        }
    }

    fn usage(message: String) -> Self {
        Self { code: USAGE, message }
    }
}

/// Looks after the units and machines of a fleet cluster.
#[derive(Debug, Parser)]
#[command(name = "fleetctl", version = VERSION, infer_subcommands = true, disable_version_flag = true)]
struct CommandLine {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the machines that are present in the cluster
    ListMachines(ListMachines),
    /// Print the version and exit
    Version,
}

/// The flags of every verb. Each can stand in the environment as `FLEETCTL_<NAME>`; there an empty one is none.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
struct Flags {
    /// Whom to ask: API, a fleetd; or etcd, the registry itself [env: FLEETCTL_DRIVER] [default: API]
    #[arg(long, global = true, value_name = "DRIVER")]
    driver: Option<String>,
    /// Where it listens: a fleetd's socket or URL, or with --driver etcd the URLs of etcd servers
    /// [env: FLEETCTL_ENDPOINT] [default: unix:///var/run/fleet.sock]
    #[arg(long, global = true, value_name = "URL")]
    endpoint: Option<String>,
    /// Where fleet's keys stand in etcd [env: FLEETCTL_ETCD_KEY_PREFIX] [default: /_coreos.com/fleet/]
    #[arg(long, global = true, value_name = "PREFIX")]
    etcd_key_prefix: Option<String>,
    /// Seconds that one request may take [env: FLEETCTL_REQUEST_TIMEOUT] [default: 3]
    #[arg(long, global = true, value_name = "SECONDS")]
    request_timeout: Option<String>,
    /// Say more on stderr [env: FLEETCTL_DEBUG]
    #[arg(long, global = true)]
    debug: bool,
    /// Print the version and exit
    #[arg(long, short = 'v', help_heading = "Options")]
    version: bool,
    /// Reach the cluster through SSH; not available in this version
    #[arg(long, global = true, hide = true, value_name = "HOST")]
    tunnel: Option<String>,
    // What follows is fleet's and without effect here: it only concerns SSH, or TLS that no endpoint asks for.
    #[arg(long, global = true, hide = true)]
    ssh_username: Option<String>,
    #[arg(long, global = true, hide = true)]
    ssh_timeout: Option<String>,
    #[arg(long, global = true, hide = true)]
    known_hosts_file: Option<String>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    strict_host_key_checking: Option<Option<String>>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    experimental_api: Option<Option<String>>,
    #[arg(long, global = true, hide = true, alias = "etcd-cafile")]
    ca_file: Option<String>,
    #[arg(long, global = true, hide = true, alias = "etcd-certfile")]
    cert_file: Option<String>,
    #[arg(long, global = true, hide = true, alias = "etcd-keyfile")]
    key_file: Option<String>,
}

/// What the flags, the environment and the defaults come to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Globals {
    driver: String,
    endpoint: String,
    key_prefix: String,
    timeout: Duration,
    debug: bool,
}

impl Flags {
    fn resolve(self, environment: impl Fn(&str) -> Option<String>) -> Result<Globals, Failure> {
        let from_environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let pick = |flag: Option<String>, name: &str, default: &str| {
            flag.or_else(|| from_environment(name))
                .unwrap_or_else(|| default.to_owned())
        };
        if !pick(self.tunnel, "FLEETCTL_TUNNEL", "").is_empty() {
            let instead = "run fleetctl on a fleet machine, or use --driver etcd --endpoint http://H:4001";
            return Err(Failure::usage(format!(
                "--tunnel is not available in this version: {instead}"
            )));
        }
        Ok(Globals {
            driver: pick(self.driver, "FLEETCTL_DRIVER", "API"),
            endpoint: pick(self.endpoint, "FLEETCTL_ENDPOINT", "unix:///var/run/fleet.sock"),
            key_prefix: pick(
                self.etcd_key_prefix,
                "FLEETCTL_ETCD_KEY_PREFIX",
                DEFAULT_KEY_PREFIX,
            ),
            timeout: source::request_timeout(&pick(self.request_timeout, "FLEETCTL_REQUEST_TIMEOUT", "3"))?,
            debug: self.debug
                || from_environment("FLEETCTL_DEBUG").is_some_and(|word| word != "false" && word != "0"),
        })
    }
}

impl Globals {
    /// The endpoints of a list with commas.
    fn endpoints(&self) -> Vec<String> {
        self.endpoint
            .split(',')
            .map(str::trim)
            .filter(|each| !each.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// Runs fleetctl with these arguments (the program's name first) and answers its exit code.
///
/// # Errors
/// When `out` or `err` cannot be written.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let args = daemon::flags::go_style(&CommandLine::command(), args);
    match daemon::completion::answer(&CommandLine::command(), &args, out) {
        Ok(true) => return Ok(0),
        Ok(false) => {}
        Err(error) => return complain(err, &Failure::usage(error.to_string())),
    }
    let command_line = match CommandLine::try_parse_from(args) {
        Ok(command_line) => command_line,
        Err(error) => return refuse(&error, out, err),
    };
    match execute(command_line, environment, err) {
        Ok(text) => {
            out.write_all(text.as_bytes())?;
            out.flush()?;
            Ok(0)
        }
        Err(failure) => complain(err, &failure),
    }
}

fn complain(err: &mut dyn Write, failure: &Failure) -> io::Result<u8> {
    writeln!(err, "{}", failure.message)?;
    Ok(failure.code)
}

/// What clap would not take. An unknown verb is said in the words of fleet, since people try its other verbs.
fn refuse(error: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    match error.kind() {
        ErrorKind::DisplayHelp => {
            write!(out, "{error}")?;
            Ok(0)
        }
        ErrorKind::InvalidSubcommand => {
            let word = error
                .get(ContextKind::InvalidSubcommand)
                .map(ToString::to_string)
                .unwrap_or_default();
            let help = "Run 'fleetctl --help' for usage.";
            complain(
                err,
                &Failure::usage(format!(
                    "Error: unknown command {word:?} for \"fleetctl\"\n{help}"
                )),
            )
        }
        _ => {
            write!(err, "{error}")?;
            Ok(USAGE)
        }
    }
}

fn execute(
    command_line: CommandLine,
    environment: impl Fn(&str) -> Option<String>,
    err: &mut dyn Write,
) -> Result<String, Failure> {
    let version = format!("fleetctl version {VERSION}\n");
    match command_line.verb {
        _ if command_line.flags.version => Ok(version),
        None => Ok(CommandLine::command().render_help().to_string()),
        Some(Verb::Version) => Ok(version),
        Some(Verb::ListMachines(verb)) => {
            verb.check()?;
            let mut globals = command_line.flags.resolve(environment)?;
            narrow(&mut globals, err);
            let source = Source::new(&globals)?;
            let machines = block_on(source.machines())??;
            verb.render(&machines)
        }
    }
}

/// A fleetd is one: of several endpoints the first is asked.
fn narrow(globals: &mut Globals, err: &mut dyn Write) {
    let listed = globals.endpoints();
    if globals.driver == "API" && listed.len() > 1 {
        globals.endpoint.clone_from(&listed[0]);
        // A warning that cannot be written is no reason to fail.
        let _ignored = writeln!(
            err,
            "WARNING: multiple endpoints given, using only {:?}",
            listed[0]
        );
    }
    if globals.debug {
        let _ignored = writeln!(err, "asking {} ({})", globals.endpoint, globals.driver);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ran {
        code: u8,
        out: String,
        err: String,
    }

    fn fleetctl_with(args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let find = |name: &str| {
            environment
                .iter()
                .find(|(each, _)| *each == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let args = std::iter::once(&"fleetctl").chain(args).map(OsString::from);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(args, find, &mut out, &mut err).unwrap();
        Ran {
            code,
            out: String::from_utf8(out).unwrap(),
            err: String::from_utf8(err).unwrap(),
        }
    }

    fn fleetctl(args: &[&str]) -> Ran {
        fleetctl_with(args, &[])
    }

    #[test]
    fn help_and_version_are_on_stdout() {
        for args in [&[][..], &["help"], &["--help"], &["-help"], &["-h"]] {
            let ran = fleetctl(args);
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
            assert!(ran.out.contains("list-machines"), "{args:?}: {}", ran.out);
        }
        for args in [["version"], ["--version"], ["-version"], ["-v"], ["ver"]] {
            let ran = fleetctl(&args);
            assert_eq!(
                (ran.code, ran.out),
                (0, format!("fleetctl version {VERSION}\n")),
                "{args:?}"
            );
        }
        assert!(fleetctl(&["help", "list-machines"]).out.contains("--no-legend"));
    }

    #[test]
    fn an_unknown_command_or_flag_is_a_usage_error() {
        for word in ["start", "list-units", "bogus", "ssh"] {
            let ran = fleetctl(&[word, "x"]);
            assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{word}");
            assert_eq!(
                ran.err,
                format!(
                    "Error: unknown command \"{word}\" for \"fleetctl\"\nRun 'fleetctl --help' for usage.\n"
                )
            );
        }
        let ran = fleetctl(&["list-machines", "--bogus"]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""));
        assert!(ran.err.contains("--bogus"), "{}", ran.err);
    }

    #[test]
    fn without_a_fleetd_it_says_where_to_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.sock");
        let endpoint = format!("unix://{}", path.display());
        let expected = format!(
            "no fleetd here ({}): run it on a fleet machine or use --driver etcd --endpoint http://H:4001\n",
            path.display()
        );
        for (args, environment) in [
            (vec!["--endpoint", endpoint.as_str(), "list-machines"], vec![]),
            (vec!["-endpoint", endpoint.as_str(), "list-m"], vec![]),
            (
                vec!["list-machines", "--strict-host-key-checking=false"],
                vec![("FLEETCTL_ENDPOINT", endpoint.as_str())],
            ),
        ] {
            let ran = fleetctl_with(&args, &environment);
            assert_eq!((ran.code, ran.err.as_str()), (1, expected.as_str()), "{args:?}");
        }
    }

    #[test]
    fn the_command_line_beats_the_environment_and_empty_variables_are_none() {
        let environment = |name: &str| match name {
            "FLEETCTL_DRIVER" => Some("etcd".to_owned()),
            "FLEETCTL_ENDPOINT" | "FLEETCTL_TUNNEL" => Some(String::new()),
            "FLEETCTL_REQUEST_TIMEOUT" => Some("1.5".to_owned()),
            _ => None,
        };
        let globals = Flags::default().resolve(environment).unwrap();
        assert_eq!(globals.driver, "etcd");
        assert_eq!(globals.endpoint, "unix:///var/run/fleet.sock");
        assert_eq!(globals.key_prefix, "/_coreos.com/fleet/");
        assert_eq!(globals.timeout, Duration::from_millis(1500));
        let flags = Flags {
            driver: Some("API".to_owned()),
            ..Flags::default()
        };
        assert_eq!(flags.resolve(environment).unwrap().driver, "API");
    }

    #[test]
    fn what_cannot_be_done_is_refused_before_anybody_is_asked() {
        for (args, code, text) in [
            (
                &["--driver", "bogus", "list-machines"][..],
                1,
                "Unable to initialize client: unrecognized driver \"bogus\"",
            ),
            (
                &["--driver=etcd", "list-machines"],
                1,
                "add --endpoint http://H:4001",
            ),
            (
                &["--endpoint", "/var/run/fleet.sock", "list-machines"],
                1,
                "URL scheme undefined",
            ),
            (
                &["--tunnel", "h", "list-machines"],
                2,
                "--tunnel is not available",
            ),
            (
                &["--request-timeout=x", "list-machines"],
                2,
                "not a number of seconds",
            ),
            (
                &["list-machines", "--fields=bogus"],
                1,
                "Invalid key in output format: \"bogus\"",
            ),
        ] {
            let ran = fleetctl(args);
            assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {}", ran.err);
            assert!(ran.err.contains(text), "{args:?}: {}", ran.err);
        }
    }

    #[test]
    fn a_dead_registry_gets_the_four_lines() {
        // Port 1 of the loopback answers nobody.
        let ran = fleetctl(&[
            "--driver",
            "etcd",
            "--endpoint",
            "http://127.0.0.1:1",
            "list-machines",
        ]);
        assert_eq!(ran.code, 1);
        assert_eq!(ran.err.lines().count(), 4, "{}", ran.err);
        assert!(
            ran.err
                .starts_with("Error retrieving list of active machines from etcd ("),
            "{}",
            ran.err
        );
    }

    #[test]
    fn completions_and_the_manual_are_generated() {
        assert!(
            fleetctl(&["--generate-completion", "bash"])
                .out
                .contains("list-machines")
        );
        assert!(fleetctl(&["--generate-man"]).out.contains(".TH fleetctl 1"));
        assert_eq!(fleetctl(&["--generate-completion", "csh"]).code, 2);
    }

    #[test]
    fn the_description_of_the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
