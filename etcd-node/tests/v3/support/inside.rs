//! A node inside the test, on a disk in memory: for what cannot be reached from outside, such as short progress
//! intervals, the hub, and the moment at which it stops.

use std::sync::Arc;
use std::time::Instant;

use daemon::tasks::Tasks;
use etcd_node::api::Context;
use etcd_node::api::v3::{Options, routes_with};
use etcd_node::disk::Disk;
use etcd_node::disk::memory::MemoryDisk;
use etcd_node::driver::{CheckpointFiles, Driver, Handle, Parts, Policy, Start, Transport};
use etcd_node::metrics::Metrics;
use etcd_node::replica::{Recovered, Settings};
use etcd_node::wal;
use proto::ids::{ClusterId, LogIndex, NodeId, Term};
use proto::log::Proposal;
use proto::peer::{RaftConfState, RaftMessage, RaftSnapshotMetadata};
use proto::time::Timestamp;
use store::command::Position;
use store::members::{Member, Members};
use store::{Founding, Store};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::{Clients, until_ready};

const CLUSTER: ClusterId = ClusterId::new(0xc1);
const NODE: NodeId = NodeId::new(0xa1);

/// A cluster of one sends nothing.
struct Nobody;

impl Transport for Nobody {
    fn send(&mut self, _messages: Vec<RaftMessage>) {}
    fn forward(&mut self, _leader: NodeId, _proposal: Proposal) {}
    fn members_changed(&mut self, _members: &Members) {}
}

/// A node inside the test.
pub(crate) struct Inside {
    driver: Option<Driver>,
    /// What the fronts hold.
    pub(crate) handle: Handle,
    /// Ends the node's streams.
    pub(crate) stop: CancellationToken,
    /// Its client URL.
    pub(crate) url: String,
}

impl Inside {
    pub(crate) async fn start(options: Options) -> Self {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let metrics = Arc::new(Metrics::new());
        let parts = Parts::new(founded(), &tasks);
        let driver = parts.start(first_start(&metrics), &tasks).expect("threads");
        let handle = driver.handle.clone();
        let context = Arc::new(Context {
            handle: handle.clone(),
            cluster: CLUSTER,
            node: NODE,
            name: "inside".to_owned(),
            started: Instant::now(),
            started_wall: Timestamp::ZERO,
            metrics,
        });
        let incoming =
            TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("loopback has a free port");
        let url = format!(
            "http://{}",
            incoming.local_addr().expect("a bound socket has an address")
        );
        let server = Server::builder().add_routes(routes_with(&context, options));
        let ending = stop.clone();
        tasks.spawn("front", async move {
            let ended = server
                .serve_with_incoming_shutdown(incoming, ending.cancelled_owned())
                .await;
            ended.expect("the front serves");
        });
        until_ready("the node inside", &url).await;
        Self {
            driver: Some(driver),
            handle,
            stop,
            url,
        }
    }

    pub(crate) fn clients(&self) -> Clients {
        Clients::connect(&self.url)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(driver) = self.driver.take() {
            driver.stop();
        }
    }
}

fn founded() -> Store {
    let member = Member {
        id: NODE,
        name: "inside".to_owned(),
        ..Member::default()
    };
    Store::found(Founding {
        cluster: CLUSTER,
        members: vec![member],
        position: Position {
            index: LogIndex::new(1),
            term: Term::new(1),
        },
    })
}

fn first_start(metrics: &Arc<Metrics>) -> Start {
    let disk = MemoryDisk::new(1);
    let directory = |name: &str| -> Arc<dyn Disk> { Arc::new(disk.below(name)) };
    let identity = wal::Identity {
        cluster: CLUSTER,
        node: NODE,
    };
    let position = wal::LogPosition {
        index: LogIndex::new(1),
        term: Term::new(1),
    };
    let options = wal::Options {
        segment_bytes: 16 << 20,
        first_segment_bytes: 4 << 20,
        ..wal::Options::default()
    };
    let conf_state = RaftConfState {
        voters: vec![NODE.get()],
        ..RaftConfState::default()
    };
    Start {
        settings: Settings {
            node: NODE,
            boot: 1,
            seed: 1,
            election_ticks: 40,
            heartbeat_ticks: 5,
            request_ticks: 580,
            quota_bytes: 1 << 30,
            log_was_cut: false,
        },
        recovered: Recovered {
            checkpoint: RaftSnapshotMetadata {
                conf_state: Some(conf_state),
                index: 1,
                term: 1,
            },
            ..Recovered::default()
        },
        log: wal::create(directory("wal"), identity, position, 7, options).expect("a new log"),
        checkpoints: CheckpointFiles::open(directory("snap"), CLUSTER).expect("a directory in memory"),
        policy: Policy::default(),
        transport: Box::new(Nobody),
        metrics: Arc::clone(metrics),
    }
}
