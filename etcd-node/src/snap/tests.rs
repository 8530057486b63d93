//! Checkpoints that are whole, and each way in which they are not.

use std::sync::Arc;

use proto::ids::ClusterId;
use proto::peer::{RaftConfState, RaftSnapshotMetadata};

use super::format::{Encoder, Head};
use super::*;
use crate::disk::Disk;
use crate::disk::memory::{MemoryDisk, Random};

const CLUSTER: ClusterId = ClusterId::new(0xc1);

fn metadata(index: u64, term: u64) -> RaftSnapshotMetadata {
    let conf_state = RaftConfState {
        voters: vec![1, 2, 3],
        learners: vec![4],
        ..RaftConfState::default()
    };
    RaftSnapshotMetadata {
        conf_state: Some(conf_state),
        index,
        term,
    }
}

fn checkpoints(disk: &MemoryDisk) -> Checkpoints {
    Checkpoints::open(Arc::new(disk.clone()), CLUSTER).unwrap()
}

fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..bytes)
        .map(|_| u8::try_from(random.below(256)).unwrap())
        .collect()
}

fn write(checkpoints: &Checkpoints, index: u64, content: &[u8]) -> Result<CheckpointName, SnapError> {
    let mut writer = checkpoints.create(metadata(index, 2))?;
    for piece in content.chunks(100_000) {
        writer.write(piece)?;
    }
    writer.finish()
}

fn read(checkpoints: &Checkpoints, name: CheckpointName) -> Result<Vec<u8>, SnapError> {
    let blocks: Result<Vec<_>, _> = checkpoints.read(name)?.collect();
    Ok(blocks?.concat())
}

/// A small checkpoint's file, its name, and its content.
fn small(disk: &MemoryDisk) -> (String, CheckpointName, Vec<u8>) {
    let content = content(700, 5);
    let name = write(&checkpoints(disk), 7, &content).unwrap();
    (name.file_name(), name, content)
}

#[test]
fn content_of_any_length_is_read_back() {
    let disk = MemoryDisk::new(1);
    let checkpoints = checkpoints(&disk);
    let lengths = [
        0,
        1,
        BLOCK_BYTES_MAX - 1,
        BLOCK_BYTES_MAX,
        BLOCK_BYTES_MAX + 1,
        5 * BLOCK_BYTES_MAX + 77,
    ];
    for (index, length) in (1..).zip(lengths) {
        let content = content(length, index);
        let name = write(&checkpoints, index, &content).unwrap();
        disk.power_cut();
        assert_eq!(read(&checkpoints, name).unwrap(), content);
        let reader = checkpoints.read(name).unwrap();
        assert_eq!(*reader.metadata(), metadata(index, 2));
        for block in reader {
            assert!(block.unwrap().len() <= BLOCK_BYTES_MAX);
        }
    }
}

#[test]
fn the_newest_two_are_kept() {
    let disk = MemoryDisk::new(1);
    let checkpoints = checkpoints(&disk);
    for index in [9, 300, 20, 100] {
        write(&checkpoints, index, b"state").unwrap();
    }
    let indexes = |names: Vec<CheckpointName>| -> Vec<u64> {
        names.iter().map(|name| name.position.index.get()).collect()
    };
    assert_eq!(indexes(checkpoints.list().unwrap()), [300, 100, 20, 9]);
    let mut open = checkpoints.read(checkpoints.list().unwrap()[3]).unwrap();
    assert_eq!(indexes(checkpoints.prune().unwrap()), [300, 100]);
    assert_eq!(indexes(checkpoints.list().unwrap()), [300, 100]);
    assert_eq!(
        open.next_block().unwrap().unwrap(),
        &b"state"[..],
        "a reader of a removed checkpoint goes on"
    );
}

#[test]
fn what_is_not_finished_is_no_checkpoint() {
    let disk = MemoryDisk::new(1);
    let (_, name, content) = small(&disk);
    let mut writer = checkpoints(&disk).create(metadata(8, 2)).unwrap();
    writer.write(&content).unwrap();
    drop(writer);
    assert_eq!(
        disk.list().unwrap(),
        [name.file_name()],
        "a dropped writer leaves nothing"
    );

    let mut writer = checkpoints(&disk).create(metadata(8, 2)).unwrap();
    writer.write(&content).unwrap();
    std::mem::forget(writer);
    disk.process_killed();
    assert_eq!(disk.list().unwrap().len(), 2);
    let checkpoints = checkpoints(&disk);
    assert_eq!(
        disk.list().unwrap(),
        [name.file_name()],
        "the next start removes what a crash left"
    );
    assert_eq!(checkpoints.list().unwrap(), [name]);
}

#[test]
fn no_flipped_bit_ever_gives_wrong_content() {
    let disk = MemoryDisk::new(1);
    let (file, name, content) = small(&disk);
    let checkpoints = checkpoints(&disk);
    let whole = disk.content(&file);
    for offset in 0..whole.len() as u64 {
        for bit in 0..8 {
            disk.flip_bit(&file, offset, bit);
            let error = read(&checkpoints, name).unwrap_err();
            assert!(error.to_string().contains(&file), "{error}");
            disk.flip_bit(&file, offset, bit);
        }
    }
    assert_eq!(read(&checkpoints, name).unwrap(), content);
}

#[test]
fn a_checkpoint_cut_or_grown_is_refused() {
    let disk = MemoryDisk::new(1);
    let (file, name, _) = small(&disk);
    let checkpoints = checkpoints(&disk);
    let whole = disk.content(&file);
    for length in 0..whole.len() {
        disk.edit(&file, |content| content.truncate(length));
        let error = read(&checkpoints, name).unwrap_err();
        assert!(matches!(error, SnapError::Damaged { .. }), "{length}: {error}");
        disk.edit(&file, |content| content.clone_from(&whole));
    }
    disk.edit(&file, |content| content.push(0));
    let error = read(&checkpoints, name).unwrap_err();
    assert!(error.to_string().contains("bytes follow the footer"), "{error}");
    assert!(
        error.to_string().contains("the older checkpoint serves"),
        "{error}"
    );
}

#[test]
fn blocks_of_another_checkpoint_are_refused() {
    let disk = MemoryDisk::new(1);
    let checkpoints = checkpoints(&disk);
    let bytes = 2 * BLOCK_BYTES_MAX + 10;
    let (one, two) = (
        write(&checkpoints, 7, &content(bytes, 1)),
        write(&checkpoints, 8, &content(bytes, 2)),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    let other = disk.content(&two.file_name());
    // The second block, at the same place in both.
    let (from, to) = (BLOCK_BYTES_MAX + 100, 2 * BLOCK_BYTES_MAX + 100);
    disk.edit(&one.file_name(), |content| {
        content[from..to].copy_from_slice(&other[from..to]);
    });
    assert!(matches!(read(&checkpoints, one), Err(SnapError::Damaged { .. })));
}

#[test]
fn a_checkpoint_of_others_or_of_the_future_is_refused() {
    let disk = MemoryDisk::new(1);
    let (file, name, _) = small(&disk);
    let other = Checkpoints::open(Arc::new(disk.clone()), ClusterId::new(0xc2)).unwrap();
    let error = read(&other, name).unwrap_err();
    assert!(matches!(error, SnapError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("cluster c1"), "{error}");

    let renamed = CheckpointName::of(&metadata(8, 2));
    disk.rename(&file, &renamed.file_name()).unwrap();
    assert!(matches!(
        read(&checkpoints(&disk), renamed),
        Err(SnapError::Foreign { .. })
    ));

    disk.edit(&renamed.file_name(), |content| content[8] = 2);
    let error = read(&checkpoints(&disk), renamed).unwrap_err();
    assert!(
        matches!(
            error,
            SnapError::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_full_disk_costs_the_new_checkpoint_only() {
    let disk = MemoryDisk::new(1);
    let (file, name, content) = small(&disk);
    let checkpoints = checkpoints(&disk);
    let used = disk.bytes();
    for room in [0, 10, 500, 3000] {
        disk.limit_bytes(Some(used + room));
        let error = write(&checkpoints, 9, &vec![7; 2 * BLOCK_BYTES_MAX]).unwrap_err();
        assert!(matches!(error, SnapError::NoSpace { .. }), "{error}");
        assert_eq!(disk.list().unwrap(), [file.as_str()]);
    }
    assert_eq!(read(&checkpoints, name).unwrap(), content);
    disk.limit_bytes(None);
    write(&checkpoints, 9, &content).unwrap();
}

#[test]
fn a_failed_fsync_costs_the_new_checkpoint_only() {
    let disk = MemoryDisk::new(1);
    let (file, name, content) = small(&disk);
    let checkpoints = checkpoints(&disk);
    for syncs in 0..2 {
        disk.fail_sync_after(syncs);
        let error = write(&checkpoints, 9, &vec![7; 5 * BLOCK_BYTES_MAX]).unwrap_err();
        assert!(matches!(error, SnapError::Io { action: "fsync", .. }), "{error}");
        assert_eq!(disk.list().unwrap(), [file.as_str()]);
    }
    assert_eq!(read(&checkpoints, name).unwrap(), content);
}

#[test]
fn a_power_cut_leaves_each_checkpoint_whole_or_absent() {
    for seed in 0..300 {
        let disk = MemoryDisk::new(seed);
        let (_, old, old_content) = small(&disk);
        let new_content = content(2000, seed);
        let mut writer = checkpoints(&disk).create(metadata(8, 2)).unwrap();
        writer.write(&new_content).unwrap();
        let is_finished = seed % 3 == 0;
        if is_finished {
            writer.finish().unwrap();
        } else {
            if seed % 3 == 1 {
                disk.fail_sync_after(0);
                assert!(writer.finish().is_err());
            } else {
                drop(writer);
            }
        }
        disk.power_cut();
        let checkpoints = checkpoints(&disk);
        let found = checkpoints.list().unwrap();
        assert!(found.contains(&old));
        assert_eq!(found.len() == 2, is_finished, "seed {seed}: {found:?}");
        assert_eq!(read(&checkpoints, old).unwrap(), old_content);
        if is_finished {
            assert_eq!(read(&checkpoints, found[0]).unwrap(), new_content);
        }
    }
}

/// Sends a file's bytes in pieces of random size.
fn transfer(
    bytes: &[u8],
    to: &Checkpoints,
    announced: (RaftSnapshotMetadata, u64),
) -> Result<CheckpointName, SnapError> {
    let mut receiver = to.receive(announced.0, announced.1)?;
    let mut random = Random(bytes.len() as u64);
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = usize::try_from(1 + random.below(300_000))
            .unwrap()
            .min(rest.len());
        receiver.write(&rest[..count])?;
        rest = &rest[count..];
    }
    receiver.finish()
}

#[test]
fn a_received_checkpoint_is_the_sent_file() {
    let disk = MemoryDisk::new(1);
    let sender = checkpoints(&disk);
    let content = content(3 * BLOCK_BYTES_MAX + 5, 1);
    let name = write(&sender, 7, &content).unwrap();
    let file = sender.file(name).unwrap();
    assert_eq!(*file.metadata(), metadata(7, 2));
    let mut bytes = Vec::new();
    loop {
        let chunk = file.chunk(bytes.len() as u64, 64 << 10).unwrap();
        if chunk.is_empty() {
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes.len() as u64, file.bytes());

    let there = MemoryDisk::new(2);
    let receiver = checkpoints(&there);
    let received = transfer(&bytes, &receiver, (metadata(7, 2), file.bytes())).unwrap();
    there.power_cut();
    assert_eq!(received, name);
    assert_eq!(there.content(&name.file_name()), disk.content(&name.file_name()));
    assert_eq!(read(&receiver, received).unwrap(), content);
}

#[test]
fn a_received_checkpoint_is_checked_on_the_way() {
    let disk = MemoryDisk::new(1);
    let (file, ..) = small(&disk);
    let bytes = disk.content(&file);
    let length = bytes.len() as u64;
    let there = MemoryDisk::new(2);
    let receiver = checkpoints(&there);
    let attempt =
        |bytes: &[u8], metadata, length| transfer(bytes, &receiver, (metadata, length)).unwrap_err();

    for offset in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[offset] ^= 1;
        attempt(&flipped, metadata(7, 2), length);
    }
    assert!(matches!(
        attempt(&bytes[..300], metadata(7, 2), length),
        SnapError::Length { .. }
    ));
    assert!(matches!(
        attempt(&bytes[..300], metadata(7, 2), 300),
        SnapError::Damaged { .. }
    ));
    assert!(matches!(
        attempt(&bytes, metadata(7, 2), length - 1),
        SnapError::Length { .. }
    ));
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(
        attempt(&longer, metadata(7, 2), length + 1),
        SnapError::Damaged { .. }
    ));
    assert!(matches!(
        attempt(&bytes, metadata(8, 2), length),
        SnapError::Foreign { .. }
    ));
    let other_members = RaftSnapshotMetadata {
        conf_state: None,
        ..metadata(7, 2)
    };
    assert!(matches!(
        attempt(&bytes, other_members, length),
        SnapError::Foreign { .. }
    ));
    let elsewhere = Checkpoints::open(Arc::new(MemoryDisk::new(3)), ClusterId::new(0xc2)).unwrap();
    let foreign = transfer(&bytes, &elsewhere, (metadata(7, 2), length)).unwrap_err();
    assert!(matches!(foreign, SnapError::Foreign { .. }));
    there.limit_bytes(Some(100));
    assert!(matches!(
        attempt(&bytes, metadata(7, 2), length),
        SnapError::NoSpace { .. }
    ));

    assert!(
        there.list().unwrap().is_empty(),
        "a refused transfer left something"
    );
    there.limit_bytes(None);
    transfer(&bytes, &receiver, (metadata(7, 2), length)).unwrap();
}

/// A transfer that lies about a block's length must not make us hold more than a block.
#[test]
fn a_block_longer_than_allowed_is_refused_at_its_header() {
    let mut bytes = Vec::new();
    Encoder::begin(
        &Head {
            cluster: CLUSTER,
            metadata: metadata(7, 2),
        },
        &mut bytes,
    );
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend_from_slice(&[0; 12]);
    let receiver = checkpoints(&MemoryDisk::new(1));
    let error = transfer(&bytes, &receiver, (metadata(7, 2), 1 << 40)).unwrap_err();
    assert!(matches!(error, SnapError::Damaged { .. }), "{error}");
}
