//! The v3 grammar: ranges, writes, transactions.

pub mod check;
pub mod range;
pub mod refusal;

pub(crate) mod txn;
pub(crate) mod write;

pub use range::RangeScan;
pub use refusal::Refusal;

use proto::etcdserverpb::ResponseHeader;
use proto::ids::Revision;
use proto::mvccpb::KeyValue;

use crate::mvcc::Record;

/// A header with the revision alone; the front fills in the rest.
pub(crate) fn header(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision: revision.get(),
        ..ResponseHeader::default()
    })
}

/// A key as the v3 API shows it; key and value are shared, not copied.
pub fn key_value(key: &bytes::Bytes, record: &Record) -> KeyValue {
    KeyValue {
        key: key.clone(),
        create_revision: record.create_revision.get(),
        mod_revision: record.mod_revision.get(),
        version: record.version,
        value: record.value.clone(),
        lease: record.lease,
    }
}
