//! The standard health protocol. As in etcd the one service that has a status is the whole node (an empty name):
//! serving until it stops, leader or not, since it still answers serializable reads.

use std::sync::Arc;

use proto::health::health_check_response::ServingStatus;
use proto::health::health_server::Health;
use proto::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status};

use super::stream::{Answers, answers};
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

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status as i32,
    }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if request.into_inner().service.is_empty() {
            Ok(Response::new(response(ServingStatus::Serving)))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    type WatchStream = Answers<HealthCheckResponse>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = request.into_inner().service.is_empty();
        let handle = self.context.handle.clone();
        Ok(Response::new(answers(move |out| async move {
            let first = if is_known {
                ServingStatus::Serving
            } else {
                ServingStatus::ServiceUnknown
            };
            out.send(response(first)).await;
            handle.stopping().await;
            if is_known {
                out.send(response(ServingStatus::NotServing)).await;
            }
            Ok(())
        })))
    }
}
