//! `cargo xtask up` and `add`: the story, told on simulated machines. The machines are installed through `install`,
//! configured by `cluster-init` from the sample user-data, and from nothing else.

#![expect(clippy::print_stdout, reason = "the story is the output of the task")]

use crate::install::{self, Destination};
use crate::lab::{self, Bind, Config, Lab, Machine, Role};
use crate::progress::Steps;
use crate::{cluster, command, packages, userdata, workspace};
use anyhow::{Context as _, Result, anyhow, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// How much of each log is shown when `up` fails.
const LOG_LINES: &str = "12";

/// What to bring up.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Machines that run etcd and fleetd
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Machines that run fleetd alone
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=9))]
    worker: u8,
    /// Take the programs from this directory instead of building them
    #[arg(long, value_name = "DIR", overrides_with = "binaries")]
    binaries: Option<PathBuf>,
    /// Only boot the machines, with nothing of ours installed: `install --root target/lab/machines/core-01`
    #[arg(long)]
    blank: bool,
    /// Show this path of the host inside the machines, at the same place
    #[arg(long, value_name = "PATH", hide = true)]
    bind: Vec<PathBuf>,
}

/// Brings the lab up and prints what the story prints.
pub(crate) fn up(name: &str, arguments: &Arguments) -> Result<()> {
    packages::ensure("the simulated machines", &packages::MACHINES)?;
    let steps = Steps::start();
    let built = match arguments.blank {
        true => None,
        false => Some(steps.run_talking("build the programs", || {
            workspace::binaries(arguments.binaries.as_deref())
        })?),
    };
    let mut lab = steps.run("make the network", || Lab::create(config(name, arguments)?))?;
    let told = match &built {
        None => boot_blank(&steps, &mut lab, arguments),
        Some(binaries) => tell(&steps, &mut lab, binaries, arguments),
    };
    told.inspect_err(|_| show_logs(&lab, lab.machines()))
        .context("the machines stay for a look (`cargo xtask status`, `logs M`) until `cargo xtask down`")
}

/// What an ordinary user does before entering the lab's namespaces, where there is no network: packages and the
/// build. Returns the arguments that tell the inside about it.
pub(crate) fn before_entering(arguments: &Arguments) -> Result<Vec<OsString>> {
    packages::ensure("the simulated machines", &packages::MACHINES)?;
    if arguments.blank {
        return Ok(Vec::new());
    }
    let given = arguments.binaries.as_deref();
    let binaries = Steps::start().run_talking("build the programs", || workspace::binaries(given))?;
    // The last one counts, and it is absolute: the working directory does not come along.
    Ok(vec!["--binaries".into(), binaries.into()])
}

/// Adds one machine to the running cluster, with the same user-data; nothing changes on the others.
pub(crate) fn add(name: &str, role: Role) -> Result<()> {
    let steps = Steps::start();
    let mut lab = Lab::open(name)?;
    let new = lab.add(role)?.name;
    if lab.is_blank() {
        return steps.run(&format!("boot {new}"), || lab.machine(&new)?.boot());
    }
    let added = join(&steps, &lab, &lab.machine(&new)?);
    added.inspect_err(|_| show_logs(&lab, lab.machine(&new).into_iter()))?;
    print!("{}", table(&lab)?);
    Ok(())
}

fn join(steps: &Steps, lab: &Lab, machine: &Machine<'_>) -> Result<()> {
    cluster::prepare(lab, machine)?;
    steps.run(&format!("boot {}", machine.name()), || machine.boot())?;
    cluster::check_ours(machine)?;
    if machine.role() == Role::Core {
        steps.run("join the cluster", || cluster::wait_joined(lab, machine))?;
    }
    steps.run("join fleet", || {
        cluster::wait_fleet(lab, [lab.machine(machine.name())?].into_iter())
    })
}

fn config(name: &str, arguments: &Arguments) -> Result<Config> {
    let bind = |path: &PathBuf| Bind {
        path: path.clone(),
        is_writable: true,
    };
    Ok(Config {
        name: name.to_owned(),
        is_blank: arguments.blank,
        binds: arguments.bind.iter().map(bind).collect(),
        discovery_url: userdata::discovery_url(&lab::fresh_uuid()?)?,
        etcd_servers: cluster::etcd_servers(arguments.nodes),
    })
}

fn boot_blank(steps: &Steps, lab: &mut Lab, arguments: &Arguments) -> Result<()> {
    let roles = roles(arguments);
    let names = steps.run("make the machines", || make(lab, &roles))?;
    steps.run(&format!("boot {}", names.join(", ")), || {
        each(lab, &names, |machine| machine.boot())
    })?;
    steps.run("every unit of theirs runs", || each(lab, &names, check_running))?;
    println!(
        "\nBlank machines are up after {:.1} s. Install onto one with",
        steps.elapsed().as_secs_f64()
    );
    println!(
        "  cargo xtask install --root {}",
        lab.machine(&names[0])?.disk().display()
    );
    Ok(())
}

fn check_running(machine: &Machine<'_>) -> Result<()> {
    match (machine.settle()?.as_str(), machine.name()) {
        ("running", _) => Ok(()),
        (state, name) => bail!("{name} is {state}: see `cargo xtask exec {name} systemctl --failed`"),
    }
}

/// The story, step by step.
fn tell(steps: &Steps, lab: &mut Lab, binaries: &Path, arguments: &Arguments) -> Result<()> {
    let destination = Destination {
        root: lab.common(),
        prefix: "/usr/local".into(),
    };
    steps.run("install for the machines", || {
        install::install(&destination, Some(binaries))
    })?;
    let names = steps.run("make the machines", || make(lab, &roles(arguments)))?;
    for name in &names {
        cluster::prepare(lab, &lab.machine(name)?)?;
    }
    let (cores, workers) = names.split_at(arguments.nodes.into());
    steps.run("start the hub's etcd, the discovery service", || {
        lab.hub().start()
    })?;
    steps.run(&format!("boot {}", cores.join(", ")), || {
        each(lab, cores, |machine| machine.boot())
    })?;
    steps.run("check that etcd there is ours", || {
        each(lab, cores, cluster::check_ours)
    })?;
    steps.run(&format!("{} members, one leader", cores.len()), || {
        cluster::wait_formed(lab)
    })?;
    if !workers.is_empty() {
        steps.run(&format!("boot {}", workers.join(", ")), || {
            each(lab, workers, |machine| machine.boot())
        })?;
        steps.run("check that etcd there is ours", || {
            each(lab, workers, cluster::check_ours)
        })?;
    }
    steps.run(&format!("{} machines in fleet", names.len()), || {
        cluster::wait_fleet(lab, lab.machines())
    })?;
    if !workers.is_empty() {
        steps.run("check that workers have a socket and no etcd", || {
            each(lab, workers, |worker| check_worker(lab, worker))
        })?;
    }
    show_story(lab, cores, workers)?;
    println!(
        "\nUp after {:.1} s. What to try next:",
        steps.elapsed().as_secs_f64()
    );
    println!("  cargo xtask shell core-01               # a root shell on a machine");
    println!("  cargo xtask logs core-02 etcd -f        # what its etcd says");
    println!(
        "  cargo xtask kill core-01                # a power cut; beside it: cargo xtask status --watch"
    );
    println!("  cargo xtask add                         # one machine more joins the cluster");
    Ok(())
}

fn roles(arguments: &Arguments) -> Vec<Role> {
    let cores = std::iter::repeat_n(Role::Core, arguments.nodes.into());
    cores
        .chain(std::iter::repeat_n(Role::Worker, arguments.worker.into()))
        .collect()
}

fn make(lab: &mut Lab, roles: &[Role]) -> Result<Vec<String>> {
    roles.iter().map(|role| Ok(lab.add(*role)?.name)).collect()
}

/// Does the same to several machines at once; the first failure in their order is the result.
fn each(lab: &Lab, names: &[String], work: impl Fn(&Machine<'_>) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(|| work(&lab.machine(name)?)))
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        outcomes
            .into_iter()
            .try_for_each(|outcome| outcome.map_err(|_| anyhow!("the work on a machine panicked"))?)
    })
}

fn check_worker(lab: &Lab, worker: &Machine<'_>) -> Result<()> {
    cluster::check_no_etcd(worker)?;
    cluster::check_socket(lab, worker)
}

/// What the story looks at in the end.
fn show_story(lab: &Lab, cores: &[String], workers: &[String]) -> Result<()> {
    println!("\n$ cargo xtask exec hub etcdctl ls --recursive /");
    print!(
        "{}",
        command::capture(&mut lab.hub().command(&["etcdctl", "ls", "--recursive", "/"]))?
    );
    if let Some(last) = cores.last() {
        println!("\n$ cargo xtask exec {last} fleetctl list-machines");
        print!("{}", lab.machine(last)?.output(&["fleetctl", "list-machines"])?);
    }
    for worker in workers {
        println!("\n$ cargo xtask exec {worker} systemctl status etcd.service");
        // It ends with 3, for the unit is not active: which is the point.
        let words = ["systemctl", "--no-pager", "status", "etcd.service"];
        let output = lab.machine(worker)?.command(&words)?.output()?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// The table of machines, as a running core machine prints it.
fn table(lab: &Lab) -> Result<String> {
    let core = lab
        .machines()
        .find(|machine| machine.role() == Role::Core && machine.power() == lab::Power::On);
    core.context("no core machine is running")?
        .output(&["fleetctl", "list-machines"])
}

/// The last words of everything that may be the cause of a failure.
fn show_logs<'lab>(lab: &'lab Lab, machines: impl Iterator<Item = Machine<'lab>>) {
    let tail = |title: &str, mut command: Command| {
        // A unit that never ran has said nothing.
        if let Ok(text) = command::capture(&mut command)
            && !text.trim().is_empty()
        {
            println!("\n--- {title}\n{}", text.trim_end());
        }
    };
    let mut hub = Command::new("tail");
    hub.args(["-n", LOG_LINES]).arg(lab.hub().log());
    tail("hub: etcd", hub);
    for machine in machines {
        for unit in ["cluster-init", "etcd", "fleet"] {
            let mut journal = machine.journal();
            journal.args([
                "--quiet",
                "--no-pager",
                "--output=cat",
                "--lines",
                LOG_LINES,
                "--unit",
                unit,
            ]);
            tail(&format!("{}: {unit}", machine.name()), journal);
        }
    }
}
