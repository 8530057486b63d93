//! What the tests of the v3 front share: clients, deadlines, and nodes to talk to.

pub(crate) mod inside;
pub(crate) mod ours;
pub(crate) mod stock;
pub(crate) mod watching;

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::health::health_client::HealthClient;
use tonic::transport::{Channel, Endpoint};

/// Long enough for a busy machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(crate) async fn deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A line for whoever runs the tests, past the capture of output.
pub(crate) fn say(line: &str) {
    let _written = writeln!(std::io::stderr(), "{line}");
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// Waits until a linearizable read is answered.
pub(crate) async fn until_ready(who: &str, url: &str) {
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let ready = async {
        while !Clients::connect(url).is_ready().await {
            pause.tick().await;
        }
    };
    deadline(&format!("{who} to be ready"), ready).await;
}

/// All services of one node.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) kv: KvClient<Channel>,
    pub(crate) watch: WatchClient<Channel>,
    pub(crate) lease: LeaseClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
    pub(crate) maintenance: MaintenanceClient<Channel>,
    pub(crate) health: HealthClient<Channel>,
}

impl Clients {
    /// Connects with the first call.
    pub(crate) fn connect(url: &str) -> Self {
        let channel = Endpoint::from_shared(url.to_owned())
            .expect("a URL")
            .connect_lazy();
        Self::over(&channel)
    }

    /// Over this connection.
    pub(crate) fn over(channel: &Channel) -> Self {
        const ANSWER_BYTES_MAX: usize = 64 << 20;
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            lease: LeaseClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            health: HealthClient::new(channel.clone()),
        }
    }

    /// Whether it answers a linearizable read.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let request = RangeRequest {
            key: "x".into(),
            ..RangeRequest::default()
        };
        self.kv.range(request).await.is_ok()
    }
}

/// A seeded generator (splitmix64): the same seed, the same test.
pub(crate) struct Draw(pub u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below the bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True one time in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// From `low` to `high`, both included.
    pub(crate) fn within(&mut self, low: i64, high: i64) -> i64 {
        let width = u64::try_from(high - low + 1).expect("low is not above high");
        low + i64::try_from(self.below(width)).expect("below an i64")
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = usize::try_from(self.below(from.len() as u64)).expect("an index");
        from[at]
    }
}
