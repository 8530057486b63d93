//! The simulated machines, played through the commands that a person types, on machines without the product: what
//! is tested here is the laboratory. Every test ends by looking for what `down` may have left.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests; a skipped test says so"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Boots and commands take less than a second on an idle host.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// A lab of its own name, beside any other; removed at the end, also of a failed test.
struct TestLab {
    name: String,
    /// The target directory of the lab, so that a person's own is left alone.
    target: tempfile::TempDir,
}

impl TestLab {
    /// None where machines cannot be simulated, which is an error when `REQUIRE_SYSTEMD=1`.
    fn new(test: &str) -> Option<Self> {
        if let Err(reason) = can_simulate() {
            assert_ne!(
                std::env::var("REQUIRE_SYSTEMD").as_deref(),
                Ok("1"),
                "cannot simulate machines: {reason}"
            );
            eprintln!("skipped {test}: cannot simulate machines: {reason}");
            return None;
        }
        let target = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Some(Self {
            name: format!("{test}{}", std::process::id()),
            target,
        })
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .env("HAWSER_LAB", &self.name)
            .env("CARGO_TARGET_DIR", self.target.path());
        command
            .env_remove("RUST_BACKTRACE")
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn output(&self, line: &str) -> Output {
        self.command(&line.split_whitespace().collect::<Vec<_>>())
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    fn run(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail, and returns its complaint.
    fn refusal(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(
            !output.status.success(),
            "{line} succeeded: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs a shell line on a machine; whether it succeeded.
    fn on(&self, machine: &str, script: &str) -> bool {
        self.command(&["exec", machine, "bash", "-c", script])
            .output()
            .unwrap()
            .status
            .success()
    }

    fn directory(&self) -> PathBuf {
        self.target.path().join(format!("lab-{}", self.name))
    }

    fn disk(&self, machine: &str) -> PathBuf {
        self.directory().join("machines").join(machine)
    }

    /// Everything of this lab that the host has: namespaces, interfaces, cgroups, mounts, processes, files.
    fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        let names = fs::read_dir("/run/hawser")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        let names = names
            .filter_map(|found| found.into_string().ok())
            .filter(|found| found.contains(&self.name));
        found.extend(names.map(|found| format!("marker {found}")));
        let listing = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let texts = [
            ("interface", listing("ip", &["-o", "link"])),
            ("mount", fs::read_to_string("/proc/self/mountinfo").unwrap()),
            (
                "cgroup",
                listing("find", &["/sys/fs/cgroup", "-maxdepth", "4", "-type", "d"]),
            ),
        ];
        for (kind, text) in texts {
            let lines = text
                .lines()
                .filter(|line| line.contains(&self.name) || line.contains(" lab0"));
            found.extend(lines.map(|line| format!("{kind} {line}")));
        }
        found.extend(self.processes());
        if self.directory().exists() {
            found.push(format!("directory {}", self.directory().display()));
        }
        found
    }

    /// Processes whose command line or cgroup names this lab.
    fn processes(&self) -> Vec<String> {
        let own = self.target.path().to_string_lossy().into_owned();
        let name = format!("hawser-{}", self.name);
        let read = |process: &Path, file: &str| {
            let bytes = fs::read(process.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let is_ours = |process: &PathBuf| {
            // A zombie is dead; its parent, the host's PID 1, may be lazy.
            !read(process, "stat").contains(") Z ")
                && (read(process, "cmdline").contains(&own) || read(process, "cgroup").contains(&name))
        };
        let ours = processes
            .filter(|process| process.join("cgroup").exists())
            .filter(is_ours);
        ours.map(|process| format!("process {}: {}", process.display(), read(&process, "cmdline")))
            .collect()
    }

    /// Takes the lab down and proves that nothing is left.
    fn down_leaves_nothing(&self) {
        self.run("down");
        let deadline = Instant::now() + LIMIT;
        // The kernel frees a dead namespace's interfaces a moment later.
        while !self.traces().is_empty() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        assert_eq!(self.traces(), Vec::<String>::new());
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        let _ = self.output("down").status.success();
    }
}

fn can_simulate() -> Result<(), String> {
    for program in [
        "/lib/systemd/systemd",
        "/usr/bin/dbus-daemon",
        "/sbin/ip",
        "/usr/bin/nsenter",
    ] {
        if !Path::new(program).exists() {
            return Err(format!("there is no {program}"));
        }
    }
    let output = Command::new("id")
        .arg("-u")
        .output()
        .map_err(|error| error.to_string())?;
    if output.stdout != b"0\n" {
        return Err("this test looks at the whole host, which needs root".into());
    }
    let tried = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--cgroup", "--fork", "true"])
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// A service on a machine that says the machine's name to whoever connects.
fn serve_name(lab: &TestLab, machine: &str) {
    let units = lab.disk(machine).join("etc/systemd/system");
    fs::write(
        units.join("name.socket"),
        "[Socket]\nListenStream=8000\nAccept=yes\n",
    )
    .unwrap();
    fs::write(
        units.join("name@.service"),
        "[Service]\nExecStart=/bin/cat /etc/hostname\nStandardOutput=socket\n",
    )
    .unwrap();
    lab.run(&format!("exec {machine} systemctl daemon-reload"));
    lab.run(&format!("exec {machine} systemctl start name.socket"));
}

/// Whether `machine` hears the name of the machine at `address` within a second.
fn hears(lab: &TestLab, machine: &str, address: &str) -> bool {
    lab.on(
        machine,
        &format!("timeout 1 bash -c 'read name </dev/tcp/{address}/8000 && [ -n \"$name\" ]'"),
    )
}

#[test]
fn machines_boot_fail_and_come_back() {
    let Some(lab) = TestLab::new("life") else { return };
    assert_eq!(lab.traces(), Vec::<String>::new());
    let told = lab.run("up --blank --nodes 3 --worker 1");
    assert!(
        told.contains("boot core-01, core-02, core-03, worker-01"),
        "{told}"
    );
    assert!(
        lab.traces()
            .iter()
            .filter(|trace| trace.starts_with("process "))
            .count()
            > 4,
        "{:?}",
        lab.traces()
    );

    // Each machine is itself.
    let mut ids = Vec::new();
    for machine in ["core-01", "core-02", "core-03", "worker-01"] {
        assert_eq!(lab.run(&format!("exec {machine} hostname")).trim(), machine);
        assert_eq!(
            lab.run(&format!("exec {machine} systemctl is-system-running"))
                .trim(),
            "running"
        );
        ids.push(lab.run(&format!(
            "exec {machine} cat /etc/machine-id /proc/sys/kernel/random/boot_id"
        )));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "{ids:?}");

    // The exit code is the command's, and unknown names are answered with known ones.
    let exit = lab
        .command(&["exec", "core-01", "bash", "-c", "exit 7"])
        .output()
        .unwrap()
        .status;
    assert_eq!(exit.code(), Some(7));
    let error = lab.refusal("exec core-09 true");
    assert!(
        error.contains("there are hub, core-01, core-02, core-03, worker-01"),
        "{error}"
    );
    let error = lab.refusal("up --blank");
    assert!(error.contains("`cargo xtask down` removes it"), "{error}");

    // The network, whole and cut.
    serve_name(&lab, "core-02");
    assert!(hears(&lab, "core-01", "172.17.8.102"));
    assert!(hears(&lab, "hub", "172.17.8.102"));
    lab.run("partition core-01,core-03 core-02");
    assert!(!hears(&lab, "core-01", "172.17.8.102"));
    assert!(!hears(&lab, "core-03", "172.17.8.102"));
    assert!(
        hears(&lab, "worker-01", "172.17.8.102"),
        "a machine in no group reaches all others"
    );
    assert!(
        lab.run("status")
            .contains("partitioned: core-01,core-03 | core-02")
    );
    lab.run("partition core-02");
    assert!(!hears(&lab, "worker-01", "172.17.8.102"));
    assert!(!hears(&lab, "hub", "172.17.8.102"));
    lab.run("heal");
    assert!(hears(&lab, "core-01", "172.17.8.102"));
    assert!(!lab.run("status").contains("partitioned"));

    // A pause: the machine is there and does not answer.
    lab.run("pause core-02");
    assert!(!hears(&lab, "core-01", "172.17.8.102"));
    let error = lab.refusal("exec core-02 true");
    assert!(error.contains("`cargo xtask resume core-02`"), "{error}");
    lab.run("resume core-02");
    assert!(hears(&lab, "core-01", "172.17.8.102"));

    // A power cut: the journal of the boot before is on the disk, under its own boot id.
    lab.run("exec core-02 systemd-run --quiet --wait echo before the cut");
    let said = || lab.run("logs core-02").contains("before the cut");
    wait_until("the journal to have the line", said);
    lab.run("exec core-02 journalctl --sync");
    lab.run("kill core-02");
    assert!(!hears(&lab, "core-01", "172.17.8.102"));
    assert!(said(), "a machine's journal can be read while it is off");
    let error = lab.refusal("exec core-02 true");
    assert!(
        error.contains("core-02 is off: `cargo xtask restart core-02` boots it"),
        "{error}"
    );
    lab.run("restart core-02");
    assert!(
        lab.run("exec core-02 journalctl -b -1")
            .contains("before the cut")
    );
    assert!(!lab.run("exec core-02 journalctl -b 0").contains("before the cut"));

    // A clean restart stops units in order.
    lab.run("restart core-03");
    assert!(
        lab.run("exec core-03 journalctl -b -1")
            .contains("Reached target poweroff.target")
    );

    lab.run("add");
    assert_eq!(lab.run("exec core-04 hostname").trim(), "core-04");
    lab.down_leaves_nothing();
    assert!(
        lab.run("down").contains("no lab is there"),
        "down can be repeated"
    );
}

/// Starts `up` and interrupts it as Ctrl-C does once `is_reached`.
fn interrupt(lab: &TestLab, mut is_reached: impl FnMut() -> bool) {
    let mut up: Child = lab
        .command(&["up", "--blank"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("up to reach the point", || {
        is_reached() || up.try_wait().unwrap().is_some()
    });
    Command::new("bash")
        .args(["-c", &format!("kill -INT {}", up.id())])
        .status()
        .unwrap();
    up.wait().unwrap();
}

#[test]
fn down_cleans_up_after_an_interrupted_up() {
    let Some(lab) = TestLab::new("cut") else { return };
    let trace =
        |text: &'static str| move |lab: &TestLab| lab.traces().iter().any(|trace| trace.contains(text));
    let state = |lab: &TestLab| lab.directory().join("state.json").exists();
    interrupt(&lab, || trace("marker ")(&lab));
    lab.down_leaves_nothing();
    interrupt(&lab, || state(&lab));
    lab.down_leaves_nothing();
    interrupt(&lab, || trace("/core-02 ")(&lab));
    lab.down_leaves_nothing();
    interrupt(&lab, || trace("become-machine")(&lab));
    lab.down_leaves_nothing();
    lab.run("up --blank --nodes 1 --worker 0");
    lab.down_leaves_nothing();
}

#[test]
fn lab_of_another_checkout_is_named() {
    let Some(lab) = TestLab::new("other") else { return };
    let marker = Path::new("/run/hawser").join(format!("{}.json", lab.name));
    fs::create_dir_all("/run/hawser").unwrap();
    fs::write(
        &marker,
        r#"{"checkout":"/somewhere/else","directory":"/somewhere/else/target/lab"}"#,
    )
    .unwrap();
    for task in ["up --blank", "down", "status"] {
        let error = lab.refusal(task);
        assert!(
            error.contains("a lab of /somewhere/else is running: run `cargo xtask down` in"),
            "{error}"
        );
    }
    fs::remove_file(marker).unwrap();
    lab.down_leaves_nothing();
}

/// Installing onto a machine's disk gives it users and units that come before the distribution's.
#[test]
fn installed_machine_has_our_units_and_users() {
    let Some(lab) = TestLab::new("install") else {
        return;
    };
    let binaries = tempfile::tempdir().unwrap();
    for program in ["etcd", "etcdctl", "fleetd", "fleetctl", "cluster-init"] {
        let path = binaries.path().join(program);
        fs::write(&path, "#!/bin/sh\necho $0 $*\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    lab.run("up --blank --nodes 1 --worker 0");
    let (binaries, disk) = (binaries.path().display(), lab.disk("core-01"));
    let installed = lab.run(&format!(
        "install --root {} --binaries {binaries}",
        disk.display()
    ));
    assert!(
        installed.contains("installed /usr/local/bin/etcd\n"),
        "{installed}"
    );
    lab.run("restart core-01");
    assert_eq!(
        lab.run("exec core-01 etcd hello").trim(),
        "/usr/local/bin/etcd hello"
    );
    let unit = lab.run("exec core-01 systemctl cat etcd.service");
    assert!(
        unit.starts_with("# /usr/local/lib/systemd/system/etcd.service\n"),
        "{unit}"
    );
    lab.run("exec core-01 id etcd");
    lab.run("exec core-01 getent group fleet");
    assert!(
        lab.on("core-01", "[ $(stat -c %a /var/lib/cluster-init) = 700 ]"),
        "tmpfiles ran at boot"
    );
    let units = "etcd.service fleet.service fleet.socket cluster-init.service";
    let verified = lab.output(&format!("exec core-01 systemd-analyze --man=no verify {units}"));
    let complaints = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && complaints.is_empty(), "{complaints}");
    lab.run("exec core-01 systemctl start fleet.socket");
    assert_eq!(
        lab.run("exec core-01 stat -c %U:%G:%a /run/fleet.sock").trim(),
        "root:fleet:660"
    );
    lab.run(&format!("uninstall --root {}", disk.display()));
    assert!(
        !lab.on("core-01", "find /usr/local -type f | grep ."),
        "nothing is left in /usr/local"
    );
    lab.run("exec core-01 id etcd");
    lab.down_leaves_nothing();
}

/// A person on a machine of a lab: an account, subordinate ids, and a service manager of their own, as a login gives
/// it. Returns the words that run a command as that person.
fn add_person(lab: &TestLab, machine: &str) -> Vec<String> {
    let etc = lab.disk(machine).join("etc");
    let append = |file: &str, line: &str| {
        let text = fs::read_to_string(etc.join(file)).unwrap_or_default();
        fs::write(etc.join(file), format!("{text}{line}\n")).unwrap();
    };
    append("passwd", "ann:x:1000:1000::/var/ann:/bin/bash");
    append("shadow", "ann:*:19000:0:99999:7:::");
    append("group", "ann:x:1000:");
    append("subuid", "ann:100000:65536");
    append("subgid", "ann:100000:65536");
    let make = "mkdir -p /run/user/%i; chown %i:%i /run/user/%i; chmod 700 /run/user/%i";
    fs::write(
        etc.join("systemd/system/user-runtime-dir@.service"),
        format!("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '{make}'\n"),
    )
    .unwrap();
    lab.run(&format!("exec {machine} install -d -o ann -g ann /var/ann"));
    lab.run(&format!("exec {machine} systemctl daemon-reload"));
    lab.run(&format!("exec {machine} systemctl start user@1000.service"));
    // The kernel lets nobody mount a fresh /proc in a user namespace where parts of the old one are covered.
    lab.run(&format!("exec {machine} umount /proc/sys/kernel/random/boot_id"));
    let words = "setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/var/ann XDG_RUNTIME_DIR=/run/user/1000 \
        DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus CARGO_TARGET_DIR=/var/ann/target";
    words.split_whitespace().map(str::to_owned).collect()
}

/// A lab inside a machine whose host, the machine, booted systemd: `up`, faults, `down`, and nothing left.
fn lab_inside(lab: &TestLab, machine: &str, prefix: &[String]) {
    let inner = |line: &str| {
        let mut words = vec!["exec".to_owned(), machine.to_owned()];
        words.extend_from_slice(prefix);
        words.push(env!("CARGO_BIN_EXE_xtask").to_owned());
        words.extend(line.split_whitespace().map(str::to_owned));
        let output = lab.command(&words).output().unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        (output.status.code(), format!("{out}{err}"))
    };
    let run = |line: &str| {
        let (code, said) = inner(line);
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    };
    let traces = || {
        let find = "ls /run/hawser /run/user/1000/hawser /var/*/target/lab 2>/dev/null; \
            find /sys/fs/cgroup -name 'hawser*' -o -name machines; findmnt -rno TARGET | grep -e /hawser/ -e ^/var/; \
            ps -eo args | grep [b]ecome-machine; true";
        let output = lab
            .command(&["exec", machine, "bash", "-c", find])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(traces(), "");
    run("up --blank --nodes 2");
    assert!(traces().contains("/hawser-lab"), "{}", traces());
    assert_eq!(run("exec core-02 hostname").trim(), "core-02");
    assert_eq!(inner("exec core-01 grep -q nothing /etc/hosts").0, Some(1));
    run("partition core-02");
    run("heal");
    run("pause core-01");
    run("resume core-01");
    run("kill core-02");
    run("restart core-02");
    run("add");
    assert_eq!(run("exec core-03 systemctl is-system-running").trim(), "running");
    run("down");
    assert_eq!(traces(), "");
    assert!(run("down").contains("no lab is there"));
}

#[test]
fn lab_works_inside_a_machine_for_root_and_for_a_person() {
    let Some(lab) = TestLab::new("nested") else { return };
    let programs = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    lab.run(&format!(
        "up --blank --nodes 1 --worker 0 --bind {}",
        programs.display()
    ));
    let root = ["env", "CARGO_TARGET_DIR=/var/inner/target"].map(str::to_owned);
    lab_inside(&lab, "core-01", &root);
    let person = add_person(&lab, "core-01");
    lab_inside(&lab, "core-01", &person);
    lab.down_leaves_nothing();
}
