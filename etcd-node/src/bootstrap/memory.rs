//! How much data a node takes: a part of the memory that it has.

use std::fs;

/// At most, unless set (keyspace rules, section 5).
const QUOTA_BYTES_MAX: u64 = 2 << 30;
/// Part of the memory that live data may fill: history, checkpoints and the rest need as much again.
const QUOTA_PERCENT: u64 = 40;

/// The quota: as set, or by the machine's and the control group's memory.
pub fn quota_bytes(set: Option<u64>) -> u64 {
    set.unwrap_or_else(|| {
        let memory = [machine_bytes(), group_bytes()].into_iter().flatten().min();
        memory.map_or(QUOTA_BYTES_MAX, by_memory)
    })
}

fn by_memory(bytes: u64) -> u64 {
    (bytes / 100 * QUOTA_PERCENT).min(QUOTA_BYTES_MAX)
}

fn machine_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The limit of the own control group of version 2; "max" and absence mean none.
fn group_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit =
        fs::read_to_string(format!("/sys/fs/cgroup{}/memory.max", path.trim_end_matches('/'))).ok()?;
    limit.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_quota_is_taken_and_memory_bounds_the_default() {
        assert_eq!(quota_bytes(Some(7)), 7);
        assert_eq!(by_memory(1 << 30), (1 << 30) / 100 * 40);
        assert_eq!(by_memory(1 << 40), QUOTA_BYTES_MAX);
        assert!(machine_bytes().is_some_and(|bytes| bytes > 0));
    }
}
