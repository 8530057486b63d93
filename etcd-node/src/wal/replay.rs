//! Reads the frames of a log in order and decides what stands after the last one.

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{LogIndex, Term};
use proto::peer::RaftHardState;

use super::frame::{Body, HEADER_BYTES, Header, Kind};
use super::index::{Index, Place, Summary};
use super::segment::{FRAMES_FROM, Segment};
use super::window::{Found, Window};
use super::{Sequence, WalError};
use crate::disk::Disk;

/// What the frames read so far say.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) index: Index,
    pub(super) hard_state: Option<RaftHardState>,
    pub(super) is_behind: bool,
    pub(super) sequence_next: Sequence,
    /// The last valid frame: only it can be visible and not durable.
    pub(super) last_frame: Option<Place>,
}

/// Where the frames end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) stop: Stop,
    /// Bytes to wipe after the end: in a segment that was never used before, everything that is not zero.
    pub(super) garbage_to: u64,
}

/// What stands where the next frame would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Zeros.
    Zero,
    /// Something that is no frame.
    Bad,
    /// The frame that closes a log; the offset is its own.
    Closed,
}

impl Replay {
    pub(super) fn new(sequence_next: Sequence) -> Self {
        Self {
            index: Index::default(),
            hard_state: None,
            is_behind: false,
            sequence_next,
            last_frame: None,
        }
    }

    pub(super) fn run(&mut self, dir: &dyn Disk, segments: &[Arc<Segment>]) -> Result<End, WalError> {
        for (at, segment) in segments.iter().enumerate() {
            let later = &segments[at + 1..];
            if let Some(end) = self.read_segment(segment)? {
                return judge(end, self.sequence_next, later);
            }
            if later.is_empty() {
                let file = dir.describe(&segment.id().next().file_name());
                return Err(WalError::MissingSegment { file });
            }
            let first_sequence = later[0].header.first_sequence;
            if first_sequence != self.sequence_next {
                let detail = format!("its first frame is {first_sequence}, not {}", self.sequence_next);
                return Err(later[0].damaged(0, detail));
            }
        }
        unreachable!("the last segment either ends the log or names the next one")
    }

    /// Reads frames until the segment says that the next one follows, or the frames end.
    fn read_segment(&mut self, segment: &Arc<Segment>) -> Result<Option<End>, WalError> {
        let mut window = Window::new(segment);
        let mut offset = FRAMES_FROM;
        loop {
            let stop = match window.frame(offset)? {
                Found::Zero => Stop::Zero,
                Found::Bad => Stop::Bad,
                Found::Frame(header, _) if header.sequence != self.sequence_next => Stop::Bad,
                Found::Frame(header, _) if header.kind == Kind::End => {
                    self.sequence_next = header.sequence;
                    self.is_behind = header.is_behind;
                    Stop::Closed
                }
                Found::Frame(header, body) => {
                    let to = offset + header.frame_bytes();
                    let place = Place {
                        segment: segment.id(),
                        from: offset,
                        to,
                    };
                    self.take(place, &header, body)
                        .map_err(|detail| segment.damaged(offset, detail))?;
                    if header.kind == Kind::Roll {
                        return Ok(None);
                    }
                    offset = to;
                    continue;
                }
            };
            return Ok(Some(End {
                segment: Arc::clone(segment),
                offset,
                stop,
                garbage_to: offset,
            }));
        }
    }

    fn take(&mut self, place: Place, header: &Header, body: Bytes) -> Result<(), String> {
        let body = Body::decode(header.kind, body)?;
        if let Some(position) = body.restart {
            self.index.restart(position, place.segment);
        }
        let mut summary = Summary::default();
        for entry in &body.entries {
            let index = LogIndex::new(entry.index);
            if entry.index == 0 || (summary.first.is_some() && index > summary.last.next()) {
                return Err(format!("entry {index} follows entry {}", summary.last));
            }
            summary.push(index, Term::new(entry.term));
        }
        self.index
            .add(place, &summary)
            .map_err(|gap| format!("entry {} follows entry {}", gap.first, gap.last))?;
        if body.hard_state.is_some() {
            self.hard_state = body.hard_state;
        }
        self.is_behind = header.is_behind;
        self.sequence_next = header.sequence.next();
        self.last_frame = Some(place);
        Ok(())
    }

    /// A hard state is never written before the entries that it calls committed.
    pub(super) fn check_commit(&self, end: &End) -> Result<(), WalError> {
        let commit = self.hard_state.as_ref().map_or(0, |hard_state| hard_state.commit);
        match self.index.last() {
            Some(last) if commit > last.get() => {
                let detail = format!("entries up to {commit} are committed, the log ends at {last}");
                Err(end.segment.damaged(end.offset, detail))
            }
            _ => Ok(()),
        }
    }
}

/// Decides what the end of the frames means, from everything that stands after it.
fn judge(mut end: End, sequence_next: Sequence, later: &[Arc<Segment>]) -> Result<End, WalError> {
    let lost = |segment: &Segment, later_offset| WalError::DataLost {
        file: end.segment.path.clone(),
        offset: end.offset,
        later_file: segment.path.clone(),
        later_offset,
    };
    let after = match end.stop {
        Stop::Closed => end.offset + HEADER_BYTES as u64,
        Stop::Zero | Stop::Bad => end.offset,
    };
    let rest = Window::new(&end.segment).scan(after, sequence_next)?;
    if let Some(offset) = rest.frame_at {
        return Err(lost(&end.segment, offset));
    }
    for segment in later {
        if let Some(offset) = Window::new(segment).scan(FRAMES_FROM, sequence_next)?.frame_at {
            return Err(lost(segment, offset));
        }
    }
    // One segment may wait unused for the frame that names it. That a second one was made shows that the first
    // was full.
    if let [_, second, ..] = later {
        return Err(lost(second, 0));
    }
    if !end.segment.header.is_recycled && rest.written_to > after {
        if end.stop == Stop::Closed {
            return Err(end.segment.damaged(after, "the log was closed before this byte"));
        }
        end.stop = Stop::Bad;
        end.garbage_to = rest.written_to;
    }
    // A segment has its full size before its first use and no crash shortens it.
    if end.stop == Stop::Zero && end.segment.length()? < end.segment.header.bytes {
        end.stop = Stop::Bad;
    }
    Ok(end)
}
