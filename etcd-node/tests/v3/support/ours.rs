//! Our node as a person runs it: the program, on loopback, on a temporary directory.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Clients, free_port, until_ready};

/// A running node; ended with this value.
pub(crate) struct Ours {
    child: Child,
    _directory: TempDir,
    /// Its client URL.
    pub(crate) url: String,
}

impl Drop for Ours {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to do about it here.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Ours {
    /// Starts a cluster of one.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("http://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let child = Command::new(env!("CARGO_BIN_EXE_etcd"))
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("our etcd starts");
        let ours = Self {
            child,
            _directory: directory,
            url,
        };
        until_ready("our etcd", &ours.url).await;
        ours
    }

    /// Clients of all its services.
    pub(crate) fn clients(&self) -> Clients {
        Clients::connect(&self.url)
    }
}
