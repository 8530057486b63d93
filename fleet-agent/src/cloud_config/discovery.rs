//! Whether a discovery token is used up: a cluster was founded with it and nobody of it is left.
//!
//! A new machine with such a token waits forever for members that are gone, which is the classic
//! end of copied user-data. Here it is only looked at, never changed, and never hinders a run.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use super::address::within;

/// Longest wait for the discovery service's answers, name lookup included.
const ASK_WAIT: Duration = Duration::from_secs(2);

/// Longest wait for a listed member: it may be starting at this very moment.
const MEMBERS_WAIT: Duration = Duration::from_secs(2);

/// Between two tries to reach a member that refuses.
const MEMBERS_INTERVAL: Duration = Duration::from_millis(200);

/// Largest answer that is read: some hundred members.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// Most members that are tried; the original never had more than nine.
const MEMBERS_MAX: usize = 16;

/// What was found out about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No cluster was founded with it, or one of its members answers.
    Good,
    /// A cluster was founded and none of these members answers.
    UsedUp(Vec<String>),
    /// It could not be asked, and why.
    Unknown(String),
}

/// Asks the discovery service and the members that it lists.
pub fn check(url: &str) -> Finding {
    let owned = url.to_owned();
    let members = match within(ASK_WAIT, move || listed_members(&owned)) {
        None => return Finding::Unknown(format!("no answer within {} s", ASK_WAIT.as_secs())),
        Some(Err(why)) => return Finding::Unknown(why),
        Some(Ok(None)) => return Finding::Good,
        Some(Ok(Some(members))) => members,
    };
    if is_any_alive(&members, is_alive) {
        Finding::Good
    } else {
        Finding::UsedUp(members)
    }
}

/// The members of the cluster that was founded with a token, as `host:port`; None when there was
/// no founding.
fn listed_members(url: &str) -> Result<Option<Vec<String>>, String> {
    let place = Place::parse(url)?;
    let describe = |error: io::Error| error.to_string();
    let (status, _) = place.get("/_state").map_err(describe)?;
    match status {
        200 => {}
        404 => return Ok(None),
        other => return Err(format!("it answers {other}")),
    }
    let (status, body) = place.get("").map_err(describe)?;
    if status != 200 {
        return Err(format!("it answers {status}"));
    }
    members_of(&body).map(Some)
}

/// The values of a directory's answer in the v2 form, as `host:port`.
fn members_of(body: &str) -> Result<Vec<String>, String> {
    let json: serde_json::Value =
        serde_json::from_str(body).map_err(|error| format!("it answers no JSON: {error}"))?;
    let nodes = json.pointer("/node/nodes").and_then(|nodes| nodes.as_array());
    let values = nodes
        .into_iter()
        .flatten()
        .filter_map(|node| node.get("value")?.as_str());
    // 0.4 wrote "http://host:port", 2.x "name=http://host:port".
    let members = values.filter_map(|value| {
        let (_, rest) = value
            .split_once("http://")
            .or_else(|| value.split_once("https://"))?;
        let authority = rest.split(['/', ',']).next()?;
        Some(authority.to_owned())
    });
    Ok(members.take(MEMBERS_MAX).collect())
}

/// Tries all members at once, again and again until one answers or the time is over.
fn is_any_alive(members: &[String], is_alive: impl Fn(&str) -> bool + Sync) -> bool {
    let started = Instant::now();
    while !members.is_empty() {
        let answers = thread::scope(|scope| {
            let tries: Vec<_> = members
                .iter()
                .map(|member| scope.spawn(|| is_alive(member)))
                .collect();
            tries.into_iter().any(|it| it.join().unwrap_or(false))
        });
        if answers {
            return true;
        }
        if started.elapsed() + MEMBERS_INTERVAL >= MEMBERS_WAIT {
            return false;
        }
        thread::sleep(MEMBERS_INTERVAL);
    }
    false
}

fn is_alive(member: &str) -> bool {
    let addresses = member.to_socket_addrs().into_iter().flatten();
    let mut addresses = addresses.take(2);
    addresses.any(|address| TcpStream::connect_timeout(&address, MEMBERS_WAIT / 2).is_ok())
}

/// A plain HTTP URL, taken apart.
struct Place {
    authority: String,
    path: String,
}

impl Place {
    fn parse(url: &str) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix("http://") else {
            return Err("only http:// is looked at".to_owned());
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        Ok(Self {
            authority: authority.to_owned(),
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// One GET. HTTP/1.0, so that the answer's end is the connection's end.
    fn get(&self, below: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address()?, ASK_WAIT)?;
        stream.set_read_timeout(Some(ASK_WAIT))?;
        stream.set_write_timeout(Some(ASK_WAIT))?;
        let Self { authority, path } = self;
        let request = format!(
            "GET {path}{below} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        parse_answer(&String::from_utf8_lossy(&answer))
    }

    fn address(&self) -> io::Result<SocketAddr> {
        let has_port = self
            .authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port {
            self.authority.clone()
        } else {
            format!("{}:80", self.authority)
        };
        let first = authority.to_socket_addrs()?.next();
        first.ok_or_else(|| io::Error::other(format!("{authority} has no address")))
    }
}

fn parse_answer(answer: &str) -> io::Result<(u16, String)> {
    let not_http = || io::Error::other("it does not answer in HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(not_http)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.ok_or_else(not_http)?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_member_that_is_just_starting_counts_as_alive() {
        let tries = AtomicUsize::new(0);
        let members = ["a:7001".to_owned(), "b:7001".to_owned()];
        let is_alive = |_: &str| tries.fetch_add(1, Ordering::Relaxed) >= 3;
        assert!(is_any_alive(&members, is_alive));
        assert_eq!(tries.into_inner(), 4, "two members, tried twice");
    }
}
