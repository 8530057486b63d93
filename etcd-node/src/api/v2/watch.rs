//! Watches of the keys API: one answer that waits (long poll) or goes on (stream).
//!
//! The subscription begins inside the closure that reads index and window, so what the window shows and what
//! comes live join without a gap and without a repeat. The headers leave at once; the body waits for events
//! itself, so that a client that goes away drops it and with it the subscription.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame};
use proto::ids::V2Index;
use store::Change;
use store::v2::WINDOW_EVENTS;

use super::error::Error;
use super::matching::Selector;
use super::params::Parameters;
use super::respond::Place;
use super::{Front, json};
use crate::api::answer::Body;
use crate::driver::Handle;
use crate::metrics::Watching;
use crate::watch::{Interest, Next, Subscription};

/// Watches open at once. Over HTTP/1 the limit on connections comes first; this one is for HTTP/2, where one
/// connection carries many. At about 1 KiB each, 64 MiB.
const WATCHERS_MAX: i64 = 65_536;

impl Front {
    /// Begins a watch; its body waits for the events.
    pub(super) fn watch(&self, path: String, parameters: &Parameters) -> Result<Response<Body>, Error> {
        let guard = self
            .context
            .metrics
            .store
            .watch(WATCHERS_MAX)
            .ok_or_else(Error::overloaded)?;
        let handle = &self.context.handle;
        let asked = V2Index::new(parameters.wait_index);
        let interest = Interest::Path {
            path: path.clone(),
            recursive: parameters.recursive,
        };
        let (place, past, subscription) = handle.view(|view| {
            let v2_index = view.v2_index();
            let past = if asked != V2Index::ZERO && asked <= v2_index {
                view.events_since(asked, WINDOW_EVENTS)
            } else {
                Ok(Vec::new())
            };
            let past = past.map_err(|outdated| Error::cleared(outdated.oldest, asked, v2_index));
            let subscription = past
                .is_ok()
                .then(|| handle.hub().subscribe(interest, view.revision()));
            ((v2_index, view.applied()), past, subscription)
        });
        let (past, Some(subscription)) = (past?, subscription) else {
            return Err(Error::overloaded());
        };
        let (v2_index, raft_index) = place;
        let selector = Selector {
            path,
            recursive: parameters.recursive,
            from: asked,
        };
        let pieces = if parameters.stream {
            Pieces::All
        } else {
            Pieces::One
        };
        let found = past
            .iter()
            .filter(|event| selector.selects_past(event))
            .map(|event| json::event(event));
        let watcher = Watcher {
            ready: found.take(pieces.most()).collect(),
            pieces,
            selector,
            subscription,
            handle: handle.clone(),
            _guard: guard,
        };
        let place = Place {
            v2_index,
            raft_index,
            term: handle.status().term,
        };
        Ok(self.success(
            StatusCode::OK,
            place,
            Body::Live(Box::pin(WatchBody::new(watcher))),
        ))
    }
}

/// How many events a watch answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// A long poll.
    One,
    /// A stream.
    All,
}

impl Pieces {
    fn most(self) -> usize {
        match self {
            Self::One => 1,
            Self::All => usize::MAX,
        }
    }
}

/// A watch between two events.
struct Watcher {
    /// Rendered and not yet sent. Bounded: the window's events at first, later those of one change.
    ready: VecDeque<Bytes>,
    pieces: Pieces,
    selector: Selector,
    subscription: Subscription,
    handle: Handle,
    _guard: Watching,
}

impl Watcher {
    /// Waits until something is ready; none when the watch is over: the node stops, or we were too slow.
    async fn wait(mut self: Box<Self>) -> Option<Box<Self>> {
        while self.ready.is_empty() {
            let next = tokio::select! {
                () = self.handle.stopping() => return None,
                next = self.subscription.next() => next,
            };
            match next {
                Next::Change(change) => self.take(&change),
                Next::Lagged => return None,
            }
        }
        Some(self)
    }

    fn take(&mut self, change: &Change) {
        let events = change
            .events
            .iter()
            .filter(|event| self.selector.selects_live(event, change));
        self.ready
            .extend(events.take(self.pieces.most()).map(|event| json::event(event)));
    }
}

type Waiting = Pin<Box<dyn Future<Output = Option<Box<Watcher>>> + Send>>;

/// The body of a watch's answer.
enum WatchBody {
    Ready(Box<Watcher>),
    Waiting(Waiting),
    Over,
}

impl WatchBody {
    fn new(watcher: Watcher) -> Self {
        Self::Ready(Box::new(watcher))
    }
}

impl HttpBody for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        loop {
            match std::mem::replace(this, Self::Over) {
                Self::Over => return Poll::Ready(None),
                Self::Ready(mut watcher) => {
                    let Some(event) = watcher.ready.pop_front() else {
                        *this = Self::Waiting(Box::pin(watcher.wait()));
                        continue;
                    };
                    if watcher.pieces == Pieces::All {
                        *this = Self::Ready(watcher);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(event))));
                }
                Self::Waiting(mut waiting) => {
                    let polled = waiting.as_mut().poll(context);
                    if polled.is_pending() {
                        *this = Self::Waiting(waiting);
                    }
                    let Some(watcher) = ready!(polled) else {
                        return Poll::Ready(None);
                    };
                    *this = Self::Ready(watcher);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Over)
    }
}
