//! One watch stream.
//!
//! [`Session::run`] waits for one input (a request, a bell, a tick, or history that is still to be read), lets
//! [`Session::handle`] turn it into responses without waiting, and sends them. While a slow client takes them,
//! nothing else moves: its watches' queues fill up, lag, and go on from history when the client is back. So a
//! stream holds at most one slice of history and [`crate::watch::QUEUE_CHANGES_MAX`] changes for each watch.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use proto::ids::Revision;
use store::{Change, Compacted};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tonic::{Status, Streaming};

use super::cursor::{Cursor, Slice, Start};
use super::render::{FRAGMENT_BYTES_MAX, Selection, bare, batches, fragments};
use super::{WATCHES_PER_STREAM_MAX, leader, refuse};
use crate::api::Context;
use crate::api::v3::header::header;
use crate::api::v3::stream::Outlet;
use crate::api::v3::{SLICE_RECORDS, random};
use crate::watch::{Attached, Bell, Interest, Next};

/// The watch id of answers that belong to no watch: a refused creation, progress of all.
const NO_WATCH: i64 = -1;

/// The bell's token for "what progress waited for is published".
const PUBLISHED: u64 = 0;

/// What happens to a stream.
enum Input {
    Request(WatchRequest),
    /// The bell, with its token.
    Rung(u64),
    /// Time to tell quiet watches how far they are.
    ProgressTick,
    /// Time to look for the leader.
    LeaderTick,
    /// Some watch has history to read.
    Replay,
}

/// A watch of the stream.
struct Watch {
    selection: Selection,
    cursor: Cursor,
    /// Present exactly while the cursor is live.
    seat: Option<Attached>,
    token: u64,
    /// Asked for progress notifications.
    notifies: bool,
    /// Sent nothing since the last tick.
    is_quiet: bool,
    _place: OwnedSemaphorePermit,
}

/// The state of one stream.
pub(super) struct Session {
    context: Arc<Context>,
    places: Arc<Semaphore>,
    bell: Bell,
    watches: BTreeMap<i64, Watch>,
    /// Ids of watches that history has passed: taken, as in etcd, until the client cancels them.
    spent: BTreeSet<i64>,
    tokens: HashMap<u64, i64>,
    last_token: u64,
    next_id: i64,
    /// Watches that read history, in turn.
    behind: VecDeque<i64>,
    /// The newest revision that a header told; later ones tell no older.
    told: Revision,
    /// The client asked how far the whole stream is.
    asked_progress: bool,
    /// Quiet watches to be told how far they are.
    due: BTreeSet<i64>,
    /// The hub rings when it has published this.
    awaited: Revision,
    looks_without_leader: u32,
    out: Vec<WatchResponse>,
}

impl Session {
    pub(super) fn new(context: Arc<Context>, places: Arc<Semaphore>) -> Self {
        Self {
            context,
            places,
            bell: Bell::new(),
            watches: BTreeMap::new(),
            spent: BTreeSet::new(),
            tokens: HashMap::new(),
            last_token: PUBLISHED,
            next_id: 0,
            behind: VecDeque::new(),
            told: Revision::ZERO,
            asked_progress: false,
            due: BTreeSet::new(),
            awaited: Revision::ZERO,
            looks_without_leader: 0,
            out: Vec::new(),
        }
    }

    /// Serves the stream until the client drops it, the node stops, or a leader that the client requires is gone.
    pub(super) async fn run(
        mut self,
        mut requests: Streaming<WatchRequest>,
        out: Outlet<WatchResponse>,
        progress_interval: Duration,
        needs_leader: bool,
    ) -> Result<(), Status> {
        let handle = self.context.handle.clone();
        let bell = self.bell.clone();
        let mut stopping = pin!(handle.stopping());
        let mut progress = interval_at(first_tick(progress_interval), progress_interval);
        let mut look = interval(leader::LOOK_INTERVAL);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_more = true;
        loop {
            let input = tokio::select! {
                () = &mut stopping => return Err(refuse::stopping()),
                request = requests.message(), if has_more => match request? {
                    Some(request) => Input::Request(request),
                    // A client that has nothing more to ask still hears of its watches, as in etcd.
                    None => {
                        has_more = false;
                        continue;
                    }
                },
                token = bell.rung() => Input::Rung(token),
                _ = progress.tick() => Input::ProgressTick,
                _ = look.tick(), if needs_leader => Input::LeaderTick,
                () = ready(()), if !self.behind.is_empty() => Input::Replay,
            };
            self.handle(input)?;
            for response in std::mem::take(&mut self.out) {
                out.send(response).await;
            }
            // Long histories without a match send nothing; others on this thread have their turn all the same.
            tokio::task::consume_budget().await;
        }
    }

    fn handle(&mut self, input: Input) -> Result<(), Status> {
        match input {
            Input::Request(request) => match request.request_union {
                Some(RequestUnion::CreateRequest(request)) => self.create(&request),
                Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id),
                Some(RequestUnion::ProgressRequest(_)) => self.asked_progress = true,
                // A kind of request that this release does not know: etcd passes over it, too.
                None => {}
            },
            Input::Rung(token) => {
                if let Some(id) = self.tokens.get(&token) {
                    self.take_live(*id);
                }
            }
            Input::ProgressTick => self.mark_due(),
            Input::LeaderTick => self.look_for_leader()?,
            Input::Replay => self.replay(),
        }
        self.tell_progress();
        Ok(())
    }

    fn look_for_leader(&mut self) -> Result<(), Status> {
        let is_known = leader::is_known(&self.context.handle);
        self.looks_without_leader = if is_known {
            0
        } else {
            self.looks_without_leader + 1
        };
        if self.looks_without_leader < leader::LOOKS_WITHOUT_MAX {
            Ok(())
        } else {
            Err(refuse::no_leader())
        }
    }

    // Creating and cancelling.

    fn create(&mut self, request: &WatchCreateRequest) {
        let selection = Selection::of(request);
        let admitted = self.admit(request, &selection);
        let (id, start, place) = match admitted {
            Ok(admitted) => admitted,
            Err(reason) => return self.refuse(reason),
        };
        self.last_token += 1;
        let token = self.last_token;
        let context = Arc::clone(&self.context);
        let (revision, cursor, seat) = context.handle.view(|view| {
            let revision = view.revision();
            let cursor = Cursor::new(start, revision);
            let seat = cursor.is_live().then(|| self.attach(&selection, revision, token));
            (revision, cursor, seat)
        });
        if seat.is_none() {
            self.behind.push_back(id);
        }
        self.tokens.insert(token, id);
        let notifies = request.progress_notify;
        let watch = Watch {
            selection,
            cursor,
            seat,
            token,
            notifies,
            is_quiet: true,
            _place: place,
        };
        self.watches.insert(id, watch);
        let header = self.header(revision);
        self.out.push(WatchResponse {
            created: true,
            ..bare(header, id)
        });
    }

    /// Whether the watch may be created; its id, its start and its place among the node's watches.
    fn admit(
        &mut self,
        request: &WatchCreateRequest,
        selection: &Selection,
    ) -> Result<(i64, Start, OwnedSemaphorePermit), String> {
        // etcd's reason for a negative revision, since 3.4.38.
        let start =
            Start::read(request.start_revision).ok_or_else(|| store::v3::Refusal::Compacted.to_string())?;
        if selection.range.is_empty() {
            return Err("mvcc: watcher range is empty".to_owned());
        }
        if request.watch_id != 0 && self.is_taken(request.watch_id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned());
        }
        let too_many = || refuse::too_many().message().to_owned();
        if self.watches.len() + self.spent.len() >= WATCHES_PER_STREAM_MAX {
            return Err(too_many());
        }
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| too_many())?;
        let id = if request.watch_id == 0 {
            self.assign_id()
        } else {
            request.watch_id
        };
        Ok((id, start, place))
    }

    /// The first id from where the last assignment ended that no watch has.
    fn assign_id(&mut self) -> i64 {
        while self.is_taken(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watches.contains_key(&id) || self.spent.contains(&id)
    }

    fn refuse(&mut self, reason: String) {
        let header = self.header_now();
        let refused = WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..bare(header, NO_WATCH)
        };
        self.out.push(refused);
    }

    /// An id that is not there gets no answer, as in etcd.
    fn cancel(&mut self, id: i64) {
        if self.forget(id) || self.spent.remove(&id) {
            let header = self.header_now();
            self.out.push(WatchResponse {
                canceled: true,
                ..bare(header, id)
            });
        }
    }

    fn forget(&mut self, id: i64) -> bool {
        let Some(watch) = self.watches.remove(&id) else {
            return false;
        };
        self.tokens.remove(&watch.token);
        self.behind.retain(|behind| *behind != id);
        self.due.remove(&id);
        true
    }

    fn attach(&self, selection: &Selection, after: Revision, token: u64) -> Attached {
        let interest = Interest::Keys(selection.range.clone());
        self.context
            .handle
            .hub()
            .attach(interest, after, &self.bell, token)
    }

    // From history.

    /// Reads one slice for the watch whose turn it is; the subscription begins in the view that finds the end.
    fn replay(&mut self) {
        let Some(id) = self.behind.pop_front() else { return };
        let Some(watch) = self.watches.get(&id) else {
            return;
        };
        let context = Arc::clone(&self.context);
        let read = context.handle.view(|view| {
            let revision = view.revision();
            let from = watch.cursor.next();
            let changes = if from > revision {
                Vec::new()
            } else {
                view.changes_since(from, SLICE_RECORDS)?
            };
            let is_full = changes.len() >= SLICE_RECORDS;
            let seat = (!is_full).then(|| self.attach(&watch.selection, revision, watch.token));
            let last = changes.last().map(|change| change.revision);
            Ok::<_, Compacted>((
                changes,
                Slice {
                    last,
                    is_full,
                    revision,
                },
                seat,
            ))
        });
        match read {
            Ok((changes, slice, seat)) => self.replayed(id, &changes, slice, seat),
            Err(compacted) => self.cancel_compacted(id, compacted),
        }
    }

    fn replayed(&mut self, id: i64, changes: &[Arc<Change>], slice: Slice, seat: Option<Attached>) {
        let Some(watch) = self.watches.get_mut(&id) else {
            return;
        };
        watch.cursor.replayed(slice);
        watch.seat = seat;
        if watch.seat.is_none() {
            self.behind.push_back(id);
        }
        self.push_events(id, changes, slice.revision);
    }

    /// History has passed the watch: what it missed can never be told, and it is said instead of skipped.
    fn cancel_compacted(&mut self, id: i64, compacted: Compacted) {
        self.forget(id);
        self.spent.insert(id);
        let header = self.header_now();
        let compact_revision = compacted.revision.get();
        self.out.push(WatchResponse {
            canceled: true,
            compact_revision,
            ..bare(header, id)
        });
    }

    // Live.

    /// Everything that waits for one watch.
    fn take_live(&mut self, id: i64) {
        self.take_with(id, Attached::take);
    }

    /// What waits for one watch up to a revision.
    fn take_live_until(&mut self, id: i64, revision: Revision) {
        self.take_with(id, |seat| seat.take_until(revision));
    }

    fn take_with(&mut self, id: i64, mut take: impl FnMut(&mut Attached) -> Option<Next>) {
        let Some(watch) = self.watches.get_mut(&id) else {
            return;
        };
        let Some(seat) = &mut watch.seat else { return };
        let mut changes = Vec::new();
        let has_lagged = loop {
            match take(seat) {
                Some(Next::Change(change)) if watch.cursor.takes(change.revision) => changes.push(change),
                Some(Next::Change(_)) => {}
                Some(Next::Lagged) => break true,
                None => break false,
            }
        };
        if has_lagged {
            watch.seat = None;
            watch.cursor.lagged();
            self.behind.push_back(id);
        }
        self.push_events(id, &changes, Revision::ZERO);
    }

    /// `at_least` is the revision at which history was read; headers of live events tell the event's own.
    fn push_events(&mut self, id: i64, changes: &[Arc<Change>], at_least: Revision) {
        let Some(watch) = self.watches.get_mut(&id) else {
            return;
        };
        let batches = batches(&watch.selection, changes);
        if batches.is_empty() {
            return;
        }
        let is_fragmented = watch.selection.fragment;
        watch.is_quiet = false;
        self.due.remove(&id);
        for batch in batches {
            let header = self.header(batch.revision.max(at_least));
            let response = WatchResponse {
                events: batch.events,
                ..bare(header, id)
            };
            let bytes_max = if is_fragmented {
                FRAGMENT_BYTES_MAX
            } else {
                usize::MAX
            };
            self.out.extend(fragments(response, bytes_max));
        }
    }

    // Progress.

    /// Watches that asked to be told and had nothing to send since the last tick. One that reads history now is
    /// passed over: its events are on their way.
    fn mark_due(&mut self) {
        let published = self.context.handle.hub().published();
        for (id, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.notifies) {
            if watch.is_quiet && watch.cursor.may_tell(published) {
                self.due.insert(*id);
            }
            watch.is_quiet = true;
        }
    }

    /// Tells how far the stream or its quiet watches are, if that is asked for and can be told now.
    ///
    /// "Progress R" promises that every event up to R came before it. So the order is: read what the hub has
    /// offered everybody (R), then send what waits up to R, then say R. A header that told more than R already
    /// (a view can be ahead of the hub for a moment) must not be followed by R: then the hub rings when it is there.
    fn tell_progress(&mut self) {
        if !self.asked_progress && self.due.is_empty() {
            return;
        }
        let published = self.context.handle.hub().published();
        if published < self.told {
            return self.await_published();
        }
        let tells_all = self.asked_progress && self.behind.is_empty();
        let quiet: Vec<i64> = std::mem::take(&mut self.due).into_iter().collect();
        let taken: Vec<i64> = if tells_all {
            self.watches.keys().copied().collect()
        } else {
            quiet.clone()
        };
        for id in taken {
            self.take_live_until(id, published);
        }
        // Only now: taking may have found that a watch lags.
        let may_tell = |watch: &Watch| watch.cursor.may_tell(published);
        if tells_all && self.watches.values().all(may_tell) {
            self.asked_progress = false;
            self.tell(NO_WATCH, published);
        }
        for id in quiet {
            if self
                .watches
                .get(&id)
                .is_some_and(|watch| watch.is_quiet && may_tell(watch))
            {
                self.tell(id, published);
            }
        }
    }

    fn tell(&mut self, id: i64, published: Revision) {
        let header = self.header(published);
        self.out.push(bare(header, id));
    }

    fn await_published(&mut self) {
        if self.awaited < self.told {
            self.awaited = self.told;
            self.context
                .handle
                .hub()
                .ring_when_published(self.told, &self.bell, PUBLISHED);
        }
    }

    // Headers.

    /// Revisions in headers never go back on a stream.
    fn header(&mut self, revision: Revision) -> ResponseHeader {
        self.told = self.told.max(revision);
        header(&self.context, self.told, self.context.handle.status().term)
    }

    fn header_now(&mut self) -> ResponseHeader {
        let revision = self.context.handle.view(|view| view.revision());
        self.header(revision)
    }
}

/// Streams that begin together do not tick together: the first tick comes up to a tenth late.
fn first_tick(interval: Duration) -> Instant {
    let tenth = u64::try_from(interval.as_millis() / 10).unwrap_or(0);
    Instant::now() + interval + Duration::from_millis(random() % (tenth + 1))
}
