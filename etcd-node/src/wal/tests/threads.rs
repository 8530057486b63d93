//! The log's threads: reports come in order and after the fsync, a full disk waits, an error ends everything.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::ids::LogIndex;
use proto::peer::LogFrame;

use super::support::*;
use crate::disk::memory::MemoryDisk;
use crate::wal::thread::{Job, LogThread, QUEUE_JOBS_MAX, Report, SubmitError};
use crate::wal::{Log, Tail, WalError};

/// A test that waits longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);

fn start(log: Log) -> (LogThread, Receiver<Report>) {
    let (reports, incoming) = channel();
    let on_report = Box::new(move |report| drop(reports.send(report)));
    (LogThread::spawn(log.writer, on_report, None).unwrap(), incoming)
}

fn job(number: u64, count: u64) -> Job {
    Job {
        number,
        restart: None,
        frame: frame(2 + (number - 1) * count, count, 2),
    }
}

/// Waits for a report of this job; the numbers before it rise.
fn wait_for(reports: &Receiver<Report>, number: u64) {
    let mut last = 0;
    while last < number {
        if let Report::Persisted { number } = reports.recv_timeout(DEADLINE).unwrap() {
            assert!(number > last, "{number} after {last}");
            last = number;
        }
    }
    assert_eq!(last, number);
}

#[test]
fn jobs_are_reported_in_order_and_close_is_clean() {
    let disk = MemoryDisk::new(1);
    let log = create_log(&disk);
    let syncs = Arc::new(Mutex::new(0));
    let (reports, incoming) = channel();
    let on_report = Box::new(move |report| drop(reports.send(report)));
    let counted = Arc::clone(&syncs);
    let on_sync = Box::new(move |_| *counted.lock().unwrap() += 1);
    let thread = LogThread::spawn(log.writer, on_report, Some(on_sync)).unwrap();
    for number in 1..=500 {
        thread.handle().submit(job(number, 3)).unwrap();
    }
    wait_for(&incoming, 500);
    thread.close().unwrap();
    assert!(*syncs.lock().unwrap() > 0);
    disk.power_cut();
    let log = open_log(&disk);
    assert_eq!(log.tail, Tail::Closed);
    assert_eq!(span(&log), (2, 1501));
}

/// The power goes while a report is being made: what it reports is there, and so is all before.
#[test]
fn a_report_comes_after_the_fsync_that_covers_it() {
    for cut_at in 1..40 {
        let disk = MemoryDisk::new(cut_at);
        let log = create_log(&disk);
        let reported = Arc::new(Mutex::new((0, 0)));
        let (seen, cut_disk) = (Arc::clone(&reported), disk.clone());
        let on_report = Box::new(move |report| {
            let mut seen = seen.lock().unwrap();
            if let Report::Persisted { number } = report
                && seen.0 < cut_at
            {
                *seen = (seen.0 + 1, number);
                if seen.0 == cut_at {
                    cut_disk.power_cut();
                }
            }
        });
        let thread = LogThread::spawn(log.writer, on_report, None).unwrap();
        for number in 1..=200 {
            if thread.handle().submit(job(number, 2)).is_err() {
                break;
            }
        }
        let closed = thread.close();
        let (reports, number) = *reported.lock().unwrap();
        assert!(
            reports < cut_at || closed.is_err(),
            "handles of before the cut still work"
        );
        if closed.is_err() {
            let last = span(&open_log(&disk)).1;
            assert!(
                last > number * 2,
                "job {number} was reported, the log ends at {last}"
            );
        }
    }
}

#[test]
fn an_error_is_reported_and_nothing_is_taken_after_it() {
    let disk = MemoryDisk::new(1);
    let (thread, reports) = start(create_log(&disk));
    thread.handle().submit(job(1, 2)).unwrap();
    wait_for(&reports, 1);
    // Spares may be synced meanwhile; the power goes for all handles.
    disk.power_cut();
    thread.handle().submit(job(2, 2)).unwrap();
    let error = loop {
        match reports.recv_timeout(DEADLINE).unwrap() {
            Report::Failed { error } => break error,
            Report::Persisted { .. } => panic!("persisted after the cut"),
            Report::Full { .. } | Report::SpareMissing { .. } => {}
        }
    };
    assert!(matches!(error, WalError::Io { .. }), "{error}");
    let handle = thread.handle();
    assert!(matches!(thread.close(), Err(WalError::Stopped { .. })));
    assert!(matches!(handle.submit(job(3, 2)), Err(SubmitError::Stopped(job)) if job.number == 3));
}

#[test]
fn a_full_disk_is_waited_out_until_a_release_gives_room() {
    let disk = MemoryDisk::new(1);
    let log = create_log(&disk);
    log.keeper.prepare().unwrap();
    let reader = log.reader.clone();
    disk.limit_bytes(Some(disk.bytes()));
    let (thread, reports) = start(log);
    let handle = thread.handle();
    let (mut submitted, mut persisted, mut spare_missing) = (0, 0, false);
    loop {
        if submitted == persisted {
            submitted += 1;
            handle.submit(job(submitted, 10)).unwrap();
        }
        match reports.recv_timeout(DEADLINE).unwrap() {
            Report::Persisted { number } => persisted = number,
            Report::SpareMissing { .. } => spare_missing = true,
            Report::Full { .. } => break,
            Report::Failed { error } => panic!("{error}"),
        }
    }
    assert!(spare_missing, "nobody was told that the disk fills up");
    assert!(persisted < submitted);
    handle.release(reader.last_index().unwrap());
    loop {
        match reports.recv_timeout(DEADLINE).unwrap() {
            Report::Persisted { number } => break assert_eq!(number, submitted),
            Report::Full { .. } | Report::SpareMissing { .. } => {}
            Report::Failed { error } => panic!("{error}"),
        }
    }
    thread.close().unwrap();
}

#[test]
fn closing_on_a_full_disk_does_not_wait() {
    let disk = MemoryDisk::new(1);
    let log = create_log(&disk);
    disk.limit_bytes(Some(disk.bytes()));
    let (thread, reports) = start(log);
    for number in 1..=10 {
        thread.handle().submit(job(number, 10)).unwrap();
    }
    while !matches!(reports.recv_timeout(DEADLINE).unwrap(), Report::Full { .. }) {}
    assert!(thread.close().is_err());
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let disk = MemoryDisk::new(1);
    let log = create_log(&disk);
    disk.limit_bytes(Some(disk.bytes()));
    let (thread, reports) = start(log);
    for number in 1..=10 {
        thread.handle().submit(job(number, 10)).unwrap();
    }
    while !matches!(reports.recv_timeout(DEADLINE).unwrap(), Report::Full { .. }) {}
    // The thread waits for space and takes nothing: the queue fills.
    let mut number = 11;
    let refused = loop {
        match thread.handle().submit(job(number, 10)) {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SubmitError::Full(job) if job.number == number));
    assert!(number > QUEUE_JOBS_MAX as u64);
    assert!(thread.close().is_err());
}

#[test]
fn restarts_and_the_word_that_a_node_caught_up_go_through_the_queue() {
    let disk = MemoryDisk::new(1);
    fill(&mut create_log(&disk), 3);
    disk.process_killed();
    let name = last_segment(&disk);
    disk.flip_bit(&name, last_written(&disk, &name), 0);
    let log = open_log(&disk);
    assert!(log.is_behind);
    let (thread, reports) = start(log);
    let position = crate::wal::LogPosition {
        index: LogIndex::new(90),
        term: proto::ids::Term::new(4),
    };
    let frame = LogFrame {
        entries: frame(91, 2, 4).entries,
        hard_state: Some(hard_state(4, 0, 90)),
    };
    thread
        .handle()
        .submit(Job {
            number: 1,
            restart: Some(position),
            frame,
        })
        .unwrap();
    wait_for(&reports, 1);
    assert!(thread.handle().caught_up());
    thread.close().unwrap();
    disk.power_cut();
    let log = recover_log(&disk).unwrap().open(position).unwrap();
    assert!(!log.is_behind);
    assert_eq!(span(&log), (91, 92));
    assert_eq!(log.hard_state, hard_state(4, 0, 90));
}
