//! Bytes of an object in the store: a block or an error, whatever its checksums vouch for.
//!
//! A fuzzer cannot guess a CRC32C. Each input is therefore read twice: as it is, and with a table of contents whose
//! checksums have been made to fit, as somebody who can write to the bucket would do it.

#![no_main]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cambium_blocks::cache::Cache;
use cambium_blocks::source::{Pick, SampleScan, TreeScan};
use cambium_blocks::toc::{MAGIC, TRAILER_BYTES, read_toc};
use cambium_blocks::verify::verify;
use cambium_blocks::{BlockSource, Error, Source};
use cambium_model::block::BlockMeta;
use cambium_model::time::TimeRange;
use cambium_proto::wire::metastore::BlockEntry;
use cambium_runtime::metrics::Metrics;
use futures::TryStreamExt;
use libfuzzer_sys::fuzz_target;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use prost::Message;

/// The reader's cache, bytes.
const CACHE_BYTES: u64 = 16 << 20;

fuzz_target!(
    init: {
        // The reader turns panics of the Parquet crate into errors; what nobody catches still ends the run.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    },
    |data: &[u8]| read_twice(data)
);

fn read_twice(data: &[u8]) {
    let object = Bytes::copy_from_slice(data);
    let path = path_of(data);
    let _ = verify(&path, &object);
    let Some(forged) = forged(data) else { return };
    let verified = verify(&path, &forged);
    let Ok(meta) = read_toc(&path, &forged, forged.len() as u64) else { return };
    let read = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers needs nothing")
        .block_on(read_all(meta, forged));
    if let (Ok(_), Err(error)) = (verified, read) {
        panic!("a block that holds what it says cannot be read: {error}");
    }
}

/// The protobuf message of the table of contents, where the trailer says that one is.
fn toc_of(data: &[u8]) -> Option<(&[u8], BlockEntry)> {
    let before_trailer = data.len().checked_sub(TRAILER_BYTES)?;
    let length: [u8; 4] = data[before_trailer..before_trailer + 4].try_into().ok()?;
    let start = before_trailer.checked_sub(u32::from_le_bytes(length) as usize)?;
    let entry = BlockEntry::decode(&data[start..before_trailer]).ok()?;
    Some((&data[..start], entry))
}

/// The name that the object gives itself.
fn path_of(data: &[u8]) -> String {
    toc_of(data).map_or_else(|| "path".to_owned(), |(_, entry)| entry.path)
}

/// The object under checksums that fit it.
fn forged(data: &[u8]) -> Option<Bytes> {
    let (sections, mut entry) = toc_of(data)?;
    for section in entry.datasets.iter_mut().flat_map(|dataset| &mut dataset.sections) {
        let end = section.offset.checked_add(section.length);
        let range = usize::try_from(section.offset).ok().zip(end.and_then(|end| usize::try_from(end).ok()));
        if let Some(bytes) = range.and_then(|(start, end)| sections.get(start..end)) {
            section.crc32c = crc32c::crc32c(bytes);
        }
    }
    let toc = entry.encode_to_vec();
    let mut object = BytesMut::from(sections);
    object.extend_from_slice(&toc);
    object.extend_from_slice(&u32::try_from(toc.len()).ok()?.to_le_bytes());
    object.extend_from_slice(&crc32c::crc32c(&toc).to_le_bytes());
    object.extend_from_slice(&MAGIC);
    Some(object.freeze())
}

/// Asks for everything that a block can answer.
async fn read_all(meta: BlockMeta, object: Bytes) -> Result<(), Error> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    if store.put(&Path::from(meta.path.as_str()), object.into()).await.is_err() {
        return Ok(()); // not a path that a store takes
    }
    let (cache, meta) = (Arc::new(Cache::new(CACHE_BYTES, &Metrics::new())), Arc::new(meta));
    for index in 0..meta.datasets.len() {
        let source = BlockSource::new(Arc::clone(&store), Arc::clone(&cache), Arc::clone(&meta), index);
        read_dataset(&source).await?;
    }
    Ok(())
}

async fn read_dataset(source: &BlockSource) -> Result<(), Error> {
    let table = source.series().await?;
    source.sample_labels().await?;
    let mut start = 0;
    for of_type in table.type_of.chunk_by(|a, b| a == b) {
        let rows = vec![start..start + of_type.len() as u32];
        start += of_type.len() as u32;
        let range = TimeRange::ALL;
        source.profiles(&rows, range).await?;
        for pick in [Pick::Sum, Pick::Mean(vec![1; of_type.len()])] {
            match source.tree(&TreeScan { rows: rows.clone(), range, pick }).await {
                // A sum past 64 bits is a fact about the values, not about the block.
                Ok(_) | Err(Error::Overflow { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        source.samples(&SampleScan { rows, range, at: None }).await?.try_collect::<Vec<_>>().await?;
    }
    Ok(())
}
