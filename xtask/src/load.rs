//! Writers that remember what was acknowledged, and the judgement whether all of it is still there. A write without
//! an answer may have happened or not: nothing is claimed about it.

use crate::http::{Answer, Connection};
use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Between two tries to write, of which each may hang.
const TRY_PAUSE: Duration = Duration::from_millis(25);
/// Before a refused connection is tried again: short beside an election.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A writer, and where it writes.
pub(crate) struct Writer<'a> {
    /// Said in complaints: the node's name.
    pub(crate) name: String,
    /// A directory of its own in the store, without a slash at its end.
    pub(crate) directory: String,
    /// Between an answer and the next write.
    pub(crate) pause: Duration,
    pub(crate) connect: Box<dyn Fn() -> Result<Connection> + Send + Sync + 'a>,
}

/// A write that was answered with success.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) number: u64,
    pub(crate) acknowledged: Instant,
}

/// What a writer saw.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) name: String,
    pub(crate) directory: String,
    pub(crate) writes: Vec<Write>,
    /// Writes with another answer, or none.
    pub(crate) unknown: u64,
}

impl Journal {
    /// The longest time without an acknowledged write, from the first to the last.
    pub(crate) fn longest_gap(&self) -> Duration {
        let pairs = self.writes.windows(2);
        pairs
            .map(|pair| pair[1].acknowledged - pair[0].acknowledged)
            .max()
            .unwrap_or(Duration::MAX)
    }
}

/// Tries to write, again and again through every writer and each time on a connection of its own: what was sent to a
/// dead leader is no hint of when a new one serves. Returns when the first try was accepted.
pub(crate) fn first_accepted(writers: &[Writer<'_>], limit: Duration) -> Result<Instant> {
    let (accepted, accepts) = mpsc::channel();
    let deadline = Instant::now() + limit;
    thread::scope(|scope| {
        for number in 0_u64.. {
            for writer in writers {
                let accepted = accepted.clone();
                scope.spawn(move || {
                    let path = format!("/v2/keys{}/try-{number}", writer.directory);
                    let answer = (writer.connect)().and_then(|mut node| node.put(&path, "value=accepted"));
                    if answer.is_ok_and(|answer| matches!(answer.status, 200 | 201)) {
                        // The first one is enough: then nobody listens any more.
                        accepted.send(Instant::now()).ok();
                    }
                });
            }
            if let Ok(first) = accepts.recv_timeout(TRY_PAUSE) {
                return Ok(first);
            }
            if Instant::now() >= deadline {
                bail!("no write was accepted for {} s", limit.as_secs());
            }
        }
        bail!("no write was accepted")
    })
}

/// Writes from all writers at once for as long as `meanwhile` runs.
pub(crate) fn during<T>(
    writers: &[Writer<'_>],
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<Journal>)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter()
            .map(|writer| scope.spawn(|| writer.run(&stop)))
            .collect();
        let outcome = meanwhile();
        stop.store(true, Ordering::Relaxed);
        let journals: Result<Vec<_>> = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a writer panicked")))
            .collect();
        Ok((outcome?, journals?))
    })
}

impl Writer<'_> {
    fn run(&self, stop: &AtomicBool) -> Journal {
        let mut journal = Journal {
            name: self.name.clone(),
            directory: self.directory.clone(),
            writes: Vec::new(),
            unknown: 0,
        };
        let mut connection = None;
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let Some(mut open) = connection.take().or_else(|| (self.connect)().ok()) else {
                thread::sleep(RETRY_PAUSE);
                continue;
            };
            number += 1;
            let path = format!("/v2/keys{}/{number}", self.directory);
            match open.put(&path, &format!("value={number}")) {
                Ok(Answer {
                    status: 200 | 201, ..
                }) => {
                    journal.writes.push(Write {
                        number,
                        acknowledged: Instant::now(),
                    });
                    connection = Some(open);
                }
                Ok(_) => {
                    journal.unknown += 1;
                    connection = Some(open);
                    thread::sleep(RETRY_PAUSE);
                }
                Err(_) => journal.unknown += 1,
            }
            thread::sleep(self.pause);
        }
        journal
    }
}

/// Checks against one node's answers that every acknowledged write is there. Returns how many there were.
pub(crate) fn verify(journals: &[Journal], node: &mut Connection) -> Result<u64> {
    let mut count = 0;
    for journal in journals.iter().filter(|journal| !journal.writes.is_empty()) {
        let answer = node.get(&format!(
            "/v2/keys{}?quorum=true&recursive=true",
            journal.directory
        ))?;
        if answer.status != 200 {
            bail!(
                "{} answers with status {}: {}",
                journal.directory,
                answer.status,
                answer.body
            );
        }
        let found = values(&answer.body).with_context(|| format!("read {}", journal.directory))?;
        let numbers = journal.writes.iter().map(|write| write.number);
        let lost: Vec<_> = numbers
            .filter(|number| found.get(number) != Some(&number.to_string()))
            .collect();
        if !lost.is_empty() {
            bail!(
                "{} of {} acknowledged writes through {} are lost: {}",
                lost.len(),
                journal.writes.len(),
                journal.name,
                lost.iter()
                    .take(10)
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        count += journal.writes.len() as u64;
    }
    Ok(count)
}

/// Value of each numbered key of a listing.
fn values(body: &str) -> Result<BTreeMap<u64, String>> {
    let listing: Value = serde_json::from_str(body)?;
    let nodes = listing["node"]["nodes"]
        .as_array()
        .context("a directory has nodes")?;
    let entry = |node: &Value| {
        let number = node["key"].as_str()?.rsplit('/').next()?.parse().ok()?;
        Some((number, node["value"].as_str()?.to_owned()))
    };
    Ok(nodes.iter().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    /// A store that acknowledges every write, and forgets those that `forgets` names.
    fn store(forgets: fn(u64) -> bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let nodes = Arc::new(Mutex::new(Vec::new()));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let nodes = Arc::clone(&nodes);
                thread::spawn(move || serve(&mut BufReader::new(stream), &nodes, forgets));
            }
        });
        address
    }

    fn serve(stream: &mut BufReader<TcpStream>, nodes: &Mutex<Vec<String>>, forgets: fn(u64) -> bool) {
        let mut first = String::new();
        while stream.read_line(&mut first).is_ok_and(|count| count > 0) {
            let mut length = 0;
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                let found = line.strip_prefix("Content-Length: ");
                length = found.map_or(length, |text| text.trim().parse().unwrap());
                line.clear();
            }
            stream.take(length).read_to_end(&mut Vec::new()).unwrap();
            let path = first.split(' ').nth(1).unwrap();
            let body = if first.starts_with("GET") {
                format!(r#"{{"node":{{"nodes":[{}]}}}}"#, nodes.lock().unwrap().join(","))
            } else {
                let number = path.rsplit('/').next().unwrap();
                if !number.parse().is_ok_and(forgets) {
                    let node = format!(r#"{{"key":"/d/{number}","value":"{number}"}}"#);
                    nodes.lock().unwrap().push(node);
                }
                "{}".to_owned()
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.get_mut().write_all((head + &body).as_bytes()).unwrap();
            first.clear();
        }
    }

    fn played(forgets: fn(u64) -> bool) -> Result<u64> {
        let address = store(forgets);
        let writer = Writer {
            name: "n1".into(),
            directory: "/d".into(),
            pause: Duration::ZERO,
            connect: Box::new(move || Connection::open(address)),
        };
        let mut node = Connection::open(address)?;
        let ((), journals) = during(&[writer], || {
            wait::until_true("the third write", Duration::from_secs(60), || {
                node.get("/v2/keys/d")
                    .is_ok_and(|answer| answer.body.contains("/d/3\""))
            })
        })?;
        assert_eq!(journals[0].unknown, 0);
        verify(&journals, &mut node)
    }

    #[test]
    fn forgotten_write_is_found() {
        assert!(played(|_| false).unwrap() > 1);
        let error = played(|number| number == 2).unwrap_err().to_string();
        assert!(
            error.contains("acknowledged writes through n1 are lost: 2"),
            "{error}"
        );
    }

    #[test]
    fn first_accepted_write_is_waited_for() {
        let served = store(|_| false);
        let writer = |address: SocketAddr| Writer {
            name: "n1".into(),
            directory: "/d".into(),
            pause: Duration::ZERO,
            connect: Box::new(move || Connection::open(address)),
        };
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        first_accepted(&[writer(refused), writer(served)], Duration::from_secs(60)).unwrap();
        let error = first_accepted(&[writer(refused)], Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "no write was accepted for 0 s");
    }

    #[test]
    fn gap_is_between_acknowledgements() {
        let begun = Instant::now();
        let at = |acknowledged| Write {
            number: 1,
            acknowledged: begun + Duration::from_millis(acknowledged),
        };
        let journal = Journal {
            name: String::new(),
            directory: String::new(),
            writes: vec![at(1), at(900), at(905)],
            unknown: 0,
        };
        assert_eq!(journal.longest_gap(), Duration::from_millis(899));
    }
}
