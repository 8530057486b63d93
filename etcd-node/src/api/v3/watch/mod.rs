//! Watch: many watches on one stream, each with its own place in history.
//!
//! Reading order: `cursor` decides where a watch stands, `render` turns changes into responses (both pure),
//! `session` is one stream: it collects one input at a time, handles it at once, and sends what comes of it.
//!
//! The promises, and where they are kept: ordered, unique, reliable, resumable: `cursor`; atomic: `render`;
//! filtered, previous values, created or not: `render`; bookmarks: `session::Session::tell_progress`.

mod cursor;
mod render;
mod session;

use std::sync::Arc;

use proto::etcdserverpb::watch_server::Watch;
use proto::etcdserverpb::{WatchRequest, WatchResponse};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::stream::{Answers, answers};
use super::{Options, leader, refuse};
use crate::api::Context;
use session::Session;

/// Watches and watch streams of this node together: about 1 KiB each when quiet, so 100 MiB at most.
const WATCHES_MAX: usize = 100_000;

/// Watches of one stream: Kubernetes' API server, the largest user known, holds a few hundred.
const WATCHES_PER_STREAM_MAX: usize = 10_000;

/// The service.
pub(super) struct Service {
    context: Arc<Context>,
    options: Options,
    places: Arc<Semaphore>,
}

impl Service {
    pub(super) fn new(context: Arc<Context>, options: Options) -> Self {
        Self {
            context,
            options,
            places: Arc::new(Semaphore::new(WATCHES_MAX)),
        }
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| refuse::too_many())?;
        let needs_leader = leader::is_required(request.metadata());
        let session = Session::new(Arc::clone(&self.context), Arc::clone(&self.places));
        let interval = self.options.progress_interval;
        let requests = request.into_inner();
        Ok(Response::new(answers(move |out| async move {
            let ended = session.run(requests, out, interval, needs_leader).await;
            drop(place);
            ended
        })))
    }
}
