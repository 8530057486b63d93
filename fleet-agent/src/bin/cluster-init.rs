//! `cluster-init FILE`: turns a `#cloud-config` file into configured, started units.

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use daemon::flags::go_style;
use fleet_agent::cloud_config::command::{Arguments, Surroundings, run};

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(go_style(&Arguments::command(), std::env::args_os()));
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let surroundings = Surroundings::new(arguments.root.as_deref(), environment);
    let code = run(&arguments, &surroundings, &mut io::stdout(), &mut io::stderr());
    ExitCode::from(code)
}
