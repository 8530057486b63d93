//! systemd, asked through `systemctl`: the one interface that every version has and that works
//! before a bus is up.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::config::Command;
use super::decide::UnitState;
use super::plan::{Enable, Wait};

/// Longest wait for anything but a job: a reload of some hundred units takes well under a second.
const QUESTION_WAIT: Duration = Duration::from_secs(30);

/// Between two looks at a running `systemctl`; a question takes about 5 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Most output that is kept of one call; less than a pipe holds, so that nobody blocks on it.
const OUTPUT_BYTES_MAX: u64 = 60 * 1024;

/// Why something that was asked of systemd did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SystemctlError {
    /// The program could not be run.
    #[error("{program}: {source}: cluster-init needs systemd to start units")]
    Missing {
        /// The program's path.
        program: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It ran and said no.
    #[error("{0}")]
    Refused(String),
    /// It did not end in time; what was asked for goes on.
    #[error("not done after {} s, it goes on", .0.as_secs_f64())]
    TooSlow(Duration),
}

/// A way to ask systemd.
#[derive(Clone, Debug)]
pub struct Systemctl {
    /// The program.
    pub program: PathBuf,
    /// Another root, whose units are enabled without a running systemd.
    pub root: Option<PathBuf>,
    /// Longest wait for one job.
    pub job_wait: Duration,
}

impl Systemctl {
    /// Longest wait for one job: as systemd's own default for a start, so that a unit that hangs
    /// is seen as failed by both.
    pub const JOB_WAIT: Duration = Duration::from_secs(90);

    /// The system's own.
    pub fn of_system() -> Self {
        Self {
            program: PathBuf::from("systemctl"),
            root: None,
            job_wait: Self::JOB_WAIT,
        }
    }

    /// For the units below another root.
    pub fn offline(root: &Path) -> Self {
        Self {
            root: Some(root.to_owned()),
            ..Self::of_system()
        }
    }

    /// What a unit is doing.
    ///
    /// # Errors
    /// When systemd can not be asked; an unknown unit is no error.
    pub fn state(&self, unit: &str) -> Result<UnitState, SystemctlError> {
        const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,Result,Type,Job,After,Triggers";
        let text = self.ask(&["show", PROPERTIES, "--", unit])?;
        Ok(parse_state(&text))
    }

    /// Whether systemd knows an older version of a unit than the one on disk.
    ///
    /// # Errors
    /// When systemd can not be asked.
    pub fn is_stale(&self, unit: &str) -> Result<bool, SystemctlError> {
        let text = self.ask(&["show", "--property=NeedDaemonReload", "--", unit])?;
        Ok(text.trim() == "NeedDaemonReload=yes")
    }

    /// Has systemd read its unit files again.
    ///
    /// # Errors
    /// When systemd can not be asked or refuses.
    pub fn reload(&self) -> Result<(), SystemctlError> {
        self.ask(&["daemon-reload"]).map(drop)
    }

    /// The word of `is-enabled`: enabled, disabled, static, ...
    ///
    /// # Errors
    /// When systemd can not be asked. That it answers "no" with an exit code is no error.
    pub fn enablement(&self, unit: &str) -> Result<String, SystemctlError> {
        let (_, text, _) = self.run(&["is-enabled", "--", unit], QUESTION_WAIT)?;
        Ok(text.trim().to_owned())
    }

    /// Makes the links that a unit's `[Install]` asks for; units are not read again.
    ///
    /// # Errors
    /// When systemd can not be asked or refuses.
    pub fn enable(&self, enable: &Enable) -> Result<(), SystemctlError> {
        let mut arguments = vec!["--no-reload", "--force", "enable"];
        if enable.is_runtime {
            arguments.push("--runtime");
        }
        arguments.extend(["--", enable.unit.as_str()]);
        self.ask(&arguments).map(drop)
    }

    /// Makes a job.
    ///
    /// # Errors
    /// When it was refused, ended with another result than "done", or did not end in time.
    pub fn job(&self, unit: &str, command: Command, wait: Wait) -> Result<(), SystemctlError> {
        let mut arguments = Vec::new();
        if wait == Wait::Never {
            arguments.push("--no-block");
        }
        arguments.extend([command.word(), "--", unit]);
        self.demand(&arguments, self.job_wait).map(drop)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, SystemctlError> {
        self.demand(arguments, QUESTION_WAIT)
    }

    fn demand(&self, arguments: &[&str], limit: Duration) -> Result<String, SystemctlError> {
        let (status, output, complaint) = self.run(arguments, limit)?;
        if status.success() {
            return Ok(output);
        }
        let first = complaint.lines().find(|line| !line.trim().is_empty());
        Err(SystemctlError::Refused(match first {
            Some(line) => line.trim().trim_end_matches('.').to_owned(),
            None => format!("systemctl ended with {status}"),
        }))
    }

    fn run(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<(ExitStatus, String, String), SystemctlError> {
        let mut process = Process::new(&self.program);
        if let Some(root) = &self.root {
            process.arg("--root").arg(root);
        }
        process
            .args(["--no-pager", "--no-ask-password"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let missing = |source| SystemctlError::Missing {
            program: self.program.display().to_string(),
            source,
        };
        let mut child = process.spawn().map_err(missing)?;
        let Some(status) = wait(&mut child, limit).map_err(missing)? else {
            return Err(SystemctlError::TooSlow(limit));
        };
        let output = child.stdout.take().map_or_else(String::new, read_text);
        let complaint = child.stderr.take().map_or_else(String::new, read_text);
        Ok((status, output, complaint))
    }
}

/// Waits for a process; one that is too slow is ended and None returned.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn read_text(pipe: impl io::Read) -> String {
    let mut bytes = Vec::new();
    // What could be read before an error is still worth showing.
    pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parse_state(text: &str) -> UnitState {
    let mut state = UnitState::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let words = || value.split_whitespace().map(str::to_owned).collect();
        match name {
            "LoadState" => state.load = value.to_owned(),
            "ActiveState" => state.active = value.to_owned(),
            "SubState" => state.sub = value.to_owned(),
            "Result" => state.result = value.to_owned(),
            "Type" => state.service_type = value.to_owned(),
            "Job" => state.has_job = !matches!(value, "" | "0"),
            "After" => state.after = words(),
            "Triggers" => state.triggers = words(),
            _ => {}
        }
    }
    state
}
