//! Writes frames: stage with [`Writer::append`], make durable with [`Writer::commit`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use proto::ids::LogIndex;
use proto::peer::{LogFrame, RaftEntry, RaftHardState};

use super::frame::{self, HARD_STATE_BYTES_MAX, HEADER_BYTES, Header, Kind};
use super::index::{Place, Summary};
use super::keeper::{Listing, Pace, Shared};
use super::recover::Log;
use super::segment::{FRAMES_FROM, RESERVE_BYTES, Segment, SegmentHeader, SegmentId};
use super::{
    ENTRY_BYTES_MAX, FRAME_BYTES_MAX, Identity, Keeper, LogPosition, LogReader, Options, Sequence, WalError,
};
use crate::disk::{Disk, to_usize};

/// A staging buffer that grew beyond this is given back after its commit.
const BUFFER_BYTES_KEPT: usize = 4 << 20;
/// Entry overhead in a body: its key and length.
const ENTRY_KEY_BYTES: usize = 11;

/// The one writer of a log.
pub struct Writer {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    /// Where the next frame goes.
    offset: u64,
    sequence_next: Sequence,
    /// The last one written; each segment's first frame repeats it, so that no release can lose it.
    hard_state: Option<RaftHardState>,
    /// The last entry staged or written.
    last_index: Option<LogIndex>,
    /// No entry at or before this is ever written: it is in a checkpoint.
    begins_after: LogIndex,
    /// The hard state staged last.
    hard_state_staged: Option<RaftHardState>,
    staged: VecDeque<Staged>,
    is_behind: bool,
    /// The first error: after it nothing more is promised.
    stopped: Option<String>,
    buffer: Vec<u8>,
    on_sync: Option<SyncHook>,
}

/// Told how long each fsync of a frame took.
pub type SyncHook = Box<dyn FnMut(Duration) + Send>;

/// A frame in the making.
#[derive(Default)]
struct Staged {
    restart: Option<LogPosition>,
    /// Header space, restart position and entries; the hard state is added when the frame is written.
    bytes: Vec<u8>,
    summary: Summary,
    hard_state: Option<RaftHardState>,
}

/// Where and as whom a writer goes on.
pub(super) struct Resume {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) sequence_next: Sequence,
    pub(super) hard_state: Option<RaftHardState>,
    pub(super) is_behind: bool,
}

/// Makes the log of a new member: it begins after `start`, which is where the member's first checkpoint ends.
/// The salt is drawn at random by the caller and kept in the files; it protects the scan after a crash from
/// values that look like frames.
///
/// # Errors
/// [`WalError::AlreadyThere`] when the directory holds a log, [`WalError::NoSpace`] or [`WalError::Io`] when
/// the disk refuses.
pub fn create(
    dir: Arc<dyn Disk>,
    identity: Identity,
    start: LogPosition,
    salt: u64,
    options: Options,
) -> Result<Log, WalError> {
    options.check();
    let listing = Listing::read(&*dir)?;
    if let Some(id) = listing.segments.first() {
        return Err(WalError::AlreadyThere {
            file: dir.describe(&id.file_name()),
        });
    }
    let spares = listing.tidy_spares(&*dir, options.segment_bytes)?;
    let shared = Arc::new(Shared::new(dir, options));
    shared.add_spares(spares);
    let spare = shared.zero_spare(options.first_segment_bytes, Pace::Fast)?;
    let sequence_next = Sequence::FIRST;
    let bytes = options.first_segment_bytes;
    let header = SegmentHeader {
        identity,
        id: SegmentId::FIRST,
        first_sequence: sequence_next,
        bytes,
        salt,
        is_recycled: false,
    };
    let segment = shared.begin_segment(&spare, header)?;
    let resume = Resume {
        segment,
        offset: FRAMES_FROM,
        sequence_next,
        hard_state: None,
        is_behind: false,
    };
    let mut writer = Writer::new(shared, resume);
    writer.restart(start);
    writer.commit()?;
    Ok(Log::of(writer))
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, resume: Resume) -> Self {
        let Resume {
            segment,
            offset,
            sequence_next,
            hard_state,
            is_behind,
        } = resume;
        let (last_index, origin) = {
            let state = shared.state();
            (state.index.last(), state.index.origin())
        };
        Self {
            shared,
            segment,
            offset,
            sequence_next,
            hard_state_staged: hard_state,
            hard_state,
            last_index,
            begins_after: origin.map_or(LogIndex::ZERO, |origin| origin.index),
            staged: VecDeque::new(),
            is_behind,
            stopped: None,
            buffer: Vec::new(),
            on_sync: None,
        }
    }

    /// Reads the same log.
    pub fn reader(&self) -> LogReader {
        LogReader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Prepares and releases segments of the same log.
    pub fn keeper(&self) -> Keeper {
        Keeper {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The hard state written last; none before the first.
    pub fn hard_state(&self) -> Option<RaftHardState> {
        self.hard_state
    }

    /// From now on tells the hook how long each fsync of a frame takes.
    pub fn set_sync_hook(&mut self, hook: SyncHook) {
        self.on_sync = Some(hook);
    }

    /// Bytes staged and not yet committed.
    pub fn staged_bytes(&self) -> usize {
        self.staged.iter().map(|staged| staged.bytes.len()).sum()
    }

    /// Stages entries and a hard state. Frames staged together share one fsync, up to [`FRAME_BYTES_MAX`].
    /// Entries at or below the log's last index replace it from there on, as raft's truncation does.
    ///
    /// # Errors
    /// [`WalError::EntryTooLarge`]: nothing of the frame is staged. [`WalError::Stopped`] after a failure.
    ///
    /// # Panics
    /// When an entry does not follow the one before it or the log's last one, or is at or before the place
    /// the log begins after: that would be a hole in the log, or a change of what is committed.
    pub fn append(&mut self, frame: &LogFrame) -> Result<(), WalError> {
        self.check_running()?;
        let limit = self.entry_bytes_max();
        for entry in &frame.entries {
            let bytes = entry.encoded_len();
            if bytes > limit {
                return Err(WalError::EntryTooLarge {
                    index: LogIndex::new(entry.index),
                    bytes,
                    limit,
                });
            }
        }
        for entry in &frame.entries {
            self.stage_entry(entry, frame.hard_state.as_ref());
        }
        if let Some(hard_state) = &frame.hard_state {
            self.part_with_room(0).hard_state = Some(*hard_state);
            self.hard_state_staged = Some(*hard_state);
        }
        Ok(())
    }

    /// Stages that the log begins anew after a place that a received checkpoint, durable already, covers. All
    /// entries staged or written before are void.
    ///
    /// # Panics
    /// Never for a place that raft gives; see [`Self::append`] for what may follow.
    pub fn restart(&mut self, position: LogPosition) {
        let mut staged = Staged {
            restart: Some(position),
            ..self.new_part()
        };
        frame::put_restart(&mut staged.bytes, position);
        self.staged.push_back(staged);
        self.last_index = Some(position.index);
        self.begins_after = position.index;
    }

    /// Writes what is staged and makes it durable: for each frame one write and one fsync. Returns the sequence
    /// of the last frame. Nothing staged: nothing is done.
    ///
    /// # Errors
    /// [`WalError::NoSpace`] keeps what is staged; call again later. After any other error the writer refuses
    /// everything: it is not known what is on disk, so the process must end.
    pub fn commit(&mut self) -> Result<Sequence, WalError> {
        self.check_running()?;
        while let Some(staged) = self.staged.pop_front() {
            if let Err(error) = self.make_room(&staged) {
                self.staged.push_front(staged);
                return Err(self.stop_unless_full(error));
            }
            self.write_staged(staged)
                .map_err(|error| self.stop_unless_full(error))?;
        }
        Ok(Sequence::new(self.sequence_next.get() - 1))
    }

    /// Writes down that this node, which cut a torn tail, has caught up since: a restart no longer reports it
    /// as behind. What is staged is committed with it.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn caught_up(&mut self) -> Result<Sequence, WalError> {
        self.stage_caught_up();
        self.commit()
    }

    /// Stages what [`Self::caught_up`] commits.
    pub(super) fn stage_caught_up(&mut self) {
        if self.is_behind {
            self.is_behind = false;
            if self.staged.is_empty() {
                self.staged.push_back(self.new_part());
            }
        }
    }

    /// Commits what is staged and closes the log: from now on each bad frame is damage, none can be torn.
    ///
    /// # Errors
    /// As [`Self::commit`]; the log is then as after a crash.
    pub fn close(mut self) -> Result<(), WalError> {
        self.commit()?;
        self.write_frame(Kind::End, HEADER_BYTES)
    }

    /// Writes the flag of a cut tail over the torn frame, before anything else is written.
    pub(super) fn mark_behind(&mut self) -> Result<(), WalError> {
        self.is_behind = true;
        let part = self.new_part();
        self.staged.push_back(part);
        self.commit().map(drop)
    }

    /// Where this segment's frames end, if it is the one being written; its end otherwise.
    pub(super) fn frames_end_in(&self, segment: &Segment) -> u64 {
        if segment.id() == self.segment.id() {
            self.offset
        } else {
            segment.header.bytes
        }
    }

    fn check_running(&self) -> Result<(), WalError> {
        match &self.stopped {
            Some(first) => Err(WalError::Stopped { first: first.clone() }),
            None => Ok(()),
        }
    }

    fn stop_unless_full(&mut self, error: WalError) -> WalError {
        if !matches!(error, WalError::NoSpace { .. }) {
            self.stopped = Some(error.to_string());
        }
        error
    }

    /// Largest body that any segment takes besides a hard state.
    fn body_bytes_max(&self) -> usize {
        let overhead = FRAMES_FROM + RESERVE_BYTES + HEADER_BYTES as u64;
        let room = to_usize(self.shared.options.segment_bytes.saturating_sub(overhead));
        room.min(FRAME_BYTES_MAX).saturating_sub(HARD_STATE_BYTES_MAX)
    }

    fn entry_bytes_max(&self) -> usize {
        ENTRY_BYTES_MAX.min(
            self.body_bytes_max()
                .saturating_sub(ENTRY_KEY_BYTES + HEADER_BYTES),
        )
    }

    fn new_part(&self) -> Staged {
        Staged {
            bytes: vec![0; HEADER_BYTES],
            ..Staged::default()
        }
    }

    /// The frame that is being staged, a new one when it has no room for this many bytes.
    fn part_with_room(&mut self, bytes: usize) -> &mut Staged {
        let limit = HEADER_BYTES + self.body_bytes_max();
        if self
            .staged
            .back()
            .is_none_or(|part| part.bytes.len() + bytes > limit)
        {
            let mut part = self.new_part();
            if self.staged.is_empty() {
                part.bytes = std::mem::take(&mut self.buffer);
                part.bytes.clear();
                part.bytes.resize(HEADER_BYTES, 0);
            }
            self.staged.push_back(part);
        }
        self.staged.back_mut().expect("one was pushed if there was none")
    }

    fn stage_entry(&mut self, entry: &RaftEntry, hard_state: Option<&RaftHardState>) {
        let index = LogIndex::new(entry.index);
        self.check_follows(index);
        let parts = self.staged.len();
        let bytes = entry.encoded_len() + ENTRY_KEY_BYTES;
        let part = self.part_with_room(bytes);
        frame::put_entry(&mut part.bytes, entry);
        part.summary.push(index, proto::ids::Term::new(entry.term));
        self.last_index = Some(index);
        if self.staged.len() > parts && parts > 0 {
            self.close_part(parts - 1, hard_state);
        }
    }

    /// A frame that is followed by more of the same append carries the new term and vote, so that no crash
    /// between the two leaves entries of a term that the hard state does not know, and the commit index as it
    /// was, which its entries do not pass.
    fn close_part(&mut self, part: usize, hard_state: Option<&RaftHardState>) {
        let Some(hard_state) = hard_state else { return };
        let commit = self.hard_state_staged.as_ref().map_or(0, |before| before.commit);
        self.staged[part].hard_state = Some(RaftHardState {
            commit,
            ..*hard_state
        });
    }

    fn check_follows(&self, index: LogIndex) {
        let last = self.last_index.expect("a log that is open has begun somewhere");
        assert!(
            index <= last.next(),
            "log entry {index} does not follow the last one, {last}"
        );
        let begins_after = self.begins_after;
        assert!(
            index > begins_after,
            "log entry {index} is at or before {begins_after}, where the log begins"
        );
    }

    /// Goes on in the next segment when the frame does not fit into this one.
    fn make_room(&mut self, staged: &Staged) -> Result<(), WalError> {
        let frame_bytes = (staged.bytes.len() + HARD_STATE_BYTES_MAX) as u64;
        // Twice when the segment that is next was made with a smaller size.
        while self.offset + frame_bytes + RESERVE_BYTES > self.segment.header.bytes {
            self.roll()?;
        }
        Ok(())
    }

    /// The next segment is durable before the frame that says that it is there; a crash between the two leaves
    /// an unused segment, never a missing one.
    fn roll(&mut self) -> Result<(), WalError> {
        let spare = self.shared.take_spare().map_err(|error| match error {
            WalError::NoSpace { bytes, .. } => WalError::NoSpace {
                file: self.segment.path.clone(),
                bytes,
            },
            other => other,
        })?;
        let header = SegmentHeader {
            id: self.segment.id().next(),
            first_sequence: self.sequence_next.next(),
            bytes: self.shared.options.segment_bytes,
            is_recycled: spare.is_recycled,
            ..self.segment.header
        };
        let segment = self.shared.begin_segment(&spare, header)?;
        self.write_frame(Kind::Roll, HEADER_BYTES)?;
        self.segment = segment;
        self.offset = FRAMES_FROM;
        Ok(())
    }

    fn write_staged(&mut self, mut staged: Staged) -> Result<(), WalError> {
        if self.offset == FRAMES_FROM && staged.hard_state.is_none() {
            staged.hard_state = self.hard_state;
        }
        if let Some(hard_state) = &staged.hard_state {
            frame::put_hard_state(&mut staged.bytes, hard_state);
        }
        let length = staged.bytes.len();
        self.buffer = staged.bytes;
        let kind = if staged.restart.is_some() {
            Kind::Restart
        } else {
            Kind::Data
        };
        let from = self.offset;
        self.write_frame(kind, length)?;
        let place = Place {
            segment: self.segment.id(),
            from,
            to: self.offset,
        };
        let mut state = self.shared.state();
        if let Some(position) = staged.restart {
            state.index.restart(position, place.segment);
        }
        state
            .index
            .add(place, &staged.summary)
            .expect("append let only entries in that follow");
        drop(state);
        if staged.hard_state.is_some() {
            self.hard_state = staged.hard_state;
        }
        Ok(())
    }

    /// Writes `self.buffer[..length]`, whose first bytes are room for the header, and zeros where the next header
    /// will be: there a restart finds the log's end, whatever an earlier life of the file left behind.
    fn write_frame(&mut self, kind: Kind, length: usize) -> Result<(), WalError> {
        let seed = self.segment.seed;
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.resize(length, 0);
        let header = Header::new(
            kind,
            self.is_behind,
            self.sequence_next,
            &bytes[HEADER_BYTES..],
            seed,
        );
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode(seed));
        let room = to_usize(self.segment.header.bytes - self.offset);
        assert!(
            length <= room,
            "a frame of {length} bytes does not fit into the {room} that are left"
        );
        bytes.resize((length + HEADER_BYTES).min(room), 0);
        self.segment.write(&bytes, self.offset)?;
        self.sync()?;
        if bytes.capacity() <= BUFFER_BYTES_KEPT {
            self.buffer = bytes;
        }
        self.offset += length as u64;
        self.sequence_next = self.sequence_next.next();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), WalError> {
        let Some(hook) = &mut self.on_sync else {
            return self.segment.sync();
        };
        let begun = Instant::now();
        self.segment.sync()?;
        hook(begun.elapsed());
        Ok(())
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("segment", &self.segment.path)
            .field("offset", &self.offset)
            .field("sequence_next", &self.sequence_next)
            .field("last_index", &self.last_index)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}
