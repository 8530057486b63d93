//! Rules about single lines: a file says its idea first, unfinished work has an owner, nothing trails, and no path
//! leads into one person's machine.

use super::rust;
use super::{File, Finding};

/// Recordings of other programs, kept byte for byte.
const RECORDED: [&str; 2] = ["/golden/", "/transcripts/"];
/// Directories of whoever wrote a line, which exist nowhere else.
const PRIVATE: [&str; 2] = ["/root", "/work"];

/// Checks a file line by line.
pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.is_rust() && !file.text.starts_with("//!") {
        findings.push(file.finding(
            1,
            "idea first",
            "the file has no `//!`: begin it with the idea that it holds",
        ));
    }
    findings.extend(owners(file));
    if RECORDED.iter().any(|place| file.path.contains(place)) {
        return findings;
    }
    for (number, line) in (1..).zip(file.text.split('\n')) {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(file.finding(
                number,
                "trailing space",
                "remove what is after the line's last word",
            ));
        }
        if let Some(path) = private_path(line) {
            findings.push(file.finding(
                number,
                "private path",
                format!("`{path}` exists on one machine only: name a place that everyone has"),
            ));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let last = file.text.lines().count();
        findings.push(file.finding(last, "trailing space", "end the last line with a line feed"));
    }
    findings
}

fn owners(file: &File) -> Vec<Finding> {
    let lines: Vec<(usize, String)> = if file.is_rust() {
        rust::read(&file.text, &[]).comments
    } else {
        (1..).zip(file.text.lines().map(str::to_owned)).collect()
    };
    let unowned = lines.into_iter().filter(|(_, line)| has_unowned(line));
    unowned
        .map(|(number, _)| {
            file.finding(
                number,
                "owner",
                "unfinished work without an owner: write `TODO(name or issue): what`, or do it",
            )
        })
        .collect()
}

/// Whether the line marks something as unfinished without saying whose it is.
fn has_unowned(line: &str) -> bool {
    let mut rest = line;
    while let Some(at) = rest.find("TODO") {
        let is_word = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        rest = &rest[at + 4..];
        let has_owner = rest
            .strip_prefix('(')
            .and_then(|rest| rest.split_once("):"))
            .is_some_and(|(owner, _)| !owner.trim().is_empty() && !owner.contains('('));
        if is_word && !has_owner && !rest.starts_with(|c: char| c.is_alphanumeric()) {
            return true;
        }
    }
    false
}

fn private_path(line: &str) -> Option<String> {
    PRIVATE.iter().find_map(|directory| {
        let start = format!("{directory}/");
        line.match_indices(&start).find_map(|(at, _)| {
            // `/var/work/`, `{leader}/root/` and `https://host/work/` are other places.
            let is_inside = line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}/>*~$".contains(c));
            let end = line[at..].find(|c: char| c.is_whitespace() || "\"'`),;".contains(c));
            (!is_inside).then(|| line[at..end.map_or(line.len(), |end| at + end)].to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let findings = check(&file(path, text));
        findings
            .iter()
            .map(|finding| (finding.line, finding.rule))
            .collect()
    }

    #[test]
    fn file_begins_with_its_idea() {
        assert_eq!(rules("a.rs", "//! Idea.\nfn f() {}\n"), []);
        assert_eq!(rules("a.rs", "fn f() {}\n"), [(1, "idea first")]);
        assert_eq!(rules("a.toml", "x = 1\n"), []);
    }

    #[test]
    fn unfinished_work_has_an_owner() {
        assert!(!has_unowned("// TODO(ann): mend"));
        assert!(!has_unowned("// TODO(etcd-io/raft 12): mend"));
        assert!(!has_unowned("METHOD_TODOS"));
        assert!(has_unowned("// TODO: mend"));
        assert!(has_unowned("// TODO mend"));
        assert!(has_unowned("// TODO(): mend"));
        assert!(has_unowned("// TODO(ann) mend"));
        // Only comments of Rust are about work.
        assert_eq!(
            rules("a.rs", "//! Idea.\nconst A: &str = \"TODO\"; // TODO mend\n"),
            [(2, "owner")]
        );
        assert_eq!(rules("a.rs", "//! Idea.\nconst A: &str = \"TODO\";\n"), []);
        assert_eq!(rules("a.service", "# TODO\n"), [(1, "owner")]);
    }

    #[test]
    fn nothing_trails() {
        assert_eq!(
            rules("a.md", "a \nb\t\nc\r\nd"),
            [
                (1, "trailing space"),
                (2, "trailing space"),
                (3, "trailing space"),
                (4, "trailing space")
            ]
        );
        assert_eq!(rules("tests/golden/a.txt", "a \n"), []);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for directory in PRIVATE {
            let line = |before: &str| format!("{before}{directory}/x/y` z");
            assert_eq!(private_path(&line("see `")), Some(format!("{directory}/x/y")));
            assert_eq!(private_path(&line("")), Some(format!("{directory}/x/y")));
            assert_eq!(private_path(&line("/var")), None);
            assert_eq!(private_path(&line("/proc/{pid}")), None);
        }
        assert_eq!(private_path("HOME=/root"), None);
    }
}
