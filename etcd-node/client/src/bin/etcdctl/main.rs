//! `etcdctl` in the style of etcd 2: one verb per file, each says what it prints; everything around them
//! (flags, endpoints, exit codes) is here and in the files that they share.

mod arguments;
mod cluster_health;
mod connection;
mod exec_watch;
mod exit;
mod get;
mod ls;
mod member;
mod mk;
mod mkdir;
mod output;
mod rm;
mod set;
mod update;
mod watch;
mod words;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use daemon::completion;
use daemon::flags::go_style;

use crate::arguments::{Arguments, Verb};
use crate::exit::{Exit, Failure};

/// Said when someone asks for the other API.
const NO_V3: &str = "etcdctl speaks the v2 verbs in this version; not yet: get put del txn compaction watch \
lease member endpoint alarm defrag snapshot move-leader auth user role lock elect check make-mirror; \
use another etcdctl with ETCDCTL_API=3";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = run(std::env::args_os().collect()).await;
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If even that cannot be written, the exit code says it.
            let _written = write!(io::stderr(), "{}", failure.message);
            failure.exit.into()
        }
    }
}

async fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let command = Arguments::command();
    if completion::answer(&command, &arguments, &mut io::stdout()).map_err(|error| Failure::usage(&error))? {
        return Ok(());
    }
    let parsed = command
        .clone()
        .try_get_matches_from(go_style(&command, arguments))
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return explain(&error),
    };
    if parsed.global.version {
        return output::lines(&[
            &format!("etcdctl version {}", env!("CARGO_PKG_VERSION")),
            &format!("Hawser Version: {}", env!("CARGO_PKG_VERSION")),
        ]);
    }
    if std::env::var_os("ETCDCTL_API").is_some_and(|api| api == "3") {
        return Err(Failure::new(Exit::BadConnection, format!("{NO_V3}\n")));
    }
    let Some(verb) = parsed.verb else {
        return output::text(&command.clone().render_long_help().to_string());
    };
    parsed.global.check()?;
    match verb {
        Verb::Get(arguments) => get::run(&parsed.global, arguments).await,
        Verb::Ls(arguments) => ls::run(&parsed.global, arguments).await,
        Verb::Set(arguments) => set::run(&parsed.global, arguments).await,
        Verb::Mk(arguments) => mk::run(&parsed.global, arguments).await,
        Verb::Update(arguments) => update::run(&parsed.global, arguments).await,
        Verb::Mkdir(arguments) => mkdir::run(&parsed.global, arguments, mkdir::MAKE).await,
        Verb::Setdir(arguments) => mkdir::run(&parsed.global, arguments, mkdir::SET).await,
        Verb::Updatedir(arguments) => mkdir::run(&parsed.global, arguments, mkdir::UPDATE).await,
        Verb::Rm(arguments) => rm::run(&parsed.global, arguments).await,
        Verb::Rmdir(arguments) => rm::run_rmdir(&parsed.global, arguments).await,
        Verb::Watch(arguments) => watch::run(&parsed.global, arguments).await,
        Verb::ExecWatch(arguments) => exec_watch::run(&parsed.global, arguments).await,
        Verb::Member { verb } => member::run(&parsed.global, verb).await,
        Verb::ClusterHealth(arguments) => cluster_health::run(&parsed.global, arguments).await,
    }
}

/// Help goes to stdout and is no failure; everything else that the parser says is a usage error.
fn explain(error: &clap::Error) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::text(&error.render().to_string())
        }
        ErrorKind::InvalidSubcommand => {
            let word = error
                .get(ContextKind::InvalidSubcommand)
                .map_or_else(String::new, ToString::to_string);
            Err(Failure::new(
                Exit::BadArguments,
                format!("unknown command {word:?}: etcdctl --help lists those that there are\n"),
            ))
        }
        _ => Err(Failure::new(Exit::BadArguments, error.render().to_string())),
    }
}
