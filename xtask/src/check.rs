//! `cargo xtask check`: whether the running lab is the cluster that it should be, and stays it when machines come
//! and go. It adds two machines and cuts one's power, which it restarts.

#![expect(clippy::print_stdout, reason = "each check says what it found")]

use crate::cluster;
use crate::command;
use crate::lab::{Lab, Machine, Power, Role};
use crate::load::{self, Journal, Writer};
use crate::progress::Steps;
use crate::up;
use crate::wait::{self, Look};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// A stock client beside ours: it tells voters from learners.
const STOCK_ETCDCTL: &str = "/usr/bin/etcdctl";
/// The samples name port 4001; a stock client looks at 2379.
const LOCAL_ENDPOINT: &str = "--endpoints=http://127.0.0.1:4001";
/// Fewer cannot lose one.
const VOTERS_MIN: usize = 3;
/// From a leader's death to the next accepted write.
const FAILOVER_LIMIT: Duration = Duration::from_secs(2);
/// Writes flow while machines are added: two election timeouts, of which one is drawn from 400 to 800 ms.
const GAP_LIMIT: Duration = Duration::from_millis(1600);
/// fleet's `agent_ttl` is 30 s; a lease is looked at now and then.
const ROW_LIMIT: Duration = Duration::from_secs(45);
/// A machine boots, joins its cluster and registers.
const RETURN_LIMIT: Duration = Duration::from_secs(90);
/// Each writer's pace: gaps are measured more finely than any limit, and the log stays short.
const WRITE_PAUSE: Duration = Duration::from_millis(10);

type Check = (&'static str, fn(&str) -> Result<String>);

/// In an order in which each finds the cluster as the one before has left it.
const CHECKS: [Check; 9] = [
    ("programs and units are ours", programs),
    ("every node tells the same cluster id", cluster_id),
    ("three voters", voters),
    ("discovery lists the members", discovery),
    ("one keyspace through both APIs", keyspace),
    ("the table has a row for each machine", table),
    ("two machines more, writes flowing", added),
    ("the leader's power fails", leader_lost),
    ("the table has a row for each machine again", table),
];

/// Runs every check on the lab of this name; the last line counts.
pub(crate) fn check(name: &str) -> Result<()> {
    let steps = Steps::start();
    let mut failed = 0;
    for (what, check) in CHECKS {
        match steps.run(what, || check(name)) {
            Ok(found) => println!("          {found}"),
            Err(error) => {
                failed += 1;
                println!("          {error:#}");
            }
        }
    }
    println!("checks run: {} passed, {failed} failed", CHECKS.len() - failed);
    ensure!(failed == 0, "the cluster is not what it should be");
    Ok(())
}

fn programs(name: &str) -> Result<String> {
    let lab = Lab::open(name)?;
    for machine in lab.machines() {
        cluster::check_ours(&machine)?;
    }
    Ok(format!(
        "on {}",
        join(lab.machines().map(|machine| machine.name().to_owned()))
    ))
}

fn cluster_id(name: &str) -> Result<String> {
    let lab = Lab::open(name)?;
    let mut ids = BTreeMap::new();
    for core in cores(&lab) {
        let view = cluster::view(&lab, core.address())?;
        ids.insert(core.name().to_owned(), view.cluster_id);
    }
    judge_ids(&ids)
}

fn judge_ids(ids: &BTreeMap<String, String>) -> Result<String> {
    let different: BTreeSet<_> = ids.values().collect();
    match different.into_iter().collect::<Vec<_>>().as_slice() {
        [] => bail!("no node runs"),
        [id] if id.is_empty() => bail!("no node tells its cluster id"),
        [id] => Ok(format!("{id} on {}", join(ids.keys().cloned()))),
        _ => bail!("the nodes are of different clusters: {ids:?}"),
    }
}

fn voters(name: &str) -> Result<String> {
    let lab = Lab::open(name)?;
    let cores = cores(&lab);
    ensure!(
        cores.len() >= VOTERS_MIN,
        "{} nodes run, and fewer than {VOTERS_MIN} cannot lose one",
        cores.len()
    );
    for core in &cores {
        let list = member_list(&lab, core.address())?;
        judge_voters(&list, cores.len()).with_context(|| format!("as {} has it", core.name()))?;
    }
    Ok(format!("{} on each node's list, no learner", cores.len()))
}

/// As a stock client prints it: `id, status, name, peers, clients, is learner`.
fn member_list(lab: &Lab, address: Ipv4Addr) -> Result<String> {
    let endpoint = format!("--endpoints=http://{address}:4001");
    let words = ["env", "ETCDCTL_API=3", STOCK_ETCDCTL, &endpoint, "member", "list"];
    command::capture(&mut lab.hub().command(&words))
}

/// Whether a list, as a stock client prints it, has so many voters and no learner.
pub(crate) fn judge_voters(list: &str, wanted: usize) -> Result<()> {
    let is_voter = |line: &&str| line.contains(", started, ") && line.trim_end().ends_with(", false");
    let voters = list.lines().filter(is_voter).count();
    let members = list.lines().count();
    ensure!(
        voters == wanted && members == wanted,
        "{voters} voters of {members} members, not {wanted}: {}",
        list.trim()
    );
    Ok(())
}

fn discovery(name: &str) -> Result<String> {
    let lab = Lab::open(name)?;
    let listed = command::capture(&mut lab.hub().command(&["etcdctl", "ls", "--recursive", "/"]))?;
    let (_, token) = lab
        .discovery_url()
        .rsplit_once('/')
        .context("the discovery URL has no token")?;
    for core in cores(&lab) {
        let key = format!("/{token}/{}", core.machine_id());
        ensure!(
            listed.lines().any(|line| line == key),
            "{} is not listed as {key}: {}",
            core.name(),
            listed.trim()
        );
        let url = command::capture(&mut lab.hub().command(&["etcdctl", "get", &key]))?;
        let wanted = format!("http://{}:7001", core.address());
        ensure!(url.trim() == wanted, "{key} is {}, not {wanted}", url.trim());
    }
    Ok("each by its machine id, with its peer URL".to_owned())
}

fn keyspace(name: &str) -> Result<String> {
    let lab = Lab::open(name)?;
    let cores = cores(&lab);
    let (first, last) = cores.first().zip(cores.last()).context("no core machine runs")?;
    let value = "this is awesome";
    first.run(&["etcdctl", "set", "/mykey", value])?;
    let read = last.output(&[
        "env",
        "ETCDCTL_API=3",
        STOCK_ETCDCTL,
        LOCAL_ENDPOINT,
        "get",
        "/mykey",
        "--print-value-only",
    ])?;
    ensure!(
        read.trim() == value,
        "written in v2 was `{value}`, read in v3 is `{}`",
        read.trim()
    );
    last.run(&[
        "env",
        "ETCDCTL_API=3",
        STOCK_ETCDCTL,
        LOCAL_ENDPOINT,
        "put",
        "/theirs",
        value,
    ])?;
    let read = first.output(&["etcdctl", "get", "/theirs"])?;
    ensure!(
        read.trim() == value,
        "written in v3 was `{value}`, read in v2 is `{}`",
        read.trim()
    );
    Ok(format!(
        "written on {}, read on {}, and back",
        first.name(),
        last.name()
    ))
}

/// Every machine prints the same table, with a row for each.
fn table(name: &str) -> Result<String> {
    let lab = Lab::open(name)?;
    let wanted: Vec<_> = lab
        .machines()
        .map(|machine| (machine.machine_id().to_owned(), machine.address()))
        .collect();
    for machine in lab.machines() {
        let table = machine.output(&["fleetctl", "list-machines", "--full"])?;
        judge_table(&table, &wanted).with_context(|| format!("on {}", machine.name()))?;
    }
    Ok(format!("{} rows on every machine", wanted.len()))
}

fn judge_table(table: &str, wanted: &[(String, Ipv4Addr)]) -> Result<()> {
    let mut rows: Vec<_> = table.lines().skip(1).map(columns).collect();
    rows.sort();
    let mut wanted: Vec<_> = wanted
        .iter()
        .map(|(id, address)| Some((id.clone(), address.to_string())))
        .collect();
    wanted.sort();
    ensure!(table.starts_with("MACHINE\t"), "the table has no head: {table}");
    ensure!(
        rows == wanted,
        "{} rows for {} machines:\n{table}",
        rows.len(),
        wanted.len()
    );
    Ok(())
}

/// Machine and address of a row.
fn columns(row: &str) -> Option<(String, String)> {
    let mut columns = row.split_whitespace();
    Some((columns.next()?.to_owned(), columns.next()?.to_owned()))
}

/// Four, then five members; the old ones do not notice.
fn added(name: &str) -> Result<String> {
    let before = Lab::open(name)?;
    let old = cores(&before);
    let processes = processes(&old)?;
    let ((), journals) = load::during(&writers(&before, &old, "/check/add"), || {
        for _ in 0..2 {
            up::add(name, Role::Core)?;
            let lab = Lab::open(name)?;
            let all = cores(&lab);
            for core in &old {
                wait_listed(&lab, core, &all)?;
            }
        }
        Ok(())
    })?;
    ensure!(
        processes == self::processes(&old)?,
        "etcd was started again on an old machine"
    );
    let written = verify(&before, &journals)?;
    let gap = journals
        .iter()
        .map(Journal::longest_gap)
        .max()
        .unwrap_or_default();
    ensure!(
        gap < GAP_LIMIT,
        "for {} ms no write was accepted, with {} ms allowed",
        gap.as_millis(),
        GAP_LIMIT.as_millis()
    );
    voters(name)?;
    Ok(format!(
        "{} members, old processes untouched, {written} writes, longest gap {} ms",
        old.len() + 2,
        gap.as_millis()
    ))
}

/// Waits until `/v2/machines` of a node lists exactly these machines.
fn wait_listed(lab: &Lab, node: &Machine<'_>, all: &[Machine<'_>]) -> Result<()> {
    let mut wanted: Vec<_> = all
        .iter()
        .map(|core| format!("http://{}:4001", core.address()))
        .collect();
    wanted.sort();
    wait::until(&format!("{} machines", all.len()), RETURN_LIMIT, || {
        let body = lab.ask(node.address(), "/v2/machines")?.body;
        let mut listed: Vec<_> = body.split(',').map(|url| url.trim().to_owned()).collect();
        listed.sort();
        Ok(if listed == wanted {
            Look::Found(())
        } else {
            Look::Missing(format!("{} lists {}", node.name(), listed.join(", ")))
        })
    })
}

/// Which process etcd is on each machine, and since when.
fn processes(machines: &[Machine<'_>]) -> Result<Vec<String>> {
    let words = [
        "systemctl",
        "show",
        "etcd.service",
        "--property=MainPID,ExecMainStartTimestampMonotonic,NRestarts",
    ];
    machines.iter().map(|machine| machine.output(&words)).collect()
}

fn leader_lost(name: &str) -> Result<String> {
    let lab = Lab::open(name)?;
    let all = cores(&lab);
    let (leader, others): (Vec<_>, Vec<_>) = {
        let view = cluster::view(&lab, all.first().context("no core machine runs")?.address())?;
        all.into_iter().partition(|core| view.is_led_by(core.address()))
    };
    let leader = leader.first().context("no machine leads")?;
    let writers = writers(&lab, &others, "/check/kill");
    let ((failover, row_left), journals) = load::during(&writers, || {
        wait_writing(&lab, &others, "/check/kill")?;
        let killed = Instant::now();
        leader.kill()?;
        let failover = load::first_accepted(&writers, ROW_LIMIT)? - killed;
        wait_row(&lab, leader, false, ROW_LIMIT)?;
        let row_left = killed.elapsed();
        leader.boot()?;
        wait_row(&lab, leader, true, RETURN_LIMIT)?;
        cluster::wait_formed(&lab)?;
        Ok((failover, row_left))
    })?;
    let written = verify(&lab, &journals)?;
    ensure!(
        failover < FAILOVER_LIMIT,
        "the next write was accepted after {} ms, with {} ms allowed",
        failover.as_millis(),
        FAILOVER_LIMIT.as_millis()
    );
    Ok(format!(
        "{}: writes again after {} ms, its row left after {} s and returned, {written} writes, none lost",
        leader.name(),
        failover.as_millis(),
        row_left.as_secs()
    ))
}

fn wait_writing(lab: &Lab, nodes: &[Machine<'_>], directory: &str) -> Result<()> {
    for node in nodes {
        let path = format!("/v2/keys{directory}/{}", node.name());
        wait::until(&format!("writes through {}", node.name()), RETURN_LIMIT, || {
            let answer = lab.ask(node.address(), &path)?;
            Ok(match answer.status {
                200 => Look::Found(()),
                status => Look::Missing(format!("{path} answers with status {status}")),
            })
        })?;
    }
    Ok(())
}

fn wait_row(lab: &Lab, machine: &Machine<'_>, is_wanted: bool, limit: Duration) -> Result<()> {
    let what = if is_wanted { "return" } else { "leave" };
    wait::until(&format!("{}'s row to {what}", machine.name()), limit, || {
        Ok(match cluster::fleet_machines(lab) {
            Ok(rows) if rows.contains(machine.machine_id()) == is_wanted => Look::Found(()),
            Ok(rows) => Look::Missing(format!("there are {} rows", rows.len())),
            Err(error) => Look::Missing(format!("{error:#}")),
        })
    })
}

/// One writer through each machine.
fn writers<'a>(lab: &'a Lab, machines: &'a [Machine<'a>], directory: &str) -> Vec<Writer<'a>> {
    let writer = |machine: &'a Machine<'a>| Writer {
        name: machine.name().to_owned(),
        directory: format!("{directory}/{}", machine.name()),
        pause: WRITE_PAUSE,
        connect: Box::new(|| lab.connect(machine.address())),
    };
    machines.iter().map(writer).collect()
}

/// Every node must have every acknowledged write.
fn verify(lab: &Lab, journals: &[Journal]) -> Result<u64> {
    let mut count = 0;
    for core in cores(lab) {
        let mut node = lab.connect(core.address())?;
        count = load::verify(journals, &mut node).with_context(|| format!("on {}", core.name()))?;
    }
    ensure!(count > 0, "no write was accepted at all");
    Ok(count)
}

fn cores(lab: &Lab) -> Vec<Machine<'_>> {
    lab.machines()
        .filter(|machine| machine.role() == Role::Core && machine.power() == Power::On)
        .collect()
}

fn join(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(of: &[(&str, &str)]) -> Result<String> {
        let owned = of.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned()));
        judge_ids(&owned.collect())
    }

    #[test]
    fn different_cluster_ids_are_found() {
        assert_eq!(ids(&[("a", "c1"), ("b", "c1")]).unwrap(), "c1 on a, b");
        let error = ids(&[("a", "c1"), ("b", "c2")]).unwrap_err().to_string();
        assert!(
            error.starts_with("the nodes are of different clusters"),
            "{error}"
        );
        ids(&[("a", ""), ("b", "")]).unwrap_err();
        ids(&[]).unwrap_err();
    }

    #[test]
    fn learners_and_newcomers_are_no_voters() {
        let member = |status: &str, is_learner: &str| {
            format!("8e9e05c52164694d, {status}, n, http://h:7001, http://h:4001, {is_learner}\n")
        };
        let voter = member("started", "false");
        judge_voters(&voter.repeat(3), 3).unwrap();
        judge_voters(&voter.repeat(2), 3).unwrap_err();
        judge_voters(&voter.repeat(4), 3).unwrap_err();
        judge_voters(&(voter.repeat(2) + &member("started", "true")), 3).unwrap_err();
        judge_voters(&(voter.repeat(3) + &member("unstarted", "false")), 4).unwrap_err();
    }

    #[test]
    fn missing_and_strange_rows_are_found() {
        let wanted = |id: &str, last: u8| (id.to_owned(), Ipv4Addr::new(172, 17, 8, last));
        let machines = [wanted("b1", 101), wanted("a2", 201)];
        let head = "MACHINE\tIP\t\tMETADATA\n";
        let rows = "a2\t172.17.8.201\t-\nb1\t172.17.8.101\t-\n";
        judge_table(&format!("{head}{rows}"), &machines).unwrap();
        judge_table(&format!("{head}a2\t172.17.8.201\t-\n"), &machines).unwrap_err();
        judge_table(&format!("{head}{rows}c3\t172.17.8.3\t-\n"), &machines).unwrap_err();
        judge_table(
            &format!("{head}a2\t172.17.8.101\t-\nb1\t172.17.8.201\t-\n"),
            &machines,
        )
        .unwrap_err();
        judge_table(rows, &machines).unwrap_err();
    }
}
