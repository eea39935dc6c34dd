//! Columns to bytes: one immutable object of all tenants' datasets.
//!
//! ```text
//!   Dataset ──► order (types, scopes, series, profiles) ──► stacks (ids by rank, nodes depth first) ──► sections
//! ```
//!
//! Laws: the same datasets give the same bytes, whenever and wherever; every sum of the rollup is that of its samples;
//! a block is put only where nothing is, and putting the same block again is no error.

use bytes::{BufMut, Bytes, BytesMut};
use cambium_model::block::{BlockMeta, DatasetMeta, LogRange, SCOPES_LISTED_MAX};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parquet::basic::Compression as Codec;

use crate::layout::block_path;
use crate::toc::{TRAILER_BYTES, encode_toc};
use crate::{Dataset, Error};

mod order;

mod stacks;

pub(crate) mod series;

mod samples;

mod rollup;

pub(crate) mod section;

use order::Order;
use section::{Section, zstd};
use series::LabelSets;
use stacks::Stacks;

/// Blocks up to this level keep the ids of pushes, by which a retry is recognised.
const PROFILE_ID_LEVEL_MAX: u8 = 1;

/// How hard samples are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// For blocks read often: stacks uncompressed, values LZ4.
    Hot,
    /// For blocks kept long: Zstandard.
    Cold,
}

impl Compression {
    fn stacks(self) -> Codec {
        match self {
            Self::Hot => Codec::UNCOMPRESSED,
            Self::Cold => zstd(1),
        }
    }

    fn values(self) -> Codec {
        match self {
            Self::Hot => Codec::LZ4_RAW,
            Self::Cold => zstd(1),
        }
    }
}

/// A block ready to be put.
#[derive(Clone, Debug)]
pub struct EncodedBlock {
    /// The whole object.
    pub bytes: Bytes,
    /// Its entry for the catalogue, path and size included.
    pub meta: BlockMeta,
}

/// Encodes the datasets (at most one per tenant; those without profiles are left out) as one block. Takes a second per
/// 15 million samples: call it where blocking is allowed.
///
/// # Errors
/// [`Error::Encode`] where the encoder refuses, which no dataset that keeps its laws makes it do.
pub fn encode(
    datasets: &[Dataset],
    log_range: LogRange,
    epoch: u64,
    level: u8,
    compression: Compression,
) -> Result<EncodedBlock, Error> {
    let mut held: Vec<&Dataset> = datasets.iter().filter(|dataset| dataset.profile_count() > 0).collect();
    held.sort_by_key(|dataset| dataset.tenant.number);
    let times = held.iter().flat_map(|dataset| dataset.chunks.iter()).flat_map(|chunk| &chunk.profiles);
    let last_ns = times.map(|profile| profile.time_ns).max().unwrap_or(0);
    let mut meta = BlockMeta {
        path: block_path(level, &log_range, epoch, last_ns),
        level,
        size_bytes: 0,
        toc_crc32c: 0,
        log_ranges: vec![log_range],
        epoch,
        datasets: Vec::with_capacity(held.len()),
    };
    let mut object = BytesMut::new();
    for dataset in held {
        let (mut dataset_meta, sections) = encode_dataset(dataset, level, compression)
            .map_err(|source| Error::Encode { path: meta.path.clone(), source })?;
        for mut section in sections {
            section.meta.offset = object.len() as u64;
            object.put_slice(&section.bytes);
            dataset_meta.sections.push(section.meta);
        }
        meta.datasets.push(dataset_meta);
    }
    let (toc, crc) = encode_toc(&meta);
    object.put_slice(&toc);
    meta.size_bytes = object.len() as u64;
    meta.toc_crc32c = crc;
    Ok(EncodedBlock { bytes: object.freeze(), meta })
}

/// The sections in their order; their offsets are still to be set.
fn encode_dataset(
    dataset: &Dataset,
    level: u8,
    compression: Compression,
) -> parquet::errors::Result<(DatasetMeta, Vec<Section>)> {
    let order = Order::new(dataset);
    let stacks = Stacks::new(dataset, &order);
    let label_sets = LabelSets::new(dataset);
    let (series, labels) = series::encode_series(dataset, &order)?;
    let keep_ids = level <= PROFILE_ID_LEVEL_MAX;
    let encoded = samples::encode(dataset, &order, &stacks, &label_sets, keep_ids, compression)?;
    let mut sections = vec![series, encoded.profiles, encoded.samples, encoded.rollup];
    sections.extend(stacks.encode()?);
    if !label_sets.is_empty() {
        sections.push(label_sets.encode()?);
    }
    let times = || order.profiles.iter().map(|profile| profile.of(dataset).1.time_ns);
    let mut scopes: Vec<String> = order.scopes.iter().map(|scope| scope.value.to_string()).collect();
    scopes.dedup();
    if scopes.len() > SCOPES_LISTED_MAX {
        scopes.clear();
    }
    let meta = DatasetMeta {
        tenant: dataset.tenant.clone(),
        first_ns: times().min().unwrap_or(0),
        last_ns: times().max().unwrap_or(0),
        series: order.series.len() as u64,
        profiles: order.profiles.len() as u64,
        samples: dataset.sample_count() as u64,
        types: order.types,
        scopes,
        labels,
        sections: Vec::with_capacity(sections.len()),
    };
    Ok((meta, sections))
}

/// Puts the block under its path if nothing is there; if its own bytes are there already, that is success.
///
/// # Errors
/// [`Error::Store`] where the store fails (the block may be there or not: put it again); [`Error::PathTaken`] where
/// another object is there.
pub async fn put(store: &dyn ObjectStore, block: &EncodedBlock) -> Result<(), Error> {
    let text = &block.meta.path;
    let path = Path::from(text.as_str());
    let failed = |source| Error::Store { path: text.clone(), source };
    fail::fail_point!("block-put-before");
    let payload = block.bytes.clone().into();
    match store.put_opts(&path, payload, PutOptions::from(PutMode::Create)).await {
        Ok(_) => {}
        Err(object_store::Error::AlreadyExists { .. }) => {
            let size = store.head(&path).await.map_err(failed)?.size;
            let trailer = block.bytes.slice(block.bytes.len() - TRAILER_BYTES..);
            // The trailer holds the table of contents' checksum, and that holds all others.
            let same = size == block.meta.size_bytes
                && store.get_range(&path, size - TRAILER_BYTES as u64..size).await.map_err(failed)?
                    == trailer;
            if !same {
                return Err(Error::PathTaken { path: text.clone() });
            }
        }
        Err(source) => return Err(failed(source)),
    }
    fail::fail_point!("block-put-after");
    Ok(())
}
