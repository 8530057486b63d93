//! `fleetctl`: asks about a cluster and tells it what to do.

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    let ran = fleet_agent::fleetctl::run(
        std::env::args_os(),
        environment,
        &mut io::stdout(),
        &mut io::stderr(),
    );
    // Whoever read our output has had enough, as `head` does: nobody is left to be told.
    ran.map_or(ExitCode::FAILURE, ExitCode::from)
}
