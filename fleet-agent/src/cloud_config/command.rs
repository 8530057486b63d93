//! The program: from its arguments to its exit code.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser};
use clap_complete::Shell;

use super::address::{self, Found, Given};
use super::apply::{ApplyError, Host, apply, describe};
use super::config::Config;
use super::disk::Disk;
use super::input::{Input, USER_DATA_BYTES_MAX, recognise};
use super::message::{Message, Severity, has_error, make_strict};
use super::parse::parse;
use super::plan::{Facts, Plan, plan, plan_script};
use super::report::Report;
use super::substitute::{Variable, needed, substitute};
use super::systemctl::Systemctl;

/// Everything is as the file says.
pub const EXIT_DONE: u8 = 0;
/// The file, or what it asks for, can not be applied.
pub const EXIT_INPUT: u8 = 1;
/// The command line is wrong.
pub const EXIT_USAGE: u8 = 2;
/// The file is applied, but a unit failed.
pub const EXIT_UNIT: u8 = 3;

/// Configures a machine from a #cloud-config file and starts the units that it names.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "cluster-init", version)]
#[command(after_help = "Exit codes: 0 done, 1 the file can not be applied, 2 wrong usage, 3 a unit failed")]
pub struct Arguments {
    /// The user-data file
    #[arg(required_unless_present_any = ["from_file", "generate_completion", "generate_man"])]
    pub file: Option<PathBuf>,

    /// The user-data file, as coreos-cloudinit named this flag
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub from_file: Option<PathBuf>,

    /// Check the file and change nothing; exit 1 if there is anything to mend
    #[arg(long, conflicts_with = "dry_run")]
    pub validate: bool,

    /// Print the files and jobs that would follow and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Refuse a file with unknown keys
    #[arg(long)]
    pub strict: bool,

    /// Apply below this directory; units are enabled there, nothing is started
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// The address for $public_ipv4 [default: COREOS_PUBLIC_IPV4 from the environment or
    /// /etc/environment, else the interface that routes to the discovery host]
    #[arg(long, value_name = "ADDRESS")]
    pub public_ipv4: Option<String>,

    /// The address for $private_ipv4 [default: as for $public_ipv4]
    #[arg(long, value_name = "ADDRESS")]
    pub private_ipv4: Option<String>,

    /// Put nothing in the place of an address that is not known, as coreos-cloudinit did
    #[arg(long)]
    pub allow_empty_ips: bool,

    /// Print the completion script of a shell
    #[arg(long, value_name = "SHELL", hide = true)]
    pub generate_completion: Option<Shell>,

    /// Print the man page
    #[arg(long, hide = true)]
    pub generate_man: bool,
}

/// What a run finds around it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The machine that is configured.
    pub host: Host,
    /// The environment's variables.
    pub environment: BTreeMap<String, String>,
}

impl Surroundings {
    /// The machine itself, or the tree below another root.
    pub fn new(root: Option<&Path>, environment: BTreeMap<String, String>) -> Self {
        let root = root.unwrap_or(Path::new("/"));
        let is_live = root == Path::new("/");
        let systemctl = if is_live {
            Systemctl::of_system()
        } else {
            Systemctl::offline(root)
        };
        let host = Host {
            disk: Disk::new(root),
            systemctl,
            is_live,
        };
        Self { host, environment }
    }
}

/// Runs the program; returns its exit code.
pub fn run(
    arguments: &Arguments,
    surroundings: &Surroundings,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    if let Some(shell) = arguments.generate_completion {
        clap_complete::generate(shell, &mut Arguments::command(), "cluster-init", out);
        return EXIT_DONE;
    }
    if arguments.generate_man {
        let page = clap_mangen::Man::new(Arguments::command());
        return page.render(out).map_or(EXIT_INPUT, |()| EXIT_DONE);
    }
    let is_journal = surroundings.environment.contains_key("JOURNAL_STREAM");
    let mut session = Session {
        arguments,
        surroundings,
        report: Report::new(out, err, is_journal),
    };
    session.run().unwrap_or_else(|stop| match stop {
        Stop::Told(code) => code,
        Stop::Why(text) => {
            session.report.error(&text);
            EXIT_INPUT
        }
    })
}

/// Why a session ends before its end.
enum Stop {
    /// With this code; everything is said.
    Told(u8),
    /// With this error.
    Why(String),
}

impl From<ApplyError> for Stop {
    fn from(error: ApplyError) -> Self {
        let is_denied = matches!(&error, ApplyError::Disk(cause)
            if cause.kind() == io::ErrorKind::PermissionDenied);
        let advice = if is_denied { ": run it as root" } else { "" };
        Self::Why(format!("{error}{advice}"))
    }
}

struct Session<'a> {
    arguments: &'a Arguments,
    surroundings: &'a Surroundings,
    report: Report<'a>,
}

impl Session<'_> {
    fn run(&mut self) -> Result<u8, Stop> {
        let named = self.arguments.file.as_ref().or(self.arguments.from_file.as_ref());
        let path = named.ok_or_else(|| Stop::Why("no file is named".to_owned()))?;
        let name = path.display();
        let bytes = read_bounded(path).map_err(|error| Stop::Why(format!("{name}: {error}")))?;
        match recognise(&bytes) {
            Err(message) => {
                self.report.message(&message);
                Err(Stop::Told(EXIT_INPUT))
            }
            Ok(Input::Empty) => {
                self.report.line(&format!("{name} is empty: nothing to do"));
                Ok(EXIT_DONE)
            }
            Ok(Input::Ignition) => {
                self.report
                    .line(&format!("{name} is for Ignition: nothing to do"));
                Ok(EXIT_DONE)
            }
            Ok(Input::Script(_)) if self.arguments.validate => {
                self.report.line(&format!("{name} is a script: nothing to check"));
                Ok(EXIT_DONE)
            }
            Ok(Input::Script(text)) => {
                let text = self.substituted(&text, &Config::default())?;
                self.carry_out(&plan_script(&text))
            }
            Ok(Input::CloudConfig(text)) if self.arguments.validate => self.validate(&text),
            Ok(Input::CloudConfig(text)) => self.configure(&text),
        }
    }

    fn validate(&mut self, text: &str) -> Result<u8, Stop> {
        let (config, mut messages) = self.parse(text);
        // What is valid and not applied is worth a word, but nothing to mend.
        messages.extend(config.unapplied.iter().map(|section| {
            let text = format!("{} is not applied by this version", section.value);
            Message::info(section.line, text)
        }));
        messages.sort_by_key(|message| message.line);
        self.report.messages(&messages);
        let is_clean = messages.iter().all(|it| it.severity == Severity::Info);
        if is_clean {
            self.report.line("valid");
        }
        Ok(if is_clean { EXIT_DONE } else { EXIT_INPUT })
    }

    fn configure(&mut self, text: &str) -> Result<u8, Stop> {
        let (raw, messages) = self.parse(text);
        if has_error(&messages) {
            self.report.messages(&messages);
            return Err(Stop::Told(EXIT_INPUT));
        }
        let substituted = self.substituted(text, &raw)?;
        let (config, messages) = self.parse(&substituted);
        self.report.messages(&messages);
        if has_error(&messages) {
            return Err(Stop::Told(EXIT_INPUT));
        }
        let facts = self.facts(text, raw);
        let plan = plan(&config, &facts);
        self.report.messages(&plan.notes);
        if has_error(&plan.notes) {
            return Err(Stop::Told(EXIT_INPUT));
        }
        self.carry_out(&plan)
    }

    fn parse(&self, text: &str) -> (Config, Vec<Message>) {
        let (config, mut messages) = parse(text);
        if self.arguments.strict {
            make_strict(&mut messages);
        }
        (config, messages)
    }

    /// Puts addresses in the place of their variables, and says which and why these.
    fn substituted(&mut self, text: &str, config: &Config) -> Result<String, Stop> {
        let disk = &self.surroundings.host.disk;
        let given = Given {
            flags: self.address_flags(),
            environment: self.surroundings.environment.clone(),
            environment_file: disk.read_text("/etc/environment"),
        };
        let mut route: Option<Result<Found, String>> = None;
        let mut values = BTreeMap::new();
        for (variable, line) in needed(text) {
            let by_route = || {
                let found = || address::by_route(address::common_host(config));
                route.get_or_insert_with(found).clone()
            };
            match address::find(variable, &given, by_route) {
                Ok(found) => {
                    let Found { value, source } = found;
                    self.report
                        .line(&format!("{} is {value} ({source})", variable.token()));
                    values.insert(variable, value);
                }
                Err(why) if self.arguments.allow_empty_ips => {
                    self.report
                        .message(&Message::warning(line, format!("{why}; left empty")));
                    values.insert(variable, String::new());
                }
                Err(why) => {
                    self.report.message(&Message::error(line, why));
                    return Err(Stop::Told(EXIT_INPUT));
                }
            }
        }
        Ok(substitute(text, &values))
    }

    fn address_flags(&self) -> BTreeMap<Variable, String> {
        let flags = [
            (Variable::PublicIpv4, &self.arguments.public_ipv4),
            (Variable::PrivateIpv4, &self.arguments.private_ipv4),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(variable, flag)| Some((variable, flag.clone()?)));
        given.collect()
    }

    fn facts(&self, text: &str, raw: Config) -> Facts {
        let disk = &self.surroundings.host.disk;
        let is_seen = is_seen_by_cloud_init(disk, text);
        Facts {
            passwd: disk.read_text("/etc/passwd"),
            group: disk.read_text("/etc/group"),
            seen_by_cloud_init: is_seen.then_some(raw),
        }
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<u8, Stop> {
        let host = &self.surroundings.host;
        if self.arguments.dry_run {
            describe(plan, host, &mut self.report)?;
            return Ok(EXIT_DONE);
        }
        let outcome = apply(plan, host, &mut self.report)?;
        if !outcome.failures.is_empty() {
            let count = outcome.failures.len();
            let list = outcome.failures.join("; ");
            self.report.error(&format!("{count} failed: {list}"));
            return Ok(EXIT_UNIT);
        }
        if outcome.changes == 0 && outcome.jobs == 0 {
            self.report.line("nothing to do: everything is as the file says");
        }
        Ok(EXIT_DONE)
    }
}

/// Whether cloud-init ran on this boot with the same user-data, alone or as a part of more.
fn is_seen_by_cloud_init(disk: &Disk, text: &str) -> bool {
    let has_run = disk.exists("/run/cloud-init/result.json") || disk.exists("/run/cloud-init/status.json");
    has_run
        && disk
            .read_text("/var/lib/cloud/instance/user-data.txt")
            .contains(text.trim())
}

/// Reads a file, a byte more than allowed at most: the check of its size is made with the rest.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = USER_DATA_BYTES_MAX as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
