//! What to do about a configuration: which files, links and jobs, in which order.
//!
//! All files stand before the first job, whatever their order in the list: a unit that is started
//! early may need a file that is written late.

use std::collections::BTreeMap;

use super::accounts::{self, Owner};
use super::config::{Command, Config, File, Service, Unit};
use super::environment;
use super::message::Message;
use super::options::Section;

/// Our etcd, whatever generation a file has in mind.
pub const ETCD: &str = "etcd.service";

/// etcd 2's unit on CoreOS; with us the same as [`ETCD`].
pub const ETCD_ALIAS: &str = "etcd2.service";

/// Name of the drop-ins with a section's settings, as on CoreOS.
const SETTINGS_NAME: &str = "20-cloudinit.conf";

/// Where etcd's data lies when nothing says otherwise.
const ETCD_DATA_DIR: &str = "/var/lib/etcd";

/// Where a script from user-data is kept, and the unit that runs it.
const SCRIPT_PATH: &str = "/var/lib/cluster-init/script";
const SCRIPT_UNIT: &str = "cluster-init-script.service";

/// Reads files for interfaces; restarted when one changed.
const NETWORKD: &str = "systemd-networkd.service";

/// What planning has to know about the machine.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Text of `/etc/passwd`.
    pub passwd: String,
    /// Text of `/etc/group`.
    pub group: String,
    /// The configuration that cloud-init applied on this machine from the same user-data, as
    /// cloud-init read it: without substitution.
    pub seen_by_cloud_init: Option<Config>,
}

/// Everything that is to be true afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The machine's name.
    pub hostname: Option<String>,
    /// Files to be there, in the order of writing, each path once.
    pub files: Vec<PlannedFile>,
    /// Unit masks to set or to clear, after the files.
    pub masks: Vec<Mask>,
    /// Units to enable, after the masks.
    pub enables: Vec<Enable>,
    /// Jobs, in the order of the list, after all else and one reload.
    pub jobs: Vec<Job>,
    /// What should be looked at before etcd starts.
    pub discovery: Option<DiscoveryCheck>,
    /// Remarks; an error among them forbids applying the plan.
    pub notes: Vec<Message>,
}

/// A file with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Absolute.
    pub path: String,
    /// Whole content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner to set; None leaves it to the one who writes.
    pub owner: Option<Owner>,
    /// The unit that it configures.
    pub unit: Option<String>,
    /// What a dry run may show of the content, line by line.
    pub preview: Vec<String>,
    /// The line of the file that asked for it.
    pub line: usize,
}

/// A unit file place that is to be, or not to be, a link to `/dev/null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// The unit.
    pub unit: String,
    /// The place.
    pub path: String,
    /// True: link it, removing what is there. False: remove it if it is empty or a null link.
    pub is_masked: bool,
}

/// A unit whose `[Install]` section is to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enable {
    /// The unit.
    pub unit: String,
    /// Whether for this boot only.
    pub is_runtime: bool,
}

/// One request to systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The unit.
    pub unit: String,
    /// What to do with it.
    pub command: Command,
    /// Whether the next job waits for this one's end.
    pub wait: Wait,
    /// When it is made at all.
    pub condition: Condition,
}

/// Whether a job's end is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Wait, within a limit, and count its result.
    ForResult,
    /// Go on at once: it may take as long as other machines need.
    Never,
}

/// When a job is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// On every run, unless the unit is in the wanted state already.
    Always,
    /// Only in a run that changed a file of systemd-networkd.
    NetworkFilesChanged,
}

/// Before a new etcd asks a discovery service: is its token used up?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryCheck {
    /// The whole URL with the token.
    pub url: String,
    /// A member that has data here does not ask.
    pub data_dir: String,
}

/// Plans a configuration.
pub fn plan(config: &Config, facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    let seen = facts.seen_by_cloud_init.as_ref();
    plan_hostname(config, seen, &mut plan);
    plan_written_files(config, facts, &mut plan);
    note_unapplied(config, seen, &mut plan);
    for unit in &config.units {
        plan_unit(unit, &mut plan);
    }
    for service in &config.services {
        plan_service(service, &mut plan);
    }
    plan.discovery = discovery_check(config, &plan.jobs);
    keep_last_of_each_path(&mut plan);
    if plan.files.iter().any(|file| is_network_path(&file.path)) {
        let job = Job {
            unit: NETWORKD.to_owned(),
            command: Command::TryRestart,
            wait: Wait::ForResult,
            condition: Condition::NetworkFilesChanged,
        };
        plan.jobs.insert(0, job);
    }
    plan.notes.sort_by_key(|note| note.line);
    plan
}

/// Plans user-data that is a script: run once per boot by `/bin/bash`, in a unit of its own so that
/// its processes outlive us; nobody waits for it.
pub fn plan_script(text: &str) -> Plan {
    let unit = format!(
        "[Unit]\nDescription=Script from user-data\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/bash {SCRIPT_PATH}\n"
    );
    let file = |path: String, content: &str, mode| PlannedFile {
        path,
        content: content.as_bytes().to_vec(),
        mode,
        owner: None,
        unit: Some(SCRIPT_UNIT.to_owned()),
        preview: Vec::new(),
        line: 1,
    };
    let job = Job {
        unit: SCRIPT_UNIT.to_owned(),
        // A changed script runs again; the record of the boot keeps an unchanged one from it.
        command: Command::Restart,
        wait: Wait::Never,
        condition: Condition::Always,
    };
    Plan {
        files: vec![
            file(SCRIPT_PATH.to_owned(), text, 0o700),
            file(format!("/run/systemd/system/{SCRIPT_UNIT}"), &unit, 0o644),
        ],
        jobs: vec![job],
        ..Plan::default()
    }
}

/// Whether systemd has to read its units again when this file changes.
pub fn is_unit_path(path: &str) -> bool {
    const PLACES: [&str; 5] = [
        "/etc/systemd/system/",
        "/run/systemd/system/",
        "/usr/local/lib/systemd/system/",
        "/usr/lib/systemd/system/",
        "/lib/systemd/system/",
    ];
    PLACES.iter().any(|place| path.starts_with(place))
}

/// Whether systemd-networkd reads this file.
pub fn is_network_path(path: &str) -> bool {
    path.starts_with("/etc/systemd/network/") || path.starts_with("/run/systemd/network/")
}

fn plan_hostname(config: &Config, seen: Option<&Config>, plan: &mut Plan) {
    let Some(hostname) = &config.hostname else {
        return;
    };
    if seen.and_then(|seen| seen.hostname.as_ref()) == Some(hostname) {
        let text = "hostname is skipped: cloud-init applied it";
        plan.notes.push(Message::info(hostname.line, text));
    } else {
        plan.hostname = Some(hostname.value.clone());
    }
}

fn plan_written_files(config: &Config, facts: &Facts, plan: &mut Plan) {
    for file in &config.files {
        let seen = facts.seen_by_cloud_init.as_ref();
        if seen.is_some_and(|seen| seen.files.contains(file)) {
            let text = format!("{} is skipped: cloud-init wrote it", file.path);
            plan.notes.push(Message::info(file.line, text));
            continue;
        }
        plan_written_file(file, facts, plan);
    }
}

fn plan_written_file(file: &File, facts: &Facts, plan: &mut Plan) {
    let mut owner = None;
    if let Some(given) = &file.owner {
        match accounts::resolve(&given.value, &facts.passwd, &facts.group) {
            Ok(found) => owner = Some(found),
            Err(text) => plan.notes.push(Message::error(given.line, text)),
        }
    }
    plan.files.push(PlannedFile {
        path: file.path.clone(),
        content: file.content.clone(),
        mode: file.mode,
        owner,
        unit: None,
        preview: Vec::new(),
        line: file.line,
    });
}

fn note_unapplied(config: &Config, seen: Option<&Config>, plan: &mut Plan) {
    for section in &config.unapplied {
        let key = section.value;
        let is_seen = seen.is_some_and(|seen| seen.unapplied.contains(section));
        let note = if is_seen && !key.starts_with("coreos.") {
            Message::info(section.line, format!("{key} is skipped: cloud-init applied it"))
        } else {
            Message::warning(section.line, format!("{key} is not applied by this version"))
        };
        plan.notes.push(note);
    }
}

fn plan_unit(unit: &Unit, plan: &mut Plan) {
    let mut name = unit.name.as_str();
    if name == ETCD_ALIAS {
        name = ETCD;
        let text = format!("{ETCD_ALIAS} is {ETCD} here: one etcd speaks both versions");
        plan.notes.push(Message::info(unit.line, text));
    }
    let is_network = is_network_file(name);
    let top = if unit.runtime { "/run" } else { "/etc" };
    let directory = if is_network { "network" } else { "system" };
    let path = format!("{top}/systemd/{directory}/{name}");
    let file = |path: String, content: &str, line| PlannedFile {
        path,
        content: content.as_bytes().to_vec(),
        mode: 0o644,
        owner: None,
        unit: Some(name.to_owned()),
        preview: Vec::new(),
        line,
    };
    if let (Some(content), false) = (&unit.content, unit.mask) {
        plan.files.push(file(path.clone(), &content.value, unit.line));
    }
    for drop_in in &unit.drop_ins {
        let path = format!("{path}.d/{}", drop_in.name);
        plan.files.push(file(path, &drop_in.content, drop_in.line));
    }
    if unit.mask || (unit.runtime && unit.content.is_none()) {
        plan.masks.push(Mask {
            unit: name.to_owned(),
            path,
            is_masked: unit.mask,
        });
    }
    if is_network {
        note_network_unit(unit, plan);
    } else {
        plan_unit_jobs(unit, name, plan);
    }
}

fn plan_unit_jobs(unit: &Unit, name: &str, plan: &mut Plan) {
    if unit.enable {
        plan.enables.push(Enable {
            unit: name.to_owned(),
            is_runtime: unit.runtime,
        });
    }
    if let Some(command) = &unit.command {
        // etcd is ready only when enough other machines are: the list must not wait for them.
        let wait = if name == ETCD && command.value != Command::Stop {
            Wait::Never
        } else {
            Wait::ForResult
        };
        plan.jobs.push(Job {
            unit: name.to_owned(),
            command: command.value,
            wait,
            condition: Condition::Always,
        });
    }
}

fn is_network_file(name: &str) -> bool {
    let suffix = name.rsplit_once('.').map(|(_, suffix)| suffix);
    matches!(suffix, Some("network" | "netdev" | "link"))
}

fn note_network_unit(unit: &Unit, plan: &mut Plan) {
    if unit.enable || unit.command.is_some() {
        let text = format!(
            "{} is a file for systemd-networkd: enable and command have no effect on it",
            unit.name
        );
        plan.notes.push(Message::info(unit.line, text));
    }
}

fn plan_service(service: &Service, plan: &mut Plan) {
    let (unit, _) = service
        .section
        .service()
        .expect("only sections with a service are kept as services");
    let Some(content) = environment::drop_in(&service.settings) else {
        return;
    };
    plan.files.push(PlannedFile {
        path: format!("/run/systemd/system/{unit}.d/{SETTINGS_NAME}"),
        content: content.into_bytes(),
        mode: 0o644,
        owner: None,
        unit: Some(unit.to_owned()),
        preview: service.settings.iter().map(environment::describe).collect(),
        line: service.line,
    });
    let path = format!("/run/systemd/system/{unit}");
    if plan.masks.iter().all(|mask| mask.path != path) {
        plan.masks.push(Mask {
            unit: unit.to_owned(),
            path,
            is_masked: false,
        });
    }
}

fn discovery_check(config: &Config, jobs: &[Job]) -> Option<DiscoveryCheck> {
    let is_started = jobs
        .iter()
        .any(|job| job.unit == ETCD && job.command != Command::Stop);
    let etcd = config.etcd()?;
    let url = etcd.value("discovery")?.to_owned();
    let data_dir = etcd.value("data_dir").unwrap_or(ETCD_DATA_DIR).to_owned();
    is_started.then_some(DiscoveryCheck { url, data_dir })
}

impl Config {
    /// The settings of etcd, of whichever generation.
    pub fn etcd(&self) -> Option<&Service> {
        let is_etcd = |it: &&Service| matches!(it.section, Section::Etcd | Section::Etcd2);
        self.services.iter().find(is_etcd)
    }
}

/// Two contents for one place would be written in turns on every run; the last one counts, as it
/// did on CoreOS.
fn keep_last_of_each_path(plan: &mut Plan) {
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for (index, file) in plan.files.iter().enumerate() {
        if let Some(earlier) = last.insert(file.path.clone(), index) {
            let text = format!(
                "{} is written twice, here and in line {}: this one counts",
                file.path, plan.files[earlier].line
            );
            plan.notes.push(Message::warning(file.line, text));
        }
    }
    let mut index = 0;
    plan.files.retain(|file| {
        let is_last = last[&file.path] == index;
        index += 1;
        is_last
    });
}
