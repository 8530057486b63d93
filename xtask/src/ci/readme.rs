//! Plays README.md: the commands of its fenced blocks are run in their order, and what they print is compared with
//! what README.md says they print.
//!
//! Played are blocks that begin with ```` ```console ````, and in them lines that begin with `$ `; what follows up
//! to the next such line is the output. No output means that only success counts. A line `...` stands for any number
//! of lines. A block ```` ```console on each machine ```` is played on each of three blank simulated machines, at the
//! same time; others in the checkout. Everything that differs from run to run is made equal on both sides: ids,
//! times, widths of columns, the order of rows that begin with an id.

use super::runner::LAB;
use crate::lab::Role;
use crate::{command, workspace};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// The last words of a block's first line that choose the machines.
const ON_EACH: &str = "on each machine";
/// The blank machines, beside the lab that README.md itself brings up.
const BLANK_LAB: &str = "readme";
const BLANK_MACHINES: u8 = 3;

/// Where a block is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Checkout,
    EachMachine,
}

/// A command and what it is said to print.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    /// Of README.md.
    line: usize,
    place: Place,
    command: String,
    output: Vec<String>,
}

/// Plays all blocks; returns how many commands there were. `xtask` is a copy of this program that nobody rebuilds.
pub(super) fn play(xtask: &Path) -> Result<u64> {
    let text = fs::read_to_string(workspace::checkout().join("README.md")).context("read README.md")?;
    let calls = calls(&text)?;
    ensure!(!calls.is_empty(), "README.md has no command to play");
    let needs_machines = calls.iter().any(|call| call.place == Place::EachMachine);
    if needs_machines {
        boot_machines(xtask)?;
    }
    let played = calls.iter().try_for_each(|call| call.play(xtask));
    // The machines of README.md's own lab go as well, however far it came.
    let mut removed = lab_task(xtask, LAB, &["down"]);
    if needs_machines {
        removed = removed.and(lab_task(xtask, BLANK_LAB, &["down"]));
    }
    played.and(removed)?;
    Ok(calls.len() as u64)
}

fn boot_machines(xtask: &Path) -> Result<()> {
    let checkout = workspace::checkout();
    let checkout = checkout.to_str().context("the checkout's path is not text")?;
    lab_task(xtask, BLANK_LAB, &["down"])?;
    let words = [
        "up", "--blank", "--nodes", "3", "--worker", "0", "--bind", checkout,
    ];
    lab_task(xtask, BLANK_LAB, &words)
}

fn lab_task(xtask: &Path, lab: &str, words: &[&str]) -> Result<()> {
    let mut task = Command::new(xtask);
    task.args(["--lab", lab]);
    command::run(task.args(words).current_dir(workspace::checkout()))
}

impl Call {
    fn play(&self, xtask: &Path) -> Result<()> {
        let outcome = match self.place {
            Place::Checkout => self.compare(Command::new("bash").args(["-c", &self.script()])),
            Place::EachMachine => self.on_each(xtask),
        };
        outcome.with_context(|| format!("README.md:{}: `{}`", self.line, self.command))
    }

    fn on_each(&self, xtask: &Path) -> Result<()> {
        let machines = 1..=BLANK_MACHINES;
        let names: Vec<_> = machines.map(|number| Role::Core.machine(number).0).collect();
        thread::scope(|scope| {
            let play = |name: &str| {
                let mut inside = Command::new(xtask);
                inside.args(["--lab", BLANK_LAB, "exec", name, "bash", "-c", &self.script()]);
                self.compare(&mut inside).with_context(|| format!("on {name}"))
            };
            let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || play(name))).collect();
            let outcomes: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
            outcomes
                .into_iter()
                .try_for_each(|outcome| outcome.map_err(|_| anyhow!("a machine's player panicked"))?)
        })
    }

    fn script(&self) -> String {
        format!("cd '{}' && {}", workspace::checkout().display(), self.command)
    }

    fn compare(&self, command: &mut Command) -> Result<()> {
        let output = command
            .current_dir(workspace::checkout())
            .env("HAWSER_LAB", LAB)
            .stdin(Stdio::null())
            .output()
            .context("cannot run it")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "ended with {}: {}\n{}",
                output.status,
                said.trim(),
                printed.trim()
            );
        }
        let printed: Vec<_> = printed.lines().map(str::to_owned).collect();
        judge(&self.output, &printed)
    }
}

fn judge(wanted: &[String], printed: &[String]) -> Result<()> {
    let (equal_wanted, equal_printed) = (equalised(wanted), equalised(printed));
    ensure!(
        wanted.is_empty() || matches(&equal_wanted, &equal_printed),
        "it should print\n{}\nand printed\n{}\nwhich, made equal, are\n{}\nand\n{}",
        wanted.join("\n"),
        printed.join("\n"),
        equal_wanted.join("\n"),
        equal_printed.join("\n")
    );
    Ok(())
}

/// The commands of all blocks that are to be played.
fn calls(text: &str) -> Result<Vec<Call>> {
    let mut calls: Vec<Call> = Vec::new();
    let mut fence: Option<(usize, Option<Place>)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let Some((_, place)) = fence else {
            if let Some(info) = line.strip_prefix("```") {
                fence = Some((
                    number,
                    place_of(info).with_context(|| format!("README.md:{number}"))?,
                ));
            }
            continue;
        };
        if line.starts_with("```") {
            fence = None;
        } else if let Some(place) = place {
            match (line.strip_prefix("$ "), calls.last_mut()) {
                (Some(command), _) => calls.push(Call {
                    line: number,
                    place,
                    command: command.to_owned(),
                    output: Vec::new(),
                }),
                (None, Some(call)) if fence.is_some_and(|(start, _)| start < call.line) => {
                    call.output.push(line.to_owned());
                }
                (None, _) => bail!("README.md:{number}: output without a command: begin the block with `$ `"),
            }
        }
    }
    match fence {
        Some((start, _)) => bail!("README.md:{start}: the block has no end"),
        None => Ok(calls),
    }
}

/// What the first line of a block says behind its fence.
fn place_of(info: &str) -> Result<Option<Place>> {
    Ok(match info.trim().strip_prefix("console").map(str::trim) {
        None => None,
        Some("") => Some(Place::Checkout),
        Some(words) if words == ON_EACH => Some(Place::EachMachine),
        Some(words) => bail!("`console {words}` is no place: write `console` or `console {ON_EACH}`"),
    })
}

/// Whether the lines are as wanted, where `...` stands for any number of lines.
fn matches(wanted: &[String], printed: &[String]) -> bool {
    match wanted.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, others)| line == first && matches(rest, others)),
    }
}

/// The lines without what differs from run to run.
fn equalised(lines: &[String]) -> Vec<String> {
    let mut equal: Vec<_> = lines.iter().map(|line| equalised_line(line)).collect();
    while equal.last().is_some_and(String::is_empty) {
        equal.pop();
    }
    for rows in equal.chunk_by_mut(|a, b| begins_with_id(a) && begins_with_id(b)) {
        rows.sort();
    }
    equal
}

/// Whether a row is one of a set that ids put into an order.
fn begins_with_id(line: &str) -> bool {
    line.trim_start_matches('/').starts_with(ID)
}

const ID: &str = "<id>";
const TIME: &str = "<time>";

fn equalised_line(line: &str) -> String {
    let mut equal: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let (unit, _) = split_end(word);
        match equal.last_mut() {
            // `12.3 s`: the number goes into its unit.
            Some(number) if matches!(unit, "s" | "ms") && is_number(number) => {
                *number = word.replacen(unit, TIME, 1);
            }
            _ => {
                let is_sign = |c: char| !c.is_alphanumeric() && c != '-' && c != '.';
                equal.push(word.split_inclusive(is_sign).map(equalised_part).collect());
            }
        }
    }
    equal.join(" ")
}

/// A word, and the signs that end it.
fn split_end(word: &str) -> (&str, &str) {
    word.split_at(word.trim_end_matches(|c: char| !c.is_alphanumeric()).len())
}

/// A piece of a word, with the sign that ends it.
fn equalised_part(part: &str) -> String {
    let (core, end) = split_end(part);
    if is_id(core) {
        format!("{ID}{end}")
    } else if core
        .strip_suffix('s')
        .map(|time| time.trim_end_matches(['m', 'µ']))
        .is_some_and(is_number)
    {
        format!("{TIME}{end}")
    } else {
        part.to_owned()
    }
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Hexadecimal, with or without the dashes of a UUID, and long enough to be no word of a language.
fn is_id(word: &str) -> bool {
    let digits: String = word.split('-').collect();
    digits.len() >= 8
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && (!word.contains('-') || word.len() == 36)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn is_same(wanted: &str, printed: &str) -> bool {
        judge(&lines(wanted), &lines(printed)).is_ok()
    }

    #[test]
    fn blocks_become_commands() {
        let text = "# T\n```console\n$ one\nout\n\n$ two\n```\n```sh\n$ never\n```\n```console on each machine\n$ three\n```\n";
        let calls = calls(text).unwrap();
        let found: Vec<_> = calls
            .iter()
            .map(|call| (call.line, call.place, call.command.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (3, Place::Checkout, "one"),
                (6, Place::Checkout, "two"),
                (12, Place::EachMachine, "three")
            ]
        );
        assert_eq!(calls[0].output, ["out", ""]);
    }

    #[test]
    fn broken_blocks_are_refused() {
        let error = |text: &str| calls(text).unwrap_err().to_string();
        assert!(error("```console\nout\n```\n").starts_with("README.md:2: output without a command"));
        assert!(
            error("```console\n$ a\n```\n```console\nout\n```\n").starts_with("README.md:5: output without")
        );
        assert_eq!(error("```console\n$ a\n"), "README.md:1: the block has no end");
        calls("```console on the moon\n$ a\n```\n").unwrap_err();
    }

    #[test]
    fn what_differs_from_run_to_run_is_equal() {
        let table = "MACHINE\t\tIP\t\tMETADATA\n4de7ad5d...\t172.17.8.101\t-\nb76a0027...\t172.17.8.201\t-\n";
        let other = "MACHINE\tIP\tMETADATA\n00000001...\t172.17.8.201\t-\na0000002...\t172.17.8.101\t-\n";
        assert!(is_same(table, other));
        assert!(!is_same(
            table,
            "MACHINE\tIP\tMETADATA\n4de7ad5d...\t172.17.8.101\t-\n"
        ));
        assert!(is_same("   1.2 s  boot core-01", "  10.0 s  boot core-01"));
        assert!(!is_same("   1.2 s  boot core-01", "  10.0 s  boot core-02"));
        assert!(is_same("took 12ms, or 1.5s.", "took 3ms, or 20.1s."));
        assert!(is_same(
            "/1d1a3c70-9f5c-4b0e-a06e-5d2a3b8f9c11/4de7ad5d00112233",
            "/aaaaaaaa-9f5c-4b0e-a06e-5d2a3b8f9c12/00e7ad5d00112233"
        ));
        assert!(!is_same("set mykey 1", "set mykey 2"));
    }

    #[test]
    fn dots_stand_for_any_lines() {
        assert!(is_same("a\n...\nd", "a\nb\nc\nd"));
        assert!(is_same("a\n...", "a"));
        assert!(!is_same("a\n...\nd", "a\nb"));
        assert!(is_same("", "anything at all"));
    }
}
