//! `cargo xtask`: the project's own tasks. It links no crate of the product: what it runs is the programs that users
//! run.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod check;
mod ci;
mod cluster;
mod command;
mod docker;
mod http;
mod install;
mod lab;
mod load;
mod packages;
mod processes;
mod progress;
mod status;
mod stress;
mod tidy;
mod up;
mod userdata;
mod verbs;
mod wait;
mod workspace;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};
use install::Destination;
use lab::Role;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Tasks of the project: a cluster of simulated machines, and installing
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_version_flag = true,
    max_term_width = 100
)]
#[command(
    after_help = "Machines are core-01, core-02, ... (etcd and fleetd), worker-01, ... (fleetd alone) and \
    the hub, where one etcd runs as the discovery service. Begin with `cargo xtask up`."
)]
struct Arguments {
    /// The lab that is meant, where several run side by side
    #[arg(long, global = true, hide = true, value_name = "NAME", default_value = lab::DEFAULT_NAME, env = "HAWSER_LAB")]
    lab: String,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Boot a cluster of simulated machines and print its table of machines
    Up(up::Arguments),
    /// Remove the machines and everything that belongs to them
    Down,
    /// Show the machines, who leads, and which stand in fleet's table
    Status {
        /// Show each change, until Ctrl-C
        #[arg(long, short)]
        watch: bool,
    },
    /// Open a root shell on a machine
    Shell {
        /// core-01, worker-01, ... or hub
        machine: String,
    },
    /// Run a command on a machine; its exit code is ours
    Exec {
        /// core-01, worker-01, ... or hub
        machine: String,
        /// The command with its arguments, as they stand
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Read a machine's journal, also when it is off
    Logs {
        /// core-01, worker-01, ... or hub
        machine: String,
        /// Only what this unit said: etcd, fleet, cluster-init, ...
        unit: Option<String>,
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
    },
    /// Add a machine to the running cluster
    Add {
        /// One that runs fleetd alone
        #[arg(long)]
        worker: bool,
    },
    /// Cut a machine's power: everything on it is gone at once, its disk stays
    Kill {
        /// core-01, worker-01, ... or hub
        machine: String,
    },
    /// Shut a machine down cleanly if it runs, and boot it from its disk
    Restart {
        /// core-01, worker-01, ... or hub
        machine: String,
    },
    /// Freeze a machine in mid-work: connections stand and nothing answers
    Pause {
        /// core-01, worker-01, ... or hub
        machine: String,
    },
    /// Let a paused machine run on
    Resume {
        /// core-01, worker-01, ... or hub
        machine: String,
    },
    /// Cut the network between groups of machines: `partition core-01,core-02 core-03`
    #[command(
        after_help = "Machines in no group reach all others. A group alone is cut from everything else."
    )]
    Partition {
        /// Names joined by commas, one word per group
        #[arg(required = true, value_name = "A,B")]
        groups: Vec<String>,
    },
    /// Make the network whole again
    Heal,
    /// Build and install programs, units, manual pages and completions
    Install {
        #[command(flatten)]
        destination: Destination,
        /// Take the programs from this directory instead of building them
        #[arg(long, value_name = "DIR")]
        binaries: Option<PathBuf>,
    },
    /// Remove exactly what install wrote; data, configuration and users stay
    Uninstall {
        #[command(flatten)]
        destination: Destination,
    },
    /// Build and pack the same tree as a tar archive and as a Debian package
    Dist {
        /// Take the programs from this directory instead of building them
        #[arg(long, value_name = "DIR")]
        binaries: Option<PathBuf>,
    },
    /// Check the running cluster: add two machines to it, cut the leader's power, and restart it
    Check,
    /// Check everything that has to hold before a change is taken
    Ci(ci::Arguments),
    /// Repeat what must never go wrong: simultaneous starts, dying founders, kill -9, syncs
    #[command(subcommand)]
    Stress(stress::Arguments),
    /// Check the rules of the house that no compiler checks
    Tidy,
    #[command(hide = true)]
    InCgroup(lab::InCgroup),
    #[command(hide = true)]
    BecomeMachine { plan: PathBuf },
    #[command(hide = true)]
    Keeper {
        /// Hold an ordinary user's namespaces
        #[arg(long)]
        user: bool,
    },
    #[command(hide = true)]
    DockerStandIn,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let lab = arguments.lab.as_str();
    if arguments.task.is_about_machines() && lab::keeper::is_needed() {
        return as_user(lab, &arguments.task);
    }
    match arguments.task {
        Task::Up(wanted) => up::up(lab, &wanted),
        Task::Down => verbs::down(lab),
        Task::Status { watch: false } => status::show(lab),
        Task::Status { watch: true } => status::watch(lab),
        Task::Shell { machine } => verbs::shell(lab, &machine),
        Task::Exec { machine, command } => verbs::exec(lab, &machine, &command),
        Task::Logs {
            machine,
            unit,
            follow,
        } => verbs::logs(lab, &machine, unit.as_deref(), follow),
        Task::Add { worker } => up::add(lab, if worker { Role::Worker } else { Role::Core }),
        Task::Kill { machine } => verbs::kill(lab, &machine),
        Task::Restart { machine } => verbs::restart(lab, &machine),
        Task::Pause { machine } => verbs::pause(lab, &machine),
        Task::Resume { machine } => verbs::resume(lab, &machine),
        Task::Partition { groups } => verbs::partition(lab, &groups),
        Task::Heal => verbs::heal(lab),
        Task::Install {
            destination,
            binaries,
        } => {
            report("installed", install::install(&destination, binaries.as_deref())?);
            install::hint(&destination);
            Ok(())
        }
        Task::Uninstall { destination } => {
            report("removed", install::uninstall(&destination)?);
            Ok(())
        }
        Task::Dist { binaries } => {
            report("packed", install::dist(binaries.as_deref())?);
            Ok(())
        }
        Task::Check => check::check(lab),
        Task::Ci(wanted) => ci::ci(&wanted, Arguments::command()),
        Task::Stress(wanted) => stress::stress(&wanted),
        Task::Tidy => tidy::tidy(&Arguments::command()),
        Task::InCgroup(task) => task.run(),
        Task::BecomeMachine { plan } => lab::become_machine(&plan),
        Task::Keeper { user } => lab::keeper::keep(user),
        Task::DockerStandIn => docker::serve(),
    }
}

impl Task {
    /// Whether it acts on the simulated machines, or enters them.
    fn is_about_machines(&self) -> bool {
        match self {
            Self::Up(_)
            | Self::Down
            | Self::Status { .. }
            | Self::Shell { .. }
            | Self::Exec { .. }
            | Self::Logs { .. }
            | Self::Add { .. }
            | Self::Kill { .. }
            | Self::Restart { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Partition { .. }
            | Self::Heal
            | Self::Check => true,
            Self::Install { .. }
            | Self::Uninstall { .. }
            | Self::Dist { .. }
            | Self::Ci(_)
            | Self::Stress(_)
            | Self::Tidy
            | Self::InCgroup(_)
            | Self::BecomeMachine { .. }
            | Self::Keeper { .. }
            | Self::DockerStandIn => false,
        }
    }
}

/// An ordinary user's machines live in namespaces of theirs: the task is done by the same command inside.
fn as_user(lab: &str, task: &Task) -> Result<()> {
    match task {
        Task::Up(wanted) => lab::keeper::up(lab, &up::before_entering(wanted)?),
        Task::Down => {
            verbs::report_down(lab::keeper::down(lab)?);
            Ok(())
        }
        _ => lab::keeper::enter(lab),
    }
}

fn report(done: &str, paths: Vec<PathBuf>) {
    for path in paths {
        println!("{done} {}", path.display());
    }
}
