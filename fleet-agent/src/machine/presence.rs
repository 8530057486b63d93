//! The shell of the registration: carries out what [`Registration`] decides, and tells others how it stands.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::lease_file::LeaseFile;
use super::registration::{Effect, Input, Next, Registration, Status};
use crate::registry::{Holder, MachineObject, Registry, RegistryError};

/// How long a stop waits for the lease to be ended: a little less than what services commonly get.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps one machine in the registry.
#[derive(Debug)]
pub struct Presence<R> {
    registry: R,
    lease_file: LeaseFile,
    /// What the machine says about itself; changes are written at once.
    object: watch::Receiver<MachineObject>,
    status: watch::Sender<Status>,
    ttl: Duration,
}

impl<R: Registry> Presence<R> {
    /// A machine that is not registered yet. `ttl` is how long it may be silent before it counts as away.
    pub fn new(
        registry: R,
        lease_file: LeaseFile,
        object: watch::Receiver<MachineObject>,
        ttl: Duration,
    ) -> Self {
        Self {
            registry,
            lease_file,
            object,
            status: watch::Sender::new(Status::Registering),
            ttl,
        }
    }

    /// How the machine stands, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Registers and stays registered until the stop, then leaves.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut registration = Registration::new(self.ttl, daemon::backoff::random_seed());
        let mut input = Input::Started {
            saved: self.lease_file.load(),
        };
        let mut is_leaving = false;
        loop {
            is_leaving |= input == Input::Stop;
            let turn = registration.handle(input);
            for effect in turn.effects {
                self.apply(effect);
            }
            if turn.next == Next::Finish {
                return;
            }
            input = if is_leaving {
                let answer = tokio::time::timeout(LEAVE_TIMEOUT, self.perform(&turn.next)).await;
                answer.unwrap_or_else(|_| Input::StoreLost {
                    reason: "no answer in time".to_owned(),
                })
            } else {
                // An abandoned request may still happen; ending the lease undoes whatever it did.
                tokio::select! {
                    () = stop.cancelled() => Input::Stop,
                    answer = self.perform(&turn.next) => answer,
                }
            };
        }
    }

    fn apply(&self, effect: Effect) {
        match effect {
            Effect::Save(lease) => self.lease_file.save(lease),
            Effect::Forget => self.lease_file.forget(),
            Effect::Report(status) => self.report(status),
        }
    }

    fn report(&self, status: Status) {
        let object = self.object.borrow();
        let text = describe(&status, &object);
        daemon::ready::status(&text);
        let is_news = std::mem::discriminant(&status) != std::mem::discriminant(&*self.status.borrow());
        match &status {
            Status::StoreLost { .. } | Status::Foreign(_) if is_news => warn!(machine = %object.id, "{text}"),
            // The same trouble in other words is no news.
            Status::StoreLost { .. } | Status::Foreign(_) => {}
            Status::Registering | Status::Registered(_) | Status::Leaving => {
                info!(machine = %object.id, "{text}");
            }
        }
        self.status.send_replace(status);
    }

    async fn perform(&mut self, next: &Next) -> Input {
        let id = self.object.borrow().id.clone();
        let answer = match *next {
            Next::Grant => self.registry.grant(self.ttl).await.map(|granted| Input::Granted {
                lease: granted.lease,
                ttl: granted.ttl,
            }),
            Next::Beat(lease) => self.registry.beat(lease).await.map(|ttl| Input::Alive { ttl }),
            Next::Claim(lease) => {
                let object = self.object.borrow_and_update().clone();
                self.registry.claim(&object, lease).await.map(Input::Held)
            }
            Next::Look => self
                .registry
                .holder(&id)
                .await
                .map(|holder| holder.map_or(Input::Free, Input::Held)),
            Next::Revoke(lease) => self.registry.revoke(lease).await.map(|()| Input::LeaseGone),
            Next::Wait(wait) => Ok(self.wait(wait).await),
            Next::Finish => Ok(Input::Stop),
        };
        match answer {
            Ok(input) => input,
            Err(RegistryError::LeaseGone(_)) => Input::LeaseGone,
            Err(RegistryError::Store(error)) => Input::StoreLost {
                reason: error.to_string(),
            },
        }
    }

    async fn wait(&mut self, wait: Duration) -> Input {
        let changed = async {
            if self.object.changed().await.is_err() {
                // Nobody is left to change it.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => Input::ObjectChanged,
            () = tokio::time::sleep(wait) => Input::Waited,
        }
    }
}

/// How things stand, in one line for logs, `systemctl status` and the API.
pub fn describe(status: &Status, object: &MachineObject) -> String {
    match status {
        Status::Registering => "registering with etcd".to_owned(),
        Status::Registered(lease) => format!("registered as {} under lease {lease}", object.public_ip),
        Status::StoreLost {
            reason,
            was_registered: true,
        } => {
            format!("etcd does not answer; registered until the lease ends: {reason}")
        }
        Status::StoreLost {
            reason,
            was_registered: false,
        } => format!("waiting for etcd: {reason}"),
        Status::Foreign(holder) => describe_holder(holder, object),
        Status::Leaving => "leaving the cluster".to_owned(),
    }
}

fn describe_holder(holder: &Holder, object: &MachineObject) -> String {
    let (id, theirs) = (&object.id, &holder.public_ip);
    if !theirs.is_empty() && *theirs == object.public_ip {
        return format!(
            "machine id {id} is still registered at our own address {theirs}: waiting for the lease of the last run to end"
        );
    }
    let place = if theirs.is_empty() {
        "without an address".to_owned()
    } else {
        format!("at {theirs}")
    };
    format!(
        "machine id {id} is registered {place}: a clone of this machine, or its last boot; waiting for that lease to end (systemd-machine-id-setup gives a clone an id of its own)"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use client::v3::LeaseId;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::registry::MemoryRegistry;

    const TTL: Duration = Duration::from_secs(30);

    fn machine(public_ip: &str) -> MachineObject {
        MachineObject {
            id: "m1".to_owned(),
            public_ip: public_ip.to_owned(),
            ..MachineObject::default()
        }
    }

    struct Agent {
        status: watch::Receiver<Status>,
        object: watch::Sender<MachineObject>,
        stop: CancellationToken,
        task: JoinHandle<()>,
        directory: tempfile::TempDir,
    }

    impl Agent {
        fn start(registry: &MemoryRegistry) -> Self {
            Self::start_in(registry, tempfile::tempdir().unwrap())
        }

        fn start_in(registry: &MemoryRegistry, directory: tempfile::TempDir) -> Self {
            let object = watch::Sender::new(machine("10.0.0.1"));
            let lease_file = LeaseFile::open(directory.path(), "m1").unwrap();
            let presence = Presence::new(registry.clone(), lease_file, object.subscribe(), TTL);
            let status = presence.status();
            let stop = CancellationToken::new();
            let task = tokio::spawn(presence.run(stop.clone()));
            Self {
                status,
                object,
                stop,
                task,
                directory,
            }
        }

        /// Waits for a status; one that is replaced at once may not be seen.
        async fn until(&mut self, wanted: impl FnMut(&Status) -> bool) -> Status {
            let seen = tokio::time::timeout(TTL * 100, self.status.wait_for(wanted)).await;
            seen.expect("the status comes").unwrap().clone()
        }

        async fn until_registered(&mut self) -> LeaseId {
            self.until_registered_anew(None).await
        }

        async fn until_registered_anew(&mut self, before: Option<LeaseId>) -> LeaseId {
            let is_new =
                |status: &Status| matches!(status, Status::Registered(lease) if Some(*lease) != before);
            match self.until(is_new).await {
                Status::Registered(lease) => lease,
                other => panic!("{other:?}"),
            }
        }

        async fn stop(self) -> tempfile::TempDir {
            self.stop.cancel();
            self.task.await.unwrap();
            self.directory
        }

        /// Ends it as a crash would.
        async fn kill(self) -> tempfile::TempDir {
            self.task.abort();
            assert!(self.task.await.unwrap_err().is_cancelled());
            self.directory
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_stays_registered_for_many_lifetimes_with_one_write() {
        let registry = MemoryRegistry::default();
        let mut agent = Agent::start(&registry);
        let lease = agent.until_registered().await;
        tokio::time::sleep(TTL * 20).await;
        assert_eq!(registry.object("m1"), Some((machine("10.0.0.1"), Some(lease))));
        assert_eq!(registry.claims(), 1);
        agent.stop().await;
        assert_eq!(registry.object("m1"), None, "a clean stop takes the object away");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_after_a_crash_goes_on_under_the_same_lease() {
        let registry = MemoryRegistry::default();
        let mut agent = Agent::start(&registry);
        let lease = agent.until_registered().await;
        let directory = agent.kill().await;
        let mut agent = Agent::start_in(&registry, directory);
        assert_eq!(agent.until_registered().await, lease);
        let directory = agent.kill().await;
        tokio::time::sleep(TTL).await;
        assert_eq!(registry.object("m1"), None, "a crash shows when the lease ends");
        let mut agent = Agent::start_in(&registry, directory);
        assert_ne!(agent.until_registered().await, lease);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_comes_back_finds_the_machine_again() {
        let registry = MemoryRegistry::default();
        let mut agent = Agent::start(&registry);
        let lease = agent.until_registered().await;
        registry.set_down(true);
        agent
            .until(|status| {
                matches!(
                    status,
                    Status::StoreLost {
                        was_registered: true,
                        ..
                    }
                )
            })
            .await;
        registry.set_down(false);
        assert_eq!(agent.until_registered().await, lease, "it was not away for long");
        registry.set_down(true);
        tokio::time::sleep(TTL * 2).await;
        registry.set_down(false);
        let anew = agent.until_registered_anew(Some(lease)).await;
        assert_eq!(registry.object("m1").unwrap().1, Some(anew));
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_object_is_written_again() {
        let registry = MemoryRegistry::default();
        let mut agent = Agent::start(&registry);
        let lease = agent.until_registered().await;
        registry.remove("m1");
        tokio::time::sleep(TTL / 2).await;
        assert_eq!(registry.object("m1").unwrap().1, Some(lease));
        registry.expire(lease);
        let anew = agent.until_registered_anew(Some(lease)).await;
        assert_eq!(registry.object("m1").unwrap().1, Some(anew));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clone_waits_until_the_first_is_gone_and_says_where_it_is() {
        let registry = MemoryRegistry::default();
        registry.put_foreign(machine("10.0.0.9"));
        let mut agent = Agent::start(&registry);
        let status = agent.until(|status| matches!(status, Status::Foreign(_))).await;
        let text = describe(&status, &machine("10.0.0.1"));
        assert!(text.contains("is registered at 10.0.0.9"), "{text}");
        tokio::time::sleep(TTL * 3).await;
        assert_eq!(registry.claims(), 0);
        registry.remove("m1");
        agent.until_registered().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_address_is_published_at_once() {
        let registry = MemoryRegistry::default();
        let mut agent = Agent::start(&registry);
        let lease = agent.until_registered().await;
        agent.object.send_replace(machine("10.0.0.2"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(registry.object("m1"), Some((machine("10.0.0.2"), Some(lease))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_without_a_store_ends_in_time_and_keeps_the_lease() {
        let registry = MemoryRegistry::default();
        let mut agent = Agent::start(&registry);
        let lease = agent.until_registered().await;
        registry.set_down(true);
        let directory = agent.stop().await;
        registry.set_down(false);
        let mut agent = Agent::start_in(&registry, directory);
        assert_eq!(agent.until_registered().await, lease);
    }

    #[test]
    fn our_own_last_boot_is_told_from_a_clone() {
        let holder = |ip: &str| Holder {
            lease: None,
            public_ip: ip.to_owned(),
        };
        let own = MachineObject {
            metadata: BTreeMap::new(),
            ..machine("10.0.0.1")
        };
        assert!(describe_holder(&holder("10.0.0.1"), &own).contains("our own address 10.0.0.1"));
        assert!(describe_holder(&holder("10.0.0.9"), &own).contains("at 10.0.0.9: a clone"));
        assert!(describe_holder(&holder(""), &own).contains("without an address"));
    }
}
