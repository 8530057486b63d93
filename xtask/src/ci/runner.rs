//! Runs the programs of a step: what they say goes to the terminal and into the step's log, and none runs for ever.

use super::tally::Tally;
use crate::command;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::io::{IsTerminal as _, PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// How much of a failed step's log is shown again at the end.
const TAIL_LINES: usize = 40;
/// After the limit a program is asked to end; after this it is killed.
const KILL_AFTER: &str = "--kill-after=20";

/// Its machines are not those that a person may have up.
pub(super) const LAB: &str = "ci";
/// Tests that fail where machines cannot be simulated, and where there is no etcd, instead of saying so.
const REQUIREMENTS: [(&str, &str); 2] = [("REQUIRE_SYSTEMD", "1"), ("REQUIRE_ETCD", "1")];

/// What the steps have in common.
pub(super) struct Runner {
    directory: PathBuf,
    /// Our own command line.
    command_line: clap::Command,
    /// A copy of this program: the tests build the original anew.
    program: PathBuf,
    /// Log of the step that runs.
    log: PathBuf,
    is_terminal: bool,
}

impl Runner {
    /// Logs go to the directory.
    pub(super) fn new(directory: PathBuf, command_line: clap::Command) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let program = directory.join("xtask");
        // One that still runs cannot be written to.
        fs::remove_file(&program).ok();
        fs::copy("/proc/self/exe", &program).with_context(|| format!("copy to {}", program.display()))?;
        Ok(Self {
            log: directory.join("log"),
            directory,
            command_line,
            program,
            is_terminal: std::io::stdout().is_terminal(),
        })
    }

    pub(super) fn command_line(&self) -> &clap::Command {
        &self.command_line
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Opens the log of a step.
    pub(super) fn begin(&mut self, step: &str) {
        self.log = self.directory.join(format!("{step}.log"));
        // A log of the last run would speak for this one.
        fs::remove_file(&self.log).ok();
    }

    /// The last lines that the step's programs said.
    pub(super) fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Runs cargo; the step holds when it ends well.
    pub(super) fn cargo(&mut self, words: &[&str], limit: Duration) -> Result<Tally> {
        let mut cargo = self.limited("cargo".as_ref(), limit);
        cargo.args(words);
        self.run(cargo)?;
        Ok(Tally::ONE)
    }

    /// Runs a task of ours.
    pub(super) fn xtask(&mut self, words: &[&str], limit: Duration) -> Result<()> {
        let mut task = self.limited(&self.program, limit);
        task.args(words);
        self.run(task)
    }

    /// Runs tests, all or those that the words select, against a stock etcd or the given one, and counts them.
    pub(super) fn tests(&mut self, words: &[&str], etcd: Option<&Path>, limit: Duration) -> Result<Tally> {
        let mut cargo = self.limited("cargo".as_ref(), limit);
        if command::succeeds(Command::new("cargo").args(["nextest", "--version"])) {
            cargo.args(["nextest", "run"]);
        } else {
            cargo.arg("test");
        }
        cargo
            .args(["--locked", "--workspace", "--no-fail-fast"])
            .args(words);
        cargo.envs(REQUIREMENTS).env_remove("ETCD_BIN");
        if let Some(etcd) = etcd {
            cargo.env("ETCD_BIN", etcd);
        }
        let line = command::line(&cargo);
        let status = self.show(cargo)?;
        let tally = self.tally()?;
        match (status.success(), tally) {
            (_, Tally { failed: 1.., .. }) | (true, Tally { passed: 1.., .. }) => Ok(tally),
            (true, _) => bail!("`{line}` ran no tests"),
            (false, _) => bail!("`{line}` ended with {status}"),
        }
    }

    /// What the step's log counts.
    pub(super) fn tally(&self) -> Result<Tally> {
        Ok(Tally::of_tests(&fs::read_to_string(&self.log)?))
    }

    /// A command that is ended when it takes too long. Someone at a terminal ends it with Ctrl-C, which would not
    /// reach it through `timeout`.
    fn limited(&self, program: &Path, limit: Duration) -> Command {
        let mut command = if self.is_terminal {
            Command::new(program)
        } else {
            let mut timeout = Command::new("timeout");
            timeout
                .arg(KILL_AFTER)
                .arg(limit.as_secs().to_string())
                .arg(program);
            timeout
        };
        if self.is_terminal {
            command.env("CARGO_TERM_COLOR", "always");
        }
        command
            .current_dir(crate::workspace::checkout())
            .env("HAWSER_LAB", LAB);
        command
    }

    fn run(&self, command: Command) -> Result<()> {
        let line = command::line(&command);
        let status = self.show(command)?;
        if !status.success() {
            bail!("`{line}` ended with {status}");
        }
        Ok(())
    }

    /// Runs to the end while its output is shown and kept.
    fn show(&self, mut command: Command) -> Result<ExitStatus> {
        let line = command::line(&command);
        let (output, input) = std::io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
        // It holds the writing ends of the pipe, which has to close when the child ends.
        drop(command);
        let copy = thread::spawn(move || tee(output, log));
        let status = child.wait()?;
        copy.join().ok().transpose()?;
        Ok(status)
    }
}

/// Copies what comes to stdout and to the log, as it comes.
fn tee(mut output: PipeReader, mut log: File) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        log.write_all(&buffer[..count])?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&buffer[..count])?;
        stdout.flush()?;
    }
}
