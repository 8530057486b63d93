//! The rule about dead files: a file of Rust that no module declares is never compiled, and nobody notices.

use super::rust;
use super::{File, Finding};
use std::collections::BTreeSet;

/// Checks that every file is declared by another, or is a crate's root.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let declared: BTreeSet<_> = files
        .iter()
        .filter(|file| file.is_rust())
        .flat_map(declares)
        .collect();
    let dead = files
        .iter()
        .filter(|file| file.is_rust() && !is_root(&file.path) && !declared.contains(&file.path));
    dead.map(|file| {
        file.finding(
            1,
            "dead file",
            "no module declares it, so that it is never compiled: declare it or remove it",
        )
    })
    .collect()
}

/// Paths of the files that a file's modules may be in.
fn declares(file: &File) -> Vec<String> {
    let (directory, name) = split(&file.path);
    let source = rust::read(&file.text, &[]);
    let below = if name == "mod.rs" || is_root(&file.path) {
        directory.to_owned()
    } else {
        file.path.trim_end_matches(".rs").to_owned()
    };
    let modules = source.modules.iter();
    let modules =
        modules.flat_map(|module| [format!("{below}/{module}.rs"), format!("{below}/{module}/mod.rs")]);
    let named = source.literals.iter().filter(|literal| literal.is_file);
    modules
        .chain(named.map(|literal| format!("{directory}/{}", literal.text)))
        .collect()
}

/// Cargo finds these by themselves.
fn is_root(path: &str) -> bool {
    let (directory, name) = split(path);
    match split(directory).1 {
        "bin" | "examples" | "benches" => true,
        // A test of its own; modules may be called so as well.
        "tests" => !directory.contains("src/") && name != "mod.rs",
        _ => matches!(name, "lib.rs" | "main.rs" | "build.rs"),
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn file_that_no_module_declares_is_dead() {
        let files = [
            file(
                "a/src/lib.rs",
                "mod b;\nmod c;\n#[cfg(test)]\nmod tests { mod d; }\n",
            ),
            file("a/src/b/mod.rs", "mod d;\n#[path = \"odd.rs\"]\nmod e;\n"),
            file("a/src/b/d.rs", ""),
            file("a/src/b/odd.rs", ""),
            file("a/src/c.rs", "mod e;\n"),
            file("a/src/c/e.rs", ""),
            file("a/src/tests/d.rs", ""),
            file("a/src/forgotten.rs", ""),
            file("a/src/b/forgotten/mod.rs", "mod b;"),
            file("a/src/bin/tool/main.rs", "mod verb;\n"),
            file("a/src/bin/tool/verb.rs", ""),
            file("a/src/bin/other.rs", ""),
            file("a/tests/outside.rs", "mod support;\n"),
            file("a/tests/support/mod.rs", ""),
            file("a/build.rs", ""),
        ];
        let findings = check(&files);
        let dead: Vec<_> = findings.iter().map(|finding| finding.file.as_str()).collect();
        assert_eq!(dead, ["a/src/forgotten.rs", "a/src/b/forgotten/mod.rs"]);
    }
}
