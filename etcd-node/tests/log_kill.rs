//! `kill -9` of a process that writes a log on a real disk: what it said was durable is there.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use etcd_node::disk::Disk;
use etcd_node::disk::real::RealDisk;
use etcd_node::wal::{self, Identity, LogPosition, Options};
use proto::ids::{ClusterId, LogIndex, NodeId, Term};
use proto::peer::{LogFrame, RaftEntry};

const IDENTITY: Identity = Identity {
    cluster: ClusterId::new(0xc1),
    node: NodeId::new(0x11),
};
const START: LogPosition = LogPosition {
    index: LogIndex::new(1),
    term: Term::new(1),
};
/// Names the directory in which this program, started again, is the writer.
const WRITER_DIRECTORY: &str = "HAWSER_TEST_LOG_DIRECTORY";
const KILLS: u64 = 20;
const ACKED_PER_LIFE: u64 = 40;

fn options() -> Options {
    Options {
        segment_bytes: 256 << 10,
        first_segment_bytes: 64 << 10,
        ..Options::default()
    }
}

/// Entries of very different lengths, each telling its index.
fn entry(index: u64) -> RaftEntry {
    let text = index.to_string().into_bytes();
    let bytes = usize::try_from(1 + index * 7919 % 9000).unwrap_or(1);
    let data: Bytes = text.iter().copied().cycle().take(bytes.max(text.len())).collect();
    RaftEntry {
        index,
        term: 2,
        data,
        ..RaftEntry::default()
    }
}

fn disk(path: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Not a test of its own: the process that is killed. Writes until then, and says what is durable.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(WRITER_DIRECTORY) else {
        return;
    };
    let disk = disk(Path::new(&path));
    let log = match wal::exists(&*disk) {
        Ok(true) => wal::recover(disk, IDENTITY, options()).and_then(|recovered| recovered.open(START)),
        _ => wal::create(disk, IDENTITY, START, 7, options()),
    };
    let mut log = log.unwrap();
    let mut out = std::io::stderr();
    loop {
        let next = log.reader.last().index.get() + 1;
        let entries = (next..next + 1 + next % 5).map(entry).collect();
        log.writer
            .append(&LogFrame {
                entries,
                hard_state: None,
            })
            .unwrap();
        log.writer.commit().unwrap();
        writeln!(out, "durable {}", log.reader.last().index).unwrap();
    }
}

fn start(path: &Path) -> Child {
    let program = std::env::current_exe().expect("a test has a program");
    let mut command = Command::new(program);
    command
        .args(["--exact", "writer", "--nocapture"])
        .env(WRITER_DIRECTORY, path);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a test can start itself")
}

#[test]
fn what_was_said_to_be_durable_survives_kill_9() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut durable = 1;
    for life in 0..KILLS {
        let mut child = start(directory.path());
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut acked = 0;
        for line in said.lines().map_while(Result::ok) {
            let Some(index) = line.strip_prefix("durable ") else {
                continue;
            };
            durable = index.parse().unwrap();
            acked += 1;
            if acked == ACKED_PER_LIFE + life {
                child.kill().unwrap();
            }
        }
        assert_eq!(
            child.wait().unwrap().signal(),
            Some(9),
            "the writer ended by itself in life {life}"
        );
        let log = wal::recover(disk(directory.path()), IDENTITY, options())
            .unwrap()
            .open(START)
            .unwrap();
        let last = log.reader.last().index;
        assert!(
            last.get() >= durable,
            "life {life}: {durable} was durable, the log ends at {last}"
        );
        let entries = log
            .reader
            .entries(START.index.next(), last.next(), usize::MAX)
            .unwrap();
        assert!(
            entries
                .iter()
                .eq((2..=last.get()).map(entry).collect::<Vec<_>>().iter())
        );
    }
    assert!(durable > KILLS * ACKED_PER_LIFE);
}
