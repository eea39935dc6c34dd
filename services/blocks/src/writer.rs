//! Columns to bytes: one immutable object of all tenants' datasets.
//!
//! ```text
//!   Dataset ──► order (types, scopes, series, profiles) ──► stacks (ids by rank, nodes depth first) ──► sections
//! ```
//!
//! Laws: the same datasets give the same bytes, whenever and wherever; every sum of the rollup is that of its samples;
//! a block is put only where nothing is, and putting the same block again is no error.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use cambium_model::block::{BlockMeta, Cover, DatasetMeta, LabelSummary, LogRange, SCOPES_LISTED_MAX};
use cambium_model::tenant::Tenant;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};
use parquet::basic::Compression as Codec;

use crate::layout::block_path;
use crate::toc::{TRAILER_BYTES, encode_toc};
use crate::{Dataset, Error};

pub(crate) mod order;

pub(crate) mod stacks;

pub(crate) mod series;

pub(crate) mod samples;

mod rollup;

mod series_rollup;

pub(crate) mod section;

pub mod spool;

use order::Order;
use samples::{Encoded, Form, NewProfile, ProfileWriter, Rollups};
use section::{Section, zstd};
use series::LabelSets;
use spool::Scratch;
use stacks::Stacks;

/// Blocks up to this size are put by one request, which also makes sure that nothing is overwritten.
const PUT_BYTES_MAX: u64 = 64 << 20;

/// Size of the parts of larger ones, and how many are on their way at a time.
const PART_BYTES: usize = 16 << 20;
const PARTS_UPLOADING_MAX: usize = 2;

/// Blocks of a head up to this level keep the ids of pushes, by which a retry is recognised.
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

/// One tenant's sections, wherever they will lie in a block.
#[derive(Debug)]
pub struct EncodedDataset {
    pub(crate) meta: DatasetMeta,
    pub(crate) sections: Vec<Section>,
}

impl EncodedDataset {
    /// What the catalogue will say of it; offsets are still to be set.
    pub fn meta(&self) -> &DatasetMeta {
        &self.meta
    }

    /// Says that the tenant's deletions up to this one have been carried out in it.
    pub fn note_deletions(&mut self, last: u64) {
        self.meta.deletions_done = last;
    }

    /// Says which records it stands for.
    pub fn note_covers(&mut self, covers: Vec<Cover>) {
        self.meta.covers = covers;
    }

    /// Says under which rule of retention all of its series fall.
    pub fn note_retention(&mut self, selector: Option<String>) {
        self.meta.retention_selector = selector;
    }

    /// Says how many profiles it and what was written with it have lost to deletions.
    pub fn note_left_out(&mut self, profiles: u64) {
        self.meta.profiles_left_out = profiles;
    }

    /// Its length in a block.
    pub fn size_bytes(&self) -> u64 {
        self.sections.iter().map(|section| section.meta.length).sum()
    }
}

/// A block that is encoded, but may be too large for memory.
#[derive(Debug)]
pub struct SpooledBlock {
    meta: BlockMeta,
    sections: Vec<spool::Spool>,
    toc: Vec<u8>,
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
    let meta = BlockMeta {
        path: block_path(level, &log_range, epoch, last_ns),
        level,
        size_bytes: 0,
        toc_crc32c: 0,
        log_ranges: vec![log_range],
        epoch,
        datasets: Vec::with_capacity(held.len()),
        sources: Vec::new(),
        part: 0,
        parts: 1,
    };
    let failed = |source| Error::Encode { path: meta.path.clone(), source };
    let encoded = held.into_iter().map(|dataset| encode_dataset(dataset, level, compression));
    let encoded = encoded.collect::<parquet::errors::Result<Vec<_>>>().map_err(failed)?;
    assemble(meta, encoded).into_memory()
}

/// A block of these datasets, which are of different tenants and sorted by number; `meta` is what the catalogue will
/// say of it but for datasets, size and checksum.
pub fn assemble(mut meta: BlockMeta, datasets: Vec<EncodedDataset>) -> SpooledBlock {
    debug_assert!(datasets.is_sorted_by(|a, b| a.meta.tenant.number < b.meta.tenant.number));
    let mut sections = Vec::new();
    let mut offset = 0;
    for mut dataset in datasets {
        for mut section in dataset.sections {
            section.meta.offset = offset;
            offset += section.meta.length;
            dataset.meta.sections.push(section.meta);
            sections.push(section.bytes);
        }
        meta.datasets.push(dataset.meta);
    }
    let (toc, crc) = encode_toc(&meta);
    meta.size_bytes = offset + toc.len() as u64;
    meta.toc_crc32c = crc;
    SpooledBlock { meta, sections, toc }
}

impl SpooledBlock {
    /// Its entry for the catalogue, path and size included.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// The block in memory.
    ///
    /// # Errors
    /// [`Error::Scratch`] where what is on disk cannot be read.
    pub fn into_memory(self) -> Result<EncodedBlock, Error> {
        let mut object = BytesMut::with_capacity(usize::try_from(self.meta.size_bytes).unwrap_or(0));
        for section in self.sections {
            object.extend_from_slice(&section.into_bytes().map_err(Error::scratch)?);
        }
        object.extend_from_slice(&self.toc);
        Ok(EncodedBlock { bytes: object.freeze(), meta: self.meta })
    }

    /// Puts the block under its path: a small one as [`put`] does, a large one in parts, in place of whatever is there.
    ///
    /// # Errors
    /// As [`put`]; [`Error::Scratch`] where what is on disk cannot be read.
    pub async fn put(self, store: &dyn ObjectStore) -> Result<BlockMeta, Error> {
        if self.meta.size_bytes <= PUT_BYTES_MAX {
            let block = self.into_memory()?;
            put(store, &block).await?;
            return Ok(block.meta);
        }
        fail::fail_point!("block-put-before");
        let path = self.meta.path.clone();
        let failed = |source| Error::Store { path: path.clone(), source };
        let upload = store.put_multipart(&Path::from(path.as_str())).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        for section in self.sections {
            let mut reader = section.into_reader().map_err(Error::scratch)?;
            loop {
                let (piece, rest) = crate::offload::offload(move |_| {
                    let mut piece = Vec::new();
                    let mut part = reader.by_ref().take(PART_BYTES as u64);
                    part.read_to_end(&mut piece).map_err(Error::scratch)?;
                    Ok((Bytes::from(piece), reader))
                })
                .await?;
                if piece.is_empty() {
                    break;
                }
                reader = rest;
                upload.wait_for_capacity(PARTS_UPLOADING_MAX).await.map_err(failed)?;
                upload.put(piece);
            }
        }
        upload.put(Bytes::from(self.toc));
        upload.finish().await.map_err(failed)?;
        fail::fail_point!("block-put-after");
        Ok(self.meta)
    }
}

/// The sections of a head's dataset, in memory.
fn encode_dataset(
    dataset: &Dataset,
    level: u8,
    compression: Compression,
) -> parquet::errors::Result<EncodedDataset> {
    let scratch = Scratch::memory();
    let order = Order::new(&dataset.series, &order::live(dataset));
    let profiles = order::sorted_profiles(dataset, &order);
    let counts = stacks::sample_counts(dataset);
    let scope_nodes = stacks::scope_nodes(dataset, &order, &profiles);
    let stacks = Stacks::new(&dataset.tree, &counts, &scope_nodes);
    let mut used = vec![false; dataset.label_sets.len()];
    for set in dataset.chunks.iter().flat_map(|chunk| &chunk.label_sets) {
        used[*set as usize] = true;
    }
    let label_sets = LabelSets::new(&dataset.label_sets, &used);
    let keep_ids = level <= PROFILE_ID_LEVEL_MAX;
    let rollups = Rollups::of_level(level);
    let form = Form { labelled: !label_sets.is_empty(), keep_ids, compression, rollups };
    let mut writer = ProfileWriter::new(&stacks, form, &scratch)?;
    let (mut rows, mut values): (Vec<(u64, i64)>, Vec<i64>) = (Vec::new(), Vec::new());
    for profile in &profiles {
        let series = &order.series[profile.series as usize];
        let (chunk, row) = profile.of(dataset);
        let held = row.sample_range();
        rows.clear();
        values.clear();
        chunk.read_values(row, &mut values);
        if chunk.label_sets.is_empty() {
            let keys = chunk.stacks[held].iter().map(|node| u64::from(stacks.stack(*node)) << 32);
            rows.extend(keys.zip(values.iter().copied()));
        } else {
            rows.extend(held.zip(&values).map(|(sample, value)| {
                let stack = stacks.stack(chunk.stacks[sample]);
                let label_set = label_sets.places[chunk.label_sets[sample] as usize];
                ((u64::from(stack) << 32) | u64::from(label_set), *value)
            }));
        }
        let new = NewProfile {
            series: profile.series,
            type_index: series.type_index,
            scope_index: series.scope_index,
            id: row.id,
            time_ns: row.time_ns,
            duration_ns: row.duration_ns,
            period: row.period,
            total: row.total,
            samples: rows.len() as u32,
        };
        writer.add(&new, &mut rows)?;
    }
    let (series, labels) = series::encode_series(&dataset.series, &order, &scratch)?;
    let side = Side { series, labels, order: &order, stacks: &stacks, label_sets: &label_sets };
    finish_dataset(dataset.tenant.clone(), writer.finish()?, side, &scratch)
}

/// What a dataset is made of besides profiles.
pub(crate) struct Side<'a> {
    pub(crate) series: Section,
    pub(crate) labels: Vec<LabelSummary>,
    pub(crate) order: &'a Order,
    pub(crate) stacks: &'a Stacks,
    pub(crate) label_sets: &'a LabelSets<'a>,
}

/// Puts the sections in their order.
pub(crate) fn finish_dataset(
    tenant: Tenant,
    encoded: Encoded,
    side: Side<'_>,
    scratch: &Scratch,
) -> parquet::errors::Result<EncodedDataset> {
    let order = side.order;
    let mut scopes: Vec<String> = order.scopes.iter().map(|scope| scope.value.to_string()).collect();
    scopes.dedup();
    if scopes.len() > SCOPES_LISTED_MAX {
        scopes.clear();
    }
    let meta = DatasetMeta {
        tenant,
        first_ns: encoded.first_ns,
        last_ns: encoded.last_ns,
        series: side.series.meta.rows,
        profiles: encoded.profiles.meta.rows,
        samples: encoded.samples.as_ref().map_or(0, |samples| samples.meta.rows),
        types: order.types.clone(),
        scopes,
        labels: side.labels,
        sections: Vec::new(),
        deletions_done: 0,
        covers: Vec::new(),
        profiles_left_out: 0,
        retention_selector: None,
    };
    let mut sections: Vec<Section> = encoded.samples.into_iter().collect();
    let (rows, buckets) = encoded.series_rollup.unzip();
    sections.extend(rows);
    sections.push(encoded.rollup);
    sections.extend(encoded.coarse_rollup);
    sections.extend(buckets);
    sections.extend([encoded.profiles, side.series]);
    sections.extend(side.stacks.encode(scratch)?);
    if !side.label_sets.is_empty() {
        sections.push(side.label_sets.encode(scratch)?);
    }
    Ok(EncodedDataset { meta, sections })
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
