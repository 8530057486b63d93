//! Reads what `strace -f` saw, and judges the order of things: a marked write goes to the log, the log is synced, and
//! only then is it answered.

use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;

/// How many replies were judged, and how many syncs they took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) replies: usize,
    pub(super) syncs: usize,
}

/// A system call, with the lines of the trace at which it was entered and left.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    name: String,
    /// What strace printed between the parentheses.
    arguments: String,
    entered: usize,
    left: usize,
}

impl Call {
    /// The descriptor, and in `<>` what it leads to.
    fn descriptor(&self) -> &str {
        self.arguments.split([',', ')']).next().unwrap_or_default()
    }

    /// Whether it goes to a regular file below the directory.
    fn is_on_disk(&self, directory: &str) -> bool {
        self.descriptor().contains(&format!("<{directory}"))
    }

    fn is_on_socket(&self) -> bool {
        let descriptor = self.descriptor();
        descriptor.contains("<socket:") || descriptor.contains("<TCP")
    }
}

/// Judges a trace: for every marker, the reply that carries it was entered only after a sync was left that was
/// entered after the write of the marker to the same file was left.
///
/// # Errors
/// Names the first marker for which that does not hold, with the lines of the trace.
pub(super) fn judge(trace: &str, directory: &str, markers: &[String]) -> Result<Judged> {
    let calls = calls(trace);
    let mut writes = Index::default();
    let mut replies = Index::default();
    let mut syncs = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        match call.name.as_str() {
            "fdatasync" | "fsync" if call.is_on_disk(directory) => syncs.push(call),
            _ if call.is_on_disk(directory) => writes.add(&call.arguments, number, markers),
            _ if call.is_on_socket() => replies.add(&call.arguments, number, markers),
            _ => {}
        }
    }
    for marker in markers {
        let Some(reply) = replies.first.get(marker).map(|number| &calls[*number]) else {
            bail!("{marker} was never answered: the trace is not whole");
        };
        let Some(write) = writes.first.get(marker).map(|number| &calls[*number]) else {
            bail!(
                "{marker} was answered at line {} and never written to disk",
                reply.entered
            );
        };
        let covers = |sync: &&&Call| sync.descriptor() == write.descriptor() && sync.entered > write.left;
        let sync = syncs.iter().find(covers);
        ensure!(
            sync.is_some_and(|sync| sync.left < reply.entered),
            "{marker} was answered at line {}, written until line {}, and synced until line {}",
            reply.entered,
            write.left,
            sync.map_or("never".to_owned(), |sync| sync.left.to_string())
        );
    }
    Ok(Judged {
        replies: markers.len(),
        syncs: syncs.len(),
    })
}

/// The first call that carries each marker.
#[derive(Default)]
struct Index {
    first: BTreeMap<String, usize>,
}

impl Index {
    fn add(&mut self, arguments: &str, call: usize, markers: &[String]) {
        // All markers begin alike: one search finds the few that are here.
        let Some(start) = markers
            .first()
            .and_then(|marker| marker.split_inclusive('-').next())
        else {
            return;
        };
        for (at, _) in arguments.match_indices(start) {
            let rest = &arguments[at..];
            let length = markers[0].len();
            if let Some(marker) = rest.get(..length) {
                self.first.entry(marker.to_owned()).or_insert(call);
            }
        }
    }
}

/// The calls of a trace in the order in which they were left.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: BTreeMap<&str, (usize, String, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for (number, line) in (1..).zip(trace.lines()) {
        let Some((process, rest)) = line.trim_start().split_once(' ') else {
            continue;
        };
        // The time, when strace was asked for it.
        let rest = rest.trim_start();
        let rest = match rest.split_once(' ') {
            Some((time, rest)) if time.starts_with(|c: char| c.is_ascii_digit()) => rest,
            _ => rest,
        };
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let Some((entered, name, mut arguments)) = open.remove(process) {
                arguments += resumed.split_once("resumed>").map_or("", |(_, more)| more);
                calls.push(Call {
                    name,
                    arguments,
                    entered,
                    left: number,
                });
            }
        } else if let Some((name, arguments)) = rest.split_once('(') {
            if let Some(begun) = arguments.strip_suffix("<unfinished ...>") {
                open.insert(process, (number, name.to_owned(), begun.trim_end().to_owned()));
            } else {
                calls.push(Call {
                    name: name.to_owned(),
                    arguments: arguments.to_owned(),
                    entered: number,
                    left: number,
                });
            }
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: &str = "11 1.0 pwrite64(9</d/wal/1>, \"..m-1 m-2..\", 512, 0) = 512\n";
    const SYNC: &str = "11 1.1 fdatasync(9</d/wal/1>) = 0\n";
    const REPLIES: &str = "12 1.2 writev(20<socket:[5]>, [{iov_base=\"HTTP/1.1 201 Created m-1\"}], 1) = 9\n\
                           12 1.3 sendto(21<TCP:[a->b]>, \"HTTP/1.1 200 OK m-2\", 9, 0, NULL, 0) = 9\n";

    fn judged(trace: &[&str]) -> Result<Judged> {
        judge(&trace.concat(), "/d/", &["m-1".to_owned(), "m-2".to_owned()])
    }

    #[test]
    fn written_synced_answered() {
        assert_eq!(
            judged(&[WRITE, SYNC, REPLIES]).unwrap(),
            Judged { replies: 2, syncs: 1 }
        );
    }

    #[test]
    fn reply_before_its_sync_is_found() {
        let error = judged(&[WRITE, REPLIES, SYNC]).unwrap_err().to_string();
        assert_eq!(
            error,
            "m-1 was answered at line 2, written until line 1, and synced until line 4"
        );
        judged(&[SYNC, WRITE, REPLIES]).unwrap_err();
        judged(&[WRITE, REPLIES]).unwrap_err();
        judged(&[SYNC, REPLIES]).unwrap_err();
        judged(&[WRITE, SYNC]).unwrap_err();
        // Another file's sync covers nothing.
        judged(&[WRITE, "11 1.1 fdatasync(8</d/wal/2>) = 0\n", REPLIES]).unwrap_err();
        judged(&[
            "11 1.0 write(9</elsewhere/1>, \"m-1 m-2\", 3) = 3\n",
            SYNC,
            REPLIES,
        ])
        .unwrap_err();
    }

    #[test]
    fn call_that_is_not_over_covers_nothing() {
        let begun = "11 1.1 fdatasync(9</d/wal/1> <unfinished ...>\n";
        let ended = "11 1.4 <... fdatasync resumed>) = 0\n";
        judged(&[WRITE, begun, ended, REPLIES]).unwrap();
        judged(&[WRITE, begun, REPLIES, ended]).unwrap_err();
        // A sync that began before the write had ended may not hold it.
        let write = "13 1.0 pwrite64(9</d/wal/1>, \"m-1 m-2\", 512, 0 <unfinished ...>\n";
        let written = "13 1.2 <... pwrite64 resumed>) = 512\n";
        judged(&[write, begun, written, ended, REPLIES]).unwrap_err();
        judged(&[write, written, begun, ended, REPLIES]).unwrap();
    }
}
