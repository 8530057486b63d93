//! Keep-alives of many clients as one command (keyspace rules, section 3): the first goes at once, the others
//! that come within the interval share the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::log::KeepAlive;
use store::{Command, Outcome};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Handle, ProposeError};

/// Between two commands at least.
const INTERVAL: Duration = Duration::from_millis(500);

/// Renewals that wait at most; as many as raft's request queue takes, and more would wait longer than a ttl.
pub(super) const RENEWALS_MAX: usize = 16_384;

type Reply = oneshot::Sender<Result<i64, ProposeError>>;

/// Where renewals are handed in.
pub(super) type RenewalQueue = mpsc::Sender<(i64, Reply)>;

/// The task that gathers renewals.
pub(super) struct KeepAlives {
    renewals: mpsc::Receiver<(i64, Reply)>,
}

impl KeepAlives {
    /// The queue and the task's state.
    pub(super) fn new() -> (RenewalQueue, Self) {
        let (queue, renewals) = mpsc::channel(RENEWALS_MAX);
        (queue, Self { renewals })
    }

    /// Hands a renewal in and waits for its outcome.
    pub(super) async fn ask(queue: &RenewalQueue, lease: i64) -> Result<i64, ProposeError> {
        let (reply, renewed) = oneshot::channel();
        queue.try_send((lease, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopping,
        })?;
        renewed.await.unwrap_or(Err(ProposeError::Stopping))
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self, handle: Handle) {
        let mut next_at = Instant::now();
        loop {
            let first = tokio::select! {
                () = handle.stopping() => return,
                first = self.renewals.recv() => first,
            };
            let Some(first) = first else { return };
            tokio::select! {
                () = handle.stopping() => return,
                () = tokio::time::sleep_until(next_at) => {}
            }
            next_at = Instant::now() + INTERVAL;
            let mut waiting = vec![first];
            while let Ok(more) = self.renewals.try_recv() {
                waiting.push(more);
            }
            // The next batch may be proposed while this one is on its way.
            tokio::spawn(renew(handle.clone(), waiting));
        }
    }
}

async fn renew(handle: Handle, waiting: Vec<(i64, Reply)>) {
    let leases: BTreeSet<i64> = waiting.iter().map(|(lease, _)| *lease).collect();
    let command = Command::KeepAlive(KeepAlive {
        leases: leases.into_iter().collect(),
    });
    let outcome = handle.propose(command).await.map(|answer| answer.outcome);
    let renewed: Result<BTreeMap<i64, i64>, ProposeError> = match outcome {
        Ok(Outcome::KeepAlive(renewals)) => {
            Ok(renewals.iter().map(|renewal| (renewal.id, renewal.ttl)).collect())
        }
        Ok(_) => unreachable!("a keep-alive command has a keep-alive outcome"),
        Err(error) => Err(error),
    };
    for (lease, reply) in waiting {
        // A lease that the leader left out is ending. Who no longer waits needs no answer.
        let _gone = reply.send(
            renewed
                .as_ref()
                .map(|ttls| ttls.get(&lease).copied().unwrap_or(0))
                .map_err(|error| *error),
        );
    }
}
