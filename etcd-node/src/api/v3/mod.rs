//! The v3 gRPC front: KV, Watch, Lease, Cluster.MemberList, Maintenance.Status and `grpc.health.v1`, with etcd's
//! answers, codes and texts. What is not served answers UNIMPLEMENTED.
//!
//! Reading order: [`kv`] shows the shape of every call (check, propose or confirm a read, complete the header);
//! `watch` is the one with a life of its own.

mod cluster;
mod header;
mod health;
mod kv;
mod leader;
mod lease;
mod maintenance;
mod oversize;
mod refuse;
mod stream;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use proto::etcdserverpb::cluster_server::ClusterServer;
use proto::etcdserverpb::kv_server::KvServer;
use proto::etcdserverpb::lease_server::LeaseServer;
use proto::etcdserverpb::maintenance_server::MaintenanceServer;
use proto::etcdserverpb::watch_server::WatchServer;
use proto::health::health_server::HealthServer;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tower::util::MapResponseLayer;

use super::Context;

/// The largest request, as it would stand in the log: etcd's default.
pub const REQUEST_BYTES_MAX: usize = 3 << 19;

/// The largest message that is read from a client: the largest request and what gRPC may add to it.
pub const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + (512 << 10);

/// Records that one view closure reads (keyspace rules, section 5): the raft thread waits for it.
const SLICE_RECORDS: usize = 1000;

/// What a test may want otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often a quiet watch that asked for it hears how far it is. etcd's default.
    pub progress_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            progress_interval: Duration::from_mins(10),
        }
    }
}

/// All v3 services of this node.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the counterpart of the other fronts' constructors"
)]
pub fn routes(context: Arc<Context>) -> Routes {
    routes_with(&context, Options::default())
}

/// As [`routes`], with other options.
pub fn routes_with(context: &Arc<Context>, options: Options) -> Routes {
    let kv = KvServer::new(kv::Service::new(Arc::clone(context)));
    let watch = WatchServer::new(watch::Service::new(Arc::clone(context), options));
    let lease = LeaseServer::new(lease::Service::new(Arc::clone(context)));
    let cluster = ClusterServer::new(cluster::Service::new(Arc::clone(context)));
    let maintenance = MaintenanceServer::new(maintenance::Service::new(Arc::clone(context)));
    let health = HealthServer::new(health::Service::new(Arc::clone(context)));
    let required = leader::Required::new(context.handle.clone());
    let services = Routes::default()
        .add_service(InterceptedService::new(
            kv.max_decoding_message_size(MESSAGE_BYTES_MAX),
            required.clone(),
        ))
        .add_service(InterceptedService::new(
            watch.max_decoding_message_size(MESSAGE_BYTES_MAX),
            required.clone(),
        ))
        .add_service(InterceptedService::new(
            lease.max_decoding_message_size(MESSAGE_BYTES_MAX),
            required.clone(),
        ))
        .add_service(InterceptedService::new(
            cluster.max_decoding_message_size(MESSAGE_BYTES_MAX),
            required.clone(),
        ))
        .add_service(InterceptedService::new(
            maintenance.max_decoding_message_size(MESSAGE_BYTES_MAX),
            required,
        ))
        .add_service(health.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .into_axum_router();
    Routes::from(services.layer(MapResponseLayer::new(oversize::translate))).prepare()
}

/// A random number from the operating system's seed; nothing that must stay secret.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
}
