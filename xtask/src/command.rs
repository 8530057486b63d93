//! Running other programs: what they say on failure becomes our error, with the command line that was run.

use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Runs to the end; the output is shown only inside the error of a failure.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// Runs to the end and returns what it printed on stdout, as text.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| missing(command))?;
    check(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end with `input` on its stdin.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| missing(command))?;
    // A program that ends before it has read everything says why on stderr, which is the better error.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    check(command, &output)?;
    written.with_context(|| format!("write to `{}`", line(command)))
}

/// Whether it ran and ended with 0; all output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The command line as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn missing(command: &Command) -> String {
    format!("cannot run `{}`", command.get_program().to_string_lossy())
}

fn check(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    });
    bail!(
        "`{}` ended with {}: {}",
        line(command),
        output.status,
        said.trim()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_the_command_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such door >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3: no such door"), "{text}");
        assert!(text.starts_with("`sh -c "), "{text}");
    }

    #[test]
    fn input_reaches_the_program() {
        run_with_input(Command::new("grep").args(["-q", "^hello$"]), "hello\n").unwrap();
        run_with_input(Command::new("grep").args(["-q", "^hello$"]), "bye\n").unwrap_err();
    }
}
