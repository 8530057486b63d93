//! Maintenance: how this node is.

use std::sync::Arc;

use proto::etcdserverpb::maintenance_server::Maintenance;
use proto::etcdserverpb::{AlarmType, StatusRequest, StatusResponse};
use proto::ids::NodeId;
use tonic::{Request, Response, Status};

use super::header::header;
use crate::api::Context;
use crate::api::context::SERVER_VERSION;
use crate::driver::ProposeError;

/// The service.
pub(super) struct Service {
    context: Arc<Context>,
}

impl Service {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

/// Alarms in the text form of etcd's message.
fn alarm_text(member: u64, alarm: i32) -> String {
    let kind =
        AlarmType::try_from(alarm).map_or_else(|_| alarm.to_string(), |kind| kind.as_str_name().to_owned());
    format!("memberID:{member} alarm:{kind} ")
}

#[tonic::async_trait]
impl Maintenance for Service {
    /// `db_size` is what the keyspace holds with its history, `db_size_in_use` the live part that the quota counts.
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.context.handle.status();
        let (revision, alarms) = self.context.handle.view(|view| (view.revision(), view.alarms()));
        let missing = (status.leader == NodeId::NONE).then(|| ProposeError::NoLeader.to_string());
        let alarms = alarms
            .into_iter()
            .map(|(member, alarm)| alarm_text(member, alarm));
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            header: Some(header(&self.context, revision, status.term)),
            version: SERVER_VERSION.to_owned(),
            db_size: bytes(status.live_bytes.saturating_add(status.superseded_bytes)),
            leader: status.leader.get(),
            raft_index: status.committed.get(),
            raft_term: status.term.get(),
            raft_applied_index: status.applied.get(),
            errors: missing.into_iter().chain(alarms).collect(),
            db_size_in_use: bytes(status.live_bytes),
            is_learner: status.is_learner,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_read_as_in_etcd() {
        assert_eq!(alarm_text(12, 1), "memberID:12 alarm:NOSPACE ");
        assert_eq!(alarm_text(12, 2), "memberID:12 alarm:CORRUPT ");
        assert_eq!(alarm_text(12, 9), "memberID:12 alarm:9 ");
    }
}
