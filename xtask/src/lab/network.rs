//! The machines' network: a namespace per machine, and one more, the hub, with the bridge between them and the
//! address 172.17.8.1. All of it hangs in namespaces, because this network lies inside docker's default one;
//! no route leads out.

use super::state::Record;
use crate::command;
use anyhow::{Context as _, Result, anyhow};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hub's address: the discovery service of the story.
pub(crate) const HUB_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 17, 8, 1);
/// The hub's name, among those of machines.
pub(crate) const HUB: &str = "hub";
const BRIDGE: &str = "lab0";
/// Nobody's hardware address (locally administered): frames to it reach no one and nobody is told.
const NOBODY: &str = "02:00:00:00:00:00";

/// The namespaces of one lab.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Each namespace is bound to a file here. Not those of `ip netns`: these leave a mount behind for ever.
    directory: PathBuf,
}

impl Network {
    pub(crate) fn of_lab(name: &str) -> Self {
        Self {
            directory: Path::new("/run/hawser").join(name),
        }
    }

    /// The file that stands for the namespace of a machine or of the hub.
    pub(crate) fn namespace(&self, machine: &str) -> PathBuf {
        self.directory.join(machine)
    }

    pub(crate) fn create_hub(&self) -> Result<()> {
        self.create(HUB)?;
        let lines = format!(
            "link set lo up\nlink add {BRIDGE} type bridge stp_state 0 forward_delay 0\n\
             addr add {HUB_ADDRESS}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
        );
        self.batch(HUB, &lines)
    }

    /// Connects a new machine to the bridge.
    pub(crate) fn connect(&self, machine: &Record) -> Result<()> {
        let name = &machine.name;
        self.create(name)?;
        let own = self.namespace(name);
        let lines = format!(
            "link add {name} type veth peer name eth0 netns {}\n\
             link set {name} master {BRIDGE}\nlink set {name} up\n",
            own.display()
        );
        self.batch(HUB, &lines)?;
        let lines = format!(
            "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n",
            machine.address
        );
        self.batch(name, &lines)
    }

    /// Removes every namespace of this lab, with the interfaces in them.
    pub(crate) fn destroy(&self) -> Result<()> {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            // An interrupted `up` leaves a file that nothing is bound to.
            unmount(entry.path(), UnmountFlags::DETACH).ok();
            fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.directory.display()))
            }
            _ => Ok(()),
        }
    }

    /// Makes frames from `machine` to `address` vanish. Both directions need a call each.
    ///
    /// A permanent neighbour entry needs nothing that a kernel may lack (bridge VLANs, nftables), cuts
    /// established connections too, and looks from inside like a network that loses everything.
    pub(crate) fn cut(&self, machine: &str, address: Ipv4Addr) -> Result<()> {
        let interface = interface(machine);
        self.batch(
            machine,
            &format!("neigh replace {address} lladdr {NOBODY} dev {interface} nud permanent\n"),
        )
    }

    /// Undoes all cuts of `machine`.
    pub(crate) fn mend(&self, machine: &str) -> Result<()> {
        self.batch(
            machine,
            &format!("neigh flush dev {} nud permanent\n", interface(machine)),
        )
    }

    /// Runs `work` on a thread inside a namespace: sockets made there belong to it.
    pub(crate) fn inside<T: Send>(
        &self,
        machine: &str,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let path = self.namespace(machine);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(&path).with_context(|| format!("open {}", path.display()))?;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter {}", path.display()))?;
                work()
            });
            thread
                .join()
                .map_err(|_| anyhow!("a look into {} panicked", path.display()))?
        })
    }

    fn create(&self, machine: &str) -> Result<()> {
        let file = self.namespace(machine);
        let make = || {
            fs::create_dir_all(&self.directory)?;
            fs::write(&file, "")
        };
        make().with_context(|| format!("make {}", file.display()))?;
        command::run(
            Command::new("unshare")
                .arg(format!("--net={}", file.display()))
                .arg("true"),
        )
    }

    /// Runs the lines as `ip` commands inside a namespace.
    fn batch(&self, machine: &str, lines: &str) -> Result<()> {
        let mut ip = Command::new("nsenter");
        ip.arg(format!("--net={}", self.namespace(machine).display()))
            .args(["ip", "-batch", "-"]);
        command::run_with_input(&mut ip, lines)
    }
}

fn interface(machine: &str) -> &'static str {
    if machine == HUB { BRIDGE } else { "eth0" }
}

/// Switches on the loopback interface of a fresh namespace, the caller's.
pub(super) fn wake_loopback() -> Result<()> {
    command::run(Command::new("ip").args(["link", "set", "lo", "up"]))
}
