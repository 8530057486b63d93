//! Files that version 1 of the log and of checkpoints wrote are read for ever, and version 1 writes no others.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use etcd_node::disk::Disk;
use etcd_node::disk::real::RealDisk;
use etcd_node::snap::{CheckpointName, Checkpoints};
use etcd_node::wal::{self, Identity, LogPosition, Options, Tail};
use proto::ids::{ClusterId, LogIndex, NodeId, Term};
use proto::peer::{LogFrame, RaftConfState, RaftEntry, RaftHardState, RaftSnapshotMetadata};

const IDENTITY: Identity = Identity {
    cluster: ClusterId::new(0xae19_01ea_e6eb_b0b9),
    node: NodeId::new(0x8076_a377_d315_145d),
};
const START: LogPosition = LogPosition {
    index: LogIndex::new(1),
    term: Term::new(1),
};
const SALT: u64 = 0x0123_4567_89ab_cdef;
const SEGMENT: &str = "0000000000000001.segment";
const CHECKPOINT: &str = "0000000000000004-0000000000000002.checkpoint";

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Keeps what today's code wrote, so that a change of format can be looked at.
fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

fn assert_unchanged(name: &str, bytes: &[u8]) {
    let path = written(name, bytes);
    assert!(
        golden(name) == bytes,
        "version 1 of {name} changed (now {}): give the new form a new version and a golden file beside this one",
        path.display()
    );
}

fn options() -> Options {
    Options {
        segment_bytes: 8 << 10,
        first_segment_bytes: 8 << 10,
        ..Options::default()
    }
}

fn entries() -> Vec<RaftEntry> {
    let entry = |index: u64, kind, term, data: &'static [u8], context: &'static [u8]| RaftEntry {
        r#type: kind,
        term,
        index,
        data: Bytes::from_static(data),
        context: Bytes::from_static(context),
    };
    vec![
        entry(2, 0, 2, b"put /a", b""),
        entry(3, 2, 2, b"add a voter", b"context"),
        entry(4, 0, 2, b"", b""),
    ]
}

fn hard_state() -> RaftHardState {
    RaftHardState {
        term: 2,
        vote: IDENTITY.node.get(),
        commit: 3,
    }
}

fn metadata() -> RaftSnapshotMetadata {
    let conf_state = RaftConfState {
        voters: vec![1, 2, 3],
        learners: vec![4],
        voters_outgoing: vec![1, 2],
        learners_next: vec![5],
        auto_leave: true,
    };
    RaftSnapshotMetadata {
        conf_state: Some(conf_state),
        index: 4,
        term: 2,
    }
}

/// One block.
fn content() -> Vec<u8> {
    b"hawser".iter().copied().cycle().take(1000).collect()
}

#[test]
fn a_segment_of_version_1_is_read() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(SEGMENT), golden("v1.segment")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory.path()).unwrap());
    let recovered = wal::recover(disk, IDENTITY, options()).unwrap();
    assert_eq!(*recovered.tail(), Tail::Closed);
    let log = recovered.open(START).unwrap();
    assert_eq!(log.hard_state, hard_state());
    assert_eq!(
        log.reader
            .entries(LogIndex::new(2), LogIndex::new(5), usize::MAX)
            .unwrap(),
        entries()
    );
}

#[test]
fn a_segment_of_version_1_is_written_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory.path()).unwrap());
    let mut log = wal::create(disk, IDENTITY, START, SALT, options()).unwrap();
    let entries = entries();
    log.writer
        .append(&LogFrame {
            entries: entries[..1].to_vec(),
            hard_state: None,
        })
        .unwrap();
    log.writer.commit().unwrap();
    log.writer
        .append(&LogFrame {
            entries: entries[1..].to_vec(),
            hard_state: Some(hard_state()),
        })
        .unwrap();
    log.writer.commit().unwrap();
    log.writer.close().unwrap();
    let bytes = fs::read(directory.path().join(SEGMENT)).unwrap();
    assert_unchanged("v1.segment", &bytes);
}

#[test]
fn a_checkpoint_of_version_1_is_read() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(CHECKPOINT), golden("v1.checkpoint")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory.path()).unwrap());
    let checkpoints = Checkpoints::open(disk, IDENTITY.cluster).unwrap();
    let name = CheckpointName {
        position: LogPosition {
            index: LogIndex::new(4),
            term: Term::new(2),
        },
    };
    assert_eq!(checkpoints.list().unwrap(), [name]);
    let reader = checkpoints.read(name).unwrap();
    assert_eq!(*reader.metadata(), metadata());
    let blocks: Vec<Bytes> = reader.map(Result::unwrap).collect();
    assert_eq!(blocks.concat(), content());
}

#[test]
fn a_checkpoint_of_version_1_is_written_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory.path()).unwrap());
    let mut writer = Checkpoints::open(disk, IDENTITY.cluster)
        .unwrap()
        .create(metadata())
        .unwrap();
    writer.write(&content()).unwrap();
    writer.finish().unwrap();
    assert_unchanged(
        "v1.checkpoint",
        &fs::read(directory.path().join(CHECKPOINT)).unwrap(),
    );
}
