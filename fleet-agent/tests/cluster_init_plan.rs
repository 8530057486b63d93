//! What follows from a configuration: files, links and jobs, and what is left to others.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as the tests do")]

use std::collections::BTreeMap;

use fleet_agent::cloud_config::config::{Command, Config};
use fleet_agent::cloud_config::message::Severity;
use fleet_agent::cloud_config::parse::parse;
use fleet_agent::cloud_config::plan::{Condition, Facts, Plan, Wait, plan};
use fleet_agent::cloud_config::substitute::{Variable, substitute};

const CORE: &str = include_str!("cloud_config/core.yaml");
const WORKER: &str = include_str!("cloud_config/worker.yaml");

fn config(text: &str) -> Config {
    let (config, messages) = parse(text);
    let errors = messages.iter().filter(|it| it.severity == Severity::Error);
    assert_eq!(errors.count(), 0, "{messages:?}");
    config
}

fn at(text: &str, address: &str) -> Plan {
    let values = BTreeMap::from([(Variable::PublicIpv4, address.to_owned())]);
    plan(&config(&substitute(text, &values)), &Facts::default())
}

fn plan_of(body: &str) -> Plan {
    plan(&config(&format!("#cloud-config\n{body}")), &Facts::default())
}

fn text_of<'a>(plan: &'a Plan, path: &str) -> &'a str {
    let file = plan.files.iter().find(|file| file.path == path);
    let file = file.unwrap_or_else(|| panic!("no {path} in {:?}", paths(plan)));
    std::str::from_utf8(&file.content).unwrap()
}

fn paths(plan: &Plan) -> Vec<&str> {
    plan.files.iter().map(|file| file.path.as_str()).collect()
}

fn notes(plan: &Plan) -> Vec<String> {
    plan.notes.iter().map(ToString::to_string).collect()
}

fn jobs(plan: &Plan) -> Vec<(&str, Command, Wait)> {
    let jobs = plan.jobs.iter();
    jobs.map(|job| (job.unit.as_str(), job.command, job.wait))
        .collect()
}

const ETCD_SETTINGS: &str = "/run/systemd/system/etcd.service.d/20-cloudinit.conf";
const FLEET_SETTINGS: &str = "/run/systemd/system/fleet.service.d/20-cloudinit.conf";

#[test]
fn a_core_machine_gets_two_drop_ins_and_two_starts() {
    let plan = at(CORE, "172.17.8.101");
    assert_eq!(paths(&plan), [ETCD_SETTINGS, FLEET_SETTINGS]);
    assert_eq!(
        text_of(&plan, ETCD_SETTINGS),
        include_str!("cloud_config/core-etcd.conf")
    );
    assert_eq!(
        text_of(&plan, FLEET_SETTINGS),
        include_str!("cloud_config/core-fleet.conf")
    );
    assert!(plan.files.iter().all(|file| file.mode == 0o644));
    assert_eq!(
        jobs(&plan),
        [
            ("etcd.service", Command::Start, Wait::Never),
            ("fleet.service", Command::Start, Wait::ForResult),
        ]
    );
    let check = plan.discovery.unwrap();
    assert_eq!(
        (check.url.as_str(), check.data_dir.as_str()),
        (
            "http://172.17.8.1:4001/v2/keys/7f15cac7-dd14-4a5c-ac36-0ef612e3b075",
            "/var/lib/etcd"
        )
    );
    assert_eq!(plan.notes, []);
}

#[test]
fn a_worker_gets_no_etcd_and_a_socket_from_its_content() {
    let plan = at(WORKER, "172.17.8.201");
    let socket = "/etc/systemd/system/docker-tcp.socket";
    assert_eq!(paths(&plan), [socket, FLEET_SETTINGS]);
    assert_eq!(
        text_of(&plan, FLEET_SETTINGS),
        include_str!("cloud_config/worker-fleet.conf")
    );
    assert_eq!(
        text_of(&plan, socket),
        "[Unit]\nDescription=Docker API over TCP\n\n[Socket]\nListenStream=2375\nService=docker.service\nBindIPv6Only=both\n\n[Install]\nWantedBy=sockets.target\n"
    );
    assert_eq!(
        jobs(&plan),
        [
            ("fleet.service", Command::Start, Wait::ForResult),
            ("docker-tcp.socket", Command::Start, Wait::ForResult),
        ]
    );
    assert_eq!(plan.enables.len(), 1);
    assert_eq!(plan.enables[0].unit, "docker-tcp.socket");
    assert!(!plan.enables[0].is_runtime);
    assert_eq!(plan.discovery, None);
}

#[test]
fn settings_stand_in_table_order_under_their_historic_names() {
    for (body, expected) in [
        (
            "etcd:\n    snapshot_count: 10_000\n    verbose: yes\n    peer-addr: b\n    addr: a\n    cluster_sync_interval: 2.50\n",
            "ETCD_ADDR=a|ETCD_CLUSTER_SYNC_INTERVAL=2.5|ETCD_PEER_ADDR=b|ETCD_SNAPSHOTCOUNT=10000|ETCD_VERBOSE=true",
        ),
        (
            "etcd2:\n    snapshot_count: 0x10\n    name: a\n    election-timeout: 010\n",
            "ETCD_ELECTION_TIMEOUT=8|ETCD_NAME=a|ETCD_SNAPSHOT_COUNT=16",
        ),
        (
            "etcd:\n    initial_cluster: a=http://a:7001\n    name: a\n",
            "ETCD_INITIAL_CLUSTER=a=http://a:7001|ETCD_NAME=a",
        ),
    ] {
        let plan = plan_of(&format!("coreos:\n  {body}"));
        let lines: Vec<&str> = text_of(&plan, ETCD_SETTINGS)
            .lines()
            .skip(1)
            .map(|line| line.trim_start_matches("Environment=\"").trim_end_matches('"'))
            .collect();
        assert_eq!(lines.join("|"), expected);
    }
}

#[test]
fn zero_values_give_no_line_and_an_empty_section_no_file() {
    let plan = plan_of(
        "coreos:\n  etcd:\n    snapshot: false\n    snapshot_count: 0\n    name: ''\n    retry_interval: 0.0\n    addr: ~\n  fleet:\n",
    );
    assert_eq!(paths(&plan), Vec::<&str>::new());
}

#[test]
fn settings_reach_the_daemon_as_they_stand_in_the_file() {
    let plan = plan_of(
        "coreos:\n  fleet:\n    metadata: 'a=50%,b=\"x\\y\"'\n    etcd_key_prefix: \"a\\nb\\tc $d\"\n",
    );
    assert_eq!(
        text_of(&plan, FLEET_SETTINGS),
        "[Service]\nEnvironment=\"FLEET_ETCD_KEY_PREFIX=a\\nb\\tc $d\"\nEnvironment=\"FLEET_METADATA=a=50%%,b=\\\"x\\\\y\\\"\"\n"
    );
}

#[test]
fn a_dry_run_shows_settings_but_no_password() {
    let plan = plan_of("coreos:\n  fleet:\n    etcd_password: secret\n    etcd_username: me\n");
    assert_eq!(
        plan.files[0].preview,
        ["FLEET_ETCD_USERNAME=me", "FLEET_ETCD_PASSWORD=(hidden)"]
    );
}

#[test]
fn etcd2_is_our_etcd() {
    let plan = plan_of(
        "coreos:
  etcd2:
    discovery: http://172.17.8.1:4001/v2/keys/a
    data-dir: /srv/etcd
  units:
    - name: etcd2.service
      command: start
      drop_ins:
        - name: 50-more.conf
          content: x
",
    );
    assert_eq!(
        paths(&plan),
        ["/etc/systemd/system/etcd.service.d/50-more.conf", ETCD_SETTINGS]
    );
    assert_eq!(jobs(&plan), [("etcd.service", Command::Start, Wait::Never)]);
    assert_eq!(plan.discovery.as_ref().unwrap().data_dir, "/srv/etcd");
    assert_eq!(
        notes(&plan),
        ["line 7: info: etcd2.service is etcd.service here: one etcd speaks both versions"]
    );
}

#[test]
fn stopping_etcd_is_waited_for_and_asks_no_discovery() {
    let plan = plan_of(
        "coreos:\n  etcd:\n    discovery: http://a/b\n  units:\n    - name: etcd.service\n      command: stop\n",
    );
    assert_eq!(jobs(&plan), [("etcd.service", Command::Stop, Wait::ForResult)]);
    assert_eq!(plan.discovery, None);
}

#[test]
fn units_go_where_their_life_ends() {
    let plan = plan_of(
        "coreos:
  units:
    - name: a.service
      content: a
      drop_ins:
        - name: x.conf
          content: x
    - name: b.service
      runtime: true
      enable: true
      content: b
      drop_ins:
        - name: y.conf
    - name: c.service
      mask: true
    - name: d.service
      mask: true
      runtime: true
    - name: e.service
      runtime: true
",
    );
    assert_eq!(
        paths(&plan),
        [
            "/etc/systemd/system/a.service",
            "/etc/systemd/system/a.service.d/x.conf",
            "/run/systemd/system/b.service",
            "/run/systemd/system/b.service.d/y.conf",
        ]
    );
    let masks: Vec<_> = plan
        .masks
        .iter()
        .map(|it| (it.path.as_str(), it.is_masked))
        .collect();
    assert_eq!(
        masks,
        [
            ("/etc/systemd/system/c.service", true),
            ("/run/systemd/system/d.service", true),
            ("/run/systemd/system/e.service", false),
        ]
    );
    assert!(plan.enables[0].is_runtime);
}

#[test]
fn a_section_takes_away_a_null_link_for_its_unit() {
    let plan = at(CORE, "10.0.0.1");
    let masks: Vec<_> = plan
        .masks
        .iter()
        .map(|it| (it.path.as_str(), it.is_masked))
        .collect();
    assert_eq!(
        masks,
        [
            ("/run/systemd/system/etcd.service", false),
            ("/run/systemd/system/fleet.service", false),
        ]
    );
}

#[test]
fn a_mask_of_the_same_place_is_stronger_than_a_section() {
    let plan = plan_of(
        "coreos:\n  fleet:\n    public_ip: a\n  units:\n    - name: fleet.service\n      mask: true\n      runtime: true\n",
    );
    assert_eq!(plan.masks.len(), 1);
    assert!(plan.masks[0].is_masked);
}

#[test]
fn network_files_go_to_networkd_which_is_restarted_if_one_changed() {
    let plan = plan_of(
        "coreos:\n  units:\n    - name: a.service\n      command: start\n    - name: 10-eth0.network\n      command: start\n      content: x\n",
    );
    assert_eq!(paths(&plan), ["/etc/systemd/network/10-eth0.network"]);
    assert_eq!(
        jobs(&plan),
        [
            ("systemd-networkd.service", Command::TryRestart, Wait::ForResult),
            ("a.service", Command::Start, Wait::ForResult),
        ]
    );
    assert_eq!(plan.jobs[0].condition, Condition::NetworkFilesChanged);
    assert_eq!(
        notes(&plan),
        [
            "line 6: info: 10-eth0.network is a file for systemd-networkd: enable and command have no effect on it"
        ]
    );
}

#[test]
fn the_last_of_two_contents_for_one_path_counts() {
    let plan = plan_of(
        "write_files:\n  - path: /a\n    content: one\n  - path: /b\n  - path: /a\n    content: two\n",
    );
    assert_eq!(paths(&plan), ["/b", "/a"]);
    assert_eq!(text_of(&plan, "/a"), "two");
    assert_eq!(
        notes(&plan),
        ["line 6: warning: /a is written twice, here and in line 3: this one counts"]
    );
}

#[test]
fn owners_are_found_in_the_accounts_of_the_root() {
    let facts = Facts {
        passwd: "etcd:x:110:115::/:/bin/false\n".to_owned(),
        group: "adm:x:4:\n".to_owned(),
        seen_by_cloud_init: None,
    };
    let text =
        "#cloud-config\nwrite_files:\n  - path: /a\n    owner: etcd:adm\n  - path: /b\n    owner: core\n";
    let plan = plan(&config(text), &facts);
    let owner = plan.files[0].owner.unwrap();
    assert_eq!((owner.uid, owner.gid), (Some(110), Some(4)));
    assert_eq!(
        notes(&plan),
        ["line 6: error: user \"core\" is not in /etc/passwd: create it first, or use a number"]
    );
}

#[test]
fn sections_of_later_versions_warn_with_their_line() {
    let plan = plan_of(
        "ssh_authorized_keys: [ssh-rsa AAAA]\nusers:\n  - name: a\nmanage_etc_hosts: localhost\ncoreos:\n  update:\n    reboot-strategy: off\n  flannel:\n    interface: eth0\n",
    );
    assert_eq!(
        notes(&plan),
        [
            "line 2: warning: ssh_authorized_keys is not applied by this version",
            "line 3: warning: users is not applied by this version",
            "line 5: warning: manage_etc_hosts is not applied by this version",
            "line 7: warning: coreos.update is not applied by this version",
            "line 9: warning: coreos.flannel is not applied by this version",
        ]
    );
}

#[test]
fn what_cloud_init_applied_is_skipped_except_where_it_missed_an_address() {
    let text = "#cloud-config
hostname: core-01
users:
  - name: a
write_files:
  - path: /a
    content: same
  - path: /b
    content: $public_ipv4
coreos:
  update:
    group: alpha
";
    let values = BTreeMap::from([(Variable::PublicIpv4, "10.0.0.1".to_owned())]);
    let facts = Facts {
        seen_by_cloud_init: Some(config(text)),
        ..Facts::default()
    };
    let plan = plan(&config(&substitute(text, &values)), &facts);
    assert_eq!(plan.hostname, None);
    assert_eq!(paths(&plan), ["/b"]);
    assert_eq!(text_of(&plan, "/b"), "10.0.0.1");
    assert_eq!(
        notes(&plan),
        [
            "line 2: info: hostname is skipped: cloud-init applied it",
            "line 3: info: users is skipped: cloud-init applied it",
            "line 6: info: /a is skipped: cloud-init wrote it",
            "line 11: warning: coreos.update is not applied by this version",
        ]
    );
}
