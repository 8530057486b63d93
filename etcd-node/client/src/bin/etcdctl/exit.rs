//! How a command ends: etcdctl's exit codes and the text before them.

use std::fmt::{Display, Write as _};
use std::io;
use std::process::ExitCode;

use client::http;
use client::v2::{Error, Failure as Attempt};

/// The usual reason why a server knows none of our paths.
const NO_V2: &str = "a stock etcd 3 serves the v2 API only with --enable-v2";

/// What scripts decide by; the numbers are etcdctl's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command line is wrong, or a directory stands where a key was meant.
    BadArguments,
    /// No endpoint answers before the command itself is sent; or the other API was asked for.
    BadConnection,
    /// The command was sent and refused or not answered.
    Server,
    /// Some member is not healthy.
    Unhealthy,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::BadArguments => 1,
            Exit::BadConnection => 2,
            Exit::Server => 4,
            Exit::Unhealthy => 5,
        })
    }
}

/// Why a command does not end well.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What stderr gets, with its line ends; empty when everything is said.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) const fn new(exit: Exit, message: String) -> Self {
        Self { exit, message }
    }

    /// The command line cannot be used; said in our own words.
    pub(crate) fn usage(reason: &dyn Display) -> Self {
        Self::new(Exit::BadArguments, format!("{reason}\n"))
    }

    /// An argument is missing; said in etcdctl's words.
    pub(crate) fn argument(reason: &str) -> Self {
        Self::new(Exit::BadArguments, format!("Error:  {reason}\n"))
    }

    /// The command was sent and went wrong.
    pub(crate) fn server(error: &Error) -> Self {
        Self::of(error, Exit::Server)
    }

    /// Learning the endpoints went wrong.
    pub(crate) fn sync(error: &Error) -> Self {
        Self::of(error, Exit::BadConnection)
    }

    fn of(error: &Error, exit: Exit) -> Self {
        match error {
            Error::Endpoint(error) => Self::usage(error),
            Error::Unavailable { failures } => Self::new(exit, unavailable(failures)),
            Error::Status { status, .. } if status.as_u16() == 404 => {
                Self::new(exit, format!("Error:  {error} ({NO_V2})\n"))
            }
            Error::Uncertain { .. } | Error::Refused(_) | Error::Status { .. } | Error::Malformed { .. } => {
                Self::new(exit, format!("Error:  {error}\n"))
            }
        }
    }
}

/// A reader that went away (`etcdctl ls | head -1`) is told nothing; other trouble with stdout is.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let message = match error.kind() {
            io::ErrorKind::BrokenPipe => String::new(),
            _ => format!("the output cannot be written: {error}\n"),
        };
        Self::new(Exit::BadArguments, message)
    }
}

/// As etcdctl says it: a headline, and a line per endpoint.
fn unavailable(failures: &[Attempt]) -> String {
    let mut text = String::from("Error:  client: etcd cluster is unavailable or misconfigured\n");
    for (position, failure) in failures.iter().enumerate() {
        let line = match failure {
            Attempt::Http(error) => attempt(error),
            Attempt::NoLeader { endpoint, .. } => format!("client: etcd member {endpoint} has no leader"),
        };
        writeln!(text, "error #{position}: {line}").expect("a string takes what is written");
    }
    text.push('\n');
    text
}

/// A failed connection in Go's words, which scripts look for; the rest in ours.
fn attempt(error: &http::Error) -> String {
    let http::Error::Connect { endpoint, source } = error else {
        return error.to_string();
    };
    let reason = match source.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => source.to_string(),
    };
    format!("dial tcp {}: {reason}", endpoint.authority())
}

#[cfg(test)]
mod tests {
    use client::endpoint::Endpoint;

    use super::*;

    fn refused(url: &str) -> Attempt {
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        Attempt::Http(http::Error::Connect {
            endpoint: Endpoint::parse(url).unwrap(),
            source,
        })
    }

    #[test]
    fn unreachable_endpoints_get_a_line_each() {
        let failures = vec![refused("http://127.0.0.1:1"), refused("http://[::1]:2")];
        let failure = Failure::sync(&Error::Unavailable { failures });
        assert_eq!(failure.exit, Exit::BadConnection);
        assert_eq!(
            failure.message,
            "Error:  client: etcd cluster is unavailable or misconfigured\n\
             error #0: dial tcp 127.0.0.1:1: connect: connection refused\n\
             error #1: dial tcp [::1]:2: connect: connection refused\n\n"
        );
    }

    #[test]
    fn a_write_of_unknown_outcome_says_so() {
        let failure = Failure::server(&Error::Uncertain {
            reason: "silence".to_owned(),
        });
        assert_eq!(
            failure,
            Failure::new(
                Exit::Server,
                "Error:  the write may have happened: silence\n".to_owned()
            )
        );
    }

    #[test]
    fn a_closed_pipe_is_not_complained_about() {
        assert_eq!(
            Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).message,
            ""
        );
    }
}
