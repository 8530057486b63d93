//! The program as a person runs it: flags, exit codes, and what it prints.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as the tests do")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cloud_config")
        .join(name)
}

fn cluster_init(arguments: &[&str]) -> Output {
    cluster_init_at(arguments, "172.17.8.201")
}

fn cluster_init_at(arguments: &[&str], public_ipv4: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cluster-init"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("COREOS_PUBLIC_IPV4", public_ipv4)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A dry run below an empty root, so that the machine's own files do not show.
fn dry_run(file: &str, more: &[&str]) -> String {
    let root = tempfile::tempdir().unwrap();
    let file = data(file);
    let mut arguments = vec!["--dry-run", "--root", root.path().to_str().unwrap()];
    arguments.extend(more);
    arguments.push(file.to_str().unwrap());
    let output = cluster_init(&arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout)
}

#[test]
fn a_dry_run_prints_the_plans_of_the_story() {
    assert_eq!(
        dry_run("core.yaml", &["--public-ipv4", "172.17.8.101"]),
        include_str!("cloud_config/core.plan")
    );
    assert_eq!(
        dry_run("worker.yaml", &[]),
        include_str!("cloud_config/worker.plan")
    );
}

#[test]
fn flags_of_the_original_are_understood() {
    let file = data("core.yaml");
    let from_file = format!("-from-file={}", file.display());
    for arguments in [
        vec![from_file.as_str(), "-validate"],
        vec!["--from-file", file.to_str().unwrap(), "--validate"],
        vec!["-validate=true", file.to_str().unwrap()],
    ] {
        let output = cluster_init(&arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?} {output:?}");
        assert_eq!(text(&output.stdout), "valid\n");
    }
}

#[test]
fn wrong_usage_exits_2_and_a_missing_file_1() {
    let file = data("core.yaml");
    let file = file.to_str().unwrap();
    for arguments in [
        vec![],
        vec!["--no-such-flag", file],
        vec![file, file],
        vec![file, "--from-file", file],
        vec!["--validate", "--dry-run", file],
    ] {
        let output = cluster_init(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {output:?}");
    }
    let output = cluster_init(&["/nowhere/user-data"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "error: /nowhere/user-data: No such file or directory (os error 2)\n"
    );
}

#[test]
fn validation_exits_1_with_the_line_of_the_fault() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("user-data");
    let good = std::fs::read_to_string(data("worker.yaml")).unwrap();
    for (from, to, line) in [
        ("#cloud-config", " #cloud-config", "line 1: error: "),
        (
            "etcd_servers",
            "etcd_hosts",
            "line 6: warning: unknown key etcd_hosts",
        ),
        (
            "command: start",
            "command: begin",
            "line 9: error: command \"begin\"",
        ),
        ("  units:", "\tunits:", "line 7: error: a tab in the indentation"),
        (
            "enable: true",
            "enable: perhaps",
            "line 12: error: enable must be true or false",
        ),
    ] {
        std::fs::write(&file, good.replace(from, to)).unwrap();
        let output = cluster_init(&["--validate", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).starts_with(line), "{output:?}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip must be seen")]
fn another_root_is_configured_twice_and_changed_once() {
    if Command::new("systemctl").arg("--version").output().is_err() {
        assert!(std::env::var_os("REQUIRE_SYSTEMD").is_none(), "no systemctl here");
        eprintln!("skipped: no systemctl here to enable units");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let file = data("worker.yaml");
    let arguments = ["--root", root.path().to_str().unwrap(), file.to_str().unwrap()];
    let first = cluster_init(&arguments);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(text(&first.stdout).contains("start fleet.service: not done under --root"));
    let link = root
        .path()
        .join("etc/systemd/system/sockets.target.wants/docker-tcp.socket");
    assert!(link.is_symlink(), "{first:?}");
    let second = cluster_init(&arguments);
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    assert_eq!(
        text(&second.stdout),
        "$public_ipv4 is 172.17.8.201 (environment variable COREOS_PUBLIC_IPV4)\n\
         start fleet.service: not done under --root\n\
         start docker-tcp.socket: not done under --root\n\
         nothing to do: everything is as the file says\n"
    );
}

#[test]
fn a_bad_address_is_refused_with_its_source() {
    let file = data("worker.yaml");
    let output = cluster_init_at(&["--dry-run", file.to_str().unwrap()], "172.17.8");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "line 5: error: environment variable COREOS_PUBLIC_IPV4 is \"172.17.8\", which is not an IPv4 address\n"
    );
}

#[test]
fn completions_and_the_man_page_are_printed() {
    for (arguments, part) in [
        (
            ["--generate-completion", "bash"].as_slice(),
            "-o default cluster-init",
        ),
        (&["--generate-completion", "zsh"], "#compdef cluster-init"),
        (&["--generate-completion", "fish"], "complete -c cluster-init"),
        (&["--generate-man"], ".TH cluster-init 1"),
    ] {
        let output = cluster_init(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(
            text(&output.stdout).contains(part),
            "{arguments:?} {}",
            text(&output.stdout)
        );
    }
}
