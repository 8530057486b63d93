//! A real server for the tests: the program that `ETCD_BIN` names, else Debian's etcd with its v2 API on.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server that is not ready after this is broken; a loaded machine needs seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// One server on loopback, with a directory of its own; ended and removed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    program: PathBuf,
    directory: TempDir,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

/// The server to test against. None says `skipped` on stderr, unless `REQUIRE_ETCD=1`, which makes it fail.
pub(crate) fn server_or_skip(test: &str) -> Option<Server> {
    let named = std::env::var_os("ETCD_BIN").map(PathBuf::from);
    let program = named.or_else(|| Some(PathBuf::from("/usr/bin/etcd")).filter(|path| path.exists()));
    match program {
        Some(program) => Some(Server::start(program)),
        None if std::env::var_os("REQUIRE_ETCD").is_some_and(|value| value == "1") => {
            panic!("{test}: REQUIRE_ETCD=1, but ETCD_BIN is not set and there is no /usr/bin/etcd")
        }
        None => {
            writeln!(
                std::io::stderr(),
                "skipped: {test}: set ETCD_BIN or install etcd-server"
            )
            .unwrap();
            None
        }
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Server {
    fn start(program: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self {
            program,
            directory,
            client_port: free_port(),
            peer_port: free_port(),
            child: None,
        };
        server.resume();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Starts it (again) on the same ports and data, and waits until it serves.
    pub(crate) fn resume(&mut self) {
        let log = self.directory.path().join("log");
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let child = Command::new(&self.program)
            .args(["--name", "n238", "--enable-v2", "--initial-cluster"])
            .arg(format!("n238={peer}"))
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--listen-client-urls",
                &self.url(),
                "--advertise-client-urls",
                &self.url(),
            ])
            .arg("--data-dir")
            .arg(self.directory.path().join("data"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_healthy() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                panic!(
                    "{} is not ready ({ended:?}):\n{}",
                    self.program.display(),
                    read(&log)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it hard.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn is_healthy(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.client_port)) else {
            return false;
        };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains("\"true\"")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
