//! The cluster on the simulated machines: what makes a machine a member or a worker, and how to see that the
//! cluster stands.

use crate::lab::{Lab, Machine, Power, Role};
use crate::wait::{self, Look};
use crate::{docker, userdata};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

/// Three nodes found their cluster within seconds; a loaded host takes longer.
const CLUSTER_LIMIT: Duration = Duration::from_secs(90);
/// fleetd retries the store every few seconds.
const FLEET_LIMIT: Duration = Duration::from_secs(90);
/// Where fleet's machines stand in the store.
const FLEET_MACHINES: &str = "/v2/keys/_coreos.com/fleet/machines?recursive=true";
const INSTALLED_UNITS: &str = "/usr/local/lib/systemd/system";

/// Gives a machine that was never booted its user-data, and has cluster-init apply it at each boot.
pub(crate) fn prepare(lab: &Lab, machine: &Machine<'_>) -> Result<()> {
    let disk = machine.disk();
    let units = disk.join("etc/systemd/system");
    let text = match machine.role() {
        Role::Core => userdata::core(lab.discovery_url()),
        Role::Worker => {
            fs::write(units.join("docker.service"), docker::UNIT)?;
            userdata::worker(lab.etcd_servers())
        }
    };
    let directory = disk.join("var/lib/cluster-init");
    fs::create_dir_all(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
    fs::write(directory.join("user-data"), text)?;
    // As `systemctl enable cluster-init` does.
    let wanted = units.join("multi-user.target.wants/cluster-init.service");
    symlink(format!("{INSTALLED_UNITS}/cluster-init.service"), wanted).context("enable cluster-init")
}

/// The etcd servers of the first `count` core machines, as user-data lists them.
pub(crate) fn etcd_servers(count: u8) -> String {
    let url = |number| format!("http://{}:4001", Role::Core.machine(number).1);
    (1..=count).map(url).collect::<Vec<_>>().join(",")
}

/// The host's `/usr` is the machines' too, so that a distribution's etcd is present on them: what answers there must
/// be ours all the same.
pub(crate) fn check_ours(machine: &Machine<'_>) -> Result<()> {
    let version = machine.output(&["etcd", "--version"])?;
    if !version.lines().any(|line| line.starts_with("Hawser Version: ")) {
        bail!(
            "`etcd --version` on {} is not ours: {}",
            machine.name(),
            version.trim()
        );
    }
    let unit = machine.output(&["systemctl", "cat", "etcd.service"])?;
    let place = format!("# {INSTALLED_UNITS}/etcd.service");
    if unit.lines().next() != Some(&place) || !unit.contains("\nDescription=Hawser etcd") {
        bail!(
            "etcd.service on {} is not ours: {}",
            machine.name(),
            unit.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}

/// On CoreOS a stray etcd started on workers, because fleet.service wanted it.
pub(crate) fn check_no_etcd(worker: &Machine<'_>) -> Result<()> {
    let property = "--property=InactiveExitTimestampMonotonic";
    let since = worker.output(&["systemctl", "show", "etcd.service", property, "--value"])?;
    if since.trim() != "0" {
        bail!("etcd.service was started on {}", worker.name());
    }
    Ok(())
}

/// The worker's socket, written and enabled by its user-data, hands over to the service behind it.
pub(crate) fn check_socket(lab: &Lab, worker: &Machine<'_>) -> Result<()> {
    let answer = lab.ask_port(worker.address(), docker::PORT, "/_ping")?;
    if (answer.status, answer.body.as_str()) != (200, "OK") {
        bail!(
            "docker-tcp.socket on {} answers {answer:?} to GET /_ping",
            worker.name()
        );
    }
    Ok(())
}

/// What one node says about its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) cluster_id: String,
    /// Members' ids.
    pub(crate) members: BTreeSet<String>,
    /// The leader's peer URL; empty during an election.
    pub(crate) leader: String,
    /// It receives the log and has no vote yet.
    pub(crate) is_learner: bool,
}

impl NodeView {
    /// What all members of one cluster must agree on.
    fn shared(&self) -> (&str, &BTreeSet<String>, &str) {
        (&self.cluster_id, &self.members, &self.leader)
    }

    /// Whether the node with this address leads.
    pub(crate) fn is_led_by(&self, address: Ipv4Addr) -> bool {
        self.leader.contains(&format!("//{address}:"))
    }
}

/// Asks one node.
pub(crate) fn view(lab: &Lab, address: Ipv4Addr) -> Result<NodeView> {
    let members = lab.ask(address, "/v2/members")?;
    let list: Value = serde_json::from_str(&members.body).context("read the member list")?;
    let id = |member: &Value| member["id"].as_str().map(str::to_owned);
    let leader = lab.ask(address, "/v2/leader")?;
    let metrics = lab.ask(address, "/metrics")?;
    Ok(NodeView {
        cluster_id: members.header("x-etcd-cluster-id").unwrap_or_default().to_owned(),
        members: list["members"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(id)
            .collect(),
        leader: if leader.status == 200 {
            leader.body.trim().to_owned()
        } else {
            String::new()
        },
        is_learner: metrics
            .body
            .lines()
            .find_map(|line| line.strip_prefix("etcd_server_is_learner "))
            .context("/metrics does not say whether the node votes")?
            .trim()
            == "1",
    })
}

/// Waits until every running core machine tells of the same cluster, with all core machines as its members and one
/// leader.
pub(crate) fn wait_formed(lab: &Lab) -> Result<()> {
    let cores: Vec<_> = lab
        .machines()
        .filter(|machine| machine.role() == Role::Core)
        .collect();
    let running: Vec<_> = cores
        .iter()
        .filter(|machine| machine.power() == Power::On)
        .collect();
    wait::until("the cluster to form", CLUSTER_LIMIT, || {
        let mut views = Vec::new();
        for machine in &running {
            match view(lab, machine.address()) {
                Ok(view) => views.push((machine.name(), view)),
                Err(error) => return Ok(Look::Missing(format!("{}: {error:#}", machine.name()))),
            }
        }
        Ok(judge(&views, cores.len()).map_or(Look::Found(()), Look::Missing))
    })
}

/// Waits until a newcomer tells of the same cluster as a machine that was there before, and both list it.
pub(crate) fn wait_joined(lab: &Lab, newcomer: &Machine<'_>) -> Result<()> {
    wait::until("the newcomer to join", CLUSTER_LIMIT, || {
        let is_old =
            |machine: &Machine<'_>| machine.role() == Role::Core && machine.name() != newcomer.name();
        let mut old = lab
            .machines()
            .filter(|machine| is_old(machine) && machine.power() == Power::On);
        let old = old.next().context("no other core machine is running")?;
        let views = view(lab, old.address()).and_then(|before| Ok((before, view(lab, newcomer.address())?)));
        Ok(match views {
            Err(error) => Look::Missing(format!("{error:#}")),
            Ok((before, own))
                if before.shared() != own.shared() || own.leader.is_empty() || own.is_learner =>
            {
                Look::Missing(format!(
                    "{} and {} differ: {before:?}, {own:?}",
                    old.name(),
                    newcomer.name()
                ))
            }
            Ok(_) if !lists(lab, old.address(), newcomer.address())? => {
                Look::Missing("it is not listed yet".into())
            }
            Ok(_) => Look::Found(()),
        })
    })
}

/// Whether a node's `/v2/machines` lists the address.
fn lists(lab: &Lab, node: Ipv4Addr, address: Ipv4Addr) -> Result<bool> {
    let machines = lab.ask(node, "/v2/machines")?.body;
    Ok(machines
        .split(',')
        .any(|url| url.contains(&format!("//{address}:"))))
}

/// What is missing to a cluster of `count` members, if anything.
fn judge(views: &[(&str, NodeView)], count: usize) -> Option<String> {
    let (first, model) = views.first()?;
    for (name, view) in views {
        if view.members.len() != count {
            return Some(format!("{name} sees {} of {count} members", view.members.len()));
        }
        if view.leader.is_empty() {
            return Some(format!("{name} knows no leader"));
        }
        if view.is_learner {
            return Some(format!("{name} is a learner still"));
        }
        if view.shared() != model.shared() {
            return Some(format!("{name} and {first} differ: {view:?}, {model:?}"));
        }
    }
    None
}

/// Ids of the machines that stand in fleet's registry, as a running core machine's store has it.
pub(crate) fn fleet_machines(lab: &Lab) -> Result<BTreeSet<String>> {
    let cores = lab
        .machines()
        .filter(|machine| machine.role() == Role::Core && machine.power() == Power::On);
    let mut error = None;
    for core in cores {
        match lab.ask(core.address(), FLEET_MACHINES) {
            Ok(answer) => return Ok(machines_in(&answer.body)),
            Err(refusal) => error = Some(refusal),
        }
    }
    Err(error.context("no core machine is running")?)
}

/// Directories below the machines' key that hold an object. A store without the key has no machines.
fn machines_in(body: &str) -> BTreeSet<String> {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    let directories = answer["node"]["nodes"].as_array().cloned().unwrap_or_default();
    let has_object = |node: &&Value| {
        let children = node["nodes"].as_array();
        children.is_some_and(|nodes| {
            nodes
                .iter()
                .any(|node| node["key"].as_str().is_some_and(|key| key.ends_with("/object")))
        })
    };
    let id = |node: &Value| node["key"].as_str()?.rsplit('/').next().map(str::to_owned);
    directories.iter().filter(has_object).filter_map(id).collect()
}

/// Waits until these machines stand in fleet's registry.
pub(crate) fn wait_fleet<'lab>(lab: &Lab, machines: impl Iterator<Item = Machine<'lab>>) -> Result<()> {
    let wanted: Vec<_> = machines
        .map(|machine| (machine.name(), machine.machine_id()))
        .collect();
    wait::until("fleet's machines", FLEET_LIMIT, || {
        let found = match fleet_machines(lab) {
            Ok(found) => found,
            Err(error) => return Ok(Look::Missing(format!("{error:#}"))),
        };
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(_, id)| !found.contains(*id))
            .map(|(name, _)| *name)
            .collect();
        Ok(if missing.is_empty() {
            Look::Found(())
        } else {
            Look::Missing(format!("{} missing", missing.join(", ")))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cluster_id: &str, members: &[&str], leader: &str) -> NodeView {
        NodeView {
            cluster_id: cluster_id.into(),
            members: members.iter().map(|id| (*id).to_owned()).collect(),
            leader: leader.into(),
            is_learner: false,
        }
    }

    #[test]
    fn cluster_stands_when_all_agree() {
        let model = node("c1", &["1", "2"], "http://172.17.8.101:7001");
        assert_eq!(judge(&[("a", model.clone()), ("b", model.clone())], 2), None);
        assert!(
            judge(&[("a", model.clone())], 3)
                .unwrap()
                .contains("a sees 2 of 3 members")
        );
        let other = node("c2", &["1", "2"], "http://172.17.8.101:7001");
        assert!(
            judge(&[("a", model.clone()), ("b", other)], 2)
                .unwrap()
                .starts_with("b and a differ")
        );
        let learner = NodeView {
            is_learner: true,
            ..model.clone()
        };
        assert_eq!(
            judge(&[("a", model.clone()), ("b", learner)], 2).unwrap(),
            "b is a learner still"
        );
        let leaderless = node("c1", &["1", "2"], "");
        assert_eq!(
            judge(&[("a", model), ("b", leaderless)], 2).unwrap(),
            "b knows no leader"
        );
    }

    #[test]
    fn leader_is_found_by_its_whole_address() {
        let view = node("c", &[], "http://172.17.8.10:7001");
        assert!(view.is_led_by(Ipv4Addr::new(172, 17, 8, 10)));
        assert!(!view.is_led_by(Ipv4Addr::new(172, 17, 8, 1)));
    }

    #[test]
    fn machines_without_object_do_not_count() {
        let body = r#"{"action":"get","node":{"key":"/_coreos.com/fleet/machines","dir":true,"nodes":[
            {"key":"/_coreos.com/fleet/machines/aa","dir":true,"nodes":[{"key":"/_coreos.com/fleet/machines/aa/object","value":"{}"}]},
            {"key":"/_coreos.com/fleet/machines/bb","dir":true}]}}"#;
        assert_eq!(machines_in(body), BTreeSet::from(["aa".to_owned()]));
        assert!(machines_in(r#"{"errorCode":100,"message":"Key not found"}"#).is_empty());
    }
}
