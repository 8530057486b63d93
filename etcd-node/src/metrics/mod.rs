//! What this node counts, in one place that is handed to whoever has something to count; shown at `/metrics`
//! and in the stats of the v2 API. Names are etcd's, so that dashboards made for it work.

mod http;
mod peers;
mod server;
mod store;

use prometheus_client::encoding::text;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use proto::ids::NodeId;

use crate::driver::{Role, Status};

pub use http::{HttpMetrics, Method};
pub use peers::{Follower, PeerMetrics, Rates};
pub use server::{Leader, ServerMetrics};
pub use store::{Counts, Operation, StoreMetrics, Watching};

/// The media type of [`Metrics::render`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All counters of a node. Cheap to count with; shared behind an `Arc`.
pub struct Metrics {
    registry: Registry,
    /// Raft: who leads, what is proposed, committed and applied.
    pub server: ServerMetrics,
    /// `etcd_disk_wal_fsync_duration_seconds`: how long each fsync of the log took, in seconds.
    pub wal_fsync: Histogram,
    /// Requests to the v2 keys API.
    pub http: HttpMetrics,
    /// Operations of the v2 API and watchers.
    pub store: StoreMetrics,
    /// Traffic with other members, for the v2 stats.
    pub peers: PeerMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let server = ServerMetrics::register(&mut registry);
        // etcd's buckets (1 ms doubling, to 8 s) and three below: our log is often faster.
        let wal_fsync = Histogram::new(exponential_buckets(0.000_125, 2.0, 17));
        registry.register(
            "etcd_disk_wal_fsync_duration_seconds",
            "How long the fsyncs of the log took",
            wal_fsync.clone(),
        );
        let http = HttpMetrics::register(&mut registry);
        let store = StoreMetrics::register(&mut registry);
        Self {
            registry,
            server,
            wal_fsync,
            http,
            store,
            peers: PeerMetrics::default(),
        }
    }

    /// Everything as OpenMetrics text; what the driver knows better is taken from its status.
    pub fn render(&self, status: &Status) -> String {
        let server = &self.server;
        server.has_leader.set(i64::from(status.leader != NodeId::NONE));
        server.is_leader.set(i64::from(status.role == Role::Leader));
        server.is_learner.set(i64::from(status.is_learner));
        server.show_progress(status);
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("memory can be written to");
        page
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::LogIndex;

    use super::*;

    /// The value of the sample with this name and labels.
    fn sample(page: &str, name: &str) -> Option<f64> {
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    #[test]
    fn the_page_has_every_documented_name_with_its_value() {
        let metrics = Metrics::new();
        metrics.server.leader_changed(NodeId::new(7));
        metrics.server.proposals_failed.inc();
        metrics.wal_fsync.observe(0.003);
        metrics.http.received(Method::Put);
        metrics.http.failed(Method::Put, 412);
        metrics.http.succeeded(Method::QuorumGet, 0.01);
        metrics.store.counts(Operation::CompareAndSwap).count(false);
        metrics.store.counts(Operation::Get).count(true);
        metrics.store.expired(2);
        let status = Status {
            leader: NodeId::new(7),
            role: Role::Leader,
            committed: LogIndex::new(12),
            applied: LogIndex::new(11),
            pending: 3,
            ..Status::default()
        };
        let page = metrics.render(&status);
        let expected = [
            ("etcd_server_has_leader", 1.0),
            ("etcd_server_is_leader", 1.0),
            ("etcd_server_leader_changes_seen_total", 1.0),
            ("etcd_server_proposals_committed_total", 12.0),
            ("etcd_server_proposals_applied_total", 11.0),
            ("etcd_server_proposals_pending", 3.0),
            ("etcd_server_proposals_failed_total", 1.0),
            ("etcd_disk_wal_fsync_duration_seconds_count", 1.0),
            ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"}", 0.0),
            ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"}", 1.0),
            ("etcd_http_received_total{method=\"PUT\"}", 1.0),
            ("etcd_http_failed_total{method=\"PUT\",code=\"412\"}", 1.0),
            (
                "etcd_http_successful_duration_seconds_count{method=\"QGET\"}",
                1.0,
            ),
            ("etcd_store_writes_failed_total{action=\"compareAndSwap\"}", 1.0),
            (
                "etcd_debugging_store_writes_failed_total{action=\"compareAndSwap\"}",
                1.0,
            ),
            ("etcd_store_reads_total{action=\"get\"}", 1.0),
            ("etcd_store_expires_total", 2.0),
            ("etcd_debugging_store_expires_total", 2.0),
            ("etcd_store_watchers", 0.0),
            ("etcd_store_watch_requests_total", 0.0),
        ];
        for (name, value) in expected {
            assert_eq!(sample(&page, name), Some(value), "{name} in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_node_without_a_leader_says_so() {
        let page = Metrics::new().render(&Status::default());
        assert_eq!(sample(&page, "etcd_server_has_leader"), Some(0.0));
        assert_eq!(sample(&page, "etcd_server_is_leader"), Some(0.0));
    }

    #[test]
    fn no_metric_stands_twice_or_without_its_meaning() {
        let page = Metrics::new().render(&Status::default());
        let mut names: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let documented = page.lines().filter(|line| line.starts_with("# HELP ")).count();
        assert_eq!(documented, names.len());
        names.sort_unstable();
        names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
    }
}
