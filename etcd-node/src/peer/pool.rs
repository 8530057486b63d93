//! Sending to other members: one task and one stream each, bounded queues, reconnection with growing pauses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use daemon::backoff::{Backoff, random_seed};
use daemon::tasks::Tasks;
use proto::ids::{ClusterId, NodeId};
use proto::log::Proposal;
use proto::peer::propose_response::Verdict;
use proto::peer::raft_envelope::Content;
use proto::peer::{ProposeRequest, RaftBatch, RaftEnvelope, RaftMessage, StreamHello};
use store::members::Members;
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{Membership, PROTOCOL, call, snapshot};
use crate::driver::{CheckpointFiles, Handle, Order, Transport};

/// Messages that wait for one peer: what a stalled link may hold of raft's window of 256 and some heartbeats.
const QUEUE_MESSAGES_MAX: usize = 1_024;
/// Messages sent as one.
const BATCH_MESSAGES_MAX: usize = 128;
/// Batches written ahead of the network.
const BATCHES_AHEAD: usize = 8;
/// Proposals on their way to the leader at once.
const FORWARDS_MAX: usize = 4_096;
/// Until the leader's word on a forwarded proposal is given up; its outcome may still be seen.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between two attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Failures in a row before they are told: about half a second.
const FAILURES_TOLD: u32 = 3;
/// Raft's number of the snapshot message.
const SNAPSHOT_MESSAGE: u32 = 7;

/// Who sends.
#[derive(Clone)]
struct Sender {
    hello: StreamHello,
    handle: Handle,
    checkpoints: Arc<CheckpointFiles>,
}

struct Link {
    messages: mpsc::Sender<RaftMessage>,
    urls: watch::Sender<Vec<String>>,
    /// For forwarded proposals: one connection, beside the stream's.
    channel: Option<Channel>,
    stop: CancellationToken,
    is_sending_snapshot: Arc<Semaphore>,
}

/// The links to all other members.
pub struct Pool {
    sender: Sender,
    cluster: ClusterId,
    node: NodeId,
    links: BTreeMap<NodeId, Link>,
    runtime: runtime::Handle,
    forwards: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Pool {
    /// No links yet: [`Transport::members_changed`] makes them. Call it inside the runtime that they run on.
    pub fn new(membership: &Membership, identity: &super::Identity, tasks: &Tasks) -> Self {
        let Membership { cluster, node, .. } = *membership;
        let hello = StreamHello {
            protocol: PROTOCOL,
            cluster: cluster.get(),
            from: node.get(),
            to: 0,
            incarnation: identity.incarnation.clone(),
            boot: identity.boot,
        };
        Self {
            sender: Sender {
                hello,
                handle: membership.handle.clone(),
                checkpoints: Arc::new(membership.checkpoints.clone()),
            },
            cluster,
            node,
            links: BTreeMap::new(),
            runtime: runtime::Handle::current(),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            stop: tasks.stop().clone(),
        }
    }

    fn link(&self, peer: NodeId, peer_urls: &[String]) -> Link {
        let (messages, queue) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let urls = watch::Sender::new(peer_urls.to_vec());
        let stop = self.stop.child_token();
        let mut sender = self.sender.clone();
        sender.hello.to = peer.get();
        let task = PeerTask {
            peer,
            sender,
            queue,
            urls: urls.subscribe(),
            next_url: 0,
        };
        let until = stop.clone();
        self.runtime.spawn(async move {
            let _stopped = until.run_until_cancelled(task.run()).await;
        });
        let channel = first_channel(peer_urls);
        Link {
            messages,
            urls,
            channel,
            stop,
            is_sending_snapshot: Arc::new(Semaphore::new(1)),
        }
    }

    fn send_snapshot(&self, link: &Link, message: RaftMessage) {
        let to = NodeId::new(message.to);
        let handle = self.sender.handle.clone();
        let Ok(permit) = Arc::clone(&link.is_sending_snapshot).try_acquire_owned() else {
            return;
        };
        let mut hello = self.sender.hello.clone();
        hello.to = message.to;
        let checkpoints = Arc::clone(&self.sender.checkpoints);
        let url = link.urls.borrow().first().cloned();
        self.runtime.spawn(async move {
            let is_done = match url.as_deref().map(call::channel) {
                Some(Ok(channel)) => snapshot::send(channel, checkpoints, hello, message).await,
                Some(Err(_)) | None => false,
            };
            drop(permit);
            // A full queue only means that the follower is asked again by a heartbeat.
            let _full = handle.order(Order::SnapshotSent { to, is_done });
        });
    }
}

impl Transport for Pool {
    fn send(&mut self, messages: Vec<RaftMessage>) {
        for message in messages {
            let to = NodeId::new(message.to);
            let Some(link) = self.links.get(&to) else { continue };
            if message.r#type == SNAPSHOT_MESSAGE {
                self.send_snapshot(link, message);
            } else if link.messages.try_send(message).is_err() {
                let _full = self.sender.handle.order(Order::Unreachable { to });
            }
        }
    }

    fn forward(&mut self, leader: NodeId, proposal: Proposal) {
        let handle = self.sender.handle.clone();
        let ended = move |proposal: Proposal, verdict| {
            let order = Order::ForwardEnded {
                proposal: Box::new(proposal),
                verdict,
            };
            // With a full queue the waiter learns by its deadline.
            let _full = handle.order(order);
        };
        let channel = self.links.get(&leader).and_then(|link| link.channel.clone());
        let (Some(channel), Ok(permit)) = (channel, Arc::clone(&self.forwards).try_acquire_owned()) else {
            return ended(proposal, Some(Verdict::NotLeader));
        };
        let request = ProposeRequest {
            cluster: self.cluster.get(),
            proposal: Some(proposal.clone()),
        };
        self.runtime.spawn(async move {
            let verdict = forward(channel, request).await;
            drop(permit);
            ended(proposal, verdict);
        });
    }

    fn members_changed(&mut self, members: &Members) {
        // The raft thread is none of the runtime's; channels are made inside it.
        let runtime = self.runtime.clone();
        let _inside = runtime.enter();
        self.links.retain(|id, link| {
            let is_member = members.present.contains_key(id);
            if !is_member {
                link.stop.cancel();
            }
            is_member
        });
        for (id, member) in members.present.iter().filter(|(id, _)| **id != self.node) {
            match self.links.get_mut(id) {
                Some(link) => {
                    let is_new = link.urls.send_if_modified(|urls| {
                        let is_new = *urls != member.peer_urls;
                        urls.clone_from(&member.peer_urls);
                        is_new
                    });
                    if is_new {
                        link.channel = first_channel(&member.peer_urls);
                    }
                }
                None => {
                    let link = self.link(*id, &member.peer_urls);
                    self.links.insert(*id, link);
                }
            }
        }
    }
}

fn first_channel(urls: &[String]) -> Option<Channel> {
    urls.first().and_then(|url| call::channel(url).ok())
}

/// The leader's word; `NotLeader` also when the call certainly never left; none when nobody can tell.
async fn forward(channel: Channel, request: ProposeRequest) -> Option<Verdict> {
    let call = async { call::client(channel).propose(request).await };
    match tokio::time::timeout(FORWARD_TIMEOUT, call).await {
        Ok(Ok(response)) => Some(response.into_inner().verdict()),
        Ok(Err(status)) if was_never_sent(&status) => Some(Verdict::NotLeader),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// A connection that could not be made carried nothing.
fn was_never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}

struct PeerTask {
    peer: NodeId,
    sender: Sender,
    queue: mpsc::Receiver<RaftMessage>,
    urls: watch::Receiver<Vec<String>>,
    next_url: usize,
}

impl PeerTask {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1, random_seed());
        // The first failures are usual: a newcomer's port answers before it is a member.
        let mut is_told = false;
        loop {
            let (reason, was_up) = self.stream().await;
            if was_up {
                backoff.reset();
                is_told = false;
            }
            if !is_told && backoff.failures() >= FAILURES_TOLD {
                tracing::warn!(peer = %self.peer, reason, "peer is not reachable");
                is_told = true;
            }
            let _full = self.sender.handle.order(Order::Unreachable { to: self.peer });
            tokio::time::sleep(backoff.next_wait()).await;
            // What waited is old by now: raft sends again.
            while self.queue.try_recv().is_ok() {}
        }
    }

    /// One stream until it breaks: why, and whether it stood for a while.
    async fn stream(&mut self) -> (String, bool) {
        let urls = self.urls.borrow_and_update().clone();
        let Some(url) = urls.get(self.next_url % urls.len().max(1)) else {
            return ("it has no peer URL".to_owned(), false);
        };
        self.next_url += 1;
        let channel = match call::channel(url) {
            Ok(channel) => channel,
            Err(error) => return (error.to_string(), false),
        };
        let (envelopes, stream) = mpsc::channel(BATCHES_AHEAD);
        let hello = RaftEnvelope {
            content: Some(Content::Hello(self.sender.hello.clone())),
        };
        let _fits = envelopes.try_send(hello);
        let mut client = call::client(channel);
        let call = client.raft(ReceiverStream::new(stream));
        tokio::pin!(call);
        let started = tokio::time::Instant::now();
        let mut batch = Vec::new();
        let reason = loop {
            tokio::select! {
                ended = &mut call => break match ended {
                    Ok(_) => "it closed the stream".to_owned(),
                    Err(status) => call::reason(&status),
                },
                changed = self.urls.changed() => match changed {
                    Ok(()) => break "its URLs changed".to_owned(),
                    Err(_) => std::future::pending().await,
                },
                count = self.queue.recv_many(&mut batch, BATCH_MESSAGES_MAX), if batch.is_empty() => {
                    if count == 0 {
                        std::future::pending::<()>().await;
                    }
                }
                permit = envelopes.reserve(), if !batch.is_empty() => match permit {
                    Ok(permit) => {
                        let messages = std::mem::take(&mut batch);
                        permit.send(RaftEnvelope { content: Some(Content::Batch(RaftBatch { messages })) });
                    }
                    Err(_) => break (&mut call).await.map_or_else(|status| call::reason(&status), |_| "closed".into()),
                },
            }
        };
        (reason, started.elapsed() > call::CONNECT_TIMEOUT)
    }
}
