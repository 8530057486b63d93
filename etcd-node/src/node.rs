//! One node from start to stop: finds its cluster, runs, publishes itself, serves, and leaves in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use daemon::listen::Listener;
use daemon::tasks::Tasks;
use daemon::{listen, ready};
use proto::log::{MemberBoot, MemberUpdate};
use proto::time::Timestamp;
use store::Command;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api;
use crate::api::Context;
use crate::bootstrap::discovery::{Discovery, tend};
use crate::bootstrap::{self, Confirmation, DataDir, Decision, Intent, Opened};
use crate::config::{Config, Origin};
use crate::driver::{Driver, Handle, Order, Parts, Policy, Role, Start};
use crate::metrics::Metrics;
use crate::peer::{self, Identity, Phase, Pool, Station};
use crate::replica::Settings;
use crate::server::{self, ClientPort, Entrance};

/// How long other tasks may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a stopping leader waits for its successor.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(2);
/// Between two attempts to publish.
const PUBLISH_PAUSE: Duration = Duration::from_millis(200);

/// Runs a node until it is told to stop.
///
/// # Errors
/// What ends a node before or while it serves: one line that says what is wrong and what to do.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    for note in &config.notes {
        warn!("{note}");
    }
    let directory = DataDir::open(&config.data_dir)?;
    let clients = bind("client", "--addr or --listen-client-urls", &config.listen_client)?;
    let peers = bind("peer", "--peer-addr or --listen-peer-urls", &config.listen_peer)?;
    let node = Node::new(config, directory)?;
    node.serve_peers(peers);
    let entrance = Arc::new(Entrance::default());
    for listener in &clients {
        info!("listening for clients on {}", listener.describe());
    }
    let options = daemon::http::Options::default();
    let serving = server::serve(clients, Arc::clone(&entrance), options, node.tasks.stop().clone());
    node.tasks.spawn("client port", serving);
    let ended = node.run(&entrance, stop).await;
    node.tasks.stop().cancel();
    if let Err(unfinished) = node.tasks.join(STOP_DEADLINE).await {
        warn!(%unfinished, "some tasks did not end");
    }
    ended
}

/// Binds all addresses of one side before anything else is done, so that a taken port changes nothing.
fn bind(side: &str, flag: &str, addresses: &[std::net::SocketAddr]) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        match listen_on(*address) {
            Ok(listener) => listeners.push(listener),
            // A machine without IPv6 has no [::1]; the default addresses name both families.
            Err(error) if is_missing_family(&error) && addresses.len() > 1 => {
                info!(%address, "no such address family on this machine");
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot listen for {side}s on {address}: choose another address with {flag}")
                });
            }
        }
    }
    if listeners.is_empty() {
        bail!("no {side} address can be listened on: choose one with {flag}");
    }
    Ok(listeners)
}

/// `[::]` stands for every address; without IPv6 that is `0.0.0.0`.
fn listen_on(address: std::net::SocketAddr) -> Result<Listener, listen::ListenError> {
    match listen::tcp(address) {
        Err(error) if is_missing_family(&error) && address.ip().is_unspecified() => {
            listen::tcp((std::net::Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
}

fn is_missing_family(error: &listen::ListenError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::AddrNotAvailable
                || io.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
        }
        source = error.source();
    }
    false
}

struct Node {
    config: Config,
    directory: DataDir,
    intent: Intent,
    station: Arc<Station>,
    discovery: Option<Discovery>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    started: Instant,
    started_wall: Timestamp,
}

impl Node {
    fn new(config: Config, directory: DataDir) -> anyhow::Result<Self> {
        let member = directory.member()?;
        let mut intent = directory.intent(&config.peer_urls)?;
        if let Some(member) = &member {
            intent.incarnation.clone_from(&member.incarnation);
        }
        let identity = Identity {
            name: config.name.clone(),
            incarnation: bootstrap::disk::incarnation(&intent.incarnation)?,
            boot: bootstrap::random(),
            peer_urls: config.peer_urls.clone(),
            client_urls: config.client_urls.clone(),
        };
        let discovery = match &config.origin {
            Origin::Discovery(url) => Some(Discovery::new(url)),
            Origin::Alone | Origin::Static { .. } | Origin::Join(_) => None,
        };
        Ok(Self {
            config,
            directory,
            intent,
            station: Arc::new(Station::new(identity)),
            discovery,
            metrics: Arc::new(Metrics::new()),
            tasks: Tasks::new(CancellationToken::new()),
            started: Instant::now(),
            started_wall: Timestamp::ZERO
                .checked_add(
                    std::time::SystemTime::now()
                        .duration_since(std::time::UNIX_EPOCH)
                        .unwrap_or_default(),
                )
                .unwrap_or_default(),
        })
    }

    /// Answers peers from the first moment on.
    fn serve_peers(&self, listeners: Vec<Listener>) {
        let routes = tonic::service::Routes::new(peer::service(Arc::clone(&self.station)));
        for listener in listeners {
            let service = peer_service(routes.clone());
            let stop = self.tasks.stop().clone();
            let options = daemon::http::Options::default();
            self.tasks
                .spawn("peer port", daemon::http::serve(listener, service, options, stop));
        }
    }

    async fn run(&self, entrance: &Entrance, stop: CancellationToken) -> anyhow::Result<()> {
        let driver = tokio::select! {
            driver = self.start() => driver?,
            () = stop.cancelled() => return Ok(()),
        };
        let handle = driver.handle.clone();
        let served = tokio::select! {
            served = self.serve(entrance, &handle) => served,
            reason = handle.stopped() => Err(anyhow::anyhow!("{reason}")),
            () = stop.cancelled() => Ok(()),
        };
        ready::stopping();
        info!("stopping");
        self.station.enter(Phase::Stopping);
        hand_over(&handle).await;
        self.tasks.stop().cancel();
        tokio::task::spawn_blocking(move || driver.stop())
            .await
            .context("the driver could not be stopped")?;
        served
    }

    /// Comes to a cluster and runs; repeats when a founded cluster was given to another founder meanwhile.
    async fn start(&self) -> anyhow::Result<Driver> {
        loop {
            let member = match self.directory.member()? {
                Some(member) => member,
                None => {
                    let decision =
                        bootstrap::decide(&self.config, &self.intent, &self.station, self.discovery.as_ref())
                            .await?;
                    self.found(&decision)?;
                    self.directory
                        .member()?
                        .context("the data directory was not bound")?
                }
            };
            let opened = bootstrap::open(&self.directory, &member)?;
            let (driver, membership) = self.drive(opened)?;
            if member.is_unconfirmed && !self.confirm(&driver.handle).await? {
                warn!("another node founded the cluster meanwhile: joining it");
                tokio::task::spawn_blocking(move || driver.stop())
                    .await
                    .context("the driver could not be stopped")?;
                self.directory.unbind()?;
                continue;
            }
            if member.is_unconfirmed {
                self.directory.bind(&bootstrap::disk::Member {
                    is_unconfirmed: false,
                    ..member
                })?;
            }
            self.station.belong(membership);
            return Ok(driver);
        }
    }

    fn found(&self, decision: &Decision) -> anyhow::Result<()> {
        let is_founder = matches!(decision, Decision::Found { members, .. } if members.len() == 1);
        let confirmation = if is_founder && self.discovery.is_some() {
            Confirmation::Pending
        } else {
            Confirmation::Given
        };
        bootstrap::found(&self.directory, decision, &self.intent, confirmation)
    }

    /// A founder has committed an entry before it tells the directory.
    async fn confirm(&self, handle: &Handle) -> anyhow::Result<bool> {
        let Some(discovery) = &self.discovery else {
            bail!(
                "this node has founded a cluster through a discovery URL and was stopped before it said so: start it with --discovery again"
            );
        };
        let incarnation = self.station.identity.incarnation.clone();
        let node = handle.view(|view| view.members().present.keys().next().copied().unwrap_or_default());
        let boot = Command::MemberBoot(MemberBoot {
            id: node.get(),
            incarnation,
        });
        until_applied(handle, &boot).await?;
        discovery.confirm(&self.config, &self.intent).await
    }

    fn drive(&self, opened: Opened) -> anyhow::Result<(Driver, peer::Membership)> {
        let Opened {
            cluster,
            node,
            store,
            recovered,
            log,
            checkpoints,
        } = opened;
        let settings = Settings {
            node,
            boot: self.station.identity.boot,
            seed: bootstrap::random(),
            election_ticks: self.config.election_ticks,
            heartbeat_ticks: self.config.heartbeat_ticks,
            request_ticks: u64::try_from(self.config.request_timeout().as_millis() / 10).unwrap_or(u64::MAX),
            quota_bytes: bootstrap::quota_bytes(self.config.quota_bytes),
            log_was_cut: log.is_behind,
        };
        info!(%cluster, member = %node, quota_bytes = settings.quota_bytes, "starting");
        let parts = Parts::new(store, &self.tasks);
        let handle = parts.handle();
        let pool = Pool::new(
            &peer::Membership {
                cluster,
                node,
                handle: handle.clone(),
                checkpoints: checkpoints.clone(),
            },
            &self.station.identity,
            &self.tasks,
        );
        let start = Start {
            settings,
            recovered,
            log,
            checkpoints: checkpoints.clone(),
            policy: Policy {
                entries: self.config.snapshot_count,
            },
            transport: Box::new(pool),
            metrics: Arc::clone(&self.metrics),
        };
        let driver = parts.start(start, &self.tasks).context("no thread for raft")?;
        Ok((
            driver,
            peer::Membership {
                cluster,
                node,
                handle,
                checkpoints,
            },
        ))
    }

    /// Publishes this member, then serves clients until the node stops.
    async fn serve(&self, entrance: &Entrance, handle: &Handle) -> anyhow::Result<()> {
        self.publish(handle).await?;
        let membership = self
            .station
            .membership()
            .context("the node belongs to no cluster")?;
        let context = Arc::new(Context {
            handle: handle.clone(),
            cluster: membership.cluster,
            node: membership.node,
            name: self.config.name.clone(),
            started: self.started,
            started_wall: self.started_wall,
            metrics: Arc::clone(&self.metrics),
        });
        let routes = api::v3::routes(Arc::clone(&context));
        if let Some(discovery) = &self.discovery {
            let tending = tend(discovery.clone(), Arc::clone(&self.station));
            let stop = self.tasks.stop().clone();
            self.tasks.spawn("discovery", async move {
                let _stopped = stop.run_until_cancelled(tending).await;
            });
        }
        entrance.open(ClientPort::new(&context, routes));
        info!(name = self.config.name, "ready to serve client requests");
        ready::status("serving");
        ready::ready();
        handle.stopping().await;
        Ok(())
    }

    /// Binds the member's id to this disk and tells its name and client URLs; both once, whoever leads.
    async fn publish(&self, handle: &Handle) -> anyhow::Result<()> {
        let membership = self
            .station
            .membership()
            .context("the node belongs to no cluster")?;
        let node = membership.node;
        let identity = &self.station.identity;
        let mut told = false;
        loop {
            let ours = handle.view(|view| view.members().present.get(&node).cloned());
            match ours {
                // The log has not reached the point where we were admitted.
                None => {
                    if !told {
                        info!("waiting for the cluster's state");
                        ready::status("waiting for the cluster's state");
                        told = true;
                    }
                    tokio::time::sleep(PUBLISH_PAUSE).await;
                }
                Some(member) if member.incarnation.is_empty() => {
                    let incarnation = identity.incarnation.clone();
                    ready::status("waiting for a leader");
                    until_applied(
                        handle,
                        &Command::MemberBoot(MemberBoot {
                            id: node.get(),
                            incarnation,
                        }),
                    )
                    .await?;
                }
                Some(member) if member.incarnation != identity.incarnation => bail!(
                    "member {node} is bound to another data directory: this one must not speak for it; remove the member and join with an empty --data-dir"
                ),
                Some(member)
                    if member.name == identity.name && member.client_urls == identity.client_urls =>
                {
                    return Ok(());
                }
                Some(_) => {
                    let update = MemberUpdate {
                        id: node.get(),
                        name: identity.name.clone(),
                        client_urls: identity.client_urls.clone(),
                        peer_urls: Vec::new(),
                    };
                    until_applied(handle, &Command::MemberUpdate(update)).await?;
                }
            }
        }
    }
}

/// Proposes a command whose repetition changes nothing, until it is applied.
async fn until_applied(handle: &Handle, command: &Command) -> anyhow::Result<()> {
    loop {
        match handle.propose(command.clone()).await {
            Ok(_) => return Ok(()),
            Err(crate::driver::ProposeError::Stopping) => bail!("the node is stopping"),
            Err(error) => {
                warn!(%error, "waiting for a leader");
                tokio::time::sleep(PUBLISH_PAUSE).await;
            }
        }
    }
}

/// A leader that stops hands over first, so that the cluster need not wait for an election.
async fn hand_over(handle: &Handle) {
    let mut status = handle.watch_status();
    if status.borrow().role != Role::Leader {
        return;
    }
    if handle.view(|view| view.members().present.len()) < 2
        || handle.order(Order::TransferLeadership).is_err()
    {
        return;
    }
    let handed = status.wait_for(|status| status.role != Role::Leader);
    if tokio::time::timeout(HANDOVER_DEADLINE, handed).await.is_err() {
        warn!("no other member took the leadership over in time");
    }
}

/// The gRPC routes of the peer port as a service for the accept loop.
fn peer_service(
    routes: tonic::service::Routes,
) -> impl hyper::service::Service<
    hyper::Request<hyper::body::Incoming>,
    Response = hyper::Response<tonic::body::Body>,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send
+ 'static {
    hyper_util::service::TowerToHyperService::new(routes)
}
