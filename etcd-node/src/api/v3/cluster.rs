//! Cluster: who is a member.

use std::sync::Arc;

use proto::etcdserverpb::cluster_server::Cluster;
use proto::etcdserverpb::{Member, MemberListRequest, MemberListResponse};
use proto::ids::Revision;
use tonic::{Request, Response, Status};

use super::header::header;
use super::refuse;
use crate::api::Context;

/// The service.
pub(super) struct Service {
    context: Arc<Context>,
}

impl Service {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

fn shown(member: &store::members::Member) -> Member {
    Member {
        id: member.id.get(),
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    /// By id. The header has no revision, as in etcd: members are no part of the keyspace.
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let handle = &self.context.handle;
        if request.into_inner().linearizable {
            handle.read_barrier().await.map_err(refuse::unread)?;
        }
        let members = handle.view(|view| view.members().present.values().map(shown).collect());
        let header = Some(header(&self.context, Revision::ZERO, handle.status().term));
        Ok(Response::new(MemberListResponse { header, members }))
    }
}
