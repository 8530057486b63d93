//! v3 in the model: what etcd's sources do, without the trees.

use bytes::Bytes;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use proto::ids::{Revision, V2Index};
use proto::mvccpb::KeyValue;
use store::mvcc::Record;
use store::v2::{Action, Event};
use store::v3::Refusal;

use super::{Model, Nodes, is_clean};

/// A pair of key and end, as etcd means it.
fn contains(key: &Bytes, end: &Bytes, there: &Bytes) -> bool {
    match end.as_ref() {
        [] => there == key,
        [0] => there >= key,
        _ => there >= key && there < end,
    }
}

fn shown(key: &Bytes, record: &Record) -> KeyValue {
    KeyValue {
        key: key.clone(),
        create_revision: record.create_revision.get(),
        mod_revision: record.mod_revision.get(),
        version: record.version,
        value: record.value.clone(),
        lease: record.lease,
    }
}

impl Model {
    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Refusal> {
        check_put(request)?;
        if request.lease != 0 && !self.leases.iter().any(|lease| lease.id == request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if (request.ignore_value || request.ignore_lease) && self.now.key(&request.key).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(self.put_now(request))
    }

    fn put_now(&mut self, request: &PutRequest) -> PutResponse {
        let before = self.now.key(&request.key).cloned();
        let is_shown =
            is_clean(&request.key) && !self.now.is_directory(std::str::from_utf8(&request.key).unwrap());
        let index = if is_shown {
            self.next_index()
        } else {
            V2Index::new(if is_clean(&request.key) { self.index } else { 0 })
        };
        let kept = |keep: bool| before.as_ref().filter(|_| keep);
        let fields = Record {
            value: kept(request.ignore_value).map_or(request.value.clone(), |before| before.value.clone()),
            lease: kept(request.ignore_lease).map_or(request.lease, |before| before.lease),
            create_revision: Revision::ZERO,
            mod_revision: Revision::ZERO,
            version: 0,
            created_index: index,
            modified_index: index,
            expires_at: None,
        };
        let prev_node = before
            .as_ref()
            .filter(|_| is_shown)
            .map(|before| self.file(std::str::from_utf8(&request.key).unwrap(), before, self.stamp));
        self.write(&request.key, fields);
        if is_shown {
            let record = self.now.key(&request.key).unwrap().clone();
            let node = self.file(std::str::from_utf8(&request.key).unwrap(), &record, self.stamp);
            self.push_event(Event {
                action: Action::Set,
                node,
                prev_node,
                index,
                is_refresh: false,
            });
        }
        let prev_kv = before
            .filter(|_| request.prev_kv)
            .map(|before| shown(&request.key, &before));
        PutResponse {
            header: self.header(),
            prev_kv,
        }
    }

    pub(crate) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Refusal> {
        if request.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        Ok(self.delete_now(request))
    }

    fn delete_now(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let keys: Vec<Bytes> = self.now.keys.iter().map(|(key, _)| key.clone()).collect();
        let mut prev_kvs = Vec::new();
        for key in keys
            .iter()
            .filter(|key| contains(&request.key, &request.range_end, key))
        {
            let before = self.delete(key, Action::Delete).unwrap();
            prev_kvs.push(shown(key, &before));
        }
        let deleted = i64::try_from(prev_kvs.len()).unwrap();
        if !request.prev_kv {
            prev_kvs.clear();
        }
        DeleteRangeResponse {
            header: self.header(),
            deleted,
            prev_kvs,
        }
    }

    /// A Range outside of a transaction.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        if request.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if request.revision > 0
            && self
                .compacted
                .is_some_and(|compacted| request.revision < compacted)
        {
            return Err(Refusal::Compacted);
        }
        Ok(self.range_now(request))
    }

    fn range_now(&self, request: &RangeRequest) -> RangeResponse {
        let past = usize::try_from(request.revision - 1)
            .ok()
            .map(|number| &self.past[number]);
        let nodes: &Nodes = past.unwrap_or(&self.now);
        let found: Vec<KeyValue> = nodes
            .keys
            .iter()
            .filter(|(key, _)| contains(&request.key, &request.range_end, key))
            .map(|(key, record)| shown(key, record))
            .collect();
        let count = i64::try_from(found.len()).unwrap();
        let mut kvs = found;
        let bounds = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let limit = usize::try_from(request.limit).unwrap_or(0);
        if limit > 0 && request.sort_order == 0 && bounds == [0; 4] {
            kvs.truncate(limit + 1);
        }
        let below = |value: i64, bound: i64| bound != 0 && value < bound;
        let above = |value: i64, bound: i64| bound != 0 && value > bound;
        kvs.retain(|kv| {
            !below(kv.mod_revision, bounds[0])
                && !above(kv.mod_revision, bounds[1])
                && !below(kv.create_revision, bounds[2])
                && !above(kv.create_revision, bounds[3])
        });
        if request.sort_order != 0 || request.sort_target != 0 {
            kvs.sort_by(|one, other| {
                let ordering = match request.sort_target {
                    0 => one.key.cmp(&other.key),
                    1 => one.version.cmp(&other.version),
                    2 => one.create_revision.cmp(&other.create_revision),
                    3 => one.mod_revision.cmp(&other.mod_revision),
                    _ => one.value.cmp(&other.value),
                };
                if request.sort_order == 2 {
                    ordering.reverse()
                } else {
                    ordering
                }
            });
        }
        let more = limit > 0 && kvs.len() > limit && !request.count_only;
        if limit > 0 {
            kvs.truncate(limit);
        }
        if request.count_only {
            kvs.clear();
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        RangeResponse {
            header: self.header(),
            kvs,
            more,
            count,
        }
    }

    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        check_txn(request, 128)?;
        overlaps(&request.success)?;
        overlaps(&request.failure)?;
        let before = self.clone();
        before.check_taken_puts(request, &mut Vec::new())?;
        before.check_taken_ranges(request)?;
        let mut response = self.run(request, &before);
        response.header = self.header();
        Ok(response)
    }

    fn taken<'a>(&self, request: &'a TxnRequest) -> (bool, &'a [RequestOp]) {
        let holds = request.compare.iter().all(|compare| self.holds(compare));
        (holds, if holds { &request.success } else { &request.failure })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let keys = self
            .now
            .keys
            .iter()
            .filter(|(key, _)| contains(&compare.key, &compare.range_end, key));
        let records: Vec<&Record> = keys.map(|(_, record)| record).collect();
        if records.is_empty() {
            return compare.target != 3 && holds_for(compare, None);
        }
        records.into_iter().all(|record| holds_for(compare, Some(record)))
    }

    /// All puts of the taken branches, in the order in which they run; what was deleted before is gone.
    fn check_taken_puts(
        &self,
        request: &TxnRequest,
        gone: &mut Vec<DeleteRangeRequest>,
    ) -> Result<(), Refusal> {
        for operation in self.taken(request).1 {
            match operation.request.as_ref().unwrap() {
                Request::RequestPut(put) => {
                    let is_gone = gone
                        .iter()
                        .any(|delete| contains(&delete.key, &delete.range_end, &put.key));
                    let is_there = self.now.key(&put.key).is_some() && !is_gone;
                    if (put.ignore_value || put.ignore_lease) && !is_there {
                        return Err(Refusal::KeyNotFound);
                    }
                    if put.lease != 0 && !self.leases.iter().any(|lease| lease.id == put.lease) {
                        return Err(Refusal::LeaseNotFound);
                    }
                }
                Request::RequestDeleteRange(delete) => gone.push(delete.clone()),
                Request::RequestTxn(nested) => self.check_taken_puts(nested, gone)?,
                Request::RequestRange(_) => {}
            }
        }
        Ok(())
    }

    fn check_taken_ranges(&self, request: &TxnRequest) -> Result<(), Refusal> {
        for operation in self.taken(request).1 {
            match operation.request.as_ref().unwrap() {
                Request::RequestRange(range) => drop(self.range(range)?),
                Request::RequestTxn(nested) => self.check_taken_ranges(nested)?,
                Request::RequestPut(_) | Request::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, request: &TxnRequest, before: &Self) -> TxnResponse {
        let (succeeded, operations) = before.taken(request);
        let responses = operations
            .iter()
            .map(|operation| {
                let response = match operation.request.as_ref().unwrap() {
                    Request::RequestRange(range) => Response::ResponseRange(self.range_now(range)),
                    Request::RequestPut(put) => Response::ResponsePut(self.put_now(put)),
                    Request::RequestDeleteRange(delete) => {
                        Response::ResponseDeleteRange(self.delete_now(delete))
                    }
                    Request::RequestTxn(nested) => Response::ResponseTxn(self.run(nested, before)),
                };
                ResponseOp {
                    response: Some(response),
                }
            })
            .collect();
        TxnResponse {
            header: Some(ResponseHeader::default()),
            succeeded,
            responses,
        }
    }
}

fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

fn holds_for(compare: &Compare, record: Option<&Record>) -> bool {
    let ordering = match compare.target_union.as_ref().unwrap() {
        TargetUnion::Version(given) => record.map_or(0, |record| record.version).cmp(given),
        TargetUnion::CreateRevision(given) => {
            record.map_or(0, |record| record.create_revision.get()).cmp(given)
        }
        TargetUnion::ModRevision(given) => record.map_or(0, |record| record.mod_revision.get()).cmp(given),
        TargetUnion::Value(given) => record.unwrap().value.cmp(given),
        TargetUnion::Lease(given) => record.map_or(0, |record| record.lease).cmp(given),
    };
    match compare.result {
        0 => ordering.is_eq(),
        1 => ordering.is_gt(),
        2 => ordering.is_lt(),
        _ => ordering.is_ne(),
    }
}

fn check_txn(request: &TxnRequest, left: usize) -> Result<(), Refusal> {
    let count = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    if count > left {
        return Err(Refusal::TooManyOperations);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestRange(range)) if range.key.is_empty() => return Err(Refusal::EmptyKey),
            Some(Request::RequestDeleteRange(delete)) if delete.key.is_empty() => {
                return Err(Refusal::EmptyKey);
            }
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) => {}
            Some(Request::RequestTxn(nested)) => check_txn(nested, left - count)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

type Writes = (Vec<Bytes>, Vec<DeleteRangeRequest>);

/// Which keys a branch puts and which ranges it deletes, or why it may not.
fn overlaps(operations: &[RequestOp]) -> Result<Writes, Refusal> {
    let mut deletes = Vec::new();
    let mut puts: Vec<Bytes> = Vec::new();
    for operation in operations {
        if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
            deletes.push(delete.clone());
        }
    }
    // etcd overlooks a delete "from this key on".
    let is_deleted = |deletes: &[DeleteRangeRequest], key: &Bytes| {
        deletes
            .iter()
            .any(|delete| delete.range_end.as_ref() != [0] && contains(&delete.key, &delete.range_end, key))
    };
    for operation in operations {
        let Some(Request::RequestTxn(nested)) = &operation.request else {
            continue;
        };
        let (then_puts, then_deletes) = overlaps(&nested.success)?;
        let (else_puts, else_deletes) = overlaps(&nested.failure)?;
        for key in then_puts
            .iter()
            .chain(else_puts.iter().filter(|key| !then_puts.contains(key)))
        {
            if puts.contains(key) || is_deleted(&deletes, key) {
                return Err(Refusal::DuplicateKey);
            }
            puts.push(key.clone());
        }
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for operation in operations {
        let Some(Request::RequestPut(put)) = &operation.request else {
            continue;
        };
        if puts.contains(&put.key) || is_deleted(&deletes, &put.key) {
            return Err(Refusal::DuplicateKey);
        }
        puts.push(put.key.clone());
    }
    Ok((puts, deletes))
}
