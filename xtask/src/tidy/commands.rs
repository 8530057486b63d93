//! The rule about commands: a `cargo xtask` command that a document or a message tells people to type exists, with
//! its flags.

use super::rust;
use super::{File, Finding};
use clap::Command;

const CALL: &str = "cargo xtask ";

/// Checks what a document, a comment or a message says. Tests may speak of commands that never were.
pub(super) fn check(file: &File, xtask: &Command) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in lines(file) {
        let calls = line.match_indices(CALL).map(|(at, _)| &line[at + CALL.len()..]);
        for wrong in calls.filter_map(|call| judge(call, xtask)) {
            findings.push(file.finding(number, "command that exists", wrong));
        }
    }
    findings
}

fn lines(file: &File) -> Vec<(usize, String)> {
    if file.path.ends_with(".md") {
        return (1..).zip(file.text.lines().map(str::to_owned)).collect();
    }
    if !file.is_rust() || file.path.contains("/tests/") {
        return Vec::new();
    }
    let source = rust::read(&file.text, &[]);
    let said = source.literals.into_iter().filter(|literal| !literal.is_test);
    let said = said.map(|literal| (literal.line, literal.text));
    source.comments.into_iter().chain(said).collect()
}

/// What is wrong with the words of a call, if anything.
fn judge(call: &str, xtask: &Command) -> Option<String> {
    let end = call.find(['`', '#', '|', ';', ')', '"', '\'', ',', '\\', '{', '&', '>']);
    let mut words = call[..end.unwrap_or(call.len())].split_whitespace();
    let verb = words
        .next()
        .map(|verb| verb.trim_end_matches(['.', ':']))
        .filter(|verb| is_verb(verb))?;
    let Some(task) = xtask.find_subcommand(verb) else {
        return Some(format!(
            "there is no `cargo xtask {verb}`: `cargo xtask --help` lists the tasks"
        ));
    };
    let mut task = task;
    for word in words {
        // What follows is for another program.
        if word == "--" || verb == "exec" {
            break;
        }
        if let Some(below) = task.find_subcommand(word) {
            task = below;
        }
        let Some(flag) = word.trim_matches(['[', ']', '.', ':']).strip_prefix("--") else {
            continue;
        };
        let flag = flag.split('=').next().unwrap_or(flag);
        let has = |command: &Command| {
            command
                .get_arguments()
                .any(|argument| argument.get_long() == Some(flag))
        };
        if !has(task) && !has(xtask) {
            return Some(format!(
                "`cargo xtask {}` has no --{flag}: see `cargo xtask {} --help`",
                task.get_name(),
                task.get_name()
            ));
        }
    }
    None
}

/// Prose also goes on behind `cargo xtask`; a placeholder is no verb.
fn is_verb(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;
    use clap::Arg;

    fn words(text: &str) -> Vec<String> {
        let nodes = Arg::new("nodes").long("nodes");
        let start = Command::new("start").arg(Arg::new("rounds").long("rounds"));
        let xtask = Command::new("xtask")
            .arg(Arg::new("lab").long("lab").global(true))
            .subcommand(Command::new("up").arg(nodes))
            .subcommand(Command::new("exec"))
            .subcommand(Command::new("stress").subcommand(start));
        let findings = check(&file("README.md", text), &xtask);
        findings.into_iter().map(|finding| finding.words).collect()
    }

    #[test]
    fn known_commands_pass() {
        let none: [&str; 0] = [];
        assert_eq!(words("`cargo xtask up --nodes 5` and cargo xtask up."), none);
        assert_eq!(
            words("$ cargo xtask --lab x up\n$ cargo xtask up --lab x # --fast"),
            none
        );
        assert_eq!(words("cargo xtask exec core-01 ls --color"), none);
        assert_eq!(
            words("cargo xtask stress start --rounds=3; run `cargo xtask VERB`"),
            none
        );
    }

    #[test]
    fn messages_count_and_tests_do_not() {
        let text = "// cargo xtask boot\nconst A: &str = \"cargo xtask boot\";\n\
                    #[cfg(test)]\nmod tests { const B: &str = \"cargo xtask boot\"; }\n";
        let findings = check(&file("a/src/lib.rs", text), &Command::new("xtask"));
        let lines: Vec<_> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2]);
    }

    #[test]
    fn vanished_commands_are_named() {
        assert_eq!(
            words("then `cargo xtask boot`"),
            ["there is no `cargo xtask boot`: `cargo xtask --help` lists the tasks"]
        );
        assert_eq!(
            words("$ cargo xtask up --fast"),
            ["`cargo xtask up` has no --fast: see `cargo xtask up --help`"]
        );
        assert_eq!(words("cargo xtask stress start --nodes 3").len(), 1);
    }
}
