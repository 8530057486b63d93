//! From changes to watch responses. Pure.
//!
//! A revision is never split over responses, unless the client asked for fragments; several revisions share a
//! response when they are there together.

use std::sync::Arc;

use prost::Message;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use proto::ids::Revision;
use proto::key::KeyRange;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};
use store::mvcc::Record;
use store::v3::key_value;
use store::{Change, KeyWrite};

/// A response that has reached this many bytes of events takes no further revision: it bounds what one watch
/// holds back from the others of its stream.
pub(super) const RESPONSE_BYTES_ENOUGH: usize = 1 << 20;

/// Fragments stay below this: etcd's largest request (1.5 MiB) and 512 KiB for gRPC's overhead.
pub(super) const FRAGMENT_BYTES_MAX: usize = super::super::MESSAGE_BYTES_MAX;

/// What a watch wants to see, and how.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    /// Its keys.
    pub(super) range: KeyRange,
    /// Puts are shown.
    pub(super) puts: bool,
    /// Deletes are shown.
    pub(super) deletes: bool,
    /// Events carry what stood there before.
    pub(super) prev_kv: bool,
    /// Responses may be split.
    pub(super) fragment: bool,
}

impl Selection {
    /// Reads the request; an empty key is the smallest key there is, as in etcd.
    pub(super) fn of(request: &WatchCreateRequest) -> Self {
        let key = if request.key.is_empty() {
            "\0".into()
        } else {
            request.key.clone()
        };
        let filters = |filter: FilterType| request.filters.contains(&(filter as i32));
        Self {
            range: KeyRange::new(key, request.range_end.clone()),
            puts: !filters(FilterType::Noput),
            deletes: !filters(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
        }
    }

    fn event(&self, change: &Change, write: &KeyWrite) -> Option<Event> {
        let is_wanted = if write.record.is_some() {
            self.puts
        } else {
            self.deletes
        };
        if !is_wanted || !self.range.contains(&write.key) {
            return None;
        }
        let kv = match &write.record {
            Some(record) => key_value(&write.key, record),
            None => gone(write, change.revision),
        };
        let kind = if write.record.is_some() {
            EventType::Put
        } else {
            EventType::Delete
        };
        let prev = if self.prev_kv { before(change, write) } else { None };
        let prev_kv = prev.map(|prev| key_value(&write.key, prev));
        Some(Event {
            r#type: kind as i32,
            kv: Some(kv),
            prev_kv,
        })
    }
}

/// A key that was deleted, as etcd shows it.
fn gone(write: &KeyWrite, revision: Revision) -> KeyValue {
    KeyValue {
        key: write.key.clone(),
        mod_revision: revision.get(),
        ..KeyValue::default()
    }
}

/// What stood at the key before the whole revision: a transaction may put a key and then delete it, and then
/// etcd shows the older value. A put that begins the key's life has nothing before it.
fn before<'a>(change: &'a Change, write: &'a KeyWrite) -> Option<&'a Record> {
    if write
        .record
        .as_ref()
        .is_some_and(|record| record.create_revision == change.revision)
    {
        return None;
    }
    let prev = write.prev.as_deref()?;
    if prev.mod_revision < change.revision {
        return Some(prev);
    }
    let first = change.writes.iter().find(|other| other.key == write.key)?;
    first.prev.as_deref()
}

/// Events of one response, all of whole revisions.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In order.
    pub(super) events: Vec<Event>,
    /// The newest revision that has an event here.
    pub(super) revision: Revision,
    bytes: usize,
}

/// The events that the watch sees, packed into as few responses as the size allows.
pub(super) fn batches(selection: &Selection, changes: &[Arc<Change>]) -> Vec<Batch> {
    let mut full = Vec::new();
    let mut batch = Batch::default();
    for change in changes {
        let before = batch.events.len();
        batch.events.extend(
            change
                .writes
                .iter()
                .filter_map(|write| selection.event(change, write)),
        );
        if batch.events.len() == before {
            continue;
        }
        batch.bytes += batch.events[before..]
            .iter()
            .map(Message::encoded_len)
            .sum::<usize>();
        batch.revision = change.revision;
        if batch.bytes >= RESPONSE_BYTES_ENOUGH {
            full.push(std::mem::take(&mut batch));
        }
    }
    if !batch.events.is_empty() {
        full.push(batch);
    }
    full
}

/// Splits a response into pieces below `bytes_max`, all but the last marked as fragments. An event larger than
/// that goes alone.
pub(super) fn fragments(response: WatchResponse, bytes_max: usize) -> Vec<WatchResponse> {
    if response.events.len() < 2 || response.encoded_len() < bytes_max {
        return vec![response];
    }
    let WatchResponse { events, .. } = response;
    let frame = WatchResponse {
        fragment: true,
        events: Vec::new(),
        ..response
    };
    let frame_bytes = frame.encoded_len();
    let mut pieces = vec![frame.clone()];
    let mut bytes = frame_bytes;
    for event in events {
        let event_bytes = field_bytes(event.encoded_len());
        let is_begun = pieces.last().is_some_and(|piece| !piece.events.is_empty());
        if is_begun && bytes + event_bytes >= bytes_max {
            pieces.push(frame.clone());
            bytes = frame_bytes;
        }
        bytes += event_bytes;
        pieces.last_mut().expect("there is always one").events.push(event);
    }
    pieces.last_mut().expect("there is always one").fragment = false;
    pieces
}

/// A message of this length as a field: its tag, its length, itself.
fn field_bytes(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

/// A response without events.
pub(super) fn bare(header: ResponseHeader, watch_id: i64) -> WatchResponse {
    WatchResponse {
        header: Some(header),
        watch_id,
        ..WatchResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::ids::V2Index;

    use super::*;

    fn record(value: &'static [u8], create: i64, modified: i64) -> Arc<Record> {
        Arc::new(Record {
            value: Bytes::from_static(value),
            create_revision: Revision::new(create),
            mod_revision: Revision::new(modified),
            version: 1 + modified - create,
            lease: 7,
            created_index: V2Index::ZERO,
            modified_index: V2Index::ZERO,
            expires_at: None,
        })
    }

    type Written = (&'static str, Option<Arc<Record>>, Option<Arc<Record>>);

    /// A change of these (key, now, before).
    fn change(revision: i64, writes: Vec<Written>) -> Arc<Change> {
        let writes = writes
            .into_iter()
            .map(|(key, record, prev)| KeyWrite {
                key: Bytes::from_static(key.as_bytes()),
                record,
                prev,
            })
            .collect();
        Arc::new(Change {
            revision: Revision::new(revision),
            writes,
            events: vec![],
            removed_directories: vec![],
        })
    }

    fn history() -> Vec<Arc<Change>> {
        let first = record(b"1", 2, 2);
        vec![
            change(2, vec![("a", Some(Arc::clone(&first)), None)]),
            change(3, vec![("x", Some(record(b"x", 3, 3)), None)]),
            change(
                4,
                vec![("a", None, Some(first)), ("b", Some(record(b"2", 4, 4)), None)],
            ),
        ]
    }

    fn seen(request: &WatchCreateRequest) -> Vec<(i32, String, i64, bool)> {
        let flat = batches(&Selection::of(request), &history())
            .into_iter()
            .flat_map(|batch| batch.events);
        flat.map(|event| {
            let kv = event.kv.unwrap();
            (
                event.r#type,
                String::from_utf8(kv.key.to_vec()).unwrap(),
                kv.mod_revision,
                event.prev_kv.is_some(),
            )
        })
        .collect()
    }

    fn row(kind: EventType, key: &str, revision: i64, has_prev: bool) -> (i32, String, i64, bool) {
        (kind as i32, key.to_owned(), revision, has_prev)
    }

    #[test]
    fn ranges_filters_and_previous_values() {
        let a_to_c = WatchCreateRequest {
            key: "a".into(),
            range_end: "c".into(),
            ..Default::default()
        };
        let (put, delete) = (EventType::Put, EventType::Delete);
        assert_eq!(
            seen(&a_to_c),
            [
                row(put, "a", 2, false),
                row(delete, "a", 4, false),
                row(put, "b", 4, false)
            ]
        );
        assert_eq!(
            seen(&WatchCreateRequest {
                prev_kv: true,
                ..a_to_c.clone()
            }),
            [
                row(put, "a", 2, false),
                row(delete, "a", 4, true),
                row(put, "b", 4, false)
            ]
        );
        let filtered = |filter| WatchCreateRequest {
            filters: vec![filter as i32],
            ..a_to_c.clone()
        };
        assert_eq!(seen(&filtered(FilterType::Noput)), [row(delete, "a", 4, false)]);
        assert_eq!(
            seen(&filtered(FilterType::Nodelete)),
            [row(put, "a", 2, false), row(put, "b", 4, false)]
        );
        let all = WatchCreateRequest {
            range_end: vec![0].into(),
            ..Default::default()
        };
        assert_eq!(
            seen(&all).len(),
            4,
            "an empty key and the end of all ends is everything"
        );
        assert_eq!(
            seen(&WatchCreateRequest {
                key: "x".into(),
                ..Default::default()
            })
            .len(),
            1
        );
    }

    #[test]
    fn events_carry_the_whole_record_and_deletes_only_key_and_revision() {
        let selection = Selection::of(&WatchCreateRequest {
            key: "a".into(),
            prev_kv: true,
            ..Default::default()
        });
        let events = batches(&selection, &history()).remove(0).events;
        let put = KeyValue {
            key: "a".into(),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            value: "1".into(),
            lease: 7,
        };
        assert_eq!(
            events[0],
            Event {
                r#type: 0,
                kv: Some(put.clone()),
                prev_kv: None
            }
        );
        let gone = KeyValue {
            key: "a".into(),
            mod_revision: 4,
            ..KeyValue::default()
        };
        assert_eq!(
            events[1],
            Event {
                r#type: 1,
                kv: Some(gone),
                prev_kv: Some(put)
            }
        );
    }

    #[test]
    fn the_previous_value_is_that_before_the_whole_revision() {
        let (old, new) = (record(b"old", 2, 2), record(b"new", 2, 5));
        let fresh = record(b"fresh", 5, 5);
        let writes = vec![
            ("a", Some(Arc::clone(&new)), Some(Arc::clone(&old))),
            ("a", None, Some(new)),
            ("b", Some(Arc::clone(&fresh)), None),
            ("b", None, Some(fresh)),
            ("c", None, Some(old)),
            ("c", Some(record(b"again", 5, 5)), None),
        ];
        let all = WatchCreateRequest {
            range_end: vec![0].into(),
            prev_kv: true,
            ..Default::default()
        };
        let events = batches(&Selection::of(&all), &[change(5, writes)])
            .remove(0)
            .events;
        let values: Vec<Option<Bytes>> = events
            .into_iter()
            .map(|event| Some(event.prev_kv?.value))
            .collect();
        let old = Some(Bytes::from_static(b"old"));
        assert_eq!(values, [old.clone(), old.clone(), None, None, old, None]);
    }

    #[test]
    fn revisions_share_a_response_and_are_never_split() {
        let big = Bytes::from(vec![b'v'; RESPONSE_BYTES_ENOUGH / 3]);
        let many: Vec<Arc<Change>> = (2..9)
            .map(|revision| {
                let record = Record {
                    value: big.clone(),
                    ..(*record(b"", revision, revision)).clone()
                };
                change(
                    revision,
                    vec![
                        ("a", Some(Arc::new(record.clone())), None),
                        ("b", Some(Arc::new(record)), None),
                    ],
                )
            })
            .collect();
        let selection = Selection::of(&WatchCreateRequest {
            key: "a".into(),
            range_end: "z".into(),
            ..Default::default()
        });
        let packed = batches(&selection, &many);
        let shape: Vec<(usize, i64)> = packed
            .iter()
            .map(|batch| (batch.events.len(), batch.revision.get()))
            .collect();
        assert_eq!(shape, [(4, 3), (4, 5), (4, 7), (2, 8)]);
    }

    #[test]
    fn nothing_that_matches_makes_no_response() {
        let selection = Selection::of(&WatchCreateRequest {
            key: "q".into(),
            ..Default::default()
        });
        assert!(batches(&selection, &history()).is_empty());
    }

    #[test]
    fn fragments_stay_below_the_limit_and_lose_nothing() {
        let event = |size: usize| Event {
            r#type: 0,
            kv: Some(KeyValue {
                value: vec![0; size].into(),
                ..KeyValue::default()
            }),
            prev_kv: None,
        };
        let header = ResponseHeader {
            cluster_id: 1,
            member_id: 2,
            revision: 3,
            raft_term: 4,
        };
        let response = |sizes: &[usize]| WatchResponse {
            events: sizes.iter().map(|size| event(*size)).collect(),
            ..bare(header, 5)
        };
        // (sizes, limit) → events of each piece
        let table: [(&[usize], usize, &[usize]); 5] = [
            (&[10, 10], 1000, &[2]),
            (&[900], 100, &[1]),
            (&[40, 40, 40, 40], 130, &[2, 2]),
            (&[10, 900, 10], 100, &[1, 1, 1]),
            (&[30, 30, 30, 30, 30, 30, 30], 130, &[3, 3, 1]),
        ];
        for (sizes, limit, expected) in table {
            let pieces = fragments(response(sizes), limit);
            let shape: Vec<usize> = pieces.iter().map(|piece| piece.events.len()).collect();
            assert_eq!(shape, expected, "{sizes:?}");
            assert!(pieces.iter().rev().skip(1).all(|piece| piece.fragment));
            assert!(pieces.last().is_some_and(|piece| !piece.fragment));
            assert!(
                pieces
                    .iter()
                    .all(|piece| piece.events.len() == 1 || piece.encoded_len() < limit)
            );
            assert!(
                pieces
                    .iter()
                    .all(|piece| piece.watch_id == 5 && piece.header == Some(header))
            );
            let again: Vec<Event> = pieces.into_iter().flat_map(|piece| piece.events).collect();
            assert_eq!(again, response(sizes).events);
        }
    }
}
