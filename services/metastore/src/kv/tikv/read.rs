//! Reading at a timestamp: sorted chunks in parallel, smaller ones where an answer would be too large.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashMap;
use tikv_client::{Backoff, CheckLevel, KvPair, RetryOptions, Timestamp, TransactionOptions};

use super::failure::Failure;
use super::metrics::Operation;
use super::{Error, Key, Shared, kept_value};
use crate::kv::{KeyRange, Snapshot, after};

/// Keys of one multi-get; the client sends them to each region in one request, however many they are.
const CHUNK_KEYS_MAX: usize = 1_024;

/// Multi-gets of one call that are under way at a time.
const CHUNKS_IN_FLIGHT_MAX: usize = 16;

/// Keys that a region is asked for at a time by a scan; the client asks all regions of the range for as many.
const PAGE_KEYS_MAX: usize = 1_024;

/// The store as of a timestamp.
pub(super) struct TikvSnapshot {
    shared: Arc<Shared>,
    timestamp: Timestamp,
}

impl TikvSnapshot {
    pub(super) fn new(shared: Arc<Shared>, timestamp: Timestamp) -> Self {
        Self { shared, timestamp }
    }

    async fn client(&self) -> Result<tikv_client::Snapshot, Failure> {
        let client = self.shared.link.client().await?;
        Ok(client.snapshot(self.timestamp.clone(), options()))
    }

    /// The values that sorted keys have; too large an answer is asked for in halves.
    fn chunk<'a>(
        &'a self,
        keys: &'a [Vec<u8>],
        due: Duration,
    ) -> BoxFuture<'a, Result<Vec<KvPair>, Failure>> {
        async move {
            let read = || async {
                let get = || async {
                    let pairs = self.client().await?.batch_get(keys.iter().cloned()).await?;
                    Ok(pairs.collect::<Vec<KvPair>>())
                };
                self.shared.hedge.read(get, |won| self.shared.metrics.hedged(won)).await
            };
            match self.shared.try_until(Operation::get, due, read).await {
                Err(failure) if failure.is_too_large() && keys.len() > 1 => {
                    let (left, right) = keys.split_at(keys.len() / 2);
                    let mut pairs = self.chunk(left, due).await?;
                    pairs.extend(self.chunk(right, due).await?);
                    Ok(pairs)
                }
                result => result,
            }
        }
        .boxed()
    }

    /// The values of stored keys, in the order asked.
    pub(super) async fn values(
        &self,
        keys: &[Vec<u8>],
        due: Duration,
    ) -> Result<Vec<Option<Bytes>>, Failure> {
        let mut sorted: Vec<Vec<u8>> = keys.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let chunks: Vec<_> = sorted.chunks(CHUNK_KEYS_MAX).map(|chunk| self.chunk(chunk, due)).collect();
        let found: Vec<Vec<KvPair>> =
            stream::iter(chunks).buffer_unordered(CHUNKS_IN_FLIGHT_MAX).try_collect().await?;
        let found: HashMap<Vec<u8>, Bytes> =
            found.into_iter().flatten().map(|pair| (pair.0.into(), kept_value(pair.1))).collect();
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    /// One page of a scan; too large an answer is asked for in a smaller page.
    async fn page(
        &self,
        range: &KeyRange,
        limit: usize,
        due: Duration,
    ) -> Result<Vec<(Key, Bytes)>, Failure> {
        let (start, end) = (self.shared.stored(&range.start), self.shared.stored(&range.end));
        let mut limit = limit.min(PAGE_KEYS_MAX);
        loop {
            let keys = u32::try_from(limit).unwrap_or(u32::MAX);
            let read = || async {
                let pairs = self.client().await?.scan(start.clone()..end.clone(), keys).await?;
                Ok(pairs.collect::<Vec<KvPair>>())
            };
            match self.shared.try_until(Operation::scan, due, read).await {
                Err(failure) if failure.is_too_large() && limit > 1 => limit /= 2,
                result => return Ok(result?.into_iter().map(|pair| self.unstored(pair)).collect()),
            }
        }
    }

    fn unstored(&self, pair: KvPair) -> (Key, Bytes) {
        let key = Bytes::from(Vec::<u8>::from(pair.0));
        (Key::new(key.slice(self.shared.prefix.len()..)), kept_value(pair.1))
    }
}

#[async_trait]
impl Snapshot for TikvSnapshot {
    async fn batch_get(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, Error> {
        let stored: Vec<Vec<u8>> = keys.iter().map(|key| self.shared.stored(key)).collect();
        self.shared.count(Operation::get, self.values(&stored, self.shared.due())).await
    }

    async fn scan(&self, mut range: KeyRange, limit: usize) -> Result<Vec<(Key, Bytes)>, Error> {
        let due = self.shared.due();
        let pages = async {
            let mut all = Vec::new();
            while all.len() < limit && !range.is_empty() {
                let page = self.page(&range, limit - all.len(), due).await?;
                let Some((last, _)) = page.last() else { break };
                range.start = after(last);
                all.extend(page);
            }
            Ok(all)
        };
        self.shared.count(Operation::scan, pages).await
    }
}

/// How the client reads. It waits for locks of others: they end when their transactions do, or by their age.
fn options() -> TransactionOptions {
    let retries = RetryOptions::new(region_backoff(), Backoff::no_jitter_backoff(2, 200, 12));
    TransactionOptions::new_optimistic().drop_check(CheckLevel::None).retry_options(retries)
}

/// How the client repeats what a region did not answer: for less than a try may last.
pub(super) fn region_backoff() -> Backoff {
    Backoff::no_jitter_backoff(2, 200, 6)
}
