//! Simulated machines: real systemd instances in namespaces of one host, each with a disk, a network interface,
//! a machine id and a power switch. Nothing is downloaded and no image is built: `/usr` is the host's.
//!
//! Reading order: `state` (what is remembered), `host` (what the host must give), `network`, `disk`, `boot` (inside
//! a new machine), `machine` (from outside), `hub` (the discovery service), `faults`, `keeper` (ordinary users).

mod boot;
mod cgroup;
mod disk;
mod faults;
mod host;
mod hub;
pub(crate) mod keeper;
mod machine;
mod network;
mod state;

use crate::http;
use crate::wait::{self, Look};
use crate::workspace;
use anyhow::{Context as _, Result, bail};
use cgroup::Cgroup;
use host::Marker;
use network::Network;
use state::State;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(crate) use boot::become_machine;
pub(crate) use hub::Hub;
pub(crate) use machine::{Machine, Power};
pub(crate) use network::{HUB, HUB_ADDRESS};
pub(crate) use state::{Bind, Record, Role};

/// Where programs are found inside machines: ours, then the distribution's.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The name of the lab that a person means who names none.
pub(crate) const DEFAULT_NAME: &str = "lab";
/// The port on which nodes of the lab serve clients.
const CLIENT_PORT: u16 = 4001;

/// Removing takes a fraction of a second; what an interrupted `up` has left running ends by itself soon after.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// What is decided when a lab is made.
#[derive(Debug)]
pub(crate) struct Config {
    /// Distinguishes labs of one host; part of names of interfaces and cgroups.
    pub(crate) name: String,
    /// Machines get an empty `/usr/local` of their own, to install to.
    pub(crate) is_blank: bool,
    pub(crate) binds: Vec<Bind>,
    pub(crate) discovery_url: String,
    pub(crate) etcd_servers: String,
}

/// A lab that exists; its machines may be running or not.
pub(crate) struct Lab {
    directory: PathBuf,
    network: Network,
    state: State,
}

impl Lab {
    /// Claims the name and the host's resources, and makes the hub's network; there are no machines yet.
    ///
    /// # Errors
    /// When a lab of this name exists, of this checkout or another. What is left after a failure, `destroy` removes.
    pub(crate) fn create(config: Config) -> Result<Self> {
        check_name(&config.name)?;
        let directory = match keeper::inside() {
            Some(inside) => inside.directory,
            None => claim(&config.name)?,
        };
        let name = config.name.clone();
        // There is nothing to look at yet: a failure leaves nothing behind.
        Self::make(config, directory).inspect_err(|_| drop(Self::destroy(&name)))
    }

    fn make(config: Config, directory: PathBuf) -> Result<Self> {
        // Left by a host that went down with a lab running.
        remove_directory(&directory)?;
        let network = Network::of_lab(&config.name);
        network.destroy()?;
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let helper = directory.join("xtask");
        fs::copy(std::env::current_exe()?, &helper)
            .with_context(|| format!("copy to {}", helper.display()))?;
        let cgroup = match keeper::inside() {
            Some(inside) => Cgroup::at(inside.cgroup),
            None => host::claim_cgroup(&config.name, &helper)?,
        };
        let state = State {
            cgroup: cgroup.path().to_path_buf(),
            is_blank: config.is_blank,
            binds: config.binds,
            discovery_url: config.discovery_url,
            etcd_servers: config.etcd_servers,
            machines: Vec::new(),
            partition: Vec::new(),
        };
        state.save(&directory)?;
        cgroup.create()?;
        let lab = Self {
            directory,
            network,
            state,
        };
        disk::make_common(&lab.common()).context("make the machines' disk")?;
        lab.network.create_hub()?;
        Ok(lab)
    }

    /// The running lab of this name.
    pub(crate) fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let directory = match keeper::inside() {
            Some(inside) => inside.directory,
            None => find(name)?.context("no lab is running: `cargo xtask up` starts one")?,
        };
        let state = State::load(&directory)?;
        Ok(Self {
            directory,
            network: Network::of_lab(name),
            state,
        })
    }

    /// Removes a lab with everything that belongs to it, however much of it there is. Returns whether there
    /// was anything.
    pub(crate) fn destroy(name: &str) -> Result<bool> {
        check_name(name)?;
        let inside = keeper::inside();
        let is_inside = inside.is_some();
        let marked = match &inside {
            Some(inside) => Some(inside.directory.clone()),
            None => find(name)?,
        };
        let was_there = marked.is_some();
        let directory = marked.unwrap_or_else(|| default_directory(name));
        let was_there = directory.exists() || was_there;
        let network = Network::of_lab(name);
        let mut cgroups = host::possible_cgroups(name);
        cgroups.extend(State::load(&directory).ok().map(|state| Cgroup::at(state.cgroup)));
        // An interrupted `up` may have left a program that still copies files or makes an interface.
        wait::until("the lab to be gone", REMOVAL_LIMIT, || {
            let removed = remove_all(&cgroups, &network, &directory);
            Ok(removed.map_or_else(|error| Look::Missing(format!("{error:#}")), Look::Found))
        })?;
        if !is_inside {
            host::release_cgroup(name);
        }
        if !is_inside {
            Marker::release(name)?;
        }
        Ok(was_there)
    }

    /// Makes the next machine of a role: its disk and its network, not booted.
    pub(crate) fn add(&mut self, role: Role) -> Result<Record> {
        let (state, record) = State::update(&self.directory, |state| {
            let count = state
                .machines
                .iter()
                .filter(|machine| machine.role == role)
                .count();
            let number = u8::try_from(count + 1).unwrap_or(u8::MAX);
            if number > role.limit() {
                bail!("the lab has {count} machines of this kind; there is no address for another");
            }
            let (name, address) = role.machine(number);
            let record = Record {
                name,
                role,
                address,
                machine_id: fresh_uuid()?.replace('-', ""),
            };
            state.machines.push(record.clone());
            state.machines.sort_by_key(|machine| machine.address);
            Ok(record)
        })?;
        self.state = state;
        disk::make_machine(&self.common(), &self.disk(&record.name), &record)
            .with_context(|| format!("make the disk of {}", record.name))?;
        self.network.connect(&record)?;
        Ok(record)
    }

    /// The machine of this name; an unknown name is answered with those that exist.
    pub(crate) fn machine(&self, name: &str) -> Result<Machine<'_>> {
        let Some(record) = self.state.machines.iter().find(|machine| machine.name == name) else {
            bail!(
                "there is no machine `{name}`; there are {}",
                self.names().join(", ")
            );
        };
        Ok(Machine::new(self, record))
    }

    pub(crate) fn machines(&self) -> impl Iterator<Item = Machine<'_>> {
        self.state
            .machines
            .iter()
            .map(|record| Machine::new(self, record))
    }

    pub(crate) fn hub(&self) -> Hub<'_> {
        Hub::new(self)
    }

    /// Names of the hub and of all machines.
    pub(crate) fn names(&self) -> Vec<&str> {
        let machines = self.state.machines.iter().map(|machine| machine.name.as_str());
        std::iter::once(HUB).chain(machines).collect()
    }

    /// Where the lab's files are, on the host.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The tree that machines start from, and whose `/usr/local` they share.
    pub(crate) fn common(&self) -> PathBuf {
        self.directory.join("common")
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.state.is_blank
    }

    /// The discovery URL of the cluster; empty for blank machines.
    pub(crate) fn discovery_url(&self) -> &str {
        &self.state.discovery_url
    }

    pub(crate) fn etcd_servers(&self) -> &str {
        &self.state.etcd_servers
    }

    pub(crate) fn partition_groups(&self) -> &[Vec<String>] {
        &self.state.partition
    }

    /// Asks a node over HTTP, from the hub.
    pub(crate) fn ask(&self, address: Ipv4Addr, path: &str) -> Result<http::Answer> {
        self.ask_port(address, CLIENT_PORT, path)
    }

    /// Asks whatever serves HTTP on a port of a machine, from the hub.
    pub(crate) fn ask_port(&self, address: Ipv4Addr, port: u16, path: &str) -> Result<http::Answer> {
        self.network
            .inside(HUB, || http::get(SocketAddr::new(address.into(), port), path))
    }

    /// A connection to a node, from the hub.
    pub(crate) fn connect(&self, address: Ipv4Addr) -> Result<http::Connection> {
        let address = SocketAddr::new(address.into(), CLIENT_PORT);
        self.network.inside(HUB, || http::Connection::open(address))
    }

    /// This program's copy that outlives a rebuild.
    fn helper(&self) -> PathBuf {
        self.directory.join("xtask")
    }

    fn disk(&self, machine: &str) -> PathBuf {
        self.directory.join("machines").join(machine)
    }

    fn cgroup(&self, machine: &str) -> Cgroup {
        Cgroup::at(self.state.cgroup.join(machine))
    }

    /// A command that runs in a cgroup of the lab, from its first instruction on.
    fn command_in(&self, cgroup: &Cgroup, session: Session) -> Command {
        let mut command = Command::new(self.helper());
        command.arg("in-cgroup").args(match session {
            Session::Own => &["--session"] as &[_],
            Session::Callers => &["--optional"],
        });
        command.arg(cgroup.path()).arg("--");
        command
    }
}

/// Who ends a process of the lab.
#[derive(Clone, Copy)]
enum Session {
    /// It outlives the command that started it.
    Own,
    /// It belongs to the caller's terminal. It enters the cgroup where that is allowed: a machine that dies
    /// takes it along either way, because it is in the machine's PID namespace.
    Callers,
}

/// Enters a cgroup and becomes another program: the hidden task behind every process of the lab.
#[derive(clap::Args, Debug)]
pub(crate) struct InCgroup {
    /// Lead a session of its own
    #[arg(long)]
    session: bool,
    /// Go on where the cgroup cannot be entered
    #[arg(long)]
    optional: bool,
    cgroup: PathBuf,
    #[arg(last = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

impl InCgroup {
    /// Returns only on failure.
    pub(crate) fn run(self) -> Result<()> {
        let entered = Cgroup::at(self.cgroup).enter();
        if !self.optional {
            entered?;
        }
        if self.session {
            rustix::process::setsid().context("lead a session")?;
        }
        let (program, arguments) = self.command.split_first().context("no program is named")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("become {}", program.display()))
    }
}

/// A random UUID, of the kernel's making.
pub(crate) fn fresh_uuid() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?
        .trim()
        .to_owned())
}

fn default_directory(name: &str) -> PathBuf {
    let directory = if name == DEFAULT_NAME {
        name.to_owned()
    } else {
        format!("{DEFAULT_NAME}-{name}")
    };
    workspace::target().join(directory)
}

/// Sets the marker of a new lab, and returns its directory.
fn claim(name: &str) -> Result<PathBuf> {
    if find(name)?.is_some() {
        bail!(
            "a lab of this checkout is running: `cargo xtask status` shows it, `cargo xtask down` removes it"
        );
    }
    let directory = default_directory(name);
    // Users have markers of their own, root too.
    let of_another_user = State::load(&directory).is_ok_and(|state| Cgroup::at(state.cgroup).is_populated());
    if of_another_user {
        bail!(
            "another user's lab is running in {}: only they can take it down",
            directory.display()
        );
    }
    Marker::new(directory.clone()).claim(name)?;
    Ok(directory)
}

/// The directory of a running lab. One of another checkout is an error that names it.
fn find(name: &str) -> Result<Option<PathBuf>> {
    let Some(marker) = Marker::read(name)? else {
        return Ok(None);
    };
    if marker.checkout != workspace::checkout() {
        bail!(
            "a lab of {0} is running: run `cargo xtask down` in {0} first",
            marker.checkout.display()
        );
    }
    Ok(Some(marker.directory))
}

/// Names become parts of paths, namespaces and unit names.
fn check_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name.len() > 16 || !name.bytes().all(is_plain) {
        bail!("`{name}` is not a lab's name: 1 to 16 lower-case letters and digits");
    }
    Ok(())
}

fn remove_all(cgroups: &[Cgroup], network: &Network, directory: &Path) -> Result<()> {
    for cgroup in cgroups {
        cgroup.destroy()?;
    }
    network.destroy()?;
    remove_directory(directory)
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
