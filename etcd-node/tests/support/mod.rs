//! A whole node in this process, on a disk in memory, with its client port on loopback; and a plain HTTP client
//! that shows every byte.
#![expect(dead_code, reason = "each test binary uses a part")]

pub(crate) mod http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::http::Options;
use daemon::listen::{self, Listener};
use daemon::tasks::Tasks;
use etcd_node::api::{Context, v3};
use etcd_node::disk::layout::Layout;
use etcd_node::disk::memory::MemoryDisk;
use etcd_node::driver::{
    CheckpointFiles, Driver, Handle, Parts, Policy, Role, Start, Transport, write_whole,
};
use etcd_node::metrics::Metrics;
use etcd_node::replica::{Recovered, Settings};
use etcd_node::server::{self, ClientPort, Entrance};
use etcd_node::wal::{self, Identity, LogPosition};
use proto::ids::{ClusterId, LogIndex, NodeId, Term};
use proto::log::Proposal;
use proto::peer::{RaftConfState, RaftMessage, RaftSnapshotMetadata};
use proto::time::Timestamp;
use store::command::Position;
use store::members::{Member, Members};
use store::{Founding, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The member of the recorded conversations.
pub(crate) const NODE: u64 = 0x2f74_aac3_06f9_093a;

/// A cluster of one.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    stop: CancellationToken,
    tasks: Tasks,
    driver: Driver,
    serving: JoinHandle<()>,
}

/// There is nobody to talk to.
struct Alone;

impl Transport for Alone {
    fn send(&mut self, _messages: Vec<RaftMessage>) {}
    fn forward(&mut self, _leader: NodeId, _proposal: Proposal) {}
    fn members_changed(&mut self, _members: &Members) {}
}

fn founder() -> Member {
    Member {
        id: NodeId::new(NODE),
        name: "n238".to_owned(),
        peer_urls: vec!["http://127.0.0.1:7002".to_owned()],
        client_urls: vec!["http://127.0.0.1:4002".to_owned()],
        ..Member::default()
    }
}

fn settings() -> Settings {
    Settings {
        node: NodeId::new(NODE),
        boot: 7,
        seed: 7,
        election_ticks: 40,
        heartbeat_ticks: 5,
        request_ticks: 580,
        quota_bytes: 1 << 30,
        log_was_cut: false,
    }
}

impl Node {
    /// Founds a cluster and waits until it has elected itself.
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let metrics = Arc::new(Metrics::new());
        let driver = drive(&tasks, &metrics);
        let handle = driver.handle.clone();
        let context = Arc::new(Context {
            handle: handle.clone(),
            cluster: cluster(),
            node: NodeId::new(NODE),
            name: "n238".to_owned(),
            started: Instant::now(),
            started_wall: Timestamp::from_nanos(1_780_000_000_000_000_000),
            metrics,
        });
        let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let Listener::Tcp(tcp) = &listener else {
            panic!("not a TCP listener")
        };
        let address = tcp.local_addr().unwrap();
        let grpc = v3::routes(Arc::clone(&context));
        let entrance = Arc::new(Entrance::default());
        entrance.open(ClientPort::new(&context, grpc));
        let serving = tokio::spawn(server::serve(vec![listener], entrance, options, stop.clone()));
        let node = Self {
            address,
            handle,
            stop,
            tasks,
            driver,
            serving,
        };
        node.becomes_leader().await;
        node
    }

    async fn becomes_leader(&self) {
        let mut status = self.handle.watch_status();
        let leads = status.wait_for(|status| status.role == Role::Leader);
        tokio::time::timeout(PATIENCE, leads)
            .await
            .expect("no leader in time")
            .expect("the node ended");
    }

    /// Begins to stop; connections and streams end.
    pub(crate) fn begin_to_stop(&self) {
        self.stop.cancel();
    }

    /// Stops and waits until everything has ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving)
            .await
            .expect("the port does not close")
            .unwrap();
        tokio::task::spawn_blocking(|| self.driver.stop()).await.unwrap();
        self.tasks.join(PATIENCE).await.unwrap();
    }
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::derive(&[NodeId::new(NODE)])
}

fn drive(tasks: &Tasks, metrics: &Arc<Metrics>) -> Driver {
    let base = LogPosition {
        index: LogIndex::new(1),
        term: Term::new(1),
    };
    let store = Store::found(Founding {
        cluster: cluster(),
        members: vec![founder()],
        position: Position {
            index: base.index,
            term: base.term,
        },
    });
    let conf_state = RaftConfState {
        voters: vec![NODE],
        ..RaftConfState::default()
    };
    let checkpoint = RaftSnapshotMetadata {
        conf_state: Some(conf_state),
        index: 1,
        term: 1,
    };
    let layout = Layout::open(&MemoryDisk::new(1)).unwrap();
    let checkpoints = CheckpointFiles::open(layout.checkpoints, cluster()).unwrap();
    write_whole(&checkpoints, checkpoint.clone(), &store).unwrap();
    let identity = Identity {
        cluster: cluster(),
        node: NodeId::new(NODE),
    };
    let sizes = wal::Options {
        segment_bytes: 32 << 20,
        first_segment_bytes: 16 << 20,
        ..wal::Options::default()
    };
    let log = wal::create(layout.wal, identity, base, 1, sizes).unwrap();
    let start = Start {
        settings: settings(),
        recovered: Recovered {
            checkpoint,
            ..Recovered::default()
        },
        log,
        checkpoints,
        policy: Policy::default(),
        transport: Box::new(Alone),
        metrics: Arc::clone(metrics),
    };
    Parts::new(store, tasks).start(start, tasks).unwrap()
}
