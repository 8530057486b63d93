//! `fleetd`: the agent of a fleet machine.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the version, and errors before there is a log"
)]

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::CommandFactory as _;
use fleet_agent::fleetd::{CommandLine, run};

/// One thread serves people's requests while the other keeps the machine registered.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match daemon::completion::answer(&CommandLine::command(), &args, &mut io::stdout()) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => {
            eprintln!("fleetd: {error}");
            return ExitCode::from(2);
        }
    }
    let command_line = match CommandLine::read(args) {
        Ok(command_line) => command_line,
        Err(error) => error.exit(),
    };
    match start(command_line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleetd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command_line: CommandLine) -> anyhow::Result<()> {
    if let Some(text) = command_line.instead()? {
        print!("{text}");
        return Ok(io::stdout().flush()?);
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .worker_threads(THREADS)
        .enable_all()
        .build()?
        .block_on(run(command_line))
}
