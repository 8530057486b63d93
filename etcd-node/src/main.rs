//! The `etcd` program: reads flags, runs a node, says in one line what went wrong.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use daemon::{completion, flags, log, signal};
use etcd_node::api::context::{OWN_VERSION, SERVER_VERSION};
use etcd_node::config::{Args, Config};
use etcd_node::node;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// etcd 0.4 wrote `ETCD_SNAPSHOT_COUNT` without the second underscore.
const OLD_SNAPSHOT_COUNT: &str = "ETCD_SNAPSHOTCOUNT";

/// The command line cannot be understood.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // A broken invariant in any thread ends the process: nothing more may be promised.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    let command = Args::command();
    let args: Vec<OsString> = std::env::args_os().collect();
    let mut out = std::io::stdout().lock();
    match completion::answer(&command, &args, &mut out) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return fail(&error.to_string(), EXIT_USAGE),
    }
    let parsed = command
        .clone()
        .try_get_matches_from(flags::go_style(&command, args));
    let args = match parsed.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            let _closed = write!(out, "{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&one_line(&error.to_string()), EXIT_USAGE),
    };
    if args.version {
        let _closed = writeln!(
            out,
            "etcd Version: {SERVER_VERSION}\nHawser Version: {OWN_VERSION}"
        );
        return ExitCode::SUCCESS;
    }
    drop(out);
    match run(args, &command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn run(mut args: Args, command: &clap::Command) -> anyhow::Result<()> {
    if args.snapshot_count.is_none() {
        args.snapshot_count = std::env::var(OLD_SNAPSHOT_COUNT).ok();
    }
    let config = Config::new(&args).map_err(anyhow::Error::msg)?;
    log::init(&args.log)?;
    for name in unknown_variables(command) {
        tracing::warn!(
            variable = name,
            "unknown environment variable, not used by this version"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = signal::stop_token()?;
        node::run(config, stop).await
    })
}

/// `ETCD_*` variables that no flag reads: most often a slip of the pen.
fn unknown_variables(command: &clap::Command) -> Vec<String> {
    let known: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env())
        .collect();
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| !known.contains(&name.as_os_str()) && name != OLD_SNAPSHOT_COUNT)
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("ETCD_"))
        .collect()
}

/// clap explains over several lines; the first says what is wrong.
fn one_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    format!("{first}; see etcd --help")
}

fn fail(text: &str, code: u8) -> ExitCode {
    let _closed = writeln!(std::io::stderr(), "etcd: {text}");
    ExitCode::from(code)
}
