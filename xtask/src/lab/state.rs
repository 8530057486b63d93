//! What a lab remembers between commands: its machines and settings, never a process id. What runs is read
//! from the cgroups, so that this file cannot be wrong about it.

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What a machine is for; it decides the name and the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// `core-01` at 172.17.8.101 and on: runs etcd and fleetd.
    Core,
    /// `worker-01` at 172.17.8.201 and on: runs fleetd alone.
    Worker,
}

impl Role {
    /// Name and address of the `number`th machine (from 1) of this role.
    pub(crate) fn machine(self, number: u8) -> (String, Ipv4Addr) {
        let (word, base) = match self {
            Self::Core => ("core", 100),
            Self::Worker => ("worker", 200),
        };
        (
            format!("{word}-{number:02}"),
            Ipv4Addr::new(172, 17, 8, base + number),
        )
    }

    /// The most machines of a role: the next address would be another role's or the broadcast one.
    pub(crate) const fn limit(self) -> u8 {
        match self {
            Self::Core => 99,
            Self::Worker => 54,
        }
    }
}

/// One machine, running or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) address: Ipv4Addr,
    /// 32 hexadecimal digits, fresh for each machine of each `up`.
    pub(crate) machine_id: String,
}

/// A path of the host that machines see at the same place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) path: PathBuf,
    pub(crate) is_writable: bool,
}

/// Everything that a later command must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// The cgroup below which each machine has its own.
    pub(crate) cgroup: PathBuf,
    /// Machines share the installed `/usr/local`; blank ones have an empty, writable one each.
    pub(crate) is_blank: bool,
    pub(crate) binds: Vec<Bind>,
    /// The URL in the machines' user-data; empty for blank machines.
    pub(crate) discovery_url: String,
    /// The etcd addresses in the workers' user-data.
    pub(crate) etcd_servers: String,
    pub(crate) machines: Vec<Record>,
    /// The groups that cannot reach each other; empty when the network is whole.
    pub(crate) partition: Vec<Vec<String>>,
}

impl State {
    pub(super) fn path(directory: &Path) -> PathBuf {
        directory.join("state.json")
    }

    pub(super) fn load(directory: &Path) -> Result<Self> {
        let path = Self::path(directory);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: run `cargo xtask down`", path.display()))
    }

    /// Writes it whole or not at all.
    pub(super) fn save(&self, directory: &Path) -> Result<()> {
        let (path, fresh) = (Self::path(directory), directory.join("state.json.new"));
        let write = || -> Result<()> {
            fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
            Ok(fs::rename(&fresh, &path)?)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Loads, changes and saves while no other command does.
    pub(super) fn update<T>(
        directory: &Path,
        change: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(Self, T)> {
        let lock = File::create(directory.join("lock")).context("open the lab's lock")?;
        flock(&lock, FlockOperation::LockExclusive).context("lock the lab's state")?;
        let mut state = Self::load(directory)?;
        let value = change(&mut state)?;
        state.save(directory)?;
        Ok((state, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_give_names_and_addresses_of_the_story() {
        assert_eq!(
            Role::Core.machine(1),
            ("core-01".into(), Ipv4Addr::new(172, 17, 8, 101))
        );
        assert_eq!(
            Role::Worker.machine(1),
            ("worker-01".into(), Ipv4Addr::new(172, 17, 8, 201))
        );
        assert_eq!(
            Role::Core.machine(Role::Core.limit()).1,
            Ipv4Addr::new(172, 17, 8, 199)
        );
        assert_eq!(
            Role::Worker.machine(Role::Worker.limit()).1,
            Ipv4Addr::new(172, 17, 8, 254)
        );
    }

    #[test]
    fn update_sees_what_the_last_one_saved() {
        let directory = tempfile::tempdir().unwrap();
        let state = State {
            cgroup: "/sys/fs/cgroup/x".into(),
            is_blank: true,
            binds: Vec::new(),
            discovery_url: String::new(),
            etcd_servers: String::new(),
            machines: Vec::new(),
            partition: Vec::new(),
        };
        state.save(directory.path()).unwrap();
        State::update(directory.path(), |state| {
            state.discovery_url.push('a');
            Ok(())
        })
        .unwrap();
        let (state, ()) = State::update(directory.path(), |state| {
            state.discovery_url.push('b');
            Ok(())
        })
        .unwrap();
        assert_eq!(state.discovery_url, "ab");
        assert!(directory.path().join("state.json").exists());
        assert!(!directory.path().join("state.json.new").exists());
    }
}
