//! Reads a log after a stop or a crash and decides what its end means.

use std::sync::Arc;

use proto::ids::LogIndex;
use proto::peer::RaftHardState;
use tracing::{info, warn};

use super::frame::HEADER_BYTES;
use super::keeper::{Listing, Shared};
use super::replay::{End, Replay, Stop};
use super::segment::{Segment, SegmentHeader, SegmentId};
use super::writer::Resume;
use super::{Identity, Keeper, LogPosition, LogReader, Options, WalError, Writer};
use crate::disk::{Disk, to_usize};

/// Wiping zeros are written in pieces of this size.
const WIPE_BYTES: usize = 1 << 20;

/// Whether a directory holds a log.
///
/// # Errors
/// When it cannot be listed.
pub fn exists(dir: &dyn Disk) -> Result<bool, WalError> {
    Ok(!Listing::read(dir)?.segments.is_empty())
}

/// How a log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The log was closed cleanly.
    Closed,
    /// The node ended without closing the log, after its last frame was written whole.
    Open,
    /// The last frame is bad and nothing valid follows. Most likely it was torn and never acknowledged; but
    /// nothing tells it from an acknowledged frame that was damaged later.
    Torn {
        /// The file.
        file: String,
        /// Where the bad frame begins.
        offset: u64,
    },
}

/// How a log and a checkpoint fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// The log goes on from the checkpoint: it holds the checkpoint's last entry, or begins right after it.
    Follows,
    /// Everything in the log is older than the checkpoint, or belongs to a history that the checkpoint, received
    /// from a leader, replaced. Opening the log with this checkpoint begins it anew.
    Superseded,
    /// Entries between the checkpoint and the log's first are not there.
    Gap,
}

/// A log that was read and checked, not yet opened for writing. Nothing on disk was changed.
#[derive(Debug)]
pub struct Recovered {
    shared: Shared,
    replay: Replay,
    tail: Tail,
    end: End,
    /// Segments after the one that is written, in which there is no frame.
    unused: Vec<SegmentId>,
    listing: Listing,
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    /// For the one thread that writes.
    pub writer: Writer,
    /// For any thread.
    pub reader: LogReader,
    /// For a helper thread.
    pub keeper: Keeper,
    /// The last hard state, its commit index raised to the checkpoint's when it was below. Default in a log
    /// without one.
    pub hard_state: RaftHardState,
    /// Whether this node cut a torn tail, now or before an earlier start, and has not told since that it caught
    /// up ([`Writer::caught_up`]): in a cluster it gives no votes and no acks until then.
    pub is_behind: bool,
    /// How the log ended.
    pub tail: Tail,
}

impl Log {
    pub(super) fn of(writer: Writer) -> Self {
        let (reader, keeper) = (writer.reader(), writer.keeper());
        let hard_state = writer.hard_state().unwrap_or_default();
        Self {
            writer,
            reader,
            keeper,
            hard_state,
            is_behind: false,
            tail: Tail::Closed,
        }
    }
}

/// Reads the whole log and checks every frame. Changes nothing.
///
/// # Errors
/// Each error of [`WalError`] that names damage, a foreign file, a newer format or a missing segment; the
/// message says what to do.
pub fn recover(dir: Arc<dyn Disk>, identity: Identity, options: Options) -> Result<Recovered, WalError> {
    options.check();
    let listing = Listing::read(&*dir)?;
    let segments = open_segments(&*dir, &listing.segments, identity)?;
    let mut replay = Replay::new(segments[0].header.first_sequence);
    let end = replay.run(&*dir, &segments)?;
    let written = segments
        .iter()
        .position(|segment| segment.id() == end.segment.id());
    let unused = segments
        .iter()
        .skip(written.map_or(0, |at| at + 1))
        .map(|segment| segment.id())
        .collect();
    let tail = match end.stop {
        Stop::Closed => Tail::Closed,
        Stop::Zero => Tail::Open,
        Stop::Bad => Tail::Torn {
            file: end.segment.path.clone(),
            offset: end.offset,
        },
    };
    replay.check_commit(&end)?;
    let shared = Shared::new(dir, options);
    {
        let mut state = shared.state();
        state.index = std::mem::take(&mut replay.index);
        let live = segments
            .into_iter()
            .filter(|segment| segment.id() <= end.segment.id());
        state.segments = live.map(|segment| (segment.id(), segment)).collect();
    }
    Ok(Recovered {
        shared,
        replay,
        tail,
        end,
        unused,
        listing,
    })
}

fn open_segments(
    dir: &dyn Disk,
    ids: &[SegmentId],
    identity: Identity,
) -> Result<Vec<Arc<Segment>>, WalError> {
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(ids.len());
    for id in ids {
        let name = id.file_name();
        let path = dir.describe(&name);
        if let Some(before) = segments.last() {
            let expected = before.id().next();
            if *id != expected {
                return Err(WalError::MissingSegment {
                    file: dir.describe(&expected.file_name()),
                });
            }
        }
        let file = dir
            .open(&name)
            .map_err(|error| WalError::io("open", path.clone(), error))?;
        let header = SegmentHeader::read(&*file, &path, (*id, identity))?;
        if let Some(before) = segments.last()
            && before.header.salt != header.salt
        {
            let (found, expected) = (
                "another log of this node".to_owned(),
                "on the log beside it".to_owned(),
            );
            return Err(WalError::Foreign {
                file: path,
                found,
                expected,
            });
        }
        segments.push(Arc::new(Segment::new(header, path, file)));
    }
    if segments.is_empty() {
        return Err(WalError::Empty {
            directory: dir.describe(""),
        });
    }
    Ok(segments)
}

impl Recovered {
    /// How the log ended.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Whether a torn tail is cut now, or was cut before and the node had not caught up since.
    pub fn is_behind(&self) -> bool {
        self.replay.is_behind || matches!(self.tail, Tail::Torn { .. })
    }

    /// The last hard state; none in a log without one.
    pub fn hard_state(&self) -> Option<RaftHardState> {
        self.replay.hard_state
    }

    /// The entry before the log's first; none when the log never held anything.
    pub fn begins_after(&self) -> Option<LogIndex> {
        self.shared.state().index.origin().map(|origin| origin.index)
    }

    /// The last entry, or the place the log begins after.
    pub fn last_index(&self) -> Option<LogIndex> {
        self.shared.state().index.last()
    }

    /// How the log fits a checkpoint that ends at this place. The newest intact checkpoint for which this is not
    /// [`Continuity::Gap`] is the one to start from.
    ///
    /// # Errors
    /// [`WalError::OtherHistory`] when the log holds another committed entry at that place.
    pub fn continuity(&self, checkpoint: LogPosition) -> Result<Continuity, WalError> {
        let state = self.shared.state();
        let (Some(origin), Some(last)) = (state.index.origin(), state.index.last()) else {
            return Ok(Continuity::Superseded);
        };
        if checkpoint.index < origin.index {
            return Ok(Continuity::Gap);
        }
        if checkpoint.index > last {
            return Ok(Continuity::Superseded);
        }
        match state.index.term(checkpoint.index) {
            // Only the place before the log's first entry can have no known term.
            None => Ok(Continuity::Follows),
            Some(term) if term == checkpoint.term => Ok(Continuity::Follows),
            Some(log_term) => {
                let commit = self
                    .replay
                    .hard_state
                    .as_ref()
                    .map_or(0, |hard_state| hard_state.commit);
                if commit < checkpoint.index.get() {
                    return Ok(Continuity::Superseded);
                }
                let directory = self.shared.dir.describe("");
                Err(WalError::OtherHistory {
                    directory,
                    checkpoint,
                    log_term,
                })
            }
        }
    }

    /// Opens the log for writing, to go on from a checkpoint that ends at this place. Repairs the end: a torn
    /// frame is overwritten by one that says so, the mark of a clean stop is wiped, and the last frame is written
    /// again, because a frame that is visible after a crash need not be durable.
    ///
    /// # Errors
    /// [`WalError::Gap`], [`WalError::OtherHistory`], and whatever the disk refuses.
    pub fn open(self, checkpoint: LogPosition) -> Result<Log, WalError> {
        let continuity = self.continuity(checkpoint)?;
        if continuity == Continuity::Gap {
            let log_begins_after = self.begins_after().unwrap_or_default();
            let directory = self.shared.dir.describe("");
            return Err(WalError::Gap {
                directory,
                checkpoint,
                log_begins_after,
            });
        }
        let is_behind = self.is_behind();
        let Self {
            shared,
            replay,
            tail,
            end,
            unused,
            listing,
        } = self;
        for id in &unused {
            shared.remove_unused(*id)?;
        }
        shared.add_spares(listing.tidy_spares(&*shared.dir, shared.options.segment_bytes)?);
        rewrite_last_frame(&shared, &replay)?;
        let resume = Resume {
            segment: Arc::clone(&end.segment),
            offset: end.offset,
            sequence_next: replay.sequence_next,
            hard_state: replay.hard_state,
            is_behind,
        };
        let mut writer = Writer::new(Arc::new(shared), resume);
        repair_end(&mut writer, &end)?;
        if continuity == Continuity::Superseded {
            info!(%checkpoint, "the log is older than the checkpoint and begins anew after it");
            writer.restart(checkpoint);
            writer.commit()?;
        }
        let mut log = Log {
            is_behind,
            tail,
            ..Log::of(writer)
        };
        log.hard_state.commit = log.hard_state.commit.max(checkpoint.index.get());
        Ok(log)
    }
}

/// The last frame was perhaps never synced, or its sync failed and the system keeps the bytes as clean: writing
/// them again makes them durable or fails.
fn rewrite_last_frame(shared: &Shared, replay: &Replay) -> Result<(), WalError> {
    let Some(place) = replay.last_frame else {
        return Ok(());
    };
    let segment = shared.state().segments.get(&place.segment).map(Arc::clone);
    let segment = segment.expect("the last frame is in a segment of the log");
    let mut bytes = vec![0; to_usize(place.to - place.from)];
    let count = segment
        .file
        .read_at(&mut bytes, place.from)
        .map_err(|error| WalError::io("read", segment.path.clone(), error))?;
    if count < bytes.len() {
        return Err(segment.damaged(place.from, "the file became shorter while it was read"));
    }
    segment.write(&bytes, place.from)?;
    segment.sync()?;
    shared
        .dir
        .sync()
        .map_err(|error| WalError::io("fsync directory of", segment.path.clone(), error))
}

fn repair_end(writer: &mut Writer, end: &End) -> Result<(), WalError> {
    let segment = &end.segment;
    if segment.length()? < segment.header.bytes {
        segment
            .file
            .set_length(segment.header.bytes)
            .map_err(|error| WalError::io("extend", segment.path.clone(), error))?;
    }
    match end.stop {
        Stop::Zero => Ok(()),
        Stop::Closed => wipe(segment, end.offset, end.offset + HEADER_BYTES as u64),
        Stop::Bad => {
            warn!(
                file = %segment.path,
                offset = end.offset,
                "cut a torn frame at the end of the log; as a member of a cluster this node catches up before it votes"
            );
            writer.mark_behind()?;
            wipe(segment, writer.frames_end_in(segment), end.garbage_to)
        }
    }
}

/// Zeros `from..to` and makes that durable.
fn wipe(segment: &Segment, from: u64, to: u64) -> Result<(), WalError> {
    let zeros = vec![0; WIPE_BYTES.min(to_usize(to.saturating_sub(from)))];
    let mut at = from;
    while at < to {
        let count = (to - at).min(zeros.len() as u64);
        segment.write(&zeros[..to_usize(count)], at)?;
        at += count;
    }
    segment.sync()
}
