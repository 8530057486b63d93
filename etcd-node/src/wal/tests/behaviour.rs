//! What a log does when nothing is broken: truncation, restarts, release, limits, hard states.

use proto::ids::{LogIndex, Term};
use proto::peer::LogFrame;

use super::support::*;
use crate::disk::memory::MemoryDisk;
use crate::wal::index::{Index, Place, Summary};
use crate::wal::segment::SegmentId;
use crate::wal::{Continuity, LogPosition, WalError};

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition {
        index: LogIndex::new(index),
        term: Term::new(term),
    }
}

fn indexes_and_terms(log: &crate::wal::Log) -> Vec<(u64, u64)> {
    all_entries(log)
        .iter()
        .map(|entry| (entry.index, entry.term))
        .collect()
}

#[test]
fn later_entries_replace_those_at_and_after_their_index() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    for (from, count, term) in [(2, 4, 2), (6, 4, 2), (4, 1, 3), (5, 2, 3)] {
        log.writer.append(&frame(from, count, term)).unwrap();
        log.writer.commit().unwrap();
    }
    // And within one frame, also below its own first entry.
    log.writer.append(&frame(7, 3, 3)).unwrap();
    log.writer.append(&frame(6, 1, 4)).unwrap();
    log.writer.append(&frame(7, 1, 4)).unwrap();
    log.writer.commit().unwrap();
    let expected = [(2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)];
    assert_eq!(indexes_and_terms(&log), expected);
    drop(log);
    disk.process_killed();
    let log = open_log(&disk);
    assert_eq!(indexes_and_terms(&log), expected);
    for (index, term) in expected {
        assert_eq!(log.reader.term(LogIndex::new(index)), Some(Term::new(term)));
    }
    assert_eq!(log.reader.term(LogIndex::new(8)), None);
    assert_eq!(log.reader.last(), position(7, 4));
}

#[test]
fn reads_are_bounded_and_name_what_is_not_there() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 30);
    let read = |from, until, bytes| {
        log.reader
            .entries(LogIndex::new(from), LogIndex::new(until), bytes)
    };
    assert_eq!(read(5, 5, 1).unwrap().len(), 0);
    assert_eq!(read(5, 100, 0).unwrap().len(), 1, "one entry is always given");
    assert_eq!(read(5, 100, 250).unwrap().len(), 3);
    assert_eq!(read(5, 302, usize::MAX).unwrap().len(), 297);
    assert!(matches!(read(5, 303, 1), Err(WalError::NotThere { .. })));
    assert!(matches!(read(1, 5, 1), Err(WalError::Released { .. })));
    log.keeper.release(LogIndex::new(200)).unwrap();
    assert!(matches!(read(5, 10, 1), Err(WalError::Released { .. })));
    assert_eq!(read(200, 201, 1).unwrap()[0].index, 200);
}

#[test]
fn release_keeps_the_entry_it_names_and_the_hard_state() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    log.writer
        .append(&LogFrame {
            entries: Vec::new(),
            hard_state: Some(hard_state(2, 3, 1)),
        })
        .unwrap();
    log.writer.commit().unwrap();
    fill(&mut log, 60);
    let spares_before = log.keeper.spares_ready();
    log.keeper.release(LogIndex::new(500)).unwrap();
    assert!(log.reader.begins_after().unwrap().get() < 500);
    assert!(log.reader.begins_after().unwrap().get() > 300);
    assert_eq!(log.reader.term(LogIndex::new(500)), Some(Term::new(2)));
    assert!(log.keeper.spares_ready() > spares_before);
    assert!(log.keeper.spares_ready() <= options().spares_max);
    drop(log);
    disk.power_cut();
    let recovered = recover_log(&disk).unwrap();
    assert_eq!(
        recovered.continuity(position(500, 2)).unwrap(),
        Continuity::Follows
    );
    assert_eq!(recovered.continuity(position(100, 2)).unwrap(), Continuity::Gap);
    let log = recovered.open(position(500, 2)).unwrap();
    assert_eq!(
        (log.hard_state.term, log.hard_state.vote, log.hard_state.commit),
        (2, 3, 500)
    );
    assert_eq!(span(&log).1, 601);
    // Nothing beyond the log's end can be released: the last entry stays.
    log.keeper.release(LogIndex::new(10_000)).unwrap();
    assert_eq!(log.reader.term(LogIndex::new(601)), Some(Term::new(2)));
}

#[test]
fn a_release_that_the_disk_refuses_leaves_no_hole() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 60);
    disk.refuse_names();
    assert!(log.keeper.release(LogIndex::new(500)).is_err());
    assert_eq!(span(&log), (2, 601));
    disk.clear_faults();
    log.keeper.release(LogIndex::new(300)).unwrap();
    drop(log);
    disk.power_cut();
    let log = recover_log(&disk).unwrap().open(position(300, 2)).unwrap();
    assert_eq!(span(&log).1, 601);
}

#[test]
fn a_restart_voids_what_was_before() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 3);
    log.writer.restart(position(20, 7));
    log.writer.append(&frame(21, 3, 7)).unwrap();
    log.writer.commit().unwrap();
    drop(log);
    disk.power_cut();
    let recovered = recover_log(&disk).unwrap();
    assert_eq!(
        recovered.continuity(position(20, 7)).unwrap(),
        Continuity::Follows
    );
    assert_eq!(recovered.continuity(position(10, 2)).unwrap(), Continuity::Gap);
    let log = recovered.open(position(20, 7)).unwrap();
    assert_eq!(span(&log), (21, 23));
    log.keeper.release(LogIndex::new(20)).unwrap();
    assert_eq!(span(&log), (21, 23));
}

#[test]
fn a_checkpoint_that_the_log_does_not_reach_begins_it_anew() {
    // Received and durable, and the node died before the log heard of it.
    for checkpoint in [position(500, 7), position(20, 7)] {
        let disk = MemoryDisk::new(1);
        let mut log = create_log(&disk);
        fill(&mut log, 3);
        drop(log);
        disk.power_cut();
        let recovered = recover_log(&disk).unwrap();
        assert_eq!(recovered.continuity(checkpoint).unwrap(), Continuity::Superseded);
        let mut log = recovered.open(checkpoint).unwrap();
        assert_eq!(log.hard_state.commit, checkpoint.index.get());
        assert_eq!(log.reader.last(), checkpoint);
        log.writer
            .append(&frame(checkpoint.index.get() + 1, 1, 7))
            .unwrap();
        log.writer.commit().unwrap();
        drop(log);
        disk.power_cut();
        let log = recover_log(&disk).unwrap().open(checkpoint).unwrap();
        assert_eq!(indexes_and_terms(&log), [(checkpoint.index.get() + 1, 7)]);
    }
}

#[test]
fn a_checkpoint_of_another_history_is_refused() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 3);
    log.writer
        .append(&LogFrame {
            entries: Vec::new(),
            hard_state: Some(hard_state(2, 0, 25)),
        })
        .unwrap();
    log.writer.commit().unwrap();
    drop(log);
    disk.process_killed();
    let error = recover_log(&disk).unwrap().open(position(20, 7)).unwrap_err();
    assert!(matches!(error, WalError::OtherHistory { .. }), "{error}");
}

#[test]
fn frames_staged_together_share_one_fsync() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    let before = disk.syncs();
    for index in 2..12 {
        log.writer.append(&frame(index, 1, 2)).unwrap();
    }
    let first = log.writer.commit().unwrap();
    assert_eq!(disk.syncs() - before, 1);
    assert_eq!(
        log.writer.commit().unwrap(),
        first,
        "nothing staged, nothing written"
    );
    assert_eq!(disk.syncs() - before, 1);
}

#[test]
fn more_than_a_frame_holds_becomes_several_that_each_make_sense() {
    for crash_after in 0..6 {
        let disk = MemoryDisk::new(crash_after);
        let mut log = create_log(&disk);
        log.writer
            .append(&LogFrame {
                entries: frame(2, 1, 2).entries,
                hard_state: Some(hard_state(2, 1, 2)),
            })
            .unwrap();
        log.writer.commit().unwrap();
        disk.fail_sync_after(crash_after);
        let entries = (3..9).map(|index| entry(index, 5, &[7; 3000])).collect();
        log.writer
            .append(&LogFrame {
                entries,
                hard_state: Some(hard_state(5, 4, 8)),
            })
            .unwrap();
        assert!(log.writer.commit().is_err());
        drop(log);
        disk.power_cut();
        let log = open_log(&disk);
        let last = log.reader.last();
        assert!(log.hard_state.commit <= last.index.get());
        assert!(
            log.hard_state.term >= last.term.get(),
            "an entry's term is unknown to the hard state"
        );
        if last.index.get() < 8 {
            assert_eq!(log.hard_state.commit, 2);
        }
    }
}

#[test]
fn an_entry_that_no_frame_holds_is_refused_whole() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    let entries = vec![entry(2, 2, b"small"), entry(3, 2, &[0; 13_000])];
    let error = log
        .writer
        .append(&LogFrame {
            entries,
            hard_state: None,
        })
        .unwrap_err();
    assert!(matches!(error, WalError::EntryTooLarge { .. }), "{error}");
    assert_eq!(log.writer.staged_bytes(), 0);
    fill(&mut log, 1);
    assert_eq!(span(&log), (2, 11));
}

#[test]
#[should_panic(expected = "log entry 4 does not follow the last one, 2")]
fn a_hole_in_the_log_is_our_bug() {
    let mut log = create_log(&MemoryDisk::new(1));
    log.writer.append(&frame(2, 1, 2)).unwrap();
    drop(log.writer.append(&frame(4, 1, 2)));
}

#[test]
#[should_panic(expected = "log entry 1 is at or before 1, where the log begins")]
fn what_a_checkpoint_holds_is_never_replaced() {
    let mut log = create_log(&MemoryDisk::new(1));
    drop(log.writer.append(&frame(1, 1, 2)));
}

#[test]
fn a_failed_fsync_on_the_way_into_the_next_segment_loses_nothing() {
    for fails_at in 0..6 {
        let disk = MemoryDisk::new(fails_at);
        let mut log = create_log(&disk);
        fill(&mut log, 3);
        disk.fail_sync_after(fails_at);
        log.writer.append(&frame(32, 10, 2)).unwrap();
        let is_acked = log.writer.commit().is_ok();
        drop(log);
        disk.clear_faults();
        disk.process_killed();
        let last = span(&open_log(&disk)).1;
        assert!(
            last == 41 || (last == 31 && !is_acked),
            "fsync {fails_at}: {last}"
        );
    }
}

/// The power goes between the birth of a segment and the frame that names it.
#[test]
fn a_segment_that_no_frame_names_is_no_damage_and_goes() {
    // Zeroing and header are two syncs, the frame that names the segment is the third.
    const NAMING_SYNC: u64 = 2;
    let is_named = |disk: &MemoryDisk| {
        let first = disk.content("wal/0000000000000001.segment");
        first.windows(7).any(|bytes| bytes == b"HWLF\x01\x00\x03")
    };
    let mut unnamed = 0;
    for seed in 0..20 {
        let disk = MemoryDisk::new(seed);
        let mut log = create_log(&disk);
        fill(&mut log, 3);
        disk.fail_sync_after(NAMING_SYNC);
        log.writer.append(&frame(32, 10, 2)).unwrap();
        assert!(log.writer.commit().is_err());
        drop(log);
        disk.power_cut();
        assert!(last_segment(&disk).ends_with("2.segment"));
        unnamed += u32::from(!is_named(&disk));
        let mut log = open_log(&disk);
        assert_eq!(
            last_segment(&disk).ends_with("2.segment"),
            is_named(&disk),
            "seed {seed}"
        );
        assert_eq!(span(&log), (2, 31));
        fill(&mut log, 3);
        assert_eq!(span(&log), (2, 61));
    }
    assert!(unnamed > 3, "{unnamed}");
}

#[test]
fn the_index_of_a_million_entries_is_small() {
    let mut index = Index::default();
    let (segment, frame_bytes) = (SegmentId::FIRST, 330);
    for number in 1..=1_000_000 {
        let mut summary = Summary::default();
        summary.push(LogIndex::new(number), Term::new(1 + number / 100_000));
        let (from, to) = (number * frame_bytes, (number + 1) * frame_bytes);
        index.add(Place { segment, from, to }, &summary).unwrap();
        // What a follower writes between: a commit index without entries.
        index
            .add(
                Place {
                    segment,
                    from: to,
                    to,
                },
                &Summary::default(),
            )
            .unwrap();
    }
    let (stretches, terms) = index.sizes();
    assert!(stretches < 6_000, "{stretches} stretches");
    assert_eq!(terms, 11);
    assert_eq!(index.term(LogIndex::new(499_999)), Some(Term::new(5)));
    let found = index.find(LogIndex::new(777_777)).unwrap();
    assert!(found.first <= LogIndex::new(777_777) && LogIndex::new(777_777) <= found.last);
}
