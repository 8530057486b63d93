//! KV: reads at a confirmed state, writes through the log.

use std::sync::Arc;

use prost::Message;
use proto::etcdserverpb::kv_server::Kv;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use store::v3::{RangeScan, check};
use store::{Command, Outcome};
use tonic::{Request, Response, Status};

use super::header::complete;
use super::{REQUEST_BYTES_MAX, SLICE_RECORDS, refuse};
use crate::api::Context;
use crate::driver::Answer;

/// The service.
pub(super) struct Service {
    context: Arc<Context>,
}

impl Service {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    async fn propose(&self, command: Command) -> Result<Answer, Status> {
        self.context
            .handle
            .propose(command)
            .await
            .map_err(refuse::unproposed)
    }

    /// Reads in slices, so that the raft thread never waits long; all slices show one revision.
    async fn scan(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let refused = |refusal| refuse::refusal(&refusal);
        let mut scan = RangeScan::new(request).map_err(refused)?;
        loop {
            let step = self
                .context
                .handle
                .view(|view| scan.step(view, SLICE_RECORDS))
                .map_err(refused)?;
            match step {
                Some(response) => return Ok(response),
                None => tokio::task::yield_now().await,
            }
        }
    }
}

/// What etcd's log puts around a request, and its limit counts: the kind, the length, and a request id.
const FRAME_BYTES: usize = 17;

fn fits(request: &impl Message) -> Result<(), Status> {
    if request.encoded_len() + FRAME_BYTES > REQUEST_BYTES_MAX {
        Err(refuse::too_large())
    } else {
        Ok(())
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        check::range(&request).map_err(|refusal| refuse::refusal(&refusal))?;
        if !request.serializable {
            self.context.handle.read_barrier().await.map_err(refuse::unread)?;
        }
        let mut response = self.scan(request).await?;
        complete(
            &self.context,
            &mut response.header,
            self.context.handle.status().term,
        );
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check::put(&request).map_err(|refusal| refuse::refusal(&refusal))?;
        fits(&request)?;
        let answer = self.propose(Command::Put(request)).await?;
        let Outcome::Put(outcome) = answer.outcome else {
            return Err(refuse::mismatched("put"));
        };
        let mut response = outcome.map_err(|refusal| refuse::refusal(&refusal))?;
        complete(&self.context, &mut response.header, answer.term);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check::delete_range(&request).map_err(|refusal| refuse::refusal(&refusal))?;
        fits(&request)?;
        let answer = self.propose(Command::DeleteRange(request)).await?;
        let Outcome::DeleteRange(outcome) = answer.outcome else {
            return Err(refuse::mismatched("delete range"));
        };
        let mut response = outcome.map_err(|refusal| refuse::refusal(&refusal))?;
        complete(&self.context, &mut response.header, answer.term);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        check::txn(&request).map_err(|refusal| refuse::refusal(&refusal))?;
        fits(&request)?;
        let answer = self.propose(Command::Txn(request)).await?;
        let Outcome::Txn(outcome) = answer.outcome else {
            return Err(refuse::mismatched("txn"));
        };
        let mut response = outcome.map_err(|refusal| refuse::refusal(&refusal))?;
        complete(&self.context, &mut response.header, answer.term);
        Ok(Response::new(response))
    }

    /// `physical` needs nothing more: what is compacted is out of everybody's sight at once, and its memory is
    /// freed in slices.
    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let answer = self.propose(Command::Compact(request.into_inner())).await?;
        let Outcome::Compact(outcome) = answer.outcome else {
            return Err(refuse::mismatched("compact"));
        };
        let mut response = outcome.map_err(|refusal| refuse::refusal(&refusal))?;
        complete(&self.context, &mut response.header, answer.term);
        Ok(Response::new(response))
    }
}
