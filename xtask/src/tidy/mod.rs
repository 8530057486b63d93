//! `cargo xtask tidy`: the rules of the house that no compiler checks. Each finding names its rule, the place and the
//! fix. Exceptions stand beside the rule that they except from, and may only become fewer.

#![expect(clippy::print_stdout, reason = "findings are the output of the task")]

mod arrows;
mod commands;
mod manifests;
mod modules;
mod rust;
mod text;

use crate::{command, workspace};
use anyhow::{Context as _, Result, bail};
use std::fmt;
use std::path::Path;
use std::process::Command;

/// A breach of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    line: usize,
    rule: &'static str,
    /// What is wrong and how to mend it.
    words: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}: {}: {}",
            self.file, self.line, self.rule, self.words
        )
    }
}

/// A file of the project that holds text.
#[derive(Debug)]
struct File {
    /// From the root of the checkout.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn finding(&self, line: usize, rule: &'static str, words: impl Into<String>) -> Finding {
        Finding {
            file: self.path.clone(),
            line,
            rule,
            words: words.into(),
        }
    }
}

/// Checks every file that git knows or would take. `xtask` describes our own command line, which documents quote.
pub(crate) fn tidy(xtask: &clap::Command) -> Result<()> {
    let files = files(&workspace::checkout())?;
    let findings = check(&files, xtask);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("{} files are tidy", files.len());
            Ok(())
        }
        1 => bail!("1 finding: mend it and run `cargo xtask tidy` again"),
        count => bail!("{count} findings: mend them and run `cargo xtask tidy` again"),
    }
}

fn check(files: &[File], xtask: &clap::Command) -> Vec<Finding> {
    let packages = manifests::Package::all(files);
    let mut findings: Vec<_> = files.iter().flat_map(text::check).collect();
    findings.extend(manifests::check(files, &packages));
    findings.extend(arrows::check(files, &packages));
    findings.extend(modules::check(files));
    findings.extend(files.iter().flat_map(|file| commands::check(file, xtask)));
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    findings
}

fn files(checkout: &Path) -> Result<Vec<File>> {
    let mut git = Command::new("git");
    git.current_dir(checkout)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = command::capture(&mut git).context("list the files of the checkout")?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        // Git also lists what was just deleted, and links to directories.
        let Ok(bytes) = std::fs::read(checkout.join(path)) else {
            continue;
        };
        // What is not text has no lines to check.
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File {
                path: path.to_owned(),
                text,
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}
