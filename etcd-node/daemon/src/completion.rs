//! Shell completions and man pages from the same description that clap parses with.
//!
//! Asked for by flags that no help shows and that are looked at before clap, so that required arguments and
//! subcommands never stand in their way. The installer runs each program with them.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;

/// `PROGRAM --generate-completion bash|zsh|fish` prints the completion script of that shell.
pub const COMPLETION_FLAG: &str = "--generate-completion";
/// `PROGRAM --generate-man` prints the program's page; with a directory behind it, writes the pages of the
/// program and of every subcommand there.
pub const MAN_FLAG: &str = "--generate-man";

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum CompletionError {
    /// A shell that we have no script for.
    #[error("no completion for shell {0:?}: use bash, zsh or fish")]
    Shell(String),
    /// The place to write to refused.
    #[error("the generated text cannot be written")]
    Write(#[from] io::Error),
}

/// Answers `--generate-completion` and `--generate-man` when one of them is the first argument after the
/// program's name; says whether it was. When true, the program has nothing more to do.
///
/// # Errors
/// When the shell is unknown or the text cannot be written.
pub fn answer(command: &Command, args: &[OsString], out: &mut dyn Write) -> Result<bool, CompletionError> {
    let Some((name, joined)) = args.get(1).and_then(|arg| arg.to_str()).map(split_value) else {
        return Ok(false);
    };
    let value = joined.map(OsString::from).or_else(|| args.get(2).cloned());
    match name {
        COMPLETION_FLAG => completion(command, value.as_deref(), out)?,
        MAN_FLAG => manual(command, value.map(PathBuf::from), out)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn split_value(arg: &str) -> (&str, Option<&str>) {
    match arg.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (arg, None),
    }
}

fn completion(command: &Command, shell: Option<&OsStr>, out: &mut dyn Write) -> Result<(), CompletionError> {
    let name = shell.unwrap_or_default().to_string_lossy();
    let shell = match name.as_ref() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => return Err(CompletionError::Shell(name.into_owned())),
    };
    let mut command = command.clone();
    let program = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    out.write_all(&script)?;
    Ok(())
}

fn manual(command: &Command, directory: Option<PathBuf>, out: &mut dyn Write) -> Result<(), CompletionError> {
    let command = command.clone();
    match directory {
        Some(directory) => clap_mangen::generate_to(command, directory)?,
        None => clap_mangen::Man::new(command).render(out)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("prog")
            .about("does things")
            .subcommand_required(true)
            .subcommand(Command::new("list-things"))
    }

    fn run(args: &[&str]) -> (Result<bool, CompletionError>, String) {
        let args: Vec<OsString> = std::iter::once(&"prog").chain(args).map(OsString::from).collect();
        let mut out = Vec::new();
        let answered = answer(&command(), &args, &mut out);
        (answered, String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_shell_gets_a_script_that_names_the_subcommand() {
        for shell in ["bash", "zsh", "fish"] {
            for args in [
                vec!["--generate-completion".to_owned(), shell.to_owned()],
                vec![format!("--generate-completion={shell}")],
            ] {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let (answered, script) = run(&args);
                assert!(answered.unwrap());
                assert!(script.contains("list-things"), "script of {shell}");
            }
        }
    }

    #[test]
    fn the_man_page_names_the_program_and_the_directory_gets_a_page_per_subcommand() {
        let (answered, page) = run(&["--generate-man"]);
        assert!(answered.unwrap());
        assert!(
            page.contains(".TH prog 1") && page.contains("does things"),
            "{page}"
        );
        let directory = tempfile::tempdir().unwrap();
        let (answered, _) = run(&["--generate-man", directory.path().to_str().unwrap()]);
        assert!(answered.unwrap());
        assert!(directory.path().join("prog-list-things.1").exists());
    }

    #[test]
    fn other_arguments_are_left_alone() {
        assert!(!run(&["list-things", "--generate-man"]).0.unwrap());
        assert!(!run(&[]).0.unwrap());
        assert!(
            matches!(run(&["--generate-completion", "csh"]).0, Err(CompletionError::Shell(shell)) if shell == "csh")
        );
    }
}
