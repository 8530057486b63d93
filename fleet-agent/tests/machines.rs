//! The programs themselves on a stock etcd: a machine comes, stays, goes, and is found again.
//!
//! Needs an `etcd` 3.4 or later: `ETCD_BIN`, else `/usr/bin/etcd`. Without one the tests say that they are
//! skipped, which is an error when `REQUIRE_ETCD=1`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers; a skip must be seen"
)]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use client::v3::{Client, LeaseId};
use proto::mvccpb::KeyValue;

/// The shortest that a stock etcd grants with its default election timeout.
const TTL: Duration = Duration::from_secs(2);
/// For anything that is not timed by the test: a busy machine may be slow.
const PATIENCE: Duration = Duration::from_secs(30);
const ID: &str = "4de7ad5d37334bd1983fbd3ab7ee7cf9";

/// The etcd to test with; none when there is none and none is required.
fn etcd_program() -> Option<PathBuf> {
    let program = std::env::var_os("ETCD_BIN").map_or_else(|| PathBuf::from("/usr/bin/etcd"), PathBuf::from);
    if program.exists() {
        return Some(program);
    }
    assert!(
        std::env::var("REQUIRE_ETCD").as_deref() != Ok("1"),
        "REQUIRE_ETCD=1 and no etcd at {}: install etcd-server or set ETCD_BIN",
        program.display()
    );
    println!(
        "skipped: no etcd at {}: install etcd-server or set ETCD_BIN",
        program.display()
    );
    None
}

/// A child that does not outlive its test.
struct Process(Child);

impl Process {
    fn spawn(command: &mut Command) -> Self {
        Self::spawn_with(command.stdin(Stdio::null()))
    }

    fn spawn_with(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.0.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn wait_for_exit(&mut self) -> Option<i32> {
        until("the process ends", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended: then there is nothing to kill, and nothing to say.
        let _ignored = self.0.kill();
        let _ignored = self.0.wait();
    }
}

#[track_caller]
fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nobody listens there.
const DEAD_URL: &str = "http://127.0.0.1:1";

/// A free port on a loopback address of its own, so that nobody else takes it between now and its use.
fn free_address() -> SocketAddr {
    static COUNTER: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, COUNTER.fetch_add(1, Ordering::Relaxed) + 1, high, low);
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// A stock etcd of one member and a client of it.
struct Etcd {
    program: PathBuf,
    client_url: String,
    peer_url: String,
    data: tempfile::TempDir,
    process: Process,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Etcd {
    fn start() -> Option<Self> {
        let program = etcd_program()?;
        let (client_url, peer_url) = (
            format!("http://{}", free_address()),
            format!("http://{}", free_address()),
        );
        let data = tempfile::tempdir().unwrap();
        let process = Self::spawn(&program, &client_url, &peer_url, data.path());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = Client::connect([&client_url]).unwrap();
        let etcd = Self {
            program,
            client_url,
            peer_url,
            data,
            process,
            runtime,
            client,
        };
        etcd.until_ready();
        Some(etcd)
    }

    fn spawn(program: &Path, client_url: &str, peer_url: &str, data: &Path) -> Process {
        let mut command = Command::new(program);
        command.args([
            "--name",
            "m",
            "--listen-client-urls",
            client_url,
            "--advertise-client-urls",
            client_url,
        ]);
        command.args([
            "--listen-peer-urls",
            peer_url,
            "--initial-advertise-peer-urls",
            peer_url,
        ]);
        command
            .args(["--initial-cluster", &format!("m={peer_url}")])
            .arg("--data-dir")
            .arg(data);
        Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    fn until_ready(&self) {
        until("etcd answers", || {
            self.runtime.block_on(self.client.get("ready?")).ok()
        });
    }

    fn kill(&mut self) {
        self.process.signal("KILL");
        assert_eq!(self.process.wait_for_exit(), None);
    }

    /// On the same address, with its data or without.
    fn restart(&mut self, keeps_data: bool) {
        if !keeps_data {
            self.data = tempfile::tempdir().unwrap();
        }
        self.process = Self::spawn(&self.program, &self.client_url, &self.peer_url, self.data.path());
        self.until_ready();
    }

    fn object(&self) -> Option<KeyValue> {
        let key = format!("/_coreos.com/fleet/machines/{ID}/object");
        self.runtime.block_on(self.client.get(key)).unwrap()
    }

    fn until_registered(&self) -> KeyValue {
        until("the machine is registered", || self.object())
    }
}

/// What one fleetd lives in.
struct Machine {
    directory: tempfile::TempDir,
    etcd: String,
    public_ip: &'static str,
}

impl Machine {
    fn new(etcd: &Etcd, public_ip: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("machine-id"), format!("{ID}\n")).unwrap();
        // Two servers of which the first is dead: the second is found.
        let servers = format!("[\"{DEAD_URL}\", \"{}\"]", etcd.client_url);
        Self {
            directory,
            etcd: servers,
            public_ip,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("fleet.sock")
    }

    fn boot(&self) -> Process {
        self.boot_as(&mut Command::new(env!("CARGO_BIN_EXE_fleetd")))
    }

    /// Starts fleetd by a command to which its arguments are added.
    fn boot_as(&self, command: &mut Command) -> Process {
        let path = self.directory.path();
        self.configure("role=core");
        let command = command.arg("-config").arg(path.join("fleet.conf"));
        Process::spawn_with(command.stderr(Stdio::null()))
    }

    fn configure(&self, metadata: &str) {
        let path = self.directory.path();
        let config = format!(
            "# as on a real machine\netcd_servers={}\npublic_ip=\"{}\"\nmetadata=\"{metadata}\"\nagent_ttl={}s\n\
             machine_id_file={}\nruntime_directory={}\napi_socket={}\n",
            self.etcd,
            self.public_ip,
            TTL.as_secs(),
            path.join("machine-id").display(),
            path.join("run").display(),
            self.socket().display(),
        );
        std::fs::write(path.join("fleet.conf"), config).unwrap();
    }

    /// `/run` is empty after a reboot.
    fn lose_run(&self) {
        std::fs::remove_dir_all(self.directory.path().join("run")).unwrap();
    }

    fn fleetctl(&self, args: &[&str]) -> Output {
        fleetctl(&format!("unix://{}", self.socket().display()), args)
    }

    /// The first successful answer to `list-machines`.
    fn until_listed(&self) -> String {
        until("fleetctl lists the machines", || {
            let output = self.fleetctl(&["list-machines"]);
            output
                .status
                .success()
                .then(|| String::from_utf8(output.stdout).unwrap())
        })
    }
}

fn fleetctl(endpoint: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetctl"));
    command
        .env("FLEETCTL_ENDPOINT", endpoint)
        .args(args)
        .output()
        .unwrap()
}

const TABLE: &str = "MACHINE\t\tIP\t\tMETADATA\n4de7ad5d...\t172.17.8.101\trole=core\n";

#[test]
fn a_machine_registers_is_listed_and_leaves_on_a_clean_stop() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let mut fleetd = machine.boot();
    assert_eq!(machine.until_listed(), TABLE);
    let object = etcd.until_registered();
    let expected = format!(
        "{{\"ID\":\"{ID}\",\"PublicIP\":\"172.17.8.101\",\"Metadata\":{{\"role\":\"core\"}},\
         \"Capabilities\":{{\"DISABLE_ENGINE\":false,\"GRPC\":false}},\"Version\":\"v{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(String::from_utf8_lossy(&object.value), expected);
    assert!(
        LeaseId::new(object.lease).is_some(),
        "the object stands under a lease"
    );

    let direct = fleetctl(&etcd.client_url, &["--driver", "etcd", "list-machines"]);
    assert_eq!(String::from_utf8_lossy(&direct.stdout), TABLE);
    let json = machine.fleetctl(&["list-machines", "--output", "json"]);
    assert!(String::from_utf8_lossy(&json.stdout).contains(ID));

    let dynamic = format!("/_coreos.com/fleet/machines/{ID}/metadata/zone");
    etcd.runtime
        .block_on(etcd.client.put(dynamic, "z1", None))
        .unwrap();
    assert!(machine.until_listed().contains("role=core,zone=z1"));

    fleetd.signal("TERM");
    assert_eq!(fleetd.wait_for_exit(), Some(0));
    assert_eq!(etcd.object(), None);
    assert!(!machine.directory.path().join("run/lease").exists());
    assert!(!machine.socket().exists());
    let gone = machine.fleetctl(&["list-machines"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).starts_with("no fleetd here ("));
}

#[test]
fn it_stays_registered_for_longer_than_its_time_to_live() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let _fleetd = machine.boot();
    let first = etcd.until_registered();
    let end = Instant::now() + TTL * 3;
    while Instant::now() < end {
        let now = etcd.object().expect("the object never goes away");
        assert_eq!(
            (now.lease, now.mod_revision),
            (first.lease, first.mod_revision),
            "and is not written again"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_restart_after_a_crash_shows_within_a_second_under_the_same_lease() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let mut fleetd = machine.boot();
    assert_eq!(machine.until_listed(), TABLE);
    let before = etcd.until_registered();
    // The best of three: the others of these tests keep the machine busy.
    let mut took = Duration::MAX;
    for _ in 0..3 {
        fleetd.signal("KILL");
        fleetd.wait_for_exit();
        let start = Instant::now();
        fleetd = machine.boot();
        assert_eq!(machine.until_listed(), TABLE);
        took = took.min(start.elapsed());
        assert_eq!(etcd.until_registered().lease, before.lease);
    }
    assert!(took < Duration::from_secs(1), "{took:?} until it is listed again");
}

#[test]
fn a_crashed_machine_is_gone_within_its_time_to_live() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let fleetd = machine.boot();
    etcd.until_registered();
    fleetd.signal("KILL");
    let start = Instant::now();
    until("the object is gone", || etcd.object().is_none().then_some(()));
    // etcd looks for ended leases twice a second and takes a moment to end them.
    let limit = TTL + Duration::from_secs(2);
    assert!(start.elapsed() < limit, "gone after {:?}", start.elapsed());
}

#[test]
fn a_store_that_was_away_finds_the_machine_again_with_its_data_and_without() {
    let Some(mut etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let _fleetd = machine.boot();
    assert_eq!(machine.until_listed(), TABLE);
    for keeps_data in [true, false] {
        etcd.kill();
        let reason = until("the API says that etcd is away", || {
            let output = machine.fleetctl(&["list-machines"]);
            (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
        });
        assert!(
            reason.contains("googleapi: Error 503: fleet server unable to communicate with etcd"),
            "{reason}"
        );
        assert_eq!(reason.lines().count(), 4, "{reason}");
        etcd.restart(keeps_data);
        // The store may answer, and be empty, a moment before fleetd notices.
        until("the machine is listed again", || {
            (machine.until_listed() == TABLE).then_some(())
        });
    }
}

#[test]
fn a_clone_answers_503_with_the_first_ones_address_until_that_is_gone() {
    let Some(etcd) = Etcd::start() else { return };
    let (first, clone) = (
        Machine::new(&etcd, "172.17.8.101"),
        Machine::new(&etcd, "172.17.8.102"),
    );
    let mut original = first.boot();
    assert_eq!(first.until_listed(), TABLE);
    let _copy = clone.boot();
    let reason = until("the clone says why it has no place", || {
        let output = clone.fleetctl(&["list-machines"]);
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code() == Some(1) && text.contains("is registered at")).then_some(text)
    });
    assert!(reason.contains("Error 503: "), "{reason}");
    assert!(reason.contains("is registered at 172.17.8.101"), "{reason}");
    // The first is not disturbed for longer than any lease of the clone could live.
    let end = Instant::now() + TTL * 2;
    while Instant::now() < end {
        assert!(String::from_utf8_lossy(&etcd.object().unwrap().value).contains("172.17.8.101"));
        std::thread::sleep(Duration::from_millis(50));
    }
    original.signal("TERM");
    assert_eq!(original.wait_for_exit(), Some(0));
    assert!(clone.until_listed().contains("172.17.8.102"));
}

#[test]
fn after_a_reboot_the_last_boots_object_is_waited_for() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let mut fleetd = machine.boot();
    let before = etcd.until_registered();
    fleetd.signal("KILL");
    fleetd.wait_for_exit();
    machine.lose_run();
    let _fleetd = machine.boot();
    assert_eq!(machine.until_listed(), TABLE);
    assert_ne!(etcd.object().unwrap().lease, before.lease);
}

#[test]
fn a_fleetd_that_starts_before_its_store_registers_when_it_appears() {
    let Some(mut etcd) = Etcd::start() else { return };
    etcd.kill();
    let machine = Machine::new(&etcd, "172.17.8.101");
    let _fleetd = machine.boot();
    until("the API answers 503", || {
        let output = machine.fleetctl(&["list-machines"]);
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("Error 503")
            .then_some(())
    });
    etcd.restart(true);
    assert_eq!(machine.until_listed(), TABLE);
}

#[test]
fn a_stop_without_a_store_is_clean_and_a_second_fleetd_is_refused() {
    let Some(mut etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let mut fleetd = machine.boot();
    assert_eq!(machine.until_listed(), TABLE);
    let mut second = machine.boot();
    assert_eq!(second.wait_for_exit(), Some(1));
    assert_eq!(machine.until_listed(), TABLE);
    etcd.kill();
    fleetd.signal("TERM");
    assert_eq!(fleetd.wait_for_exit(), Some(0));
}

#[test]
fn the_service_manager_hears_when_it_is_ready_what_it_waits_for_and_that_it_stops() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let path = machine.directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 4096];
        until(wanted, || {
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length])
                .contains(wanted)
                .then_some(())
        });
    };
    let mut fleetd = machine.boot_as(Command::new(env!("CARGO_BIN_EXE_fleetd")).env("NOTIFY_SOCKET", &path));
    hear("READY=1");
    hear("STATUS=registered as 172.17.8.101 under lease ");
    let clone = Machine::new(&etcd, "172.17.8.102");
    let _copy = clone.boot_as(Command::new(env!("CARGO_BIN_EXE_fleetd")).env("NOTIFY_SOCKET", &path));
    hear("READY=1");
    hear("is registered at 172.17.8.101");
    fleetd.signal("TERM");
    hear("STOPPING=1");
    assert_eq!(fleetd.wait_for_exit(), Some(0));
}

#[test]
fn a_socket_from_systemd_is_served_and_left_in_place() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let path = machine.directory.path().join("activated.sock");
    let socket = UnixListener::bind(&path).unwrap();
    // As systemd does it: the socket is file descriptor 3, and the environment says so to this process alone.
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 0</dev/null",
        env!("CARGO_BIN_EXE_fleetd"),
    ]);
    let mut fleetd = machine.boot_as(shell.stdin(OwnedFd::from(socket)));
    let endpoint = format!("unix://{}", path.display());
    let listed = until("fleetctl lists the machines", || {
        let output = fleetctl(&endpoint, &["list-machines"]);
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert_eq!(listed, TABLE);
    assert!(!machine.socket().exists(), "it opens none of its own");
    fleetd.signal("TERM");
    assert_eq!(fleetd.wait_for_exit(), Some(0));
    assert!(path.exists(), "the socket is systemd's");
}

#[test]
fn a_hangup_publishes_new_metadata_and_a_user_signal_dumps_the_state() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut fleetd = machine.boot_as(Command::new(env!("CARGO_BIN_EXE_fleetd")).stdout(writer));
    let (said, lines) = mpsc::channel();
    let listener = std::thread::spawn(move || {
        for line in BufReader::new(reader).lines() {
            said.send(line.unwrap()).unwrap();
        }
    });
    assert_eq!(machine.until_listed(), TABLE);
    let before = etcd.until_registered();
    machine.configure("role=worker");
    fleetd.signal("HUP");
    until("the new metadata is listed", || {
        machine.until_listed().contains("role=worker").then_some(())
    });
    let after = etcd.until_registered();
    assert_eq!(after.lease, before.lease, "it never leaves the registry");
    std::fs::write(machine.directory.path().join("fleet.conf"), "nonsense").unwrap();
    fleetd.signal("HUP");
    fleetd.signal("USR1");
    let dumped = lines.recv_timeout(PATIENCE).unwrap();
    assert!(
        dumped.contains("\"role\":\"worker\""),
        "a bad file changes nothing: {dumped}"
    );
    fleetd.signal("TERM");
    assert_eq!(fleetd.wait_for_exit(), Some(0));
    listener.join().unwrap();
    assert_eq!(lines.try_iter().count(), 0, "one line per signal");
}

#[test]
fn its_own_socket_is_open_to_its_group_and_nobody_else() {
    let Some(etcd) = Etcd::start() else { return };
    let machine = Machine::new(&etcd, "172.17.8.101");
    let _fleetd = machine.boot();
    machine.until_listed();
    let mode = std::fs::metadata(machine.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let lease = machine.directory.path().join("run/lease");
    assert_eq!(
        std::fs::metadata(lease).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_fleetd_that_cannot_start_says_why_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (config, reason) in [
        ("agent_ttl=500ms", "agent_ttl 500ms is not between 1s and 24h"),
        ("just words", "line 1: expected key = value"),
        ("etcd_servers=https://h:2379", "TLS is not available"),
        ("machine_id_file=/nonexistent", "the machine's id cannot be read"),
    ] {
        std::fs::write(path.join("fleet.conf"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetd"));
        // A runtime directory of its own, should it come that far.
        let output = command
            .env("FLEET_RUNTIME_DIRECTORY", path.join("run"))
            .arg("-config")
            .arg(path.join("fleet.conf"));
        let output = output.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{config}: {errors}");
        assert!(errors.contains(reason), "{config}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{config}: {errors}");
    }
}
