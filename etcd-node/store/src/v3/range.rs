//! v3 Range, in slices at a pinned revision.

use std::cmp::Ordering;

use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{RangeRequest, RangeResponse};
use proto::ids::Revision;
use proto::key::KeyRange;
use proto::mvccpb::KeyValue;

use super::{Refusal, check, header, key_value};
use crate::View;
use crate::budget::Budget;
use crate::mvcc::{Cursor, Keyspace, Pin, Record};

/// A v3 Range under way; reads at the revision that the request names, or at that of its first step.
#[derive(Debug)]
pub struct RangeScan {
    collector: Collector,
    wanted: i64,
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    at: Revision,
    /// The view's revision of the first step.
    current: Revision,
    pin: Option<Pin>,
}

impl RangeScan {
    /// Begins reading.
    ///
    /// # Errors
    /// An empty key, or a sort option out of range.
    pub fn new(request: RangeRequest) -> Result<Self, Refusal> {
        check::range(&request)?;
        Ok(Self {
            wanted: request.revision,
            collector: Collector::new(request),
            under_way: None,
        })
    }

    /// Reads on, at most `records_max` records; none = call again with a later view. The response's header
    /// carries the view's revision of the first step. If a snapshot replaced the store in between, it goes
    /// on at the same revision while that can still be read.
    ///
    /// # Errors
    /// A compacted or future revision.
    pub fn step(&mut self, view: &View<'_>, records_max: usize) -> Result<Option<RangeResponse>, Refusal> {
        let keyspace = view.keyspace();
        let mut under_way = match self.under_way.take() {
            Some(under_way)
                if under_way
                    .pin
                    .as_ref()
                    .is_some_and(|pin| pin.belongs_to(&keyspace.pins)) =>
            {
                under_way
            }
            Some(UnderWay { at, current, .. }) => {
                readable(keyspace, at.get())?;
                UnderWay {
                    at,
                    current,
                    pin: None,
                }
            }
            None => {
                let at = readable(keyspace, self.wanted)?;
                UnderWay {
                    at,
                    current: keyspace.revision,
                    pin: None,
                }
            }
        };
        if self
            .collector
            .step(keyspace, under_way.at, &mut Budget::new(records_max))
        {
            return Ok(Some(self.collector.finish(under_way.current)));
        }
        if under_way.pin.is_none() {
            under_way.pin = Some(keyspace.pins.pin(under_way.at));
        }
        self.under_way = Some(under_way);
        Ok(None)
    }
}

/// The revision to read at; zero and below mean the newest.
fn readable(keyspace: &Keyspace, wanted: i64) -> Result<Revision, Refusal> {
    if wanted <= 0 {
        return Ok(keyspace.revision);
    }
    let wanted = Revision::new(wanted);
    if wanted > keyspace.revision {
        return Err(Refusal::FutureRevision);
    }
    if keyspace.is_compacted(wanted) {
        Err(Refusal::Compacted)
    } else {
        Ok(wanted)
    }
}

/// Gathers what a Range asks for: the same in a scan and within a transaction.
#[derive(Debug)]
pub(crate) struct Collector {
    request: RangeRequest,
    cursor: Cursor,
    sort: Option<(SortTarget, SortOrder)>,
    /// More than the limit is never kept: in key order one more than it, else what may still sort first.
    kept: Kept,
    found: Vec<KeyValue>,
    count: i64,
}

#[derive(Clone, Copy, Debug)]
enum Kept {
    All,
    First(usize),
    Best(usize),
}

impl Collector {
    /// A request that passed [`check::range`].
    pub(crate) fn new(request: RangeRequest) -> Self {
        let filtered = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let is_filtered = filtered.iter().any(|bound| *bound != 0);
        let (order, target) = (request.sort_order(), request.sort_target());
        let sort = match (order, target) {
            (SortOrder::None, SortTarget::Key) => None,
            (SortOrder::None, _) => Some((target, SortOrder::Ascend)),
            (SortOrder::Ascend | SortOrder::Descend, _) => Some((target, order)),
        };
        let kept = match usize::try_from(request.limit) {
            Err(_) | Ok(0) => Kept::All,
            // etcd cuts an unfiltered range of no order by key first and sorts what is left.
            Ok(limit) if order == SortOrder::None && (!is_filtered || sort.is_none()) => Kept::First(limit),
            Ok(limit) => Kept::Best(limit),
        };
        let cursor = Cursor::new(&KeyRange::new(request.key.clone(), request.range_end.clone()));
        Self {
            request,
            cursor,
            sort,
            kept,
            found: Vec::new(),
            count: 0,
        }
    }

    pub(crate) fn request(&self) -> &RangeRequest {
        &self.request
    }

    /// Reads on; true = complete.
    pub(crate) fn step(&mut self, keyspace: &Keyspace, at: Revision, budget: &mut Budget) -> bool {
        let mut stopped_at = None;
        for (key, versions) in keyspace.keys.scan(&self.cursor) {
            if !budget.take() {
                stopped_at = Some(key.clone());
                break;
            }
            let Some(record) = versions.at(at).and_then(|version| version.state.as_ref()) else {
                continue;
            };
            self.count += 1;
            if self.request.count_only || !passes(&self.request, record) {
                continue;
            }
            match self.kept {
                Kept::First(limit) if self.found.len() > limit => continue,
                Kept::Best(limit) if self.found.len() > limit.saturating_mul(2).saturating_add(64) => {
                    self.keep_best(limit);
                }
                Kept::All | Kept::First(_) | Kept::Best(_) => {}
            }
            self.found.push(key_value(key, record));
        }
        self.cursor.stop_at(stopped_at);
        self.cursor.is_done()
    }

    fn keep_best(&mut self, limit: usize) {
        self.sort();
        self.found.truncate(limit.saturating_add(1));
    }

    /// Sorts what was found; equals stay in the order of their keys, of which earlier ones were kept.
    fn sort(&mut self) {
        let Some((target, order)) = self.sort else { return };
        self.found.sort_by(|one, other| {
            let ordering = compare(target, one, other);
            if order == SortOrder::Descend {
                ordering.reverse()
            } else {
                ordering
            }
        });
    }

    /// The answer; `header_revision` is the newest revision that its reader sees.
    pub(crate) fn finish(&mut self, header_revision: Revision) -> RangeResponse {
        self.sort();
        let mut kvs = std::mem::take(&mut self.found);
        let limit = usize::try_from(self.request.limit)
            .ok()
            .filter(|limit| *limit > 0);
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        if self.request.keys_only {
            for kv in &mut kvs {
                kv.value.clear();
            }
        }
        RangeResponse {
            header: header(header_revision),
            kvs,
            more,
            count: self.count,
        }
    }
}

fn passes(request: &RangeRequest, record: &Record) -> bool {
    let within = |value: Revision, min: i64, max: i64| {
        (max == 0 || value.get() <= max) && (min == 0 || value.get() >= min)
    };
    within(
        record.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        record.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

fn compare(target: SortTarget, one: &KeyValue, other: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => one.key.cmp(&other.key),
        SortTarget::Version => one.version.cmp(&other.version),
        SortTarget::Create => one.create_revision.cmp(&other.create_revision),
        SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
        SortTarget::Value => one.value.cmp(&other.value),
    }
}
