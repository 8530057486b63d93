//! A watch stream, driven by hand.

use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use proto::mvccpb::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Clients, deadline};

/// An open watch stream.
pub(crate) struct Stream {
    requests: Option<mpsc::Sender<WatchRequest>>,
    responses: Streaming<WatchResponse>,
}

impl Stream {
    pub(crate) async fn open(clients: &Clients) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let opened = clients.watch.clone().watch(ReceiverStream::new(outgoing)).await;
        Self {
            requests: Some(requests),
            responses: opened.expect("a watch stream").into_inner(),
        }
    }

    pub(crate) async fn send(&mut self, request: WatchRequest) {
        let requests = self.requests.as_ref().expect("not closed yet");
        requests.send(request).await.expect("the stream is open");
    }

    pub(crate) async fn ask_progress(&mut self) {
        let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
        self.send(WatchRequest {
            request_union: Some(request),
        })
        .await;
    }

    /// Asks nothing more.
    pub(crate) fn close(&mut self) {
        self.requests = None;
    }

    pub(crate) async fn next(&mut self) -> WatchResponse {
        let message = deadline("a watch response", self.responses.message()).await;
        message.expect("no error").expect("the stream goes on")
    }

    /// How the stream ends; what still comes before is passed over.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match deadline("the end of the stream", self.responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
                Err(status) => return status,
            }
        }
    }
}

/// A request to create this watch.
pub(crate) fn create(request: WatchCreateRequest) -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(request)),
    }
}

/// A watch of one key.
pub(crate) fn one(key: &'static str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.into(),
        ..WatchCreateRequest::default()
    }
}

/// A watch of every key.
pub(crate) fn all() -> WatchCreateRequest {
    WatchCreateRequest {
        range_end: vec![0].into(),
        ..WatchCreateRequest::default()
    }
}

pub(crate) fn events(response: &WatchResponse) -> impl Iterator<Item = Event> {
    response.events.clone().into_iter()
}
