//! Carries a plan out: files first, one reload, then the jobs in their order.
//!
//! Everything is compared before it is touched, so a second run finds nothing to do. A file that
//! can not be written ends the run before any job; a unit that fails does not keep the next one
//! from being asked for.

use std::fs::TryLockError;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::config::Command;
use super::decide::{Decision, History, OWN_UNIT, UnitState, decide};
use super::discovery::{self, Finding};
use super::disk::{Difference, Disk};
use super::plan::{
    Condition, DiscoveryCheck, Enable, Job, Plan, PlannedFile, Wait, is_network_path, is_unit_path,
};
use super::record::{Record, fingerprint};
use super::report::Report;
use super::systemctl::{Systemctl, SystemctlError};

/// Held while a plan is applied.
const LOCK_PATH: &str = "/run/cluster-init/lock";

/// How long units that were not waited for are watched for an early end, all together.
const SETTLE_WAIT: Duration = Duration::from_millis(500);

/// Between two looks at them.
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

/// The machine that a plan is applied to.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its files.
    pub disk: Disk,
    /// Its systemd.
    pub systemctl: Systemctl,
    /// Whether systemd runs there; under `--root` it does not, and no job is made.
    pub is_live: bool,
}

/// What ended a run early.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A file could not be read or written.
    #[error("{0}")]
    Disk(#[from] io::Error),
    /// Two runs at once would undo each other's work.
    #[error("another cluster-init is at work (it holds {LOCK_PATH}): wait for it to end")]
    Busy,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files, links, names and enablements that were changed.
    pub changes: usize,
    /// Jobs that were made.
    pub jobs: usize,
    /// What failed, one line each.
    pub failures: Vec<String>,
}

/// Applies a plan.
///
/// # Errors
/// When a file can not be read or written, or another run is at work; no job was made then.
pub fn apply(plan: &Plan, host: &Host, report: &mut Report<'_>) -> Result<Outcome, ApplyError> {
    let lock = host.disk.open_private(LOCK_PATH)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ApplyError::Busy),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let mut run = Run {
        plan,
        host,
        report,
        outcome: Outcome::default(),
        changed_paths: Vec::new(),
        is_reload_due: false,
    };
    run.set_hostname()?;
    run.write_files()?;
    run.change_masks()?;
    run.enable_units();
    if host.is_live {
        run.reload();
        run.make_jobs()?;
    } else {
        for job in &plan.jobs {
            run.report.line(&format!("{}: not done under --root", title(job)));
        }
    }
    Ok(run.outcome)
}

/// Says what applying would do.
///
/// # Errors
/// When a file can not be compared.
pub fn describe(plan: &Plan, host: &Host, report: &mut Report<'_>) -> Result<(), ApplyError> {
    if let Some(hostname) = &plan.hostname {
        report.line(&format!("hostname {hostname}"));
    }
    for file in &plan.files {
        let difference = host.disk.compare(file)?;
        report.line(&format!(
            "{} ({})",
            file_title(file),
            describe_difference(difference)
        ));
        for line in &file.preview {
            report.line(&format!("     {line}"));
        }
    }
    for mask in &plan.masks {
        let is_due = host.disk.is_mask_due(mask)?;
        let verb = if mask.is_masked { "mask" } else { "unmask" };
        // Nothing to unmask is the usual state and not worth a line.
        if is_due || mask.is_masked {
            let state = if is_due { "new" } else { "same" };
            report.line(&format!("{verb} {} ({state})", mask.path));
        }
    }
    for enable in &plan.enables {
        report.line(&format!("enable {}", enable.unit));
    }
    for job in &plan.jobs {
        let mut line = title(job);
        if job.wait == Wait::Never {
            line.push_str(" (not waited for)");
        }
        if job.condition == Condition::NetworkFilesChanged {
            line.push_str(" (if a network file changed)");
        }
        report.line(&line);
    }
    Ok(())
}

fn describe_difference(difference: Difference) -> &'static str {
    match difference {
        Difference::Same => "same",
        Difference::Absent => "new",
        Difference::Content => "changed",
        Difference::Attributes => "same content, other permissions or owner",
    }
}

fn file_title(file: &PlannedFile) -> String {
    let PlannedFile {
        path, mode, content, ..
    } = file;
    format!("file {path} {mode:04o} {} bytes", content.len())
}

fn title(job: &Job) -> String {
    format!("{} {}", job.command.word(), job.unit)
}

/// One run over a plan.
struct Run<'a, 'b> {
    plan: &'a Plan,
    host: &'a Host,
    report: &'a mut Report<'b>,
    outcome: Outcome,
    changed_paths: Vec<&'a PlannedFile>,
    is_reload_due: bool,
}

/// Jobs that were made and not waited for.
#[derive(Default)]
struct Unfinished<'a> {
    /// Whose start may still go on; whatever is ordered behind them waits too.
    units: Vec<String>,
    /// Those of this run.
    jobs: Vec<&'a Job>,
}

impl<'a> Run<'a, '_> {
    fn changed(&mut self, text: &str) {
        self.outcome.changes += 1;
        self.report.line(text);
    }

    fn failed(&mut self, text: String) {
        self.report.error(&text);
        self.outcome.failures.push(text);
    }

    fn set_hostname(&mut self) -> Result<(), ApplyError> {
        let Some(hostname) = &self.plan.hostname else {
            return Ok(());
        };
        let disk = &self.host.disk;
        if disk.read_text("/etc/hostname").trim() != hostname {
            disk.replace("/etc/hostname", format!("{hostname}\n").as_bytes(), 0o644)?;
            self.changed(&format!("hostname {hostname}"));
        }
        // Below another root the running kernel's name is another machine's.
        let is_named = rustix::system::uname().nodename().to_bytes() == hostname.as_bytes();
        if disk.is_own() && !is_named {
            rustix::system::sethostname(hostname.as_bytes()).map_err(io::Error::from)?;
            self.changed(&format!("hostname {hostname} (now)"));
        }
        Ok(())
    }

    fn write_files(&mut self) -> Result<(), ApplyError> {
        // All are compared before the first is written, so that what can not be done is told
        // while everything is still as it was.
        let mut due = Vec::new();
        for file in &self.plan.files {
            match self.host.disk.compare(file)? {
                Difference::Same => {}
                difference => due.push((file, difference)),
            }
        }
        for (file, difference) in due {
            self.host.disk.write(file, difference)?;
            self.changed(&format!(
                "{} ({})",
                file_title(file),
                describe_difference(difference)
            ));
            self.is_reload_due |= is_unit_path(&file.path);
            self.changed_paths.push(file);
        }
        Ok(())
    }

    fn change_masks(&mut self) -> Result<(), ApplyError> {
        for mask in &self.plan.masks {
            if self.host.disk.is_mask_due(mask)? {
                self.host.disk.change_mask(mask)?;
                let verb = if mask.is_masked { "mask" } else { "unmask" };
                self.changed(&format!("{verb} {}", mask.path));
                self.is_reload_due = true;
            }
        }
        Ok(())
    }

    fn enable_units(&mut self) {
        for enable in &self.plan.enables {
            if let Err(error) = self.enable_unit(enable) {
                self.failed(format!("enable {}: {error}", enable.unit));
            }
        }
    }

    fn enable_unit(&mut self, enable: &Enable) -> Result<(), SystemctlError> {
        let unit = enable.unit.as_str();
        let is_new = self
            .changed_paths
            .iter()
            .any(|file| file.unit.as_deref() == Some(unit));
        let before = self.host.systemctl.enablement(unit)?;
        let is_enabled = match before.as_str() {
            "enabled" => true,
            "enabled-runtime" => enable.is_runtime,
            _ => false,
        };
        if is_enabled && !is_new {
            return Ok(());
        }
        if before == "static" && !is_new {
            self.report.line(&format!(
                "enable {unit}: nothing to do, it has no [Install] section"
            ));
            return Ok(());
        }
        self.host.systemctl.enable(enable)?;
        if self.host.systemctl.enablement(unit)? != before {
            self.changed(&format!("enable {unit}"));
            self.is_reload_due = true;
        }
        Ok(())
    }

    fn reload(&mut self) {
        // A run that was killed between writing and reloading left units that systemd has not read.
        let is_stale = |job: &Job| self.host.systemctl.is_stale(&job.unit).unwrap_or(false);
        if !self.is_reload_due && !self.plan.jobs.iter().any(is_stale) {
            return;
        }
        match self.host.systemctl.reload() {
            Ok(()) => self.report.line("systemd reloaded"),
            Err(error) => self.failed(format!("daemon-reload: {error}")),
        }
    }

    fn make_jobs(&mut self) -> Result<(), ApplyError> {
        let boot = self.host.disk.read_text("/proc/sys/kernel/random/boot_id");
        let mut record = Record::load(&self.host.disk, boot.trim());
        let before = record.clone();
        let fingerprint = fingerprint(self.plan);
        let is_untouched = self.outcome.changes == 0;
        let mut unfinished = Unfinished::default();
        let own = self.host.systemctl.state(OWN_UNIT);
        if own.is_ok_and(|own| own.active == "activating") {
            unfinished.units.push(OWN_UNIT.to_owned());
        }
        for job in &self.plan.jobs {
            if !self.is_due(job) {
                continue;
            }
            let is_done = is_untouched && record.is_done(job, &fingerprint);
            match self.make_job(job, is_done, &mut unfinished) {
                Ok(()) => record.set_done(job, &fingerprint),
                Err(why) => {
                    record.set_failed(job);
                    self.failed(format!("{}: {why}", title(job)));
                }
            }
        }
        for job in self.settle(unfinished) {
            record.set_failed(job);
        }
        if record != before {
            record.save(&self.host.disk)?;
        }
        Ok(())
    }

    fn is_due(&self, job: &Job) -> bool {
        match job.condition {
            Condition::Always => true,
            Condition::NetworkFilesChanged => {
                let mut changed = self.changed_paths.iter();
                changed.any(|file| is_network_path(&file.path))
            }
        }
    }

    fn make_job(
        &mut self,
        job: &'a Job,
        is_done: bool,
        unfinished: &mut Unfinished<'a>,
    ) -> Result<(), String> {
        let state = self
            .host
            .systemctl
            .state(&job.unit)
            .map_err(|error| error.to_string())?;
        let history = History {
            is_done,
            unfinished: &unfinished.units,
        };
        let wait = match decide(job, &state, history) {
            Decision::Skip(reason) => {
                self.report.line(&format!("{}: {reason}", title(job)));
                self.note_old_settings(job, &state);
                if state.is_starting() {
                    unfinished.units.push(job.unit.clone());
                }
                return Ok(());
            }
            Decision::Run(wait) => wait,
        };
        if let Some(check) = &self.plan.discovery
            && job.unit == super::plan::ETCD
            && !state.is_up()
        {
            self.look_at_discovery(check);
        }
        self.outcome.jobs += 1;
        let systemctl = &self.host.systemctl;
        if let Err(error) = systemctl.job(&job.unit, job.command, wait) {
            return Err(explain(systemctl, job, &state, &error));
        }
        match wait {
            Wait::ForResult => self.report.line(&format!("{}: done", title(job))),
            Wait::Never => {
                unfinished.units.push(job.unit.clone());
                unfinished.jobs.push(job);
            }
        }
        Ok(())
    }

    /// Settings that changed under a running unit are not seen by it.
    fn note_old_settings(&mut self, job: &Job, state: &UnitState) {
        let is_new = |file: &&&PlannedFile| file.unit.as_deref() == Some(&job.unit);
        if job.command != Command::Start || !state.is_up() {
            return;
        }
        if let Some(file) = self.changed_paths.iter().find(is_new) {
            self.report.warning(&format!(
                "{} runs with what it read before {} changed: systemctl restart {}",
                job.unit, file.path, job.unit
            ));
        }
    }

    fn look_at_discovery(&mut self, check: &DiscoveryCheck) {
        let mut names = self.host.disk.names(&check.data_dir).into_iter();
        // Locks and hidden files are no data.
        if names.any(|name| !name.starts_with('.') && name != "lock" && name != "LOCK") {
            return;
        }
        let url = &check.url;
        // Looking needs no more than plain HTTP; a hosted service behind TLS is etcd's to ask.
        if url.starts_with("https://") {
            return;
        }
        match discovery::check(url) {
            Finding::Good => {}
            Finding::Unknown(why) => {
                self.report
                    .warning(&format!("discovery {url} could not be looked at: {why}"));
            }
            Finding::UsedUp(members) => {
                let listed = match members.as_slice() {
                    [] => "which lists no member any more".to_owned(),
                    members => format!("none of its members answers ({})", members.join(", ")),
                };
                self.report.warning(&format!(
                    "the discovery token of {url} was used by a cluster that is gone: {listed}. \
                     etcd will wait for it. For a new cluster give all machines a new token: \
                     put the output of uuidgen in place of the URL's last part"
                ));
            }
        }
    }

    /// Looks for a moment at what was not waited for; returns the jobs that failed.
    fn settle(&mut self, unfinished: Unfinished<'a>) -> Vec<&'a Job> {
        let deadline = Instant::now() + SETTLE_WAIT;
        let mut failed = Vec::new();
        for job in unfinished.jobs {
            let state = self.settled_state(job, deadline);
            let unit = &job.unit;
            let title = title(job);
            if state.is_failed() {
                self.failed(format!(
                    "{title}: failed ({}): see journalctl -u {unit}",
                    state.result
                ));
                failed.push(job);
            } else if state.is_retrying() {
                let result = &state.result;
                self.report.warning(&format!(
                    "{title}: it ended ({result}) and is tried again: see journalctl -u {unit}"
                ));
            } else if state.active == "active" {
                self.report.line(&format!("{title}: done"));
            } else {
                let progress = match state.active.as_str() {
                    "inactive" => "waits for others",
                    active => active,
                };
                self.report
                    .line(&format!("{title}: asked for, not waited for ({progress})"));
            }
        }
        failed
    }

    fn settled_state(&self, job: &Job, deadline: Instant) -> UnitState {
        loop {
            // A systemd that stops to answer was seen when the job was made.
            let state = self.host.systemctl.state(&job.unit).unwrap_or_default();
            let is_settled = state.active == "active" || state.is_failed() || state.is_retrying();
            if is_settled || Instant::now() >= deadline {
                return state;
            }
            thread::sleep(SETTLE_INTERVAL);
        }
    }
}

/// Why a job failed, with what to do.
fn explain(systemctl: &Systemctl, job: &Job, before: &UnitState, error: &SystemctlError) -> String {
    if matches!(error, SystemctlError::Missing { .. }) {
        return error.to_string();
    }
    if job.unit.ends_with(".socket") {
        let running = before.triggers.iter().find(|unit| {
            let state = systemctl.state(unit);
            state.is_ok_and(|state| state.is_up())
        });
        if let Some(service) = running {
            return format!("{service} is already running and a socket must come first: stop it");
        }
    }
    let unit = &job.unit;
    if before.load == "not-found" {
        return "there is no such unit: install it, or give its content".to_owned();
    }
    format!("{error}: see journalctl -u {unit}")
}
