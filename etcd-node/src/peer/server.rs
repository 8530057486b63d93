//! The peer port: answers from the first moment on, takes Raft traffic once this node belongs to a cluster.

use std::sync::Arc;

use proto::ids::NodeId;
use proto::peer::peer_server::{Peer, PeerServer};
use proto::peer::raft_envelope::Content;
use proto::peer::{
    HelloRequest, HelloResponse, InviteRequest, InviteResponse, JoinRequest, JoinResponse, ProposeRequest,
    ProposeResponse, RaftAck, RaftBatch, RaftEnvelope, SnapshotAck, SnapshotChunk, StreamHello,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::station::Membership;
use super::{MESSAGE_BYTES_MAX, PROTOCOL, Phase, Station, join, snapshot};
use crate::driver::Order;

/// Checkpoints received at once: a leader sends one, and a second only after a change of leader.
const SNAPSHOTS_MAX: usize = 2;

/// The gRPC service of the peer port.
pub fn service(station: Arc<Station>) -> PeerServer<impl Peer> {
    let service = PeerService {
        station,
        snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
    };
    PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

struct PeerService {
    station: Arc<Station>,
    snapshots: Arc<Semaphore>,
}

impl PeerService {
    fn membership(&self) -> Result<&Membership, Status> {
        self.station
            .membership()
            .ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))
    }
}

/// Whether a stream's first message proves a member that may speak to us.
pub(super) fn check_stream(membership: &Membership, hello: &StreamHello) -> Result<NodeId, Status> {
    if hello.protocol != PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "peer protocol {} is not {PROTOCOL}: run releases that are at most one apart",
            hello.protocol
        )));
    }
    if hello.cluster != membership.cluster.get() {
        return Err(Status::failed_precondition(format!(
            "cluster {:x} is not {}: two clusters share an address",
            hello.cluster, membership.cluster
        )));
    }
    if hello.to != membership.node.get() {
        return Err(Status::failed_precondition(format!(
            "this is member {}, not {:x}",
            membership.node, hello.to
        )));
    }
    let from = NodeId::new(hello.from);
    membership.handle.view(|view| {
        let members = view.members();
        if members.removed.contains(&from) {
            return Err(Status::permission_denied(format!(
                "member {from} was removed from this cluster"
            )));
        }
        // A member that we have not heard of yet is fine: our log may be behind, and before the first
        // checkpoint it is empty. Raft itself decides what such a message is worth.
        let is_other_disk = members
            .present
            .get(&from)
            .is_some_and(|member| !member.incarnation.is_empty() && member.incarnation != hello.incarnation);
        if is_other_disk {
            return Err(Status::permission_denied(format!(
                "member {from} is bound to another data directory: remove it and join again"
            )));
        }
        Ok(from)
    })
}

fn deliver(membership: &Membership, sender: NodeId, batch: RaftBatch) {
    for message in batch.messages {
        // When the raft thread is behind, messages are dropped: raft sends again.
        let _full = membership.handle.order(Order::Message {
            sender,
            message: Box::new(message),
        });
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn hello(&self, _request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        Ok(Response::new(self.station.hello()))
    }

    async fn raft(&self, request: Request<Streaming<RaftEnvelope>>) -> Result<Response<RaftAck>, Status> {
        let membership = self.membership()?;
        let mut stream = request.into_inner();
        let Some(RaftEnvelope {
            content: Some(Content::Hello(hello)),
        }) = stream.message().await?
        else {
            return Err(Status::invalid_argument("a stream begins with a hello"));
        };
        let sender = check_stream(membership, &hello)?;
        loop {
            let envelope = tokio::select! {
                () = membership.handle.stopping() => return Err(Status::unavailable("this node is stopping")),
                envelope = stream.message() => envelope?,
            };
            match envelope.map(|envelope| envelope.content) {
                Some(Some(Content::Batch(batch))) => deliver(membership, sender, batch),
                Some(_) => return Err(Status::invalid_argument("one hello is enough")),
                None => return Ok(Response::new(RaftAck {})),
            }
        }
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let membership = self.membership()?;
        let request = request.into_inner();
        if request.cluster != membership.cluster.get() {
            return Err(Status::failed_precondition(format!(
                "this is cluster {}",
                membership.cluster
            )));
        }
        let proposal = request
            .proposal
            .ok_or_else(|| Status::invalid_argument("no proposal"))?;
        let verdict = membership.handle.accept_forwarded(proposal).await;
        Ok(Response::new(ProposeResponse {
            verdict: verdict.into(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let membership = self.membership()?;
        Ok(Response::new(
            join::answer(membership, request.into_inner()).await,
        ))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotAck>, Status> {
        let membership = self.membership()?;
        let permit = Arc::clone(&self.snapshots)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("another checkpoint is coming in"))?;
        let result = snapshot::receive(membership, request.into_inner()).await;
        drop(permit);
        result.map(|()| Response::new(SnapshotAck {}))
    }

    async fn invite(&self, request: Request<InviteRequest>) -> Result<Response<InviteResponse>, Status> {
        let request = request.into_inner();
        let is_waiting = matches!(self.station.phase(), Phase::Waiting | Phase::Joining);
        if is_waiting {
            tracing::info!(cluster = format!("{:x}", request.cluster), "invited to join");
            self.station.invited.notify_one();
        }
        Ok(Response::new(InviteResponse { joining: is_waiting }))
    }
}
