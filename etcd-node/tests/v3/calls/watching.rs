//! The one long watch stream of each side, and what it has shown so far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use proto::mvccpb::Event;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Clients, deadline};

/// What one watch has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) events: Vec<Event>,
    /// Ended by the server: the compact revision and the reason.
    pub(crate) ended: Option<(i64, String)>,
}

/// Everything that came, in order.
#[derive(Default)]
struct Inbox {
    responses: Mutex<Vec<WatchResponse>>,
    arrived: Notify,
}

/// A watch stream.
pub(crate) struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    inbox: Arc<Inbox>,
    _reader: AbortOnDropHandle<()>,
}

impl Watching {
    pub(crate) async fn begin(clients: &mut Clients) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let inbox = Arc::new(Inbox::default());
        let mut client = clients.watch.clone();
        let filling = Arc::clone(&inbox);
        // The stream's headers come with the first answer, so the reader opens it.
        let reader = tokio::spawn(async move {
            let opened = client.watch(ReceiverStream::new(outgoing)).await;
            let mut responses = opened.expect("a watch stream").into_inner();
            while let Ok(Some(response)) = responses.message().await {
                filling.responses.lock().expect("nobody panicked").push(response);
                filling.arrived.notify_waiters();
            }
        });
        Self {
            requests,
            inbox,
            _reader: AbortOnDropHandle::new(reader),
        }
    }

    async fn send(&self, request: RequestUnion) {
        let request = WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(request).await.expect("the stream is open");
    }

    /// How many responses came so far.
    fn mark(&self) -> usize {
        self.inbox.responses.lock().expect("nobody panicked").len()
    }

    /// The first response from `mark` on that is wanted.
    async fn wait(&self, what: &str, mark: usize, wanted: impl Fn(&WatchResponse) -> bool) -> WatchResponse {
        deadline(what, async {
            loop {
                let arrived = self.inbox.arrived.notified();
                let found = self.inbox.responses.lock().expect("nobody panicked")[mark..]
                    .iter()
                    .find(|one| wanted(one))
                    .cloned();
                match found {
                    Some(response) => return response,
                    None => arrived.await,
                }
            }
        })
        .await
    }

    pub(crate) async fn create(&self, request: &WatchCreateRequest) -> WatchResponse {
        let mark = self.mark();
        self.send(RequestUnion::CreateRequest(request.clone())).await;
        let mut response = self
            .wait("a watch to be created", mark, |response| response.created)
            .await;
        super::anonymous(&mut response.header);
        response
    }

    pub(crate) async fn cancel(&self, watch_id: i64) -> WatchResponse {
        let mark = self.mark();
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
            .await;
        let is_it = |response: &WatchResponse| response.canceled && response.watch_id == watch_id;
        let mut response = self.wait("a watch to be cancelled", mark, is_it).await;
        super::anonymous(&mut response.header);
        response
    }

    /// Waits for a watch's event of this revision.
    pub(crate) async fn event_at(&self, watch_id: i64, revision: i64) {
        let is_it = |response: &WatchResponse| {
            let mut revisions = response
                .events
                .iter()
                .filter_map(|event| event.kv.as_ref())
                .map(|kv| kv.mod_revision);
            response.watch_id == watch_id && revisions.any(|at| at == revision)
        };
        self.wait("an event", 0, is_it).await;
    }

    /// Asks how far the stream is; the revision up to which everything was sent.
    pub(crate) async fn progress(&self) -> i64 {
        let mark = self.mark();
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
            .await;
        let response = self
            .wait("progress", mark, |response| {
                response.watch_id == -1 && !response.created
            })
            .await;
        response.header.expect("a header").revision
    }

    /// What each watch has shown.
    pub(crate) fn seen(&self) -> BTreeMap<i64, Seen> {
        let mut all: BTreeMap<i64, Seen> = BTreeMap::new();
        for response in self.inbox.responses.lock().expect("nobody panicked").iter() {
            if response.created || response.watch_id == -1 {
                continue;
            }
            let seen = all.entry(response.watch_id).or_default();
            seen.events.extend(response.events.iter().cloned());
            if response.canceled {
                seen.ended = Some((response.compact_revision, response.cancel_reason.clone()));
            }
        }
        all
    }

    /// Waits until both have shown the same; what they showed when that did not happen is the caller's to tell.
    pub(crate) async fn agree(&self, other: &Self) -> Result<(), (BTreeMap<i64, Seen>, BTreeMap<i64, Seen>)> {
        let agreement = async {
            loop {
                let (mine, theirs) = (self.inbox.arrived.notified(), other.inbox.arrived.notified());
                if self.seen() == other.seen() {
                    return;
                }
                tokio::select! { () = mine => {}, () = theirs => {} }
            }
        };
        let agreed = tokio::time::timeout(std::time::Duration::from_secs(10), agreement).await;
        agreed.map_err(|_| (self.seen(), other.seen()))
    }

    /// Checks what holds for every stream by itself: headers never go back, events are in order, no revision is
    /// split over two responses, nothing comes before `created` or after the end.
    pub(crate) fn check(&self) {
        let mut told = 0;
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for response in self.inbox.responses.lock().expect("nobody panicked").iter() {
            let revision = response.header.expect("a header").revision;
            assert!(revision >= told, "header went back from {told}: {response:?}");
            told = revision;
            if response.created {
                last.insert(response.watch_id, 0);
                continue;
            }
            if response.watch_id == -1 {
                continue;
            }
            let before = *last
                .get(&response.watch_id)
                .unwrap_or_else(|| panic!("no such watch: {response:?}"));
            let revisions: Vec<i64> = response
                .events
                .iter()
                .filter_map(|event| event.kv.as_ref())
                .map(|kv| kv.mod_revision)
                .collect();
            assert!(revisions.is_sorted(), "events out of order: {response:?}");
            if let (Some(first), Some(end)) = (revisions.first(), revisions.last()) {
                assert!(
                    *first > before,
                    "revision {before} is split or repeated: {response:?}"
                );
                assert!(*end <= revision, "events newer than their header: {response:?}");
                last.insert(response.watch_id, *end);
            }
            // An id that history ended can still be cancelled, and answers once more.
            if response.canceled && response.compact_revision == 0 {
                last.remove(&response.watch_id);
            }
        }
    }
}
