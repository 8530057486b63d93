//! Checkpoints on the wire: the bytes of the sender's file, checked as they come, durable before raft hears of them.

use std::sync::Arc;

use proto::ids::NodeId;
use proto::peer::snapshot_chunk::Content;
use proto::peer::{RaftMessage, SnapshotChunk, SnapshotHead, StreamHello};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::call;
use super::server::check_stream;
use super::station::Membership;
use crate::driver::{CheckpointFiles, Order, position, read_back};
use crate::snap::CheckpointName;

/// Bytes per chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

/// Takes a checkpoint in, makes it durable, reads it back, and hands it to the raft thread.
pub(super) async fn receive(
    membership: &Membership,
    mut stream: Streaming<SnapshotChunk>,
) -> Result<(), Status> {
    let Some(SnapshotChunk {
        content: Some(Content::Head(head)),
    }) = stream.message().await?
    else {
        return Err(Status::invalid_argument("a checkpoint begins with its head"));
    };
    let hello = head.hello.unwrap_or_default();
    let sender = check_stream(membership, &hello)?;
    let message = head.message.unwrap_or_default();
    let metadata = message
        .snapshot
        .clone()
        .ok_or_else(|| Status::invalid_argument("the message has no snapshot"))?;
    let applied = membership.handle.status().applied;
    if metadata.index <= applied.get() {
        return Err(Status::already_exists(format!(
            "entry {applied} is applied here already"
        )));
    }
    let mut receiver = membership
        .checkpoints
        .receive(metadata, head.length)
        .map_err(internal)?;
    tracing::info!(%sender, bytes = head.length, "receiving a checkpoint");
    while let Some(chunk) = stream.message().await? {
        let Some(Content::Data(data)) = chunk.content else {
            return Err(Status::invalid_argument("one head is enough"));
        };
        receiver = tokio::task::spawn_blocking(move || receiver.write(&data).map(|()| receiver))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(internal)?;
    }
    let checkpoints = membership.checkpoints.clone();
    let restored = tokio::task::spawn_blocking(move || -> Result<_, String> {
        let name = receiver.finish().map_err(|error| error.to_string())?;
        read_back(&checkpoints, name).map_err(|error| error.to_string())
    });
    let (_, store) = restored
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(Status::data_loss)?;
    membership
        .handle
        .order(Order::Snapshot {
            sender,
            message: Box::new(message),
            store: Box::new(store),
        })
        .map_err(|error| Status::unavailable(error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn internal(error: crate::snap::SnapError) -> Status {
    tracing::error!(%error, "a checkpoint could not be received");
    Status::internal(error.to_string())
}

/// Sends the checkpoint that a snapshot message names; whether the follower has it.
pub(super) async fn send(
    channel: Channel,
    checkpoints: Arc<CheckpointFiles>,
    hello: StreamHello,
    message: RaftMessage,
) -> bool {
    let to = NodeId::new(message.to);
    let Some(metadata) = message.snapshot.clone() else {
        return false;
    };
    let name = CheckpointName {
        position: position(&metadata),
    };
    let file = match checkpoints.file(name) {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(%error, %to, "a checkpoint to be sent cannot be opened");
            return false;
        }
    };
    let length = file.bytes();
    let (chunks, stream) = mpsc::channel(CHUNKS_AHEAD);
    let head = SnapshotHead {
        hello: Some(hello),
        message: Some(message),
        length,
    };
    let reading = tokio::task::spawn_blocking(move || {
        let mut offset = 0;
        let mut next = Some(Content::Head(head));
        while let Some(content) = next.take() {
            if chunks
                .blocking_send(SnapshotChunk {
                    content: Some(content),
                })
                .is_err()
            {
                return;
            }
            if offset < length {
                match file.chunk(offset, CHUNK_BYTES) {
                    Ok(data) if !data.is_empty() => {
                        offset += data.len() as u64;
                        next = Some(Content::Data(data));
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "a checkpoint to be sent cannot be read"),
                }
            }
        }
    });
    tracing::info!(%to, bytes = length, "sending a checkpoint");
    let sent = call::client(channel)
        .install_snapshot(ReceiverStream::new(stream))
        .await;
    let _reader_ended = reading.await;
    match sent {
        Ok(_) => true,
        // It went on by the log meanwhile.
        Err(status) if status.code() == tonic::Code::AlreadyExists => true,
        Err(status) => {
            tracing::warn!(%to, reason = call::reason(&status), "a checkpoint was not taken");
            false
        }
    }
}
