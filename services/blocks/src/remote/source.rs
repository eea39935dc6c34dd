//! A head of another process as a [`Source`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use cambium_model::block::LogId;
use cambium_model::profile::SampleLabels;
use cambium_model::time::TimeRange;
use cambium_proto::wire::ingester as wire;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tokio::sync::OnceCell;
use tonic::{Response, Status, Streaming};

use super::labels::decode_label_sets;
use super::open::{Session, Transport};
use super::pieces::Joined;
use super::profiles::{decode_profiles, decode_samples};
use super::scans::{encode_sample_scan, encode_selection, encode_tree_scan};
use super::series::decode_series;
use super::stacks::{decode_tree, decode_values};
use super::{Malformed, has_length};
use crate::offload::offload;
use crate::series_table::{RowSet, SeriesTable};
use crate::source::{Profiles, SampleScan, Samples, ScanStats, TreeScan};
use crate::tree::{PartialTree, Tree};
use crate::{Error, Source};

/// An opened head. What never changes is fetched once.
pub(super) struct RemoteSource<T: Transport> {
    session: Arc<Session<T>>,
    head: wire::OpenedHead,
    log: LogId,
    series: OnceCell<Arc<SeriesTable>>,
    stack_tree: OnceCell<Arc<Tree>>,
    label_sets: OnceCell<Arc<Vec<SampleLabels>>>,
    counted: Arc<Counted>,
}

/// What has been asked and answered so far.
#[derive(Debug, Default)]
struct Counted {
    requests: AtomicU64,
    bytes: AtomicU64,
    profiles: AtomicU64,
    samples: AtomicU64,
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl<T: Transport> RemoteSource<T> {
    pub(super) fn new(session: Arc<Session<T>>, head: wire::OpenedHead, log: LogId) -> Self {
        Self {
            session,
            head,
            log,
            series: OnceCell::new(),
            stack_tree: OnceCell::new(),
            label_sets: OnceCell::new(),
            counted: Arc::default(),
        }
    }

    fn request(&self) -> wire::HeadRequest {
        self.session.head(&self.head.id)
    }

    /// The answer to a call, joined and decoded where that holds nobody up.
    async fn joined<M: Message + Default + 'static, V: Send + 'static>(
        &self,
        answer: Result<Response<Streaming<wire::Piece>>, Status>,
        decode: impl FnOnce(M) -> Result<V, Malformed> + Send + 'static,
    ) -> Result<V, Error> {
        add(&self.counted.requests, 1);
        let mut pieces = answer.map_err(|status| self.session.failed(status))?.into_inner();
        let mut joined = Joined::default();
        while let Some(piece) = pieces.message().await.map_err(|status| self.session.failed(status))? {
            add(&self.counted.bytes, piece.bytes.len());
            joined.push(&piece).map_err(Error::Malformed)?;
        }
        offload(move |_| joined.message().and_then(decode).map_err(Error::Malformed)).await
    }
}

#[async_trait]
impl<T: Transport> Source for RemoteSource<T> {
    async fn series(&self) -> Result<Arc<SeriesTable>, Error> {
        let fetch = async || {
            let request = self.session.request(self.request())?;
            let answer = self.session.client.clone().series(request).await;
            let count = self.head.series as usize;
            self.joined(answer, move |message| decode_series(message, count)).await.map(Arc::new)
        };
        self.series.get_or_try_init(fetch).await.cloned()
    }

    async fn profiles(&self, rows: &RowSet, range: TimeRange) -> Result<Profiles, Error> {
        let selection = Some(encode_selection(rows, range));
        let request = wire::ProfilesRequest { head: Some(self.request()), selection };
        let answer = self.session.client.clone().profiles(self.session.request(request)?).await;
        let rows = rows.clone();
        let profiles = self.joined(answer, move |message| decode_profiles(message, &rows)).await?;
        add(&self.counted.profiles, profiles.series.len());
        Ok(profiles)
    }

    async fn tree(&self, scan: &TreeScan) -> Result<PartialTree, Error> {
        let held = self.stack_tree.get().cloned();
        let request = encode_tree_scan(self.request(), scan, held.is_some());
        let answer = self.session.client.clone().tree(self.session.request(request)?).await;
        let decode = |message: wire::PartialTree| {
            if !message.overflow.is_empty() {
                return Ok(Err(Error::Overflow { profile_type: message.overflow }));
            }
            let tree = match held {
                Some(held) => held,
                None => Arc::new(decode_tree(message.tree.ok_or(Malformed::Missing("tree"))?)?),
            };
            let self_values = decode_values(&message.nodes, &message.values, tree.len())?;
            Ok(Ok(PartialTree { tree, self_values }))
        };
        self.joined(answer, decode).await?
    }

    async fn samples(&self, scan: &SampleScan) -> Result<BoxStream<'static, Result<Samples, Error>>, Error> {
        let request = self.session.request(encode_sample_scan(self.request(), scan))?;
        let answer = self.session.client.clone().samples(request).await;
        add(&self.counted.requests, 1);
        let messages = answer.map_err(|status| self.session.failed(status))?.into_inner();
        let (session, counted) = (Arc::clone(&self.session), Arc::clone(&self.counted));
        let (nodes, label_sets) = (self.head.nodes as usize, self.head.label_sets as usize);
        let rows = scan.rows.clone();
        let decode = move |message: Result<wire::Samples, Status>| {
            let message = message.map_err(|status| session.failed(status))?;
            add(&counted.bytes, message.encoded_len());
            add(&counted.samples, message.nodes.len());
            decode_samples(message, &rows, nodes, label_sets).map_err(Error::Malformed)
        };
        Ok(messages.map(decode).boxed())
    }

    async fn stack_tree(&self) -> Result<Arc<Tree>, Error> {
        let fetch = async || {
            let request = self.session.request(self.request())?;
            let answer = self.session.client.clone().stack_tree(request).await;
            let count = self.head.nodes as usize;
            let decode = move |message: wire::Tree| {
                has_length("up", message.up.len(), count)?;
                decode_tree(message)
            };
            self.joined(answer, decode).await.map(Arc::new)
        };
        self.stack_tree.get_or_try_init(fetch).await.cloned()
    }

    async fn sample_labels(&self) -> Result<Arc<Vec<SampleLabels>>, Error> {
        let fetch = async || {
            let request = self.session.request(self.request())?;
            let answer = self.session.client.clone().sample_labels(request).await;
            let count = self.head.label_sets as usize;
            self.joined(answer, move |message| decode_label_sets(message, count)).await.map(Arc::new)
        };
        self.label_sets.get_or_try_init(fetch).await.cloned()
    }

    fn stats(&self) -> ScanStats {
        let Counted { requests, bytes, profiles, samples } = &*self.counted;
        let bytes = bytes.load(Ordering::Relaxed);
        ScanStats {
            requests: requests.load(Ordering::Relaxed),
            bytes_fetched: bytes,
            bytes_needed: bytes,
            profile_rows: profiles.load(Ordering::Relaxed),
            sample_rows: samples.load(Ordering::Relaxed),
            ..ScanStats::default()
        }
    }
}

impl<T: Transport> fmt::Debug for RemoteSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSource").field("log", &self.log).field("head", &self.head.id).finish()
    }
}
