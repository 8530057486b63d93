//! Keys and values: read, write, list, compact.

use bytes::Bytes;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, TxnRequest, TxnResponse,
};
use proto::ids::Revision;
use proto::key::KeyRange;
use proto::mvccpb::KeyValue;
use tonic::transport::Channel;

use crate::v3::channel::Effect;
use crate::v3::lease::LeaseId;
use crate::v3::transaction::is_read_only;
use crate::v3::{Client, Error, MESSAGE_BYTES_MAX};

/// Keys per page of a listing: far below the message limit with ordinary values, few round trips.
const PAGE_KEYS: i64 = 1_000;

/// A listing beyond this is refused rather than held in memory.
const LISTING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How often a listing begins anew when its revision is compacted away while it is being read.
const LISTING_ATTEMPTS: usize = 3;

/// Keys and values that stood together at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The revision; a watch from [`Revision::next`] of it misses nothing.
    pub revision: Revision,
    /// In the order of their keys.
    pub key_values: Vec<KeyValue>,
}

impl Client {
    /// A range with every option of the API.
    ///
    /// # Errors
    /// As for every read: [`Error::Unavailable`], [`Error::Timeout`], or the server's refusal.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.pool
            .call(Effect::Read, |channel| {
                let request = request.clone();
                async move { kv(channel).range(request).await }
            })
            .await
    }

    /// One key, as the cluster agrees now (linearizable).
    ///
    /// # Errors
    /// As for every read.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        let request = RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        };
        Ok(self.range(request).await?.kvs.into_iter().next())
    }

    /// Everything that begins with this prefix, read in pages at one revision.
    ///
    /// # Errors
    /// As for every read, and [`Error::TooLarge`].
    pub async fn get_prefix(&self, prefix: &[u8]) -> Result<Listing, Error> {
        let mut attempt = 1;
        loop {
            match self.list(KeyRange::prefix(prefix)).await {
                Err(Error::Compacted { .. }) if attempt < LISTING_ATTEMPTS => attempt += 1,
                listed => return listed,
            }
        }
    }

    async fn list(&self, range: KeyRange) -> Result<Listing, Error> {
        let (key, range_end) = range.into_pair();
        let mut request = RangeRequest {
            key,
            range_end,
            limit: PAGE_KEYS,
            ..RangeRequest::default()
        };
        let mut listing = Listing::default();
        let mut bytes = 0;
        loop {
            let page = self.range(request.clone()).await?;
            if request.revision == 0 {
                request.revision = page.header.map_or(0, |header| header.revision);
                listing.revision = Revision::new(request.revision.max(0));
            }
            bytes += page
                .kvs
                .iter()
                .map(|kv| kv.key.len() + kv.value.len())
                .sum::<usize>();
            if bytes > LISTING_BYTES_MAX {
                return Err(Error::TooLarge {
                    limit: LISTING_BYTES_MAX,
                });
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            listing.key_values.extend(page.kvs);
            match last {
                Some(last) if page.more => request.key = successor(&last),
                _ => return Ok(listing),
            }
        }
    }

    /// Writes one key, under a lease or for good.
    ///
    /// # Errors
    /// As for every write: [`Error::Uncertain`] when it may have happened, [`Error::Unavailable`] when it
    /// certainly has not, or the server's refusal.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        lease: Option<LeaseId>,
    ) -> Result<PutResponse, Error> {
        let lease = lease.map_or(0, LeaseId::get);
        self.put_with(PutRequest {
            key: key.into(),
            value: value.into(),
            lease,
            ..PutRequest::default()
        })
        .await
    }

    /// Writes one key with every option of the API.
    ///
    /// # Errors
    /// As for every write.
    pub async fn put_with(&self, request: PutRequest) -> Result<PutResponse, Error> {
        self.pool
            .call(Effect::Write, |channel| {
                let request = request.clone();
                async move { kv(channel).put(request).await }
            })
            .await
    }

    /// Deletes one key or a whole range; the answer counts what was there.
    ///
    /// # Errors
    /// As for every write.
    pub async fn delete(&self, range: KeyRange) -> Result<DeleteRangeResponse, Error> {
        let (key, range_end) = range.into_pair();
        let request = DeleteRangeRequest {
            key,
            range_end,
            ..DeleteRangeRequest::default()
        };
        self.pool
            .call(Effect::Write, |channel| {
                let request = request.clone();
                async move { kv(channel).delete_range(request).await }
            })
            .await
    }

    /// Several operations as one, under conditions: see [`crate::v3::Transaction`]. One that only reads
    /// goes on to the next endpoint as reads do.
    ///
    /// # Errors
    /// As for every write.
    pub async fn txn(&self, request: impl Into<TxnRequest>) -> Result<TxnResponse, Error> {
        let request = request.into();
        let effect = if is_read_only(&request) {
            Effect::Read
        } else {
            Effect::Write
        };
        self.pool
            .call(effect, |channel| {
                let request = request.clone();
                async move { kv(channel).txn(request).await }
            })
            .await
    }

    /// Forgets the history before this revision. The space is freed later.
    ///
    /// # Errors
    /// As for every write; [`Error::Compacted`] when it is compacted already.
    pub async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let request = CompactionRequest {
            revision: revision.get(),
            physical: false,
        };
        self.pool
            .call(Effect::Write, |channel| async move {
                kv(channel).compact(request).await
            })
            .await?;
        Ok(())
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The first key after this one.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}
