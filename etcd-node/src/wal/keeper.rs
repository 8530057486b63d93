//! What writer, readers and housekeeping share: the index, the open segments and the zeroed spares. The
//! [`Keeper`] does the slow part, zeroing and releasing, away from the thread that writes.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use proto::ids::LogIndex;
use tracing::{info, warn};

use super::frame::HEADER_BYTES;
use super::index::Index;
use super::segment::{self, Segment, SegmentHeader, SegmentId};
use super::{Options, WalError};
use crate::disk::{Disk, DiskFile, is_full, to_usize};

/// While a spare is being zeroed.
const PART_SUFFIX: &str = ".part";
const SPARE_PREFIX: &str = "spare-";
const SPARE_SUFFIX: &str = ".segment";
/// Zeros are written in pieces of this size,
const ZERO_BYTES: usize = 1 << 20;
/// and synced each time this many are, so that the log's own fsyncs never wait behind a whole segment;
const ZERO_SYNC_BYTES: u64 = 4 << 20;
/// then comes a pause, unless the writer waits: 40 MiB/s leave the disk to those who need it now.
const ZERO_PAUSE: Duration = Duration::from_millis(100);

/// Everything of one log that several threads use.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: Arc<dyn Disk>,
    pub(super) options: Options,
    state: Mutex<State>,
    spares: Spares,
    /// Held while segments are released.
    releasing: Mutex<()>,
}

/// The log as it is on disk.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) index: Index,
    /// All segments of the log; the last one is being written.
    pub(super) segments: BTreeMap<SegmentId, Arc<Segment>>,
}

/// Files that are ready to become segments.
#[derive(Debug, Default)]
struct Spares {
    pool: Mutex<Pool>,
    /// Told when a spare arrives, and when somebody begins to wait for one.
    changed: Condvar,
    /// Held while one spare is zeroed, so that two threads never zero two for one need.
    zeroing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Pool {
    ready: VecDeque<Spare>,
    number_next: u64,
    /// The writer waits for a spare that is being zeroed.
    is_awaited: bool,
    /// The log closes: what is being zeroed is given up.
    is_closing: bool,
}

/// How a spare is zeroed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// The caller needs it now.
    Fast,
    /// With pauses, ahead of need.
    Gentle,
}

/// A file of `segment_bytes` that is no segment now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) name: String,
    /// Old frames stand in it; else it is all zero.
    pub(super) is_recycled: bool,
}

impl Shared {
    pub(super) fn new(dir: Arc<dyn Disk>, options: Options) -> Self {
        Self {
            dir,
            options,
            state: Mutex::default(),
            spares: Spares::default(),
            releasing: Mutex::default(),
        }
    }

    /// The state; never held across disk work.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.spares.pool.lock().expect("no holder of this lock panics")
    }

    /// Takes in the spares found at start.
    pub(super) fn add_spares(&self, found: Vec<Spare>) {
        let mut pool = self.pool();
        let numbers = found.iter().filter_map(|spare| spare_number(&spare.name));
        pool.number_next = numbers
            .map(|number| number + 1)
            .max()
            .unwrap_or(0)
            .max(pool.number_next);
        pool.ready.extend(found);
    }

    /// Makes a spare the segment with this id: its header is durable before it gets the name, and the name is
    /// durable before this returns.
    pub(super) fn begin_segment(
        &self,
        spare: &Spare,
        header: SegmentHeader,
    ) -> Result<Arc<Segment>, WalError> {
        let name = header.id.file_name();
        let path = self.dir.describe(&name);
        let fault = |action: &'static str, error| WalError::io(action, path.clone(), error);
        let file = self.dir.open(&spare.name).map_err(|error| fault("open", error))?;
        let mut bytes = header.encode();
        bytes.extend_from_slice(&[0; HEADER_BYTES]);
        file.write_at(&bytes, 0).map_err(|error| fault("write", error))?;
        file.sync_data().map_err(|error| fault("fsync", error))?;
        self.dir
            .rename(&spare.name, &name)
            .map_err(|error| fault("rename", error))?;
        self.dir
            .sync()
            .map_err(|error| fault("fsync directory of", error))?;
        let segment = Arc::new(Segment::new(header, path, file));
        self.state().segments.insert(header.id, Arc::clone(&segment));
        Ok(segment)
    }

    /// Removes a segment in which no frame was ever written.
    pub(super) fn remove_unused(&self, id: SegmentId) -> Result<(), WalError> {
        let name = id.file_name();
        let fault = |error| WalError::io("remove", self.dir.describe(&name), error);
        self.dir.remove(&name).map_err(fault)?;
        self.dir.sync().map_err(fault)
    }

    /// Takes a ready spare, or makes one now.
    pub(super) fn take_spare(&self) -> Result<Spare, WalError> {
        if let Some(spare) = self.pool().ready.pop_front() {
            return Ok(spare);
        }
        self.pool().is_awaited = true;
        self.spares.changed.notify_all();
        let one_at_a_time = self.spares.zeroing.lock().expect("no holder of this lock panics");
        let ready = {
            let mut pool = self.pool();
            pool.is_awaited = false;
            pool.ready.pop_front()
        };
        let spare = match ready {
            Some(spare) => Ok(spare),
            None => self.zero_spare(self.options.segment_bytes, Pace::Fast),
        };
        drop(one_at_a_time);
        spare
    }

    /// Makes a zeroed file of this size.
    pub(super) fn zero_spare(&self, bytes: u64, pace: Pace) -> Result<Spare, WalError> {
        let name = self.spare_name();
        let part = format!("{name}{PART_SUFFIX}");
        let path = self.dir.describe(&part);
        let made = self.dir.create(&part).and_then(|file| {
            self.zero(&*file, bytes, pace)?;
            self.dir.rename(&part, &name)?;
            self.dir.sync()
        });
        let Err(error) = made else {
            return Ok(Spare {
                name,
                is_recycled: false,
            });
        };
        if let Err(left) = self.dir.remove(&part) {
            warn!(file = %path, error = %left, "an unfinished spare segment stays until the next start");
        }
        if is_full(&error) {
            Err(WalError::NoSpace { file: path, bytes })
        } else {
            Err(WalError::io("zero", path, error))
        }
    }

    fn zero(&self, file: &dyn DiskFile, bytes: u64, pace: Pace) -> io::Result<()> {
        file.reserve(bytes)?;
        let zeros = vec![0; ZERO_BYTES.min(to_usize(bytes))];
        let (mut written, mut synced) = (0, 0);
        while written < bytes {
            let count = (bytes - written).min(zeros.len() as u64);
            file.write_at(&zeros[..to_usize(count)], written)?;
            written += count;
            if written - synced >= ZERO_SYNC_BYTES {
                file.sync_data()?;
                synced = written;
                self.pause(pace)?;
            }
        }
        file.sync_data()
    }

    /// Lets others have the disk; an error when the log closes.
    fn pause(&self, pace: Pace) -> io::Result<()> {
        if pace == Pace::Fast {
            return Ok(());
        }
        let idle = |pool: &mut Pool| !pool.is_awaited && !pool.is_closing;
        let waited = self
            .spares
            .changed
            .wait_timeout_while(self.pool(), ZERO_PAUSE, idle);
        let (pool, _) = waited.expect("no holder of this lock panics");
        if pool.is_closing {
            Err(io::Error::other("the log closes"))
        } else {
            Ok(())
        }
    }

    fn spare_name(&self) -> String {
        let mut pool = self.pool();
        pool.number_next += 1;
        format!("{SPARE_PREFIX}{:016x}{SPARE_SUFFIX}", pool.number_next - 1)
    }
}

fn spare_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SPARE_PREFIX)?.strip_suffix(SPARE_SUFFIX)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The files of a log's directory, by what they are.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: Vec<SegmentId>,
    spares: Vec<String>,
    parts: Vec<String>,
}

impl Listing {
    pub(super) fn read(dir: &dyn Disk) -> Result<Self, WalError> {
        let names = dir
            .list()
            .map_err(|error| WalError::io("list", dir.describe(""), error))?;
        let mut listing = Self::default();
        for name in names {
            if let Some(id) = SegmentId::of_file_name(&name) {
                listing.segments.push(id);
            } else if spare_number(&name).is_some() {
                listing.spares.push(name);
            } else if name
                .strip_suffix(PART_SUFFIX)
                .is_some_and(|name| spare_number(name).is_some())
            {
                listing.parts.push(name);
            } else {
                warn!(file = %dir.describe(&name), "not a file of the log, left alone");
            }
        }
        listing.segments.sort();
        Ok(listing)
    }

    /// Removes what an interrupted preparation left and gives the spares that can be used.
    pub(super) fn tidy_spares(self, dir: &dyn Disk, segment_bytes: u64) -> Result<Vec<Spare>, WalError> {
        let mut usable = Vec::new();
        let mut useless = self.parts;
        for name in self.spares {
            match inspect_spare(dir, &name, segment_bytes) {
                Ok(Some(spare)) => usable.push(spare),
                Ok(None) => useless.push(name),
                Err(error) => return Err(WalError::io("read", dir.describe(&name), error)),
            }
        }
        for name in &useless {
            dir.remove(name)
                .map_err(|error| WalError::io("remove", dir.describe(name), error))?;
        }
        Ok(usable)
    }
}

fn inspect_spare(dir: &dyn Disk, name: &str, segment_bytes: u64) -> io::Result<Option<Spare>> {
    let file = dir.open(name)?;
    if file.length()? != segment_bytes {
        return Ok(None);
    }
    let mut head = [0; 2 * segment::MAGIC.len()];
    file.read_at(&mut head, 0)?;
    let is_recycled = head.iter().any(|byte| *byte != 0);
    Ok(Some(Spare {
        name: name.to_owned(),
        is_recycled,
    }))
}

/// Prepares segments ahead and releases old ones, for a helper thread: neither waits for the writer nor makes
/// it wait.
#[derive(Clone, Debug)]
pub struct Keeper {
    pub(super) shared: Arc<Shared>,
}

impl Keeper {
    /// Zeroes spare segments until as many as the options say are ready; with pauses, unless the writer waits.
    ///
    /// # Errors
    /// [`WalError::NoSpace`] when the disk is full: the spares that are ready remain, and a later call goes on.
    pub fn prepare(&self) -> Result<(), WalError> {
        while self.lacks_spares() {
            let one_at_a_time = self
                .shared
                .spares
                .zeroing
                .lock()
                .expect("no holder of this lock panics");
            let spare = self
                .shared
                .zero_spare(self.shared.options.segment_bytes, Pace::Gentle)?;
            self.arrived(spare);
            drop(one_at_a_time);
        }
        Ok(())
    }

    /// Ends a [`Self::prepare`] that runs, and each later one that would take long.
    pub(super) fn stop(&self) {
        self.shared.pool().is_closing = true;
        self.shared.spares.changed.notify_all();
    }

    /// Whether fewer spare segments are ready than the options say.
    pub(super) fn lacks_spares(&self) -> bool {
        self.spares_ready() < self.shared.options.spares
    }

    /// Waits until a spare is there, or the time is over.
    pub(super) fn wait_for_spare(&self, timeout: Duration) {
        let pool = self.shared.pool();
        let waited = self
            .shared
            .spares
            .changed
            .wait_timeout_while(pool, timeout, |pool| pool.ready.is_empty());
        drop(waited.expect("no holder of this lock panics"));
    }

    /// How many spare segments are ready.
    pub fn spares_ready(&self) -> usize {
        self.shared.pool().ready.len()
    }

    /// Gives up all segments that only hold what is older than the entry at this index; that entry stays. Call
    /// it with the index of the older of the two checkpoints that are kept. Their files become spares, or are
    /// removed when enough are ready.
    ///
    /// One at a time, oldest first, each made durable before the next: neither a crash nor a refusal ever leaves
    /// a hole between two segments.
    ///
    /// # Errors
    /// When the system refuses; what was not released stays part of the log and is tried again by the next call.
    pub fn release(&self, up_to: LogIndex) -> Result<(), WalError> {
        let _one_at_a_time = self
            .shared
            .releasing
            .lock()
            .expect("no holder of this lock panics");
        while let Some(segment) = self.oldest_unneeded(up_to) {
            let spare = self.retire(&segment)?;
            // Readers must not look into the file any more once it can be written again.
            self.forget(segment.id());
            if let Some(spare) = spare {
                self.arrived(spare);
            }
            info!(file = %segment.path, %up_to, "log segment released");
        }
        Ok(())
    }

    fn oldest_unneeded(&self, up_to: LogIndex) -> Option<Arc<Segment>> {
        let state = self.shared.state();
        let first_needed = state.index.first_segment_needed(up_to)?;
        let (id, oldest) = state.segments.first_key_value()?;
        (*id < first_needed).then(|| Arc::clone(oldest))
    }

    fn forget(&self, id: SegmentId) {
        let mut state = self.shared.state();
        state.index.release(id.next());
        state.segments.remove(&id);
    }

    /// Takes a segment's name away; the file becomes a spare when one is wanted.
    fn retire(&self, segment: &Segment) -> Result<Option<Spare>, WalError> {
        let dir = &*self.shared.dir;
        let name = segment.id().file_name();
        let fault = |action: &'static str, error| WalError::io(action, segment.path.clone(), error);
        let fits = segment.header.bytes == self.shared.options.segment_bytes;
        let spare = if fits && self.spares_ready() < self.shared.options.spares_max {
            let spare = self.shared.spare_name();
            dir.rename(&name, &spare)
                .map_err(|error| fault("rename", error))?;
            Some(Spare {
                name: spare,
                is_recycled: true,
            })
        } else {
            dir.remove(&name).map_err(|error| fault("remove", error))?;
            None
        };
        dir.sync().map_err(|error| fault("fsync directory of", error))?;
        Ok(spare)
    }

    fn arrived(&self, spare: Spare) {
        self.shared.pool().ready.push_back(spare);
        self.shared.spares.changed.notify_all();
    }
}
