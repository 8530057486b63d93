//! The lab's stand-in for docker: the worker's user-data opens `docker-tcp.socket`, which wants a
//! `docker.service`. This one answers `GET /_ping` on the socket that systemd passes, and 404 otherwise.

use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// The unit; its one socket arrives as stdin.
pub(crate) const UNIT: &str = "[Unit]
Description=Stand-in for docker in the simulated machines
Requires=docker-tcp.socket

[Service]
StandardInput=socket
StandardOutput=journal
ExecStart=/opt/lab/xtask docker-stand-in
";

/// Where the worker's user-data has it listen.
pub(crate) const PORT: u16 = 2375;

/// Longest request line that is read.
const REQUEST_BYTES_MAX: u64 = 4096;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Serves one connection after the other, for ever.
pub(crate) fn serve() -> Result<()> {
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("take the socket from stdin")?;
    let listener = TcpListener::from(socket);
    listener
        .local_addr()
        .context("stdin is not a listening socket: this runs as docker.service of a machine")?;
    loop {
        let (stream, _) = listener.accept().context("accept a connection")?;
        // A client that goes away in the middle concerns nobody else.
        drop(answer(&stream));
    }
}

fn answer(mut stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    // The headers are read too: closing with unread bytes would reset the connection.
    let mut header = String::new();
    while reader.read_line(&mut header)? > 0 && header.trim() != "" {
        header.clear();
    }
    Ok(stream.write_all(respond(&request).as_bytes())?)
}

fn respond(request: &str) -> String {
    let target = request
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next());
    let (status, body) = if target == Some("/_ping") {
        ("200 OK", "OK")
    } else {
        ("404 Not Found", "only GET /_ping is answered\n")
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ping_is_answered() {
        assert!(respond("GET /_ping HTTP/1.1\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(respond("GET /_ping HTTP/1.1\r\n").ends_with("\r\n\r\nOK"));
        assert!(respond("GET /version HTTP/1.1\r\n").starts_with("HTTP/1.1 404 "));
        assert!(respond("POST /_ping HTTP/1.1\r\n").starts_with("HTTP/1.1 404 "));
    }
}
