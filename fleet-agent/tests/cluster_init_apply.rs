//! Plans carried out in a directory, with a systemctl that writes down what it is asked.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as the tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleet_agent::cloud_config::apply::Host;
use fleet_agent::cloud_config::command::{Arguments, Surroundings, run};
use fleet_agent::cloud_config::disk::Disk;
use fleet_agent::cloud_config::systemctl::Systemctl;
use tempfile::TempDir;

const CORE: &str = include_str!("cloud_config/core.yaml");
const WORKER: &str = include_str!("cloud_config/worker.yaml");

/// A machine in a directory.
struct Machine {
    world: TempDir,
    job_wait: Duration,
}

/// What a run said and how it ended.
#[derive(Debug)]
struct Run {
    code: u8,
    out: String,
    err: String,
}

impl Run {
    fn assert_code(&self, code: u8) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    fn assert_says(&self, part: &str) -> &Self {
        assert!(
            self.out.contains(part) || self.err.contains(part),
            "{part:?} in {self:?}"
        );
        self
    }
}

impl Machine {
    fn new() -> Self {
        let world = tempfile::tempdir().unwrap();
        for name in ["root", "state", "fail", "hang", "becomes", "enabled"] {
            fs::create_dir(world.path().join(name)).unwrap();
        }
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud_config/systemctl");
        symlink(fake, world.path().join("systemctl")).unwrap();
        let machine = Self {
            world,
            job_wait: Systemctl::JOB_WAIT,
        };
        // An etcd with data asks no discovery service: these tests talk to nobody.
        machine.set("root/var/lib/etcd/member", "");
        machine
    }

    fn root(&self, path: &str) -> PathBuf {
        self.world.path().join("root").join(path.trim_start_matches('/'))
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.world.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.root(path)).unwrap().mode() & 0o7777
    }

    fn run(&self, text: &str) -> Run {
        self.run_with(text, |_| ())
    }

    fn run_with(&self, text: &str, change: impl FnOnce(&mut Arguments)) -> Run {
        let file = self.world.path().join("user-data");
        fs::write(&file, text).unwrap();
        let mut arguments = Arguments {
            file: Some(file),
            public_ipv4: Some("172.17.8.101".to_owned()),
            ..Arguments::default()
        };
        change(&mut arguments);
        let surroundings = Surroundings {
            host: Host {
                disk: Disk::new(&self.world.path().join("root")),
                systemctl: Systemctl {
                    program: self.world.path().join("systemctl"),
                    root: None,
                    job_wait: self.job_wait,
                },
                is_live: true,
            },
            environment: BTreeMap::new(),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&arguments, &surroundings, &mut out, &mut err);
        Run {
            code,
            out: String::from_utf8(out).unwrap(),
            err: String::from_utf8(err).unwrap(),
        }
    }

    /// What systemctl was asked since the last call, without mere questions.
    fn deeds(&self) -> Vec<String> {
        let log = self.world.path().join("log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(&log, "").unwrap();
        text.lines()
            .map(|line| line.replace("--no-pager --no-ask-password ", ""))
            .filter(|line| !line.starts_with("show ") && !line.starts_with("is-enabled "))
            .collect()
    }

    /// Every file and link below the root with all that a write would change.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![self.root("/")];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    pending.push(path);
                } else if !path.ends_with("var/lib/etcd/member") {
                    let (inode, mode) = (metadata.ino(), metadata.mode());
                    let changed = (metadata.ctime(), metadata.ctime_nsec());
                    found.push(format!("{} {inode} {mode:o} {changed:?}", path.display()));
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn a_core_machine_is_configured_and_a_second_run_changes_nothing() {
    let machine = Machine::new();
    machine
        .run(CORE)
        .assert_code(0)
        .assert_says("start fleet.service: done");
    assert_eq!(
        machine.deeds(),
        [
            "daemon-reload",
            "--no-block start -- etcd.service",
            "start -- fleet.service"
        ]
    );
    assert_eq!(
        machine.read("/run/systemd/system/etcd.service.d/20-cloudinit.conf"),
        include_str!("cloud_config/core-etcd.conf")
    );
    assert_eq!(
        machine.read("/run/systemd/system/fleet.service.d/20-cloudinit.conf"),
        include_str!("cloud_config/core-fleet.conf")
    );
    assert_eq!(
        machine.mode("/run/systemd/system/etcd.service.d/20-cloudinit.conf"),
        0o644
    );

    let before = machine.files();
    let second = machine.run(CORE);
    second
        .assert_code(0)
        .assert_says("start etcd.service: already starting")
        .assert_says("start fleet.service: already running")
        .assert_says("nothing to do: everything is as the file says");
    assert_eq!(machine.deeds(), Vec::<String>::new());
    assert_eq!(machine.files(), before);
}

#[test]
fn a_worker_enables_its_socket_once_and_starts_no_etcd() {
    let machine = Machine::new();
    machine.run(WORKER).assert_code(0);
    assert_eq!(
        machine.deeds(),
        [
            "--no-reload --force enable -- docker-tcp.socket",
            "daemon-reload",
            "start -- fleet.service",
            "start -- docker-tcp.socket",
        ]
    );
    let before = machine.files();
    machine.run(WORKER).assert_code(0).assert_says("nothing to do");
    assert_eq!(machine.deeds(), Vec::<String>::new());
    assert_eq!(machine.files(), before);
}

#[test]
fn all_files_stand_before_the_first_job_and_jobs_keep_their_order() {
    let machine = Machine::new();
    let text = "#cloud-config
coreos:
  units:
    - name: z.service
      command: restart
      content: z
    - name: a.service
      command: start
      drop_ins:
        - name: x.conf
          content: x
  fleet:
    public_ip: a
write_files:
  - path: /srv/late
";
    machine.run(text).assert_code(0);
    assert_eq!(
        machine.deeds(),
        ["daemon-reload", "restart -- z.service", "start -- a.service"]
    );
    let files = fs::read_to_string(machine.world.path().join("files-at-first-job")).unwrap();
    assert_eq!(
        files,
        "./etc/systemd/system/a.service.d/x.conf\n./etc/systemd/system/z.service\n./run/cluster-init/lock\n\
         ./run/systemd/system/fleet.service.d/20-cloudinit.conf\n./srv/late\n./var/lib/etcd/member\n"
    );
}

#[test]
fn a_failing_unit_is_told_and_the_next_ones_still_run() {
    let machine = Machine::new();
    machine.set("fail/a.service", "Job for a.service failed.\nSee more.\n");
    let text = "#cloud-config\ncoreos:\n  units:\n    - name: a.service\n      command: start\n    - name: b.service\n      command: start\n";
    let failed = machine.run(text);
    failed
        .assert_code(3)
        .assert_says("start b.service: done")
        .assert_says(
            "error: 1 failed: start a.service: Job for a.service failed: see journalctl -u a.service",
        );
    assert_eq!(machine.deeds(), ["start -- a.service", "start -- b.service"]);

    fs::remove_file(machine.world.path().join("fail/a.service")).unwrap();
    machine.run(text).assert_code(0);
    assert_eq!(machine.deeds(), ["start -- a.service"]);
}

#[test]
fn a_job_that_hangs_is_left_behind_at_the_limit() {
    let mut machine = Machine::new();
    machine.job_wait = Duration::from_millis(300);
    machine.set("hang/a.service", "");
    let text = "#cloud-config\ncoreos:\n  units:\n    - name: a.service\n      command: start\n    - name: b.service\n      command: start\n";
    let started = Instant::now();
    machine
        .run(text)
        .assert_code(3)
        .assert_says("start a.service: not done after 0.3 s, it goes on")
        .assert_says("start b.service: done");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn etcd_that_ends_at_once_is_seen_although_nobody_waits_for_it() {
    let machine = Machine::new();
    machine.set("becomes/etcd.service", "failed");
    let text = "#cloud-config\ncoreos:\n  units:\n    - name: etcd2.service\n      command: start\n";
    machine
        .run(text)
        .assert_code(3)
        .assert_says("start etcd.service: failed (success): see journalctl -u etcd.service");
    machine.set("becomes/etcd.service", "active");
    machine
        .run(text)
        .assert_code(0)
        .assert_says("start etcd.service: done");
    assert_eq!(
        machine.deeds(),
        [
            "--no-block start -- etcd.service",
            "--no-block start -- etcd.service"
        ]
    );
}

#[test]
fn what_is_ordered_behind_a_forming_etcd_is_not_waited_for() {
    let machine = Machine::new();
    machine.set("state/fleet.service", "After=network.target etcd.service\n");
    machine.set("state/web.service", "After=fleet.service\n");
    let text = CORE.to_owned()
        + "    - name: web.service\n      command: start\n    - name: own.service\n      command: start\n";
    let first = machine.run(&text);
    first
        .assert_code(0)
        .assert_says("start fleet.service: asked for, not waited for (activating)");
    assert_eq!(
        machine.deeds(),
        [
            "daemon-reload",
            "--no-block start -- etcd.service",
            "--no-block start -- fleet.service",
            "--no-block start -- web.service",
            "start -- own.service",
        ]
    );
}

#[test]
fn at_boot_nothing_waits_for_a_unit_that_waits_for_us() {
    let machine = Machine::new();
    machine.set("state/cluster-init.service", "ActiveState=activating\n");
    machine.set("state/a.service", "After=cluster-init.service\n");
    let text = "#cloud-config\ncoreos:\n  units:\n    - name: a.service\n      command: start\n";
    machine.run(text).assert_code(0);
    assert_eq!(machine.deeds(), ["--no-block start -- a.service"]);
}

#[test]
fn a_restart_is_made_once_for_each_change_and_again_after_a_failure() {
    let machine = Machine::new();
    let text = "#cloud-config
write_files:
  - path: /etc/web.conf
    content: one
coreos:
  units:
    - name: web.service
      command: restart
";
    let restart = ["restart -- web.service"];
    machine.run(text).assert_code(0);
    assert_eq!(machine.deeds(), restart);
    machine
        .run(text)
        .assert_code(0)
        .assert_says("restart web.service: already done on this boot, nothing changed since");
    assert_eq!(machine.deeds(), Vec::<String>::new());

    // Someone changed the file by hand: it is put back, and the service must read it.
    fs::write(machine.root("/etc/web.conf"), "by hand").unwrap();
    machine.run(text).assert_code(0);
    assert_eq!(machine.deeds(), restart);

    let changed = text.replace("one", "two");
    machine.set("fail/web.service", "no\n");
    machine.run(&changed).assert_code(3);
    assert_eq!(machine.deeds(), restart);
    fs::remove_file(machine.world.path().join("fail/web.service")).unwrap();
    machine.run(&changed).assert_code(0);
    assert_eq!(machine.deeds(), restart);
    machine.run(&changed).assert_code(0).assert_says("nothing to do");
    assert_eq!(machine.deeds(), Vec::<String>::new());
}

#[test]
fn a_new_boot_does_everything_again() {
    let machine = Machine::new();
    machine.set("root/proc/sys/kernel/random/boot_id", "first\n");
    let text = "#cloud-config\ncoreos:\n  units:\n    - name: a.service\n      command: restart\n";
    machine.run(text).assert_code(0);
    machine.run(text).assert_code(0);
    assert_eq!(machine.deeds().len(), 1);
    machine.set("root/proc/sys/kernel/random/boot_id", "second\n");
    machine.run(text).assert_code(0);
    assert_eq!(machine.deeds().len(), 1);
}

#[test]
fn a_task_that_ran_is_not_run_again() {
    let machine = Machine::new();
    let text = "#cloud-config\ncoreos:\n  units:\n    - name: a.service\n      command: start\n";
    machine.run(text).assert_code(0);
    machine.set("state/a.service", "Type=oneshot\nActiveState=inactive\n");
    machine
        .run(text)
        .assert_code(0)
        .assert_says("start a.service: already done on this boot");
    assert_eq!(machine.deeds(), ["start -- a.service"]);
}

#[test]
fn units_that_a_killed_run_left_unread_are_read() {
    let machine = Machine::new();
    machine.run(CORE).assert_code(0);
    machine.deeds();
    machine.set("stale", "yes\n");
    machine.run(CORE).assert_code(0);
    assert_eq!(machine.deeds(), ["daemon-reload"]);
}

#[test]
fn a_running_unit_whose_settings_changed_is_named_and_left_alone() {
    let machine = Machine::new();
    machine.run(CORE).assert_code(0);
    machine.deeds();
    machine
        .run(&CORE.replace("4001/v2", "4002/v2"))
        .assert_code(0)
        .assert_says("warning: etcd.service runs with what it read before /run/systemd/system/etcd.service.d/20-cloudinit.conf changed: systemctl restart etcd.service");
    assert_eq!(machine.deeds(), ["daemon-reload"]);
}

#[test]
fn a_socket_whose_service_runs_gets_a_clear_error() {
    let machine = Machine::new();
    machine.set("state/docker-tcp.socket", "Triggers=docker.service\n");
    machine.set("state/docker.service", "ActiveState=active\n");
    machine.set(
        "fail/docker-tcp.socket",
        "Job failed. See \"systemctl status\".\n",
    );
    machine.run(WORKER).assert_code(3).assert_says(
        "start docker-tcp.socket: docker.service is already running and a socket must come first: stop it",
    );
}

#[test]
fn a_unit_that_is_not_there_is_named() {
    let machine = Machine::new();
    machine.set("state/a.service", "LoadState=not-found\n");
    machine.set("fail/a.service", "Failed to start a.service.\n");
    let text = "#cloud-config\ncoreos:\n  units:\n    - name: a.service\n      command: start\n";
    machine
        .run(text)
        .assert_code(3)
        .assert_says("start a.service: there is no such unit: install it, or give its content");
}

#[test]
fn without_systemd_the_files_are_written_and_the_units_fail() {
    let machine = Machine::new();
    fs::remove_file(machine.world.path().join("systemctl")).unwrap();
    let run = machine.run(CORE);
    run.assert_code(3)
        .assert_says("cluster-init needs systemd to start units");
    assert!(
        machine
            .root("/run/systemd/system/etcd.service.d/20-cloudinit.conf")
            .exists()
    );
}

#[test]
fn files_get_their_permissions_directories_and_place() {
    let machine = Machine::new();
    let own = fs::metadata(machine.world.path()).unwrap();
    fs::create_dir(machine.root("/etc")).unwrap();
    fs::write(machine.root("/etc/target"), "untouched").unwrap();
    symlink("/etc/target", machine.root("/etc/link")).unwrap();
    let text = format!(
        "#cloud-config
write_files:
  - path: /srv/a/b/secret
    permissions: 0600
    owner: \"{}:{}\"
    content: x
  - path: /etc/link
    content: file
  - path: /srv/setuid
    permissions: 04755
",
        own.uid(),
        own.gid()
    );
    machine.run(&text).assert_code(0);
    assert_eq!(machine.mode("/srv/a/b/secret"), 0o600);
    assert_eq!(machine.mode("/srv/a/b"), 0o755);
    assert_eq!(machine.mode("/srv/setuid"), 0o4755);
    assert_eq!(machine.read("/etc/link"), "file");
    assert_eq!(machine.read("/etc/target"), "untouched");
    assert!(fs::symlink_metadata(machine.root("/etc/link")).unwrap().is_file());

    let before = machine.files();
    machine.run(&text).assert_code(0).assert_says("nothing to do");
    assert_eq!(machine.files(), before);

    fs::set_permissions(machine.root("/srv/a/b/secret"), fs::Permissions::from_mode(0o666)).unwrap();
    machine
        .run(&text)
        .assert_code(0)
        .assert_says("same content, other permissions or owner");
    assert_eq!(machine.mode("/srv/a/b/secret"), 0o600);
}

#[test]
fn what_can_not_be_written_stops_the_run_before_anything_changed() {
    let machine = Machine::new();
    fs::create_dir_all(machine.root("/etc/b")).unwrap();
    let text = "#cloud-config\nwrite_files:\n  - path: /etc/a\n  - path: /etc/b\ncoreos:\n  units:\n    - name: a.service\n      command: start\n";
    machine
        .run(text)
        .assert_code(1)
        .assert_says("/etc/b: a directory is in the way");
    assert!(!machine.root("/etc/a").exists());
    assert_eq!(machine.deeds(), Vec::<String>::new());
}

#[test]
fn links_below_the_root_do_not_lead_out_of_it() {
    let machine = Machine::new();
    fs::create_dir(machine.root("/run")).unwrap();
    symlink("/run", machine.root("/var/run")).unwrap();
    symlink("../../../../..", machine.root("/up")).unwrap();
    symlink("loop", machine.root("/loop")).unwrap();
    let path = "cluster-init-test-of-links";
    let text = format!("#cloud-config\nwrite_files:\n  - path: /var/run/{path}\n  - path: /up/{path}\n");
    machine.run(&text).assert_code(0);
    assert!(machine.root("/run").join(path).is_file());
    assert!(machine.root("/").join(path).is_file());
    assert!(!Path::new("/run").join(path).exists());
    machine
        .run("#cloud-config\nwrite_files:\n  - path: /loop/a\n")
        .assert_code(1)
        .assert_says("too many links");
}

#[test]
fn masks_are_set_over_files_and_taken_away_when_they_are_null() {
    let machine = Machine::new();
    machine.set("root/etc/systemd/system/a.service", "old");
    fs::create_dir_all(machine.root("/run/systemd/system")).unwrap();
    symlink("/dev/null", machine.root("/run/systemd/system/fleet.service")).unwrap();
    machine.set("root/run/systemd/system/etcd.service", "a real unit");
    let text = "#cloud-config
coreos:
  etcd:
    name: a
  fleet:
    public_ip: a
  units:
    - name: a.service
      mask: true
";
    machine.run(text).assert_code(0);
    let masked = fs::read_link(machine.root("/etc/systemd/system/a.service")).unwrap();
    assert_eq!(masked, Path::new("/dev/null"));
    assert!(fs::symlink_metadata(machine.root("/run/systemd/system/fleet.service")).is_err());
    assert_eq!(machine.read("/run/systemd/system/etcd.service"), "a real unit");
    assert_eq!(machine.deeds(), ["daemon-reload"]);
    machine.run(text).assert_code(0).assert_says("nothing to do");
    assert_eq!(machine.deeds(), Vec::<String>::new());
}

#[test]
fn the_hostname_is_written_once() {
    let machine = Machine::new();
    let text = "#cloud-config\nhostname: core-01\n";
    machine.run(text).assert_code(0).assert_says("hostname core-01");
    assert_eq!(machine.read("/etc/hostname"), "core-01\n");
    machine.run(text).assert_code(0).assert_says("nothing to do");
}

#[test]
fn networkd_is_restarted_by_a_changed_file_only() {
    let machine = Machine::new();
    let text = "#cloud-config\ncoreos:\n  units:\n    - name: 10-a.network\n      content: x\n";
    machine.run(text).assert_code(0);
    assert_eq!(machine.deeds(), ["try-restart -- systemd-networkd.service"]);
    machine.run(text).assert_code(0).assert_says("nothing to do");
    assert_eq!(machine.deeds(), Vec::<String>::new());
}

#[test]
fn a_script_runs_once_for_each_text() {
    let machine = Machine::new();
    let text = "#!/bin/sh\necho $public_ipv4\n";
    machine.run(text).assert_code(0);
    assert_eq!(
        machine.deeds(),
        [
            "daemon-reload",
            "--no-block restart -- cluster-init-script.service"
        ]
    );
    assert_eq!(
        machine.read("/var/lib/cluster-init/script"),
        "#!/bin/sh\necho 172.17.8.101\n"
    );
    assert_eq!(machine.mode("/var/lib/cluster-init/script"), 0o700);
    machine.run(text).assert_code(0).assert_says("nothing to do");
    assert_eq!(machine.deeds(), Vec::<String>::new());
    machine.run("#!/bin/sh\nfalse\n").assert_code(0);
    assert_eq!(
        machine.deeds(),
        ["--no-block restart -- cluster-init-script.service"]
    );
}

#[test]
fn what_cloud_init_applied_on_this_boot_is_skipped_with_a_line() {
    let text = "#cloud-config\nhostname: core-01\nwrite_files:\n  - path: /a\n";
    let machine = Machine::new();
    machine.set("root/var/lib/cloud/instance/user-data.txt", text);
    machine.run(text).assert_code(0);
    assert!(machine.root("/a").exists(), "cloud-init did not run on this boot");

    let machine = Machine::new();
    machine.set("root/run/cloud-init/result.json", "{}");
    machine.set("root/var/lib/cloud/instance/user-data.txt", "#cloud-config\n");
    machine.run(text).assert_code(0);
    assert!(machine.root("/a").exists(), "cloud-init had other user-data");

    let machine = Machine::new();
    machine.set("root/run/cloud-init/result.json", "{}");
    machine.set("root/var/lib/cloud/instance/user-data.txt", text);
    machine
        .run(text)
        .assert_code(0)
        .assert_says("line 2: info: hostname is skipped: cloud-init applied it")
        .assert_says("line 4: info: /a is skipped: cloud-init wrote it");
    assert!(!machine.root("/a").exists());
    assert!(!machine.root("/etc/hostname").exists());
}

#[test]
fn a_file_with_an_error_changes_nothing() {
    let machine = Machine::new();
    for text in [
        CORE.replace("command: start", "command: begin"),
        CORE.replace("$public_ipv4:4001", "$public_ipv6:4001"),
        format!("{CORE}write_files:\n  - path: /a\n    owner: nobody-of-this-name\n"),
        format!("\n{CORE}"),
        CORE.replace("  etcd:", "\tetcd:"),
    ] {
        let run = machine.run(&text);
        run.assert_code(1).assert_says("error: ");
        assert_eq!(machine.files(), Vec::<String>::new(), "{text}");
        assert_eq!(machine.deeds(), Vec::<String>::new());
    }
    machine
        .run_with(&CORE.replace("public-ip", "pubic-ip"), |it| it.strict = true)
        .assert_code(1)
        .assert_says("line 10: error: unknown key pubic-ip in coreos.fleet: did you mean public_ip");
    assert_eq!(machine.files(), Vec::<String>::new());
}

#[test]
fn a_dry_run_and_a_validation_change_nothing() {
    let machine = Machine::new();
    machine.run_with(CORE, |it| it.dry_run = true).assert_code(0);
    machine
        .run_with(CORE, |it| it.validate = true)
        .assert_code(0)
        .assert_says("valid");
    assert_eq!(machine.files(), Vec::<String>::new());
    assert_eq!(machine.deeds(), Vec::<String>::new());
}

#[test]
fn two_runs_at_once_are_refused() {
    let machine = Machine::new();
    let disk = Disk::new(&machine.root("/"));
    let lock = disk.open_private("/run/cluster-init/lock").unwrap();
    lock.try_lock().unwrap();
    machine
        .run(CORE)
        .assert_code(1)
        .assert_says("another cluster-init is at work");
    assert_eq!(machine.deeds(), Vec::<String>::new());
}

#[test]
fn a_new_etcd_looks_at_its_discovery_token_and_starts_all_the_same() {
    // A port that was ours and is closed: it refuses.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}/v2/keys/x");
    let text = format!(
        "#cloud-config\ncoreos:\n  etcd:\n    discovery: {url}\n  units:\n    - name: etcd.service\n      command: start\n"
    );
    let warning = format!("warning: discovery {url} could not be looked at: ");
    let machine = Machine::new();
    let with_data = machine.run(&text);
    with_data.assert_code(0);
    assert!(!with_data.err.contains(&warning), "{with_data:?}");

    let machine = Machine::new();
    fs::remove_file(machine.root("/var/lib/etcd/member")).unwrap();
    fs::write(machine.root("/var/lib/etcd/lock"), "").unwrap();
    machine.run(&text).assert_code(0).assert_says(&warning);
    assert_eq!(
        machine.deeds(),
        ["daemon-reload", "--no-block start -- etcd.service"]
    );
}

#[test]
fn an_empty_address_is_an_error_unless_asked_for() {
    let machine = Machine::new();
    let text =
        "#cloud-config\ncoreos:\n  fleet:\n    public-ip: $private_ipv6\n    metadata: a=$private_ipv6\n";
    machine.run(text).assert_code(1).assert_says(
        "line 4: error: $private_ipv6 has no value: set COREOS_PRIVATE_IPV6 in /etc/environment",
    );
    machine
        .run_with(text, |it| it.allow_empty_ips = true)
        .assert_code(0)
        .assert_says("line 4: warning: $private_ipv6 has no value: set COREOS_PRIVATE_IPV6 in /etc/environment; left empty");
    assert_eq!(
        machine.read("/run/systemd/system/fleet.service.d/20-cloudinit.conf"),
        "[Service]\nEnvironment=\"FLEET_METADATA=a=\"\n"
    );
    machine.set("root/etc/environment", "COREOS_PRIVATE_IPV6=fd00::7\n");
    machine
        .run(text)
        .assert_code(0)
        .assert_says("$private_ipv6 is fd00::7 (COREOS_PRIVATE_IPV6 in /etc/environment)");
}
