//! Watching a range: every change once, whole revisions, in order, across reconnects; or an error that
//! says that changes were missed.

use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use proto::ids::{ClusterId, Revision};
use proto::key::KeyRange;
use proto::mvccpb::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::pause::Pause;
use crate::v3::channel::Effect;
use crate::v3::error::{Verdict, verdict};
use crate::v3::{Client, Error, MESSAGE_BYTES_MAX};

/// Requests of one stream: the one that creates the watch.
const REQUESTS_QUEUED_MAX: usize = 1;

/// What the server sent at once: one or more whole revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The last revision in it; a new watch from [`Revision::next`] of it misses nothing.
    pub revision: Revision,
    /// In the order of revisions, with the key's state before each where there was one.
    pub events: Vec<Event>,
}

/// A watch on a range. It has no task of its own: it lives while [`Self::next`] is called.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    range: KeyRange,
    /// First revision not seen yet; none until the server said what "now" is.
    next_revision: Option<Revision>,
    /// Who answered first; whoever answers later must be the same.
    cluster: Option<ClusterId>,
    stream: Option<Stream>,
    pause: Pause,
}

impl Client {
    /// Watches a range from this revision on; none: from now on, where "now" is when the first
    /// [`Watch::next`] reaches the server.
    pub fn watch(&self, range: KeyRange, start_revision: Option<Revision>) -> Watch {
        Watch {
            client: self.clone(),
            range,
            next_revision: start_revision,
            cluster: None,
            stream: None,
            pause: Pause::none(),
        }
    }
}

impl Watch {
    /// Connects if need be, so that "now" is now. [`Self::next`] does it, too.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn start(&mut self) -> Result<(), Error> {
        if self.stream.is_none() {
            self.open().await?;
        }
        Ok(())
    }

    /// The next changes. Broken connections are made anew, on any endpoint, from the last revision seen.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Timeout`] when no endpoint answers: nothing is missed, call it
    /// again (it pauses by itself). [`Error::Compacted`] or [`Error::OtherCluster`]: changes were missed,
    /// list anew and begin a new watch. [`Error::Refused`]: the server will not have it.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            match stream.answers.message().await {
                Ok(Some(response)) => {
                    self.pause.reset();
                    if let Some(batch) = self.take(response)? {
                        return Ok(batch);
                    }
                }
                Ok(None) => self.broke(),
                Err(status) => {
                    self.broke();
                    if let Verdict::Final(error) = verdict(&status) {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        self.pause.wait().await;
        let create = self.create_request();
        let opened = self
            .client
            .pool
            .call(Effect::Read, |channel| Stream::open(channel, create.clone()))
            .await;
        let (stream, created) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.broke();
                return Err(error);
            }
        };
        self.stream = Some(stream);
        // Nothing but the creation is in the first answer, or its refusal.
        self.take(created).map(|_| ())
    }

    /// Takes the stream for lost; the next one is opened after a pause.
    fn broke(&mut self) {
        self.stream = None;
        self.pause.lengthen();
    }

    fn create_request(&self) -> WatchCreateRequest {
        let (key, range_end) = self.range.clone().into_pair();
        WatchCreateRequest {
            key,
            range_end,
            start_revision: self.next_revision.map_or(0, Revision::get),
            // So that a quiet watch moves on and is not overtaken by compaction.
            progress_notify: true,
            prev_kv: true,
            ..WatchCreateRequest::default()
        }
    }

    /// Moves on by what the server sent.
    fn take(&mut self, response: WatchResponse) -> Result<Option<Batch>, Error> {
        self.check_cluster(&response)
            .inspect_err(|_| self.stream = None)?;
        if response.canceled || response.compact_revision > 0 {
            self.stream = None;
            return Err(if response.compact_revision > 0 {
                Error::Compacted {
                    revision: Some(Revision::new(response.compact_revision)),
                }
            } else {
                Error::Refused {
                    code: Code::Cancelled,
                    message: response.cancel_reason,
                }
            });
        }
        let now = response.header.map_or(0, |header| header.revision).max(0);
        if response.created {
            self.next_revision.get_or_insert(Revision::new(now).next());
            return Ok(None);
        }
        let last = response
            .events
            .iter()
            .filter_map(|event| event.kv.as_ref())
            .map(|kv| kv.mod_revision)
            .max();
        let Some(last) = last else {
            // Progress: everything up to here was sent.
            self.next_revision = self.next_revision.max(Some(Revision::new(now).next()));
            return Ok(None);
        };
        let revision = Revision::new(last.max(0));
        self.next_revision = Some(revision.next());
        Ok(Some(Batch {
            revision,
            events: response.events,
        }))
    }

    fn check_cluster(&mut self, response: &WatchResponse) -> Result<(), Error> {
        let found = ClusterId::new(response.header.map_or(0, |header| header.cluster_id));
        if found == ClusterId::NONE {
            return Ok(());
        }
        let expected = *self.cluster.get_or_insert(found);
        if expected == found {
            Ok(())
        } else {
            Err(Error::OtherCluster { expected, found })
        }
    }
}

/// The two ends of a watch stream. The server ends it when the requests end.
#[derive(Debug)]
struct Stream {
    _requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Stream {
    /// Opens a stream with one watch and waits for the first answer.
    async fn open(
        channel: Channel,
        create: WatchCreateRequest,
    ) -> Result<Response<(Self, WatchResponse)>, Status> {
        let (requests, queue) = mpsc::channel(REQUESTS_QUEUED_MAX);
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        // It goes in before the stream is opened: a stock etcd sends no head before it.
        requests
            .try_send(create)
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut answers = client
            .watch(demand_leader(Request::new(ReceiverStream::new(queue))))
            .await?
            .into_inner();
        let ended = || Status::unavailable("the server ended the stream");
        let first = answers.message().await?.ok_or_else(ended)?;
        Ok(Response::new((
            Self {
                _requests: requests,
                answers,
            },
            first,
        )))
    }
}

/// Asks the server to end the stream when it loses sight of a leader, instead of keeping quiet.
pub(super) fn demand_leader<T>(mut request: Request<T>) -> Request<T> {
    request
        .metadata_mut()
        .insert("hasleader", MetadataValue::from_static("true"));
    request
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::ResponseHeader;
    use proto::mvccpb::KeyValue;

    use super::*;

    fn watch(start: Option<i64>) -> Watch {
        let client = Client::connect(["http://127.0.0.1:1"]).unwrap();
        client.watch(KeyRange::prefix(b"/"), start.map(Revision::new))
    }

    fn header(cluster_id: u64, revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id,
            revision,
            ..ResponseHeader::default()
        })
    }

    fn event(mod_revision: i64) -> Event {
        Event {
            kv: Some(KeyValue {
                mod_revision,
                ..KeyValue::default()
            }),
            ..Event::default()
        }
    }

    #[tokio::test]
    async fn a_watch_from_now_resumes_after_the_revision_of_its_creation() {
        let mut watch = watch(None);
        let created = WatchResponse {
            header: header(7, 41),
            created: true,
            ..WatchResponse::default()
        };
        assert_eq!(watch.take(created).unwrap(), None);
        assert_eq!(watch.create_request().start_revision, 42);
    }

    #[tokio::test]
    async fn events_move_the_watch_by_what_they_hold_and_progress_by_its_header() {
        let mut watch = watch(Some(5));
        let events = vec![event(8), event(9)];
        let response = WatchResponse {
            header: header(7, 20),
            events,
            ..WatchResponse::default()
        };
        assert_eq!(watch.take(response).unwrap().unwrap().revision, Revision::new(9));
        assert_eq!(watch.create_request().start_revision, 10);
        let progress = WatchResponse {
            header: header(7, 30),
            ..WatchResponse::default()
        };
        assert_eq!(watch.take(progress).unwrap(), None);
        assert_eq!(watch.create_request().start_revision, 31);
    }

    #[tokio::test]
    async fn missed_changes_are_an_error() {
        let compacted = WatchResponse {
            header: header(7, 50),
            canceled: true,
            compact_revision: 40,
            ..WatchResponse::default()
        };
        let error = watch(Some(5)).take(compacted).unwrap_err();
        assert!(matches!(error, Error::Compacted { revision: Some(revision) } if revision.get() == 40));
    }

    #[tokio::test]
    async fn another_cluster_behind_the_endpoint_is_an_error() {
        let mut watch = watch(None);
        let created = |id| WatchResponse {
            header: header(id, 1),
            created: true,
            ..WatchResponse::default()
        };
        watch.take(created(7)).unwrap();
        assert!(matches!(
            watch.take(created(8)).unwrap_err(),
            Error::OtherCluster { .. }
        ));
    }
}
