//! Put and DeleteRange, alone and within a transaction.

use proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse};
use proto::key::KeyRange;
use proto::mvccpb::KeyValue;

use super::{Refusal, check, header, key_value};
use crate::budget::Budget;
use crate::mvcc::{Cursor, Edit, Keyspace, exact};

/// A Put by itself.
pub(crate) fn put(
    keyspace: &mut Keyspace,
    edit: &mut Edit,
    request: &PutRequest,
) -> Result<PutResponse, Refusal> {
    check::put(request)?;
    if request.lease != 0 && keyspace.leases.get(request.lease).is_none() {
        return Err(Refusal::LeaseNotFound);
    }
    if keeps(request) && keyspace.keys.newest(&request.key).is_none() {
        return Err(Refusal::KeyNotFound);
    }
    Ok(put_checked(keyspace, edit, request))
}

/// Whether the Put needs what is there.
pub(crate) fn keeps(request: &PutRequest) -> bool {
    request.ignore_value || request.ignore_lease
}

/// A Put whose lease exists, and whose key does when it keeps something of it.
pub(crate) fn put_checked(keyspace: &mut Keyspace, edit: &mut Edit, request: &PutRequest) -> PutResponse {
    let (mut value, mut lease) = (None, request.lease);
    if keeps(request) {
        let there = keyspace
            .keys
            .newest(&request.key)
            .expect("checked before the first write");
        if request.ignore_value {
            value = Some(there.value.clone());
        }
        if request.ignore_lease {
            lease = there.lease;
        }
    }
    let value = value.unwrap_or_else(|| exact(&request.value));
    let prev = keyspace.put_shown(edit, &request.key, value, lease);
    let prev_kv = prev
        .filter(|_| request.prev_kv)
        .map(|prev| key_value(&request.key, &prev));
    PutResponse {
        header: header(edit.revision()),
        prev_kv,
    }
}

/// A DeleteRange under way.
#[derive(Debug)]
pub(crate) struct Delete {
    cursor: Cursor,
    keeps_prev: bool,
    deleted: i64,
    prev_kvs: Vec<KeyValue>,
}

impl Delete {
    /// A request that passed [`check::delete_range`].
    pub(crate) fn new(request: DeleteRangeRequest) -> Self {
        let cursor = Cursor::new(&KeyRange::new(request.key, request.range_end));
        Self {
            cursor,
            keeps_prev: request.prev_kv,
            deleted: 0,
            prev_kvs: Vec::new(),
        }
    }

    /// Goes on; none = the budget ended first.
    pub(crate) fn step(
        &mut self,
        keyspace: &mut Keyspace,
        edit: &mut Edit,
        budget: &mut Budget,
    ) -> Option<DeleteRangeResponse> {
        while !self.cursor.is_done() {
            if budget.left() == 0 {
                return None;
            }
            for key in keyspace.keys.take_live(&mut self.cursor, budget, |_| true) {
                let deleted = keyspace.delete_shown(edit, &key);
                let (key, prev) = deleted.expect("the key was live a moment ago");
                self.deleted += 1;
                if self.keeps_prev {
                    self.prev_kvs.push(key_value(&key, &prev));
                }
            }
        }
        let prev_kvs = std::mem::take(&mut self.prev_kvs);
        Some(DeleteRangeResponse {
            header: header(edit.header_revision()),
            deleted: self.deleted,
            prev_kvs,
        })
    }
}
