//! The table of damage: each row is one way to harm a log, and what the next start must say.

use super::support::*;
use crate::disk::memory::MemoryDisk;

#[test]
fn what_was_written_is_read_back_after_each_kind_of_end() {
    let disk = MemoryDisk::new(1);
    let mut log = create_log(&disk);
    fill(&mut log, 30);
    log.writer.close().unwrap();
    let mut log = open_log(&disk);
    assert_eq!(span(&log), (2, 301));
    fill(&mut log, 30);
    drop(log);
    disk.process_killed();
    let log = open_log(&disk);
    assert_eq!(span(&log), (2, 601));
    drop(log);
    disk.power_cut();
    assert_eq!(span(&open_log(&disk)), (2, 601));
}
