//! Sockets to listen on: handed over by systemd, or opened here, with errors that say who is in the way.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::fs::{Gid, chown};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Connections that may wait in the kernel for our accept loop; what etcd and most servers ask for. The kernel
/// caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 1024;

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// Over the network.
    Tcp(TcpListener),
    /// On this machine.
    Unix(UnixListener),
}

impl Listener {
    /// Where it listens, for logs.
    pub fn describe(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "tcp".to_owned(), |addr| addr.to_string()),
            Self::Unix(listener) => {
                let addr = listener.local_addr().ok();
                let path = addr.as_ref().and_then(|addr| addr.as_pathname());
                path.map_or_else(|| "unix".to_owned(), |path| path.display().to_string())
            }
        }
    }
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has the port.
    #[error("cannot listen on {addr}: {holder} has it; stop that or choose another address")]
    Taken {
        /// The address that was asked for.
        addr: SocketAddr,
        /// Who has it, as far as we may see.
        holder: String,
    },
    /// The address is not one of this machine.
    #[error("cannot listen on {addr}: no interface of this machine has the address {}", addr.ip())]
    NotOurs {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// Anything else that went wrong with an address.
    #[error("cannot listen on {addr}: {source}")]
    Tcp {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another process answers on the socket.
    #[error("cannot listen on {}: another process answers there; stop it or choose another path", path.display())]
    Answered {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The path is something else than a socket.
    #[error("cannot listen on {}: a file that is no socket is there; remove it or choose another path", path.display())]
    NoSocket {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// Anything else that went wrong with a path.
    #[error("cannot listen on {}: {source}", path.display())]
    Unix {
        /// The path that was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A socket from systemd is of a kind that we cannot serve.
    #[error("socket {index} handed over by systemd is neither a TCP nor a Unix stream listener: {source}")]
    Inherited {
        /// Its place in the list, from 0.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// The sockets that systemd handed over (`LISTEN_FDS`, `LISTEN_PID`), none when it did not. They can be taken
/// once per process. Must be called within a tokio runtime.
///
/// # Errors
/// When one of them is not a listening stream socket.
pub fn inherited() -> Result<Vec<Listener>, ListenError> {
    let mut sockets = ListenFd::from_env();
    let mut listeners = Vec::with_capacity(sockets.len());
    for index in 0..sockets.len() {
        let listener = inherited_one(&mut sockets, index);
        listeners.push(listener.map_err(|source| ListenError::Inherited { index, source })?);
    }
    Ok(listeners)
}

fn inherited_one(sockets: &mut ListenFd, index: usize) -> io::Result<Listener> {
    // A wrong kind leaves the socket where it is, so the second question sees it.
    if let Ok(Some(listener)) = sockets.take_unix_listener(index) {
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener).map(Listener::Unix);
    }
    let taken = sockets.take_tcp_listener(index)?;
    let listener = taken.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Listener::Tcp)
}

/// Listens on a TCP address. Port 0 takes any free port. Must be called within a tokio runtime.
///
/// # Errors
/// When the port is taken (naming the holder when we may see it), the address is not this machine's, or the
/// system refuses for another reason.
pub fn tcp(addr: SocketAddr) -> Result<Listener, ListenError> {
    bind_tcp(addr)
        .map(Listener::Tcp)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => {
                let holder = holder_of(addr.port()).unwrap_or_else(|| "another process".to_owned());
                ListenError::Taken { addr, holder }
            }
            io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { addr },
            _ => ListenError::Tcp { addr, source },
        })
}

fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart must not wait for the connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Listens on a Unix socket with these permission bits, owned by `group` when the machine has that group. A
/// socket that nobody answers on any more is replaced. Must be called within a tokio runtime.
///
/// # Errors
/// When another process answers there, something else is in the way, or the system refuses.
pub fn unix(path: &Path, mode: u32, group: Option<&str>) -> Result<Listener, ListenError> {
    refuse_if_in_use(path)?;
    let listener = bind_unix(path, mode, group);
    listener.map(Listener::Unix).map_err(|source| ListenError::Unix {
        path: path.to_owned(),
        source,
    })
}

fn refuse_if_in_use(path: &Path) -> Result<(), ListenError> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let path = path.to_owned();
    match StdUnixStream::connect(&path) {
        Ok(_) => Err(ListenError::Answered { path }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(&path) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(ListenError::NoSocket { path }),
        Err(source) => Err(ListenError::Unix { path, source }),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Binds under a name of our own and moves the socket into place when its owner and mode are right, so that it
/// is never open to anyone whom the mode shuts out.
fn bind_unix(path: &Path, mode: u32, group: Option<&str>) -> io::Result<UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdUnixListener::bind(&fresh)?;
    let moved = (|| {
        if let Some(gid) = group.and_then(gid_of) {
            chown(&fresh, None, Some(gid))?;
        }
        fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
        fs::rename(&fresh, path)
    })();
    if let Err(error) = moved {
        // The error that counts is the one we report.
        let _ignored = fs::remove_file(&fresh);
        return Err(error);
    }
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Looks a group up in `/etc/group`: daemons of ours have their groups there, from sysusers.
fn gid_of(group: &str) -> Option<Gid> {
    gid_in(&fs::read_to_string("/etc/group").ok()?, group).map(Gid::from_raw)
}

fn gid_in(groups: &str, group: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group)
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

/// Who listens on a port, as far as this process may look: `etcd (pid 4711)`.
fn holder_of(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables
        .iter()
        .find_map(|table| listening_inode(&fs::read_to_string(table).ok()?, port))?;
    let link = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if has_link(&entry.path().join("fd"), &link) {
            let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

/// Inode of the socket that listens on this port, from a table of the kernel (proc(5): local address in the
/// second field, state in the fourth, inode in the tenth).
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTENING: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let fits = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTENING;
        fits.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

fn has_link(directory: &Path, link: &str) -> bool {
    let Ok(entries) = fs::read_dir(directory) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == link))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_its_holder() {
        let first = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let Listener::Tcp(listener) = &first else {
            panic!("not a TCP listener")
        };
        let error = tcp(listener.local_addr().unwrap()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("(pid {})", std::process::id())),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_address_of_another_machine_says_so() {
        // 192.0.2.0/24 is for documentation (RFC 5737): no interface has it.
        let error = tcp("192.0.2.1:4001".parse().unwrap()).unwrap_err();
        assert!(matches!(error, ListenError::NotOurs { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_from_the_start_and_leaves_no_other_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let listener = unix(&path, 0o660, Some("no-such-group")).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o777, 0o660);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        StdUnixStream::connect(&path).unwrap();
        drop(listener);
    }

    #[tokio::test]
    async fn a_live_socket_is_left_alone_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let first = unix(&path, 0o600, None).unwrap();
        assert!(matches!(
            unix(&path, 0o600, None),
            Err(ListenError::Answered { .. })
        ));
        drop(first);
        assert!(path.exists(), "a closed Unix socket leaves its file");
        unix(&path, 0o600, None).unwrap();
        let plain = directory.path().join("plain");
        fs::write(&plain, "data").unwrap();
        assert!(matches!(
            unix(&plain, 0o600, None),
            Err(ListenError::NoSocket { .. })
        ));
        assert_eq!(fs::read_to_string(&plain).unwrap(), "data");
    }

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nfleet:x:997:core\nfleetfoot:x:5:\n";
        assert_eq!(gid_in(groups, "fleet"), Some(997));
        assert_eq!(gid_in(groups, "etcd"), None);
    }

    #[test]
    fn listening_sockets_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:0FA1 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
            1: 00000000:0FA1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1\n";
        assert_eq!(listening_inode(table, 4001), Some(222));
        assert_eq!(listening_inode(table, 4002), None);
    }
}
