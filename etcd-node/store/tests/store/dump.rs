//! Everything that a store can be asked, in one comparable value.

use std::sync::Arc;

use proto::etcdserverpb::RangeResponse;
use proto::ids::V2Index;
use proto::time::Timestamp;
use store::lease::LeaseInfo;
use store::members::Members;
use store::v2::{Event, Listing, NodeQuery};
use store::v3::RangeScan;
use store::{Change, Due, Store};

use crate::support::all;

#[derive(Debug, PartialEq)]
pub(crate) struct Dump {
    hash: u64,
    counters: (u64, i64, u64, i64, Timestamp),
    members: Members,
    alarms: Vec<(u64, i32)>,
    leases: Vec<Option<LeaseInfo>>,
    tree: Event,
    newest: RangeResponse,
    deep: Option<Deep>,
}

#[derive(Debug, PartialEq)]
struct Deep {
    due: Due,
    live_bytes: u64,
    target: Option<i64>,
    changes: Vec<Arc<Change>>,
    window: Vec<Arc<Event>>,
    /// At every revision that can be read.
    past: Vec<RangeResponse>,
}

impl Dump {
    /// What is visible now.
    pub(crate) fn shallow(store: &Store, now: Timestamp) -> Self {
        let view = store.view();
        Self {
            hash: view.hash(),
            counters: (
                view.applied().get(),
                view.revision().get(),
                view.v2_index().get(),
                view.compacted().get(),
                view.stamp(),
            ),
            members: view.members().clone(),
            alarms: view.alarms(),
            leases: view
                .lease_ids()
                .into_iter()
                .map(|id| view.lease(id, true))
                .collect(),
            tree: tree(store, now),
            newest: at(store, 0),
            deep: None,
        }
    }

    /// The past and the future too.
    pub(crate) fn deep(store: &Store, now: Timestamp) -> Self {
        let view = store.view();
        let oldest = view.compacted().get().max(1);
        let window = match view.events_since(V2Index::ZERO, usize::MAX) {
            Ok(events) => events,
            Err(outdated) => view.events_since(outdated.oldest, usize::MAX).unwrap(),
        };
        let deep = Deep {
            due: store.due(Timestamp::from_nanos(u64::MAX), usize::MAX),
            live_bytes: store.usage().live_bytes,
            target: store
                .compaction_target(Timestamp::from_nanos(u64::MAX))
                .map(|revision| revision.get()),
            changes: view.changes_since(view.compacted(), usize::MAX).unwrap(),
            window,
            past: (oldest..=view.revision().get())
                .map(|revision| at(store, revision))
                .collect(),
        };
        Self {
            deep: Some(deep),
            ..Self::shallow(store, now)
        }
    }
}

fn tree(store: &Store, now: Timestamp) -> Event {
    let mut listing = Listing::new(NodeQuery {
        path: "/".into(),
        recursive: true,
        now,
    });
    listing.step(&store.view(), usize::MAX).unwrap().unwrap()
}

fn at(store: &Store, revision: i64) -> RangeResponse {
    let mut request = all();
    request.revision = revision;
    RangeScan::new(request)
        .unwrap()
        .step(&store.view(), usize::MAX)
        .unwrap()
        .unwrap()
}
