//! A registry in memory, for tests: the same rules, on tokio's clock, with a store that can be taken away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::v3::{Attempt, Error, LeaseId};
use tokio::time::Instant;

use super::{Granted, Holder, MachineObject, Registry, RegistryError};

/// A registry that lives as long as its last clone.
#[derive(Clone, Debug, Default)]
pub struct MemoryRegistry(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_down: bool,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
    objects: BTreeMap<String, (MachineObject, Option<LeaseId>)>,
    claims: usize,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    expires: Instant,
}

impl MemoryRegistry {
    /// Takes the store away or brings it back; leases run on meanwhile.
    pub fn set_down(&self, is_down: bool) {
        self.locked().is_down = is_down;
    }

    /// Puts an object there that hangs on no lease of ours.
    pub fn put_foreign(&self, object: MachineObject) {
        self.locked().objects.insert(object.id.clone(), (object, None));
    }

    /// Takes an object away, whoever has it.
    pub fn remove(&self, id: &str) {
        self.locked().objects.remove(id);
    }

    /// Ends a lease as if its time had passed.
    pub fn expire(&self, lease: LeaseId) {
        self.locked().end(lease);
    }

    /// The object of a machine and its lease.
    pub fn object(&self, id: &str) -> Option<(MachineObject, Option<LeaseId>)> {
        self.locked().objects.get(id).cloned()
    }

    /// How many times an object was written.
    pub fn claims(&self) -> usize {
        self.locked().claims
    }

    /// The state, with everything ended whose time has passed.
    fn locked(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let ended: Vec<LeaseId> = state
            .leases
            .iter()
            .filter(|(_, lease)| lease.expires <= now)
            .map(|(id, _)| *id)
            .collect();
        for lease in ended {
            state.end(lease);
        }
        state
    }

    fn reachable(&self) -> Result<MutexGuard<'_, State>, RegistryError> {
        let state = self.locked();
        if state.is_down {
            let attempt = Attempt {
                endpoint: "memory".to_owned(),
                reason: "taken away".to_owned(),
            };
            return Err(Error::Unavailable {
                attempts: vec![attempt],
            }
            .into());
        }
        Ok(state)
    }
}

impl State {
    fn end(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        self.objects.retain(|_, (_, under)| *under != Some(lease));
    }
}

impl Registry for MemoryRegistry {
    async fn machines(&self) -> Result<Vec<MachineObject>, RegistryError> {
        Ok(self
            .reachable()?
            .objects
            .values()
            .map(|(object, _)| object.clone())
            .collect())
    }

    async fn grant(&self, ttl: Duration) -> Result<Granted, RegistryError> {
        let mut state = self.reachable()?;
        state.last_lease += 1;
        let lease = LeaseId::new(state.last_lease).expect("counted from one");
        state.leases.insert(
            lease,
            Lease {
                ttl,
                expires: Instant::now() + ttl,
            },
        );
        Ok(Granted { lease, ttl })
    }

    async fn beat(&self, lease: LeaseId) -> Result<Duration, RegistryError> {
        let mut state = self.reachable()?;
        let alive = state
            .leases
            .get_mut(&lease)
            .ok_or(RegistryError::LeaseGone(lease))?;
        alive.expires = Instant::now() + alive.ttl;
        Ok(alive.ttl)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), RegistryError> {
        let mut state = self.reachable()?;
        if !state.leases.contains_key(&lease) {
            return Err(RegistryError::LeaseGone(lease));
        }
        state.end(lease);
        Ok(())
    }

    async fn claim(&self, object: &MachineObject, lease: LeaseId) -> Result<Holder, RegistryError> {
        let mut state = self.reachable()?;
        if !state.leases.contains_key(&lease) {
            return Err(RegistryError::LeaseGone(lease));
        }
        if let Some((there, under)) = state.objects.get(&object.id)
            && *under != Some(lease)
        {
            return Ok(Holder {
                lease: *under,
                public_ip: there.public_ip.clone(),
            });
        }
        state.claims += 1;
        state
            .objects
            .insert(object.id.clone(), (object.clone(), Some(lease)));
        Ok(Holder {
            lease: Some(lease),
            public_ip: object.public_ip.clone(),
        })
    }

    async fn holder(&self, id: &str) -> Result<Option<Holder>, RegistryError> {
        let found = self.reachable()?.objects.get(id).cloned();
        Ok(found.map(|(object, lease)| Holder {
            lease,
            public_ip: object.public_ip,
        }))
    }
}
