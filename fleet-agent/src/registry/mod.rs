//! What fleet knows about the cluster: machines today, behind one trait.
//!
//! Two implementors: [`EtcdRegistry`] over etcd's v3 API, ours or a stock one, and [`MemoryRegistry`] for tests.

mod etcd;
mod keys;
mod memory;
mod object;

use std::future::Future;
use std::time::Duration;

use client::v3::LeaseId;

pub use etcd::EtcdRegistry;
pub use memory::MemoryRegistry;
pub use object::{MachineObject, ObjectError};

/// Why the registry gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The lease is gone, and with it all that stood under it.
    #[error("lease {0} is gone")]
    LeaseGone(LeaseId),
    /// The store did not do it, or nobody knows whether it did.
    #[error(transparent)]
    Store(client::v3::Error),
}

impl From<client::v3::Error> for RegistryError {
    fn from(error: client::v3::Error) -> Self {
        match error {
            client::v3::Error::LeaseGone { lease } => Self::LeaseGone(lease),
            error => Self::Store(error),
        }
    }
}

impl RegistryError {
    /// Whether the store could not be asked; otherwise it answered with a refusal.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Store(client::v3::Error::Uncertain { .. }) => true,
            Self::Store(error) => error.is_passing(),
            Self::LeaseGone(_) => false,
        }
    }
}

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its id.
    pub lease: LeaseId,
    /// How long it lives without a beat; the store may give more than was asked for.
    pub ttl: Duration,
}

/// Who has a machine's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The lease it stands under; none when it is not a lease (a fleet that speaks etcd's v2 API).
    pub lease: Option<LeaseId>,
    /// The address that it names; empty when it names none, or is unreadable.
    pub public_ip: String,
}

/// The registry as the machine's part of fleetd needs it.
pub trait Registry: Clone + Send + Sync + 'static {
    /// Every machine that is present, by id, with its dynamic metadata laid over its own.
    fn machines(&self) -> impl Future<Output = Result<Vec<MachineObject>, RegistryError>> + Send;

    /// A new lease of about `ttl`.
    fn grant(&self, ttl: Duration) -> impl Future<Output = Result<Granted, RegistryError>> + Send;

    /// Keeps a lease alive; answers how long it lives from now on.
    fn beat(&self, lease: LeaseId) -> impl Future<Output = Result<Duration, RegistryError>> + Send;

    /// Ends a lease and all that stands under it. One that is gone already is an error.
    fn revoke(&self, lease: LeaseId) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Writes the machine's object under the lease if there is none, or if it stands under this lease
    /// already; both at once, so that two agents never both have it. Answers who has it now.
    fn claim(
        &self,
        object: &MachineObject,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Holder, RegistryError>> + Send;

    /// Who has this machine's object, if anyone.
    fn holder(&self, id: &str) -> impl Future<Output = Result<Option<Holder>, RegistryError>> + Send;
}
