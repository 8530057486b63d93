//! A stock etcd beside ours: Debian's binary on loopback, on a temporary directory.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{free_port, until_ready};

/// Where Debian's packages put the server and the client.
const ETCD: &str = "/usr/bin/etcd";

/// A running stock etcd; ended with this value.
pub(crate) struct Stock {
    child: Child,
    _directory: TempDir,
    /// Its client URL.
    pub(crate) url: String,
}

impl Drop for Stock {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to do about it here.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Whether a Debian program is here. Says so loudly when not, and fails with `REQUIRE_ETCD=1`.
pub(crate) fn is_installed(program: &str) -> bool {
    let is_here = Path::new(program).exists();
    let required = std::env::var_os("REQUIRE_ETCD").is_some_and(|value| value == "1");
    assert!(
        is_here || !required,
        "{program} is not here, and REQUIRE_ETCD=1: apt-get install etcd-server etcd-client"
    );
    if !is_here {
        super::say(&format!(
            "skipped: {program} is not here (apt-get install etcd-server etcd-client)"
        ));
    }
    is_here
}

impl Stock {
    /// Starts one; none when it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        if !is_installed(ETCD) {
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("http://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let child = Command::new(ETCD)
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &format!("default={peer}"),
                "--logger",
                "zap",
                "--log-level",
                "error",
            ])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let stock = Self {
            child,
            _directory: directory,
            url,
        };
        until_ready("stock etcd", &stock.url).await;
        Some(stock)
    }
}
