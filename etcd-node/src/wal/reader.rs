//! Reads entries back from disk, for what is no longer in memory. Any thread may read while another writes.

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{LogIndex, Term};
use proto::peer::RaftEntry;

use super::frame::{Body, Look};
use super::index::Stretch;
use super::keeper::Shared;
use super::segment::Segment;
use super::{LogPosition, WalError};
use crate::disk::to_usize;

/// Entries of the log, read from disk. Clones read the same log.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    /// The entry before the log's first: what came before is only in a checkpoint. None while the log never
    /// held anything.
    pub fn begins_after(&self) -> Option<LogIndex> {
        self.shared.state().index.origin().map(|origin| origin.index)
    }

    /// The last entry whose frame is synced, or the place the log begins after.
    pub fn last_index(&self) -> Option<LogIndex> {
        self.shared.state().index.last()
    }

    /// The term of a synced entry, or of the place the log begins after when it is known. No disk is touched.
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        self.shared.state().index.term(index)
    }

    /// The last entry's place; the term is zero when it is not known.
    pub fn last(&self) -> LogPosition {
        let state = self.shared.state();
        let index = state.index.last().unwrap_or_default();
        LogPosition {
            index,
            term: state.index.term(index).unwrap_or_default(),
        }
    }

    /// The entries from `from` up to and without `until`, in order: at least one when there is one, and no more
    /// once their data and context reach `bytes_max`. The data are slices of the stretches read.
    ///
    /// # Errors
    /// [`WalError::Released`] when `from` is before the log's first entry, [`WalError::NotThere`] when `until`
    /// is beyond its last plus one, [`WalError::Damaged`] when the disk no longer holds what was written.
    pub fn entries(
        &self,
        from: LogIndex,
        until: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<RaftEntry>, WalError> {
        let mut entries = Vec::new();
        let (mut next, mut bytes) = (from, 0_usize);
        while next < until && (entries.is_empty() || bytes < bytes_max) {
            let (segment, stretch) = self.locate(next, until)?;
            let read = match read_stretch(&segment, &stretch) {
                Ok(read) => read,
                Err(error) => {
                    // A segment that was released meanwhile may hold other frames already.
                    self.locate(next, until)?;
                    return Err(error);
                }
            };
            for entry in read {
                if entry.index != next.get() || next >= until || (!entries.is_empty() && bytes >= bytes_max) {
                    continue;
                }
                bytes += entry.data.len() + entry.context.len();
                entries.push(entry);
                next = next.next();
            }
            if next <= stretch.last && next < until && bytes < bytes_max {
                return Err(
                    segment.damaged(stretch.from, format!("entry {next} is not where it was written"))
                );
            }
        }
        Ok(entries)
    }

    fn locate(&self, index: LogIndex, until: LogIndex) -> Result<(Arc<Segment>, Stretch), WalError> {
        let state = self.shared.state();
        let log_ends_at = state.index.last().unwrap_or_default();
        if until > log_ends_at.next() {
            return Err(WalError::NotThere {
                index: until,
                log_ends_at,
            });
        }
        let found = state.index.find(index).and_then(|stretch| {
            let segment = state.segments.get(&stretch.segment)?;
            Some((Arc::clone(segment), stretch))
        });
        found.ok_or_else(|| {
            let log_begins_after = state.index.origin().map_or(log_ends_at, |origin| origin.index);
            WalError::Released {
                index,
                log_begins_after,
            }
        })
    }
}

/// The entries of a stretch as a replay leaves them, without those that a later stretch replaced.
fn read_stretch(segment: &Segment, stretch: &Stretch) -> Result<Vec<RaftEntry>, WalError> {
    let mut buffer = vec![0; to_usize(stretch.to - stretch.from)];
    let count = segment
        .file
        .read_at(&mut buffer, stretch.from)
        .map_err(|error| WalError::io("read", segment.path.clone(), error))?;
    buffer.truncate(count);
    let bytes = Bytes::from(buffer);
    let mut entries: Vec<RaftEntry> = Vec::new();
    let mut at = 0;
    while at < to_usize(stretch.to - stretch.from) {
        let (body, next) = read_frame(segment, &bytes, at)
            .map_err(|detail| segment.damaged(stretch.from + at as u64, detail))?;
        // The rest of the stretch was replaced later.
        if !body.entries.is_empty() && body.entries.iter().all(|entry| entry.index > stretch.last.get()) {
            break;
        }
        for entry in body.entries {
            while entries.last().is_some_and(|last| last.index >= entry.index) {
                entries.pop();
            }
            entries.push(entry);
        }
        at = next;
    }
    entries.retain(|entry| entry.index <= stretch.last.get());
    Ok(entries)
}

fn read_frame(segment: &Segment, bytes: &Bytes, at: usize) -> Result<(Body, usize), String> {
    let rest = &bytes[at.min(bytes.len())..];
    let head = &rest[..rest.len().min(super::frame::HEADER_BYTES)];
    let Look::Valid(header) = Look::at(head, segment.seed) else {
        return Err("no frame is where one was written".to_owned());
    };
    let from = at + super::frame::HEADER_BYTES;
    let to = at + to_usize(header.frame_bytes());
    if to > bytes.len() || !header.covers(&bytes[from..to], segment.seed) {
        return Err("a frame does not match its checksum".to_owned());
    }
    Ok((Body::decode(header.kind, bytes.slice(from..to))?, to))
}
