//! The table of damage: each row is one way to harm a log, and what the next start must say.

use proto::ids::{ClusterId, LogIndex, NodeId, Term};
use proto::peer::LogFrame;

use super::support::*;
use crate::disk::Disk;
use crate::disk::memory::{MemoryDisk, SECTOR_BYTES};
use crate::wal::segment::FRAMES_FROM;
use crate::wal::{Continuity, Identity, LogPosition, Tail, WalError, create, recover};

const FIRST: &str = "wal/0000000000000001.segment";
const SECOND: &str = "wal/0000000000000002.segment";

/// Three frames of ten entries in the first segment, 2 to 31, and nothing else.
fn three_frames() -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 3);
    drop(log);
    disk.process_killed();
    disk
}

/// Many frames in several segments, 2 to 301.
fn many_segments() -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 30);
    drop(log);
    disk.process_killed();
    disk
}

fn closed(disk: MemoryDisk) -> MemoryDisk {
    open_log(&disk).writer.close().unwrap();
    disk.process_killed();
    disk
}

fn refusal(disk: &MemoryDisk) -> WalError {
    match recover_log(disk) {
        Ok(recovered) => panic!("recovered with tail {:?}", recovered.tail()),
        Err(error) => error,
    }
}

/// The start after a torn last frame: it is cut, and the node is behind until it says otherwise.
fn assert_cut(disk: &MemoryDisk, last: u64) {
    let recovered = recover_log(disk).unwrap();
    assert!(
        matches!(recovered.tail(), Tail::Torn { .. }),
        "{:?}",
        recovered.tail()
    );
    let log = recovered.open(START).unwrap();
    assert!(log.is_behind);
    assert_eq!(span(&log), (2, last));
    drop(log);
    disk.power_cut();

    let recovered = recover_log(disk).unwrap();
    assert_eq!(*recovered.tail(), Tail::Open);
    let mut log = recovered.open(START).unwrap();
    assert!(log.is_behind, "the cut was forgotten at once");
    fill(&mut log, 1);
    drop(log);
    disk.power_cut();

    let recovered = recover_log(disk).unwrap();
    assert_eq!(*recovered.tail(), Tail::Open);
    let mut log = recovered.open(START).unwrap();
    assert!(log.is_behind, "the cut was forgotten");
    log.writer.caught_up().unwrap();
    drop(log);
    disk.power_cut();
    let log = open_log(disk);
    assert!(!log.is_behind);
    assert_eq!(span(&log), (2, last + 10));
}

#[test]
fn what_was_written_is_read_back_after_each_kind_of_end() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 30);
    log.writer.close().unwrap();
    let mut log = open_log(&disk);
    assert_eq!(log.tail, Tail::Closed);
    assert_eq!(span(&log), (2, 301));
    fill(&mut log, 30);
    drop(log);
    disk.process_killed();
    let log = open_log(&disk);
    assert_eq!(log.tail, Tail::Open);
    assert_eq!(span(&log), (2, 601));
    drop(log);
    disk.power_cut();
    let log = open_log(&disk);
    assert_eq!(span(&log), (2, 601));
    assert!(!log.is_behind);
}

#[test]
fn a_tail_cut_inside_the_last_frame_is_cut() {
    let disk = three_frames();
    let end = last_written(&disk, FIRST);
    disk.edit(FIRST, |content| {
        content.truncate(usize::try_from(end).unwrap() - 37);
    });
    assert_cut(&disk, 21);
}

#[test]
fn a_file_cut_between_two_frames_is_not_taken_for_whole() {
    let disk = three_frames();
    // The same log without its last frame says where the frame before it ends.
    let shorter = MemoryDisk::new(1);
    fill(&mut create_log(&shorter), 2);
    let end = usize::try_from(last_written(&shorter, FIRST)).unwrap() + 1;
    disk.edit(FIRST, |content| content.truncate(end));
    assert_cut(&disk, 21);
}

#[test]
fn a_garbage_tail_is_cut() {
    let disk = three_frames();
    let end = usize::try_from(last_written(&disk, FIRST)).unwrap() + 1;
    disk.edit(FIRST, |content| content[end..end + 50].fill(0xa5));
    assert_cut(&disk, 31);
    let disk = three_frames();
    disk.edit(FIRST, |content| content[end + 700] = 1);
    assert_cut(&disk, 31);
}

#[test]
fn a_flipped_bit_in_the_last_frame_cuts_it() {
    let disk = three_frames();
    disk.flip_bit(FIRST, last_written(&disk, FIRST) - 100, 3);
    assert_cut(&disk, 21);
}

#[test]
fn a_flipped_bit_before_the_last_frame_is_lost_data() {
    let disk = three_frames();
    disk.flip_bit(FIRST, FRAMES_FROM + 200, 3);
    let error = refusal(&disk);
    assert!(
        matches!(&error, WalError::DataLost { file, .. } if file == FIRST),
        "{error}"
    );
    let message = error.to_string();
    assert!(
        message.contains("acknowledged data lost: wal/0000000000000001.segment is damaged at byte 4"),
        "{message}"
    );
    assert!(
        message.contains("restore the file, or remove this member"),
        "{message}"
    );

    // The frame that ends the first segment: what follows it is in the second.
    let disk = many_segments();
    disk.flip_bit(FIRST, last_written(&disk, FIRST), 3);
    let error = refusal(&disk);
    assert!(
        matches!(&error, WalError::DataLost { later_file, .. } if later_file == SECOND),
        "{error}"
    );
}

#[test]
fn a_lost_sector_is_lost_data() {
    let disk = three_frames();
    let from = usize::try_from(FRAMES_FROM).unwrap();
    disk.edit(FIRST, |content| content[from..from + SECTOR_BYTES].fill(0));
    assert!(matches!(refusal(&disk), WalError::DataLost { .. }));
}

/// No flip anywhere, in a log closed or not, gives a wrong entry or loses more than the last frame.
#[test]
fn no_flipped_bit_ever_gives_a_wrong_value() {
    for is_closed in [false, true] {
        let disk = if is_closed {
            closed(three_frames())
        } else {
            three_frames()
        };
        let whole = disk.content(FIRST);
        // Steps of three come to each bit of a byte in turn.
        for offset in (0..u64::try_from(whole.len()).unwrap()).step_by(3) {
            disk.flip_bit(FIRST, offset, u32::try_from(offset % 8).unwrap());
            if let Ok(recovered) = recover_log(&disk) {
                let log = recovered.open(START).unwrap();
                let (first, last) = span(&log);
                assert_eq!(first, 2);
                assert!(
                    last == 31 || (last == 21 && log.is_behind && !is_closed),
                    "flip at {offset}: {last}"
                );
            }
            disk.process_killed();
            disk.edit(FIRST, |content| content.clone_from(&whole));
        }
    }
}

#[test]
fn after_a_clean_stop_every_bad_frame_is_damage() {
    for distance in [40, 100, 1000, 3000] {
        let disk = closed(three_frames());
        disk.flip_bit(FIRST, last_written(&disk, FIRST) - distance, 0);
        let error = refusal(&disk);
        assert!(matches!(error, WalError::DataLost { .. }), "{distance}: {error}");
    }
    let disk = closed(three_frames());
    let end = last_written(&disk, FIRST);
    disk.flip_bit(FIRST, end + 100, 0);
    let error = refusal(&disk);
    assert!(matches!(error, WalError::Damaged { .. }), "{error}");
}

#[test]
fn the_mark_of_a_clean_stop_does_not_outlive_it() {
    let disk = closed(three_frames());
    let log = open_log(&disk);
    assert_eq!(log.tail, Tail::Closed);
    drop(log);
    disk.power_cut();
    let log = open_log(&disk);
    assert_eq!(log.tail, Tail::Open);
    assert_eq!(span(&log), (2, 31));
}

#[test]
fn a_missing_segment_is_named() {
    let disk = many_segments();
    let directory = directory(&disk);
    directory.remove("0000000000000002.segment").unwrap();
    let error = refusal(&disk);
    assert!(
        matches!(&error, WalError::MissingSegment { file } if file == SECOND),
        "{error}"
    );

    let disk = many_segments();
    let last = last_segment(&disk);
    disk.below("wal")
        .remove(last.strip_prefix("wal/").unwrap())
        .unwrap();
    let error = refusal(&disk);
    assert!(
        matches!(&error, WalError::MissingSegment { file } if *file == last),
        "{error}"
    );
}

#[test]
fn a_log_without_its_oldest_segment_does_not_follow_the_checkpoint() {
    let disk = many_segments();
    disk.below("wal").remove("0000000000000001.segment").unwrap();
    let recovered = recover_log(&disk).unwrap();
    assert_eq!(recovered.continuity(START).unwrap(), Continuity::Gap);
    let error = recovered.open(START).unwrap_err();
    assert!(matches!(error, WalError::Gap { .. }), "{error}");
    assert!(error.to_string().contains("begins after index"), "{error}");
}

#[test]
fn files_of_others_are_refused() {
    let others = [
        Identity {
            cluster: ClusterId::new(0xc2),
            ..IDENTITY
        },
        Identity {
            node: NodeId::new(0x12),
            ..IDENTITY
        },
    ];
    for other in others {
        let disk = three_frames();
        let error = recover(directory(&disk), other, options()).unwrap_err();
        assert!(matches!(error, WalError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(FIRST), "{error}");
        assert!(error.to_string().contains("node 11 of cluster c1"), "{error}");
    }
    // A segment under another's name.
    let disk = many_segments();
    let first = disk.content(FIRST);
    disk.edit(SECOND, |content| *content = first);
    assert!(matches!(refusal(&disk), WalError::Foreign { .. }));
    // A segment of another log of the same node.
    let other = MemoryDisk::new(2);
    let mut log = create(directory(&other), IDENTITY, START, SALT + 1, options()).unwrap();
    fill(&mut log, 30);
    let disk = many_segments();
    disk.edit(SECOND, |content| *content = other.content(SECOND));
    assert!(matches!(refusal(&disk), WalError::Foreign { .. }));
}

#[test]
fn a_newer_format_is_refused() {
    let disk = three_frames();
    disk.edit(FIRST, |content| {
        content[8] = 2;
        let crc = crc32c::crc32c(&content[..64]);
        content[64..68].copy_from_slice(&crc.to_le_bytes());
    });
    let error = refusal(&disk);
    assert!(
        matches!(
            error,
            WalError::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("run the newer release again"),
        "{error}"
    );
}

#[test]
fn a_damaged_header_is_never_a_crash() {
    for offset in [0, 9, 20, 40, 66] {
        let disk = three_frames();
        disk.flip_bit(FIRST, offset, 1);
        let error = refusal(&disk);
        assert!(
            matches!(error, WalError::DamagedHeader { .. }),
            "{offset}: {error}"
        );
    }
    let disk = three_frames();
    disk.edit(FIRST, Vec::clear);
    assert!(matches!(refusal(&disk), WalError::DamagedHeader { .. }));
}

#[test]
fn an_empty_directory_holds_no_log() {
    let disk = MemoryDisk::new(1);
    assert!(!crate::wal::exists(&*directory(&disk)).unwrap());
    assert!(matches!(refusal(&disk), WalError::Empty { .. }));
    drop(create_log(&disk));
    assert!(crate::wal::exists(&*directory(&disk)).unwrap());
    let again = create(directory(&disk), IDENTITY, START, SALT, options()).unwrap_err();
    assert!(matches!(again, WalError::AlreadyThere { .. }));
}

#[test]
fn a_full_disk_stops_nothing_that_was_acknowledged_and_goes_on_when_there_is_space() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    log.keeper.prepare().unwrap();
    disk.limit_bytes(Some(disk.bytes()));
    let mut acked = 1;
    let error = loop {
        log.writer.append(&frame(acked + 1, 10, 2)).unwrap();
        match log.writer.commit() {
            Ok(_) => acked += 10,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WalError::NoSpace { .. }), "{error}");
    let segments = directory(&disk).list().unwrap().len();
    assert_eq!(segments, 1 + options().spares, "the spares were not used");
    assert!(matches!(log.keeper.prepare(), Err(WalError::NoSpace { .. })));
    assert!(
        matches!(log.writer.commit(), Err(WalError::NoSpace { .. })),
        "a full disk is not the end"
    );

    // A checkpoint lets old segments go, and they are what the log goes on in.
    log.keeper.release(LogIndex::new(acked)).unwrap();
    log.writer.commit().unwrap();
    drop(log);
    disk.power_cut();
    let log = open_log_at(&disk, acked);
    assert_eq!(log.reader.last_index().unwrap().get(), acked + 10);
}

#[test]
fn a_crash_on_a_full_disk_loses_nothing_acknowledged() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    disk.limit_bytes(Some(disk.bytes()));
    let mut acked = 1;
    loop {
        log.writer.append(&frame(acked + 1, 10, 2)).unwrap();
        if log.writer.commit().is_err() {
            break;
        }
        acked += 10;
    }
    drop(log);
    disk.power_cut();
    assert_eq!(span(&open_log(&disk)), (2, acked));
}

fn open_log_at(disk: &MemoryDisk, index: u64) -> crate::wal::Log {
    let position = LogPosition {
        index: LogIndex::new(index),
        term: Term::new(2),
    };
    recover_log(disk).unwrap().open(position).unwrap()
}

#[test]
fn a_failed_fsync_is_the_end_of_the_writer() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 2);
    disk.fail_sync_after(0);
    log.writer.append(&frame(22, 10, 2)).unwrap();
    let error = log.writer.commit().unwrap_err();
    assert!(matches!(error, WalError::Io { action: "fsync", .. }), "{error}");
    // The disk works again, and still nothing may be promised.
    assert!(matches!(log.writer.commit(), Err(WalError::Stopped { .. })));
    assert!(matches!(
        log.writer.append(&frame(22, 10, 2)),
        Err(WalError::Stopped { .. })
    ));
    assert!(matches!(log.writer.close(), Err(WalError::Stopped { .. })));

    // The next process sees the frame in the system's cache, and must not believe that it is durable.
    disk.process_killed();
    let log = open_log(&disk);
    assert_eq!(span(&log), (2, 31));
    drop(log);
    disk.power_cut();
    assert_eq!(span(&open_log(&disk)), (2, 31));
}

#[test]
fn old_frames_of_a_recycled_segment_are_never_read() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    let mut recycled = false;
    for _ in 0..20 {
        fill(&mut log, 9);
        let last = log.reader.last_index().unwrap();
        log.keeper.release(last).unwrap();
        fill(&mut log, 1);
        drop(log);
        disk.process_killed();
        let recovered = recover_log(&disk).unwrap();
        assert_eq!(*recovered.tail(), Tail::Open);
        let name = last_segment(&disk);
        let content = disk.content(&name);
        recycled |= content[12] == 1 && content.windows(4).filter(|bytes| bytes == b"HWLF").count() > 5;
        log = recovered
            .open(LogPosition {
                index: last,
                term: Term::new(2),
            })
            .unwrap();
        assert_eq!(log.reader.last_index().unwrap().get(), last.get() + 10);
        assert_eq!(span(&log).1, last.get() + 10);
    }
    assert!(recycled, "no segment with old frames was ever written");
}

#[test]
fn a_torn_frame_in_a_recycled_segment_is_cut() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    while !last_segment_is_recycled(&disk) {
        fill(&mut log, 3);
        log.keeper.release(log.reader.last_index().unwrap()).unwrap();
    }
    let from = log.reader.begins_after().unwrap();
    fill(&mut log, 2);
    let last = log.reader.last_index().unwrap().get();
    drop(log);
    disk.process_killed();
    // The last frame is where its last entry's text stands.
    let name = last_segment(&disk);
    let text = format!("{last:050}{:050}", 2).into_bytes();
    let at = disk
        .content(&name)
        .windows(100)
        .rposition(|bytes| bytes == text)
        .unwrap();
    disk.flip_bit(&name, at as u64, 0);
    let recovered = recover_log(&disk).unwrap();
    assert!(
        matches!(recovered.tail(), Tail::Torn { .. }),
        "{:?}",
        recovered.tail()
    );
    let log = recovered
        .open(LogPosition {
            index: from,
            term: Term::new(2),
        })
        .unwrap();
    assert_eq!(span(&log).1, last - 10);
}

fn last_segment_is_recycled(disk: &MemoryDisk) -> bool {
    disk.content(&last_segment(disk))[12] == 1
}

/// A client may store anything, also what looks like our frames.
#[test]
fn a_value_that_holds_frames_does_not_turn_a_torn_tail_into_lost_data() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 1);
    // Frames of a log of the same node in the same segment with a higher sequence, but of another salt.
    let other = MemoryDisk::new(2);
    fill(
        &mut create(directory(&other), IDENTITY, START, SALT + 1, options()).unwrap(),
        3,
    );
    let from = usize::try_from(FRAMES_FROM).unwrap();
    let mut value = other.content(FIRST)[from..from + 1800].to_vec();
    // And a frame of this log, which a backup may well hold.
    value.extend_from_slice(&disk.content(FIRST)[from..from + 200]);
    log.writer
        .append(&LogFrame {
            entries: vec![entry(12, 2, &value)],
            hard_state: None,
        })
        .unwrap();
    log.writer.commit().unwrap();
    drop(log);
    disk.process_killed();
    disk.flip_bit(FIRST, last_written(&disk, FIRST) - 1, 0);
    let recovered = recover_log(&disk).unwrap();
    assert!(
        matches!(recovered.tail(), Tail::Torn { .. }),
        "{:?}",
        recovered.tail()
    );
    assert_eq!(span(&recovered.open(START).unwrap()), (2, 11));
}

#[test]
fn damage_that_comes_while_the_node_runs_is_an_error_of_the_read() {
    let disk = many_segments();
    let log = open_log(&disk);
    disk.flip_bit(FIRST, FRAMES_FROM + 200, 0);
    let error = log
        .reader
        .entries(LogIndex::new(2), LogIndex::new(5), 1000)
        .unwrap_err();
    assert!(
        matches!(&error, WalError::Damaged { file, .. } if file == FIRST),
        "{error}"
    );
    assert_eq!(
        log.reader
            .entries(LogIndex::new(290), LogIndex::new(295), usize::MAX)
            .unwrap()
            .len(),
        5
    );
}
