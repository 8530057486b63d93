//! The machines' network: a namespace per machine, and one more, the hub, with the bridge between them and the
//! address 172.17.8.1. All of it hangs in namespaces, because this network lies inside docker's default one;
//! no route leads out.

use super::state::Record;
use crate::command;
use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
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
    /// Every namespace's name begins with it.
    prefix: String,
}

impl Network {
    pub(crate) fn of_lab(name: &str) -> Self {
        Self {
            prefix: format!("hawser-{name}-"),
        }
    }

    /// The file that stands for the namespace of a machine or of the hub.
    pub(crate) fn namespace(&self, machine: &str) -> PathBuf {
        Path::new("/run/netns").join(self.name(machine))
    }

    pub(crate) fn create_hub(&self) -> Result<()> {
        let hub = self.name(HUB);
        command::run(Command::new("ip").args(["netns", "add", &hub]))?;
        batch(
            &hub,
            &format!(
                "link set lo up\nlink add {BRIDGE} type bridge stp_state 0 forward_delay 0\n\
                 addr add {HUB_ADDRESS}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
            ),
        )
    }

    /// Connects a new machine to the bridge.
    pub(crate) fn connect(&self, machine: &Record) -> Result<()> {
        let (name, own) = (&machine.name, self.name(&machine.name));
        command::run(Command::new("ip").args(["netns", "add", &own]))?;
        batch(
            &self.name(HUB),
            &format!(
                "link add {name} type veth peer name eth0 netns {own}\nlink set {name} master {BRIDGE}\nlink set {name} up\n"
            ),
        )?;
        batch(
            &own,
            &format!(
                "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n",
                machine.address
            ),
        )
    }

    /// Removes every namespace of this lab, with the interfaces in them.
    pub(crate) fn destroy(&self) -> Result<()> {
        for name in self.existing() {
            command::run(Command::new("ip").args(["netns", "del", &name]))?;
        }
        Ok(())
    }

    /// Makes frames from `machine` to `address` vanish. Both directions need a call each.
    ///
    /// A permanent neighbour entry needs nothing that a kernel may lack (bridge VLANs, nftables), cuts
    /// established connections too, and looks from inside like a network that loses everything.
    pub(crate) fn cut(&self, machine: &str, address: Ipv4Addr) -> Result<()> {
        let interface = interface(machine);
        batch(
            &self.name(machine),
            &format!("neigh replace {address} lladdr {NOBODY} dev {interface} nud permanent\n"),
        )
    }

    /// Undoes all cuts of `machine`.
    pub(crate) fn mend(&self, machine: &str) -> Result<()> {
        batch(
            &self.name(machine),
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

    fn name(&self, machine: &str) -> String {
        format!("{}{machine}", self.prefix)
    }

    fn existing(&self) -> Vec<String> {
        let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&self.prefix)).collect()
    }
}

fn interface(machine: &str) -> &'static str {
    if machine == HUB { BRIDGE } else { "eth0" }
}

/// Runs the lines as `ip` commands inside a namespace.
fn batch(namespace: &str, lines: &str) -> Result<()> {
    command::run_with_input(Command::new("ip").args(["-n", namespace, "-batch", "-"]), lines)
}
