//! Operations of the v2 API in numbers, as `/v2/stats/store` and `/metrics` show them.
//!
//! Counted where they are answered: on the member that took the request.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use store::Change;
use store::v2::Action;

type Actions = Family<[(&'static str, &'static str); 1], Counter>;

/// The operations that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A read of one node or level.
    Get,
    /// A read of a subtree.
    GetRecursive,
    /// A set.
    Set,
    /// A delete.
    Delete,
    /// An update.
    Update,
    /// A create, in order or not.
    Create,
    /// A conditional write.
    CompareAndSwap,
    /// A conditional delete.
    CompareAndDelete,
}

impl Operation {
    const ALL: [Self; 8] = [
        Self::Get,
        Self::GetRecursive,
        Self::Set,
        Self::Delete,
        Self::Update,
        Self::Create,
        Self::CompareAndSwap,
        Self::CompareAndDelete,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetRecursive => "getRecursive",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Create => "create",
            Self::CompareAndSwap => "compareAndSwap",
            Self::CompareAndDelete => "compareAndDelete",
        }
    }

    fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::GetRecursive)
    }
}

/// How often one operation was done and refused.
pub struct Counts {
    all: Counter,
    failed: Counter,
}

impl Counts {
    /// One more, with or without success.
    pub fn count(&self, is_success: bool) {
        self.all.inc();
        if !is_success {
            self.failed.inc();
        }
    }

    /// How often it succeeded.
    pub fn succeeded(&self) -> u64 {
        self.all.get().saturating_sub(self.failed.get())
    }

    /// How often it was refused.
    pub fn failed(&self) -> u64 {
        self.failed.get()
    }
}

/// See the help text of each.
pub struct StoreMetrics {
    counts: [Counts; Operation::ALL.len()],
    expires: Counter,
    watch_requests: Counter,
    watchers: Gauge,
}

impl StoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (reads, reads_failed) = (Actions::default(), Actions::default());
        let (writes, writes_failed) = (Actions::default(), Actions::default());
        let counts = Operation::ALL.map(|operation| {
            let labels = [("action", operation.label())];
            let (all, failed) = if operation.is_read() {
                (&reads, &reads_failed)
            } else {
                (&writes, &writes_failed)
            };
            Counts {
                all: all.get_or_create_owned(&labels),
                failed: failed.get_or_create_owned(&labels),
            }
        });
        let this = Self {
            counts,
            expires: Counter::default(),
            watch_requests: Counter::default(),
            watchers: Gauge::default(),
        };
        // etcd 2 has the first prefix, etcd 3 the second; dashboards of both exist.
        for prefix in ["etcd_store", "etcd_debugging_store"] {
            let registry = registry.sub_registry_with_prefix(prefix);
            registry.register("reads", "Reads of the v2 API on this node", reads.clone());
            registry.register(
                "reads_failed",
                "Reads of the v2 API that were refused",
                reads_failed.clone(),
            );
            registry.register("writes", "Writes of the v2 API through this node", writes.clone());
            registry.register(
                "writes_failed",
                "Writes of the v2 API that were refused",
                writes_failed.clone(),
            );
            registry.register("expires", "Nodes that ended by time", this.expires.clone());
            registry.register(
                "watch_requests",
                "Watches of the v2 API begun",
                this.watch_requests.clone(),
            );
            registry.register(
                "watchers",
                "Watches of the v2 API open now",
                this.watchers.clone(),
            );
        }
        this
    }

    /// The counts of one operation.
    pub fn counts(&self, operation: Operation) -> &Counts {
        &self.counts[operation as usize]
    }

    /// Counts what ended by time in these changes. Called by the raft thread for what it publishes.
    pub fn changed(&self, changes: &[Arc<Change>]) {
        let events = changes.iter().flat_map(|change| &change.events);
        let expired = events.filter(|event| event.action == Action::Expire).count();
        if expired > 0 {
            self.expired(expired as u64);
        }
    }

    /// This many nodes ended by time.
    pub fn expired(&self, count: u64) {
        self.expires.inc_by(count);
    }

    /// How many nodes ended by time.
    pub fn expire_count(&self) -> u64 {
        self.expires.get()
    }

    /// Watches open now.
    pub fn watchers(&self) -> u64 {
        u64::try_from(self.watchers.get()).unwrap_or(0)
    }

    /// Counts a watch until the guard is dropped; none when this many are open already.
    pub fn watch(&self, watchers_max: i64) -> Option<Watching> {
        self.watch_requests.inc();
        let before = self.watchers.inc();
        let guard = Watching {
            watchers: self.watchers.clone(),
        };
        (before < watchers_max).then_some(guard)
    }
}

/// An open watch; not any more once dropped.
pub struct Watching {
    watchers: Gauge,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watchers.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_counts_while_it_is_open_and_one_too_many_is_refused() {
        let store = StoreMetrics::register(&mut Registry::default());
        let first = store.watch(1).unwrap();
        assert_eq!(store.watchers(), 1);
        assert!(store.watch(1).is_none());
        assert_eq!(store.watchers(), 1, "the refused one does not count");
        drop(first);
        assert_eq!(store.watchers(), 0);
        assert!(store.watch(1).is_some());
    }

    #[test]
    fn success_and_failure_are_told_apart() {
        let store = StoreMetrics::register(&mut Registry::default());
        let sets = store.counts(Operation::Set);
        sets.count(true);
        sets.count(true);
        sets.count(false);
        assert_eq!((sets.succeeded(), sets.failed()), (2, 1));
        let deletes = store.counts(Operation::Delete);
        assert_eq!((deletes.succeeded(), deletes.failed()), (0, 0));
    }
}
