//! Who may import whom. Between packages the manifests tell; inside a package the paths that its code names. The
//! compiler keeps most of these walls as long as the manifests are right, which is what is checked here.

use super::manifests::Package;
use super::rust;
use super::{File, Finding};

/// Our packages, and which of ours each may depend on. A package that is not listed may not exist.
const ARROWS: [(&str, &[&str]); 9] = [
    ("proto", &[]),
    ("daemon", &[]),
    ("store", &["proto"]),
    // `daemon` for its binary alone: see the walls.
    ("client", &["proto", "daemon"]),
    ("etcd-node", &["proto", "daemon", "store", "client"]),
    ("discovery", &["proto", "daemon", "client"]),
    ("fleet-agent", &["proto", "daemon", "client"]),
    ("xtask", &[]),
    ("bench-load", &[]),
];

/// What decides takes values and returns values: time, threads, disk and network are not its to reach for.
const WORLD: &[&str] = &[
    "tokio",
    "hyper",
    "rustix",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// A rule about the paths that some files may name. Tests inside the files are free.
struct Wall {
    /// Beginnings of the files' names.
    within: &'static [&'static str],
    /// Beginnings of names that the rule excepts.
    except: &'static [&'static str],
    /// Paths that may not be named, nor anything below them.
    forbidden: &'static [&'static str],
    /// Paths below those that may be named.
    allowed: &'static [&'static str],
    reason: &'static str,
}

/// What most walls are.
const WALL: Wall = Wall {
    within: &[],
    except: &[],
    forbidden: &[],
    allowed: &[],
    reason: "",
};

const WALLS: [Wall; 9] = [
    Wall {
        within: &["etcd-node/src/api/v2/"],
        forbidden: &["crate::api::v3"],
        reason: "the fronts know nothing of each other: what both need belongs to `api`",
        ..WALL
    },
    Wall {
        within: &["etcd-node/src/api/v3/"],
        forbidden: &["crate::api::v2"],
        reason: "the fronts know nothing of each other: what both need belongs to `api`",
        ..WALL
    },
    Wall {
        within: &["etcd-node/store/src/v2/", "etcd-node/store/src/v2.rs"],
        forbidden: &["crate::v3"],
        reason: "the grammars know nothing of each other: what both need belongs to `mvcc`",
        ..WALL
    },
    Wall {
        within: &["etcd-node/store/src/v3/", "etcd-node/store/src/v3.rs"],
        forbidden: &["crate::v2"],
        reason: "the grammars know nothing of each other: what both need belongs to `mvcc`",
        ..WALL
    },
    Wall {
        within: &["etcd-node/src/wal/", "etcd-node/src/snap/", "etcd-node/src/disk/"],
        forbidden: &["store", "crate::api"],
        reason: "disk code keeps bytes whatever they mean: pass it bytes",
        ..WALL
    },
    Wall {
        within: &["etcd-node/src/peer/"],
        forbidden: &["store", "crate::api"],
        allowed: &["store::members", "store::Outcome"],
        reason: "peers carry messages between replicas: of the store they know who the members are, no more",
        ..WALL
    },
    Wall {
        within: &["etcd-node/src/"],
        except: &["etcd-node/src/replica/"],
        forbidden: &["raft", "protobuf"],
        reason: "the consensus library is named by `replica` alone: give `replica` what is missing",
        ..WALL
    },
    Wall {
        within: &["etcd-node/client/src/"],
        except: &["etcd-node/client/src/bin/"],
        forbidden: &["daemon"],
        reason: "the client library runs in any program: only `etcdctl` is ours to furnish",
        ..WALL
    },
    Wall {
        within: &[
            "etcd-node/store/src/",
            "etcd-node/src/replica/",
            "discovery/src/rules",
            "fleet-agent/src/unit/",
            "fleet-agent/src/engine/reconcile",
            "fleet-agent/src/engine/schedule",
            "fleet-agent/src/agent/reconcile",
            "fleet-agent/src/cloud_config/parse",
            "fleet-agent/src/cloud_config/plan",
        ],
        forbidden: WORLD,
        reason: "what decides is pure: take it as an argument, or return it as an effect",
        ..WALL
    },
];

/// Checks the arrows between packages and the walls inside them.
pub(super) fn check(files: &[File], packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        findings.extend(package_arrows(package, packages));
        for file in package.sources(files, packages) {
            findings.extend(walls(file, &package.directory));
        }
    }
    findings
}

fn package_arrows(package: &Package, packages: &[Package]) -> Vec<Finding> {
    let finding = |line, words| Finding {
        file: package.manifest(),
        line,
        rule: "arrows",
        words,
    };
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
        return vec![finding(
            1,
            format!(
                "`{}` has no place in the house: add it to ARROWS of tidy",
                package.name
            ),
        )];
    };
    let ours = |name: &str| packages.iter().any(|package| package.name == name);
    let wrong = package
        .dependencies
        .iter()
        .filter(|dependency| ours(&dependency.name) && !allowed.contains(&dependency.name.as_str()));
    wrong
        .map(|dependency| {
            let words = match allowed {
                [] => format!("`{}` may import nothing of ours", package.name),
                allowed => format!("`{}` may import only {}", package.name, allowed.join(", ")),
            };
            finding(
                dependency.line,
                format!("{words}: do without `{}`", dependency.name),
            )
        })
        .collect()
}

fn walls(file: &File, package: &str) -> Vec<Finding> {
    let covers = |prefixes: &[&str]| prefixes.iter().any(|prefix| file.path.starts_with(prefix));
    let walls: Vec<_> = WALLS
        .iter()
        .filter(|wall| covers(wall.within) && !covers(wall.except) && !is_test(&file.path))
        .collect();
    if walls.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for mention in rust::read(&file.text, &module(&file.path, package)).mentions {
        let named = |paths: &[&str]| paths.iter().any(|path| mention.begins_with(path));
        for wall in &walls {
            if !mention.is_test && named(wall.forbidden) && !named(wall.allowed) {
                findings.push(file.finding(
                    mention.line,
                    "arrows",
                    format!(
                        "`{}` may not be named here: {}",
                        mention.path.join("::"),
                        wall.reason
                    ),
                ));
            }
        }
    }
    findings
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The module that a file of a package is: empty for a crate's root.
fn module(path: &str, package: &str) -> Vec<String> {
    let inside = path.strip_prefix(package).unwrap_or(path);
    let inside = inside.strip_prefix("src/").unwrap_or(inside);
    let mut segments: Vec<_> = inside
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if segments
        .last()
        .is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main"))
    {
        segments.pop();
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn words(path: &str, text: &str) -> Vec<String> {
        let files = [
            file("etcd-node/Cargo.toml", "[package]\nname = \"etcd-node\"\n"),
            file("etcd-node/store/Cargo.toml", "[package]\nname = \"store\"\n"),
            file("etcd-node/client/Cargo.toml", "[package]\nname = \"client\"\n"),
            file(path, text),
        ];
        let findings = check(&files, &Package::all(&files));
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fronts_do_not_import_each_other() {
        let found = words("etcd-node/src/api/v2/keys.rs", "use super::super::v3::Front;\n");
        assert_eq!(
            found,
            [
                "etcd-node/src/api/v2/keys.rs:1: arrows: `crate::api::v3::Front` may not be named here: \
              the fronts know nothing of each other: what both need belongs to `api`"
            ]
        );
        assert_eq!(
            words("etcd-node/src/api/v3/kv.rs", "fn f() { crate::api::v2::g(); }\n").len(),
            1
        );
        assert_eq!(
            words("etcd-node/src/api/v3/kv.rs", "use crate::api::answer;\n").len(),
            0
        );
        assert_eq!(
            words(
                "etcd-node/store/src/v2/read.rs",
                "use crate::{mvcc, v3::range};\n"
            )
            .len(),
            1
        );
    }

    #[test]
    fn disk_and_peers_know_no_store() {
        assert_eq!(
            words("etcd-node/src/wal/mod.rs", "use store::Command;\n").len(),
            1
        );
        assert_eq!(
            words("etcd-node/src/peer/join.rs", "use store::members::Members;\n").len(),
            0
        );
        assert_eq!(
            words("etcd-node/src/peer/join.rs", "use store::Command;\n").len(),
            1
        );
        assert_eq!(
            words("etcd-node/src/driver/mod.rs", "use store::Command;\n").len(),
            0
        );
    }

    #[test]
    fn consensus_library_is_named_in_one_place() {
        assert_eq!(
            words("etcd-node/src/replica/mod.rs", "use raft::RawNode;\n").len(),
            0
        );
        assert_eq!(
            words("etcd-node/src/driver/mod.rs", "use raft::RawNode;\n").len(),
            1
        );
    }

    #[test]
    fn what_decides_is_pure_and_its_tests_are_free() {
        let text = "use std::time::Duration;\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(words("etcd-node/store/src/apply.rs", text).len(), 0);
        assert_eq!(
            words("etcd-node/store/src/apply.rs", "use std::{fs, time::Instant};\n").len(),
            2
        );
        assert_eq!(
            words("etcd-node/src/replica/tests/disk.rs", "use std::fs;\n").len(),
            0
        );
    }

    #[test]
    fn packages_import_upwards_only() {
        let manifest = |name: &str, dependency: &str| {
            let text =
                format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependency}.workspace = true\n");
            file(&format!("{name}/Cargo.toml"), &text)
        };
        let found = |files: &[File]| -> Vec<String> {
            let findings = check(files, &Package::all(files));
            findings.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            found(&[manifest("store", "client"), manifest("client", "proto")]),
            ["store/Cargo.toml:4: arrows: `store` may import only proto: do without `client`"]
        );
        assert_eq!(
            found(&[manifest("xtask", "client"), manifest("client", "proto")]),
            ["xtask/Cargo.toml:4: arrows: `xtask` may import nothing of ours: do without `client`"]
        );
        assert_eq!(
            found(&[manifest("utils", "bytes")]),
            ["utils/Cargo.toml:1: arrows: `utils` has no place in the house: add it to ARROWS of tidy"]
        );
    }
}
