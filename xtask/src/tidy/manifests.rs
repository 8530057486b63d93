//! Rules about manifests: every dependency is declared once, in the root manifest, with its reason beside it, and no
//! package declares one that it does not use. The manifests are written one dependency a line, so that lines are
//! what is read here.

use super::rust;
use super::{File, Finding};
use std::collections::BTreeSet;

/// Declared for generated code, which the checkout does not hold.
const USED_BY_GENERATED_CODE: [(&str, &str); 3] =
    [("proto", "prost"), ("proto", "tonic"), ("proto", "tonic-prost")];

/// A package of the workspace.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    /// Where its manifest is, from the root of the checkout, with a slash at its end.
    pub(super) directory: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// What a manifest declares to need, in any of its sections.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) line: usize,
    is_inherited: bool,
}

impl Package {
    pub(super) fn all(files: &[File]) -> Vec<Self> {
        let manifests = files
            .iter()
            .filter_map(|file| Some((file, file.path.strip_suffix("/Cargo.toml")?)));
        manifests
            .map(|(file, directory)| Self {
                name: entries(&file.text, |section| section == "package")
                    .find(|entry| entry.key == "name")
                    .map(|entry| entry.value.trim_matches('"').to_owned())
                    .unwrap_or_default(),
                directory: format!("{directory}/"),
                dependencies: Dependency::all(&file.text),
            })
            .collect()
    }

    pub(super) fn manifest(&self) -> String {
        format!("{}Cargo.toml", self.directory)
    }

    /// The package's files of Rust: not those of packages nested in it.
    pub(super) fn sources<'files>(
        &self,
        files: &'files [File],
        packages: &[Self],
    ) -> impl Iterator<Item = &'files File> {
        let nested: Vec<_> = packages
            .iter()
            .map(|package| package.directory.clone())
            .filter(|directory| directory.starts_with(&self.directory) && *directory != self.directory)
            .collect();
        let directory = self.directory.clone();
        files.iter().filter(move |file| {
            file.is_rust()
                && file.path.starts_with(&directory)
                && !nested.iter().any(|nested| file.path.starts_with(nested))
        })
    }
}

impl Dependency {
    /// The dependencies of a manifest, each once.
    fn all(text: &str) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for entry in entries(text, |section| section.ends_with("dependencies")) {
            let (name, rest) = entry.key.split_once('.').unwrap_or((entry.key, ""));
            let is_inherited =
                (rest == "workspace" && entry.value == "true") || entry.value.contains("workspace = true");
            // `tokio.features = [...]` stands beside `tokio.workspace = true`.
            match all.iter_mut().find(|known| known.name == name) {
                Some(known) => known.is_inherited |= is_inherited,
                None => all.push(Self {
                    name: name.to_owned(),
                    line: entry.line,
                    is_inherited,
                }),
            }
        }
        all
    }
}

/// Checks the root manifest and those of all packages.
pub(super) fn check(files: &[File], packages: &[Package]) -> Vec<Finding> {
    let mut findings: Vec<_> = files
        .iter()
        .filter(|file| file.path == "Cargo.toml")
        .flat_map(|root| root_manifest(root, packages))
        .collect();
    for file in files {
        let Some(package) = packages.iter().find(|package| package.manifest() == file.path) else {
            continue;
        };
        findings.extend(inherits(file, package));
        findings.extend(unused(file, package, files, packages));
    }
    findings
}

/// A reason beside each dependency, and a user of each.
fn root_manifest(root: &File, packages: &[Package]) -> Vec<Finding> {
    let used: BTreeSet<_> = packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .map(|dependency| dependency.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for entry in entries(&root.text, |section| section == "workspace.dependencies") {
        if entry.comment.is_empty() {
            findings.push(root.finding(
                entry.line,
                "dependency's reason",
                format!("say behind `{}` why we have it: `# reason`", entry.key),
            ));
        }
        if !used.contains(entry.key) {
            findings.push(root.finding(
                entry.line,
                "dead dependency",
                format!("no package uses `{}`: remove the line", entry.key),
            ));
        }
    }
    findings
}

fn inherits(file: &File, package: &Package) -> Vec<Finding> {
    let own = package
        .dependencies
        .iter()
        .filter(|dependency| !dependency.is_inherited);
    let mut findings: Vec<_> = own
        .map(|dependency| {
            let name = &dependency.name;
            file.finding(
                dependency.line,
                "dependency's place",
                format!("write `{name}.workspace = true`, and `{name}` with its reason in the root manifest"),
            )
        })
        .collect();
    if !entries(&file.text, |section| section == "lints").any(|entry| entry.key == "workspace") {
        findings.push(file.finding(
            1,
            "lints",
            "the package takes no part in the lints: add `[lints]` with `workspace = true`",
        ));
    }
    findings
}

/// Dependencies that no file of the package names.
fn unused(file: &File, package: &Package, files: &[File], packages: &[Package]) -> Vec<Finding> {
    let mut named = BTreeSet::new();
    for source in package.sources(files, packages) {
        let mentions = rust::read(&source.text, &[]).mentions;
        named.extend(
            mentions
                .into_iter()
                .filter_map(|mention| mention.path.into_iter().next()),
        );
    }
    let is_used = |name: &str| {
        named.contains(&name.replace('-', "_"))
            || USED_BY_GENERATED_CODE.contains(&(package.name.as_str(), name))
    };
    let dead = package
        .dependencies
        .iter()
        .filter(|dependency| !is_used(&dependency.name));
    dead.map(|dependency| {
        file.finding(
            dependency.line,
            "dead dependency",
            format!(
                "`{}` never names `{}`: remove the line",
                package.name, dependency.name
            ),
        )
    })
    .collect()
}

/// A line `key = value # comment` of a manifest.
struct Entry<'text> {
    line: usize,
    key: &'text str,
    value: &'text str,
    comment: &'text str,
}

/// The entries of the sections that are asked for.
fn entries(text: &str, is_wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Entry<'_>> {
    let mut is_inside = false;
    (1..).zip(text.lines()).filter_map(move |(line, words)| {
        if let Some(section) = words.trim().strip_prefix('[') {
            is_inside = section.strip_suffix(']').is_some_and(&is_wanted);
            return None;
        }
        let (words, comment) = split_comment(words);
        let (key, value) = words.split_once('=').filter(|_| is_inside)?;
        Some(Entry {
            line,
            key: key.trim(),
            value: value.trim(),
            comment,
        })
    })
}

/// A `#` inside quotes begins no comment.
fn split_comment(line: &str) -> (&str, &str) {
    let mut is_quoted = false;
    let at = line.find(|c| {
        is_quoted ^= c == '"';
        c == '#' && !is_quoted
    });
    at.map_or((line, ""), |at| (&line[..at], line[at + 1..].trim()))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn rules(files: &[File]) -> Vec<(String, usize, &'static str)> {
        let findings = check(files, &Package::all(files));
        let place = |finding: Finding| (finding.file, finding.line, finding.rule);
        findings.into_iter().map(place).collect()
    }

    fn package(dependencies: &str) -> File {
        file(
            "a/Cargo.toml",
            &format!("[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dependencies]\n{dependencies}"),
        )
    }

    #[test]
    fn dependency_stands_in_the_root_with_its_reason() {
        let root = |lines: &str| file("Cargo.toml", &format!("[workspace.dependencies]\n{lines}"));
        let user = || file("a/src/lib.rs", "use bytes::Bytes;\nuse tokio_util::sync;");
        let both = "bytes.workspace = true\ntokio-util = { workspace = true, optional = true }\n";
        let good = [
            root("bytes = \"1\" # slices\ntokio-util = \"0.7\" # tokens\n"),
            package(both),
            user(),
        ];
        assert_eq!(rules(&good), []);
        let silent = [
            root("bytes = \"1\"\ntokio-util = { features = [\"#\"] } #\n"),
            package(both),
            user(),
        ];
        assert_eq!(
            rules(&silent),
            [
                ("Cargo.toml".to_owned(), 2, "dependency's reason"),
                ("Cargo.toml".to_owned(), 3, "dependency's reason")
            ]
        );
    }

    #[test]
    fn dependency_is_inherited() {
        let own = [
            package("bytes = \"1\"\n"),
            file("a/src/lib.rs", "use bytes::Bytes;"),
        ];
        assert_eq!(
            rules(&own),
            [("a/Cargo.toml".to_owned(), 6, "dependency's place")]
        );
    }

    #[test]
    fn dependency_that_nobody_names_is_dead() {
        let root = file("Cargo.toml", "[workspace.dependencies]\nslog = \"2\" # logs\n");
        assert_eq!(rules(&[root]), [("Cargo.toml".to_owned(), 2, "dead dependency")]);
        // The name in a comment, in a text or in a package nested inside does not count.
        let files = [
            package("bytes.workspace = true\n"),
            file(
                "a/src/lib.rs",
                "// bytes::Bytes\nconst A: &str = \"bytes::Bytes\";",
            ),
            file(
                "a/b/Cargo.toml",
                "[package]\nname = \"b\"\n[lints]\nworkspace = true\n",
            ),
            file("a/b/src/lib.rs", "use bytes::Bytes;"),
        ];
        assert_eq!(rules(&files), [("a/Cargo.toml".to_owned(), 6, "dead dependency")]);
    }

    #[test]
    fn lints_are_shared() {
        let files = [file("a/Cargo.toml", "[package]\nname = \"a\"\n")];
        assert_eq!(rules(&files), [("a/Cargo.toml".to_owned(), 1, "lints")]);
    }
}
