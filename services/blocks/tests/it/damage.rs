//! Whatever happens to a block's bytes, the answer is an error that says where; never a wrong sum, never a panic.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cambium_blocks::cache::Cache;
use cambium_blocks::source::{Pick, SampleScan, TreeScan};
use cambium_blocks::testing::{Shape, random_dataset, tenant};
use cambium_blocks::toc::{TRAILER_BYTES, read_toc, section_name};
use cambium_blocks::verify::verify;
use cambium_blocks::writer::{Compression, EncodedBlock};
use cambium_blocks::{BlockSource, Error, Source, reader};
use cambium_model::block::{BlockMeta, SectionKind};
use cambium_model::time::{SECOND_NS, TimeRange};
use cambium_proto::wire::metastore::BlockEntry;
use cambium_runtime::metrics::Metrics;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use prost::Message;

use crate::store::{block, run};

fn small() -> EncodedBlock {
    block(&[random_dataset(tenant(1), 8, &Shape::dense())], 3, Compression::Hot)
}

/// Large enough that samples are fetched in pieces.
fn large() -> EncodedBlock {
    let shape = Shape { profiles: 1_300, samples: 700, depth: 4, locations: 6, ..Shape::dense() };
    block(&[random_dataset(tenant(1), 8, &shape)], 3, Compression::Cold)
}

async fn source(meta: &BlockMeta, object: Bytes) -> BlockSource {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    store.put(&Path::from(meta.path.as_str()), object.into()).await.unwrap();
    BlockSource::new(store, Arc::new(Cache::new(64 << 20, &Metrics::new())), Arc::new(meta.clone()), 0)
}

/// Asks for everything that a block can answer.
async fn read_all(source: &BlockSource) -> Result<(), Error> {
    let table = source.series().await?;
    source.sample_labels().await?;
    let mut start = 0;
    for of_type in table.type_of.chunk_by(|a, b| a == b) {
        let rows = vec![start..start + of_type.len() as u32];
        start += of_type.len() as u32;
        let range = TimeRange::ALL;
        source.profiles(&rows, range).await?;
        // Without the first ten minutes no bucket of two hours is whole; part of a service has rollups by series.
        let most = TimeRange::new(Shape::default().start_ns + 600 * SECOND_NS, i64::MAX);
        for (rows, range) in [(&rows, range), (&rows, most), (&vec![rows[0].start..rows[0].start + 1], range)]
        {
            source.tree(&TreeScan { rows: rows.clone(), range, pick: Pick::Sum }).await?;
        }
        let pick = Pick::Mean(vec![1; of_type.len()]);
        source.tree(&TreeScan { rows: rows.clone(), range, pick }).await?;
        source.samples(&SampleScan { rows, range, at: None }).await?.try_collect::<Vec<_>>().await?;
    }
    Ok(())
}

fn flipped(block: &EncodedBlock, at: u64) -> Bytes {
    let mut bytes = BytesMut::from(&block.bytes[..]);
    bytes[at as usize] ^= 0x10;
    bytes.freeze()
}

#[track_caller]
fn assert_names(result: Result<(), Error>, kind: SectionKind) {
    let text = result.unwrap_err().to_string();
    assert!(text.contains(&format!("section {}", section_name(kind))), "{kind:?}: {text}");
}

#[test]
fn damage_to_any_section_is_named() {
    run(async {
        for block in [small(), large()] {
            read_all(&source(&block.meta, block.bytes.clone()).await).await.unwrap();
            let dataset = &block.meta.datasets[0];
            assert_eq!(dataset.sections.len(), SectionKind::ALL.len());
            for section in &dataset.sections {
                for at in [0, section.length / 3, section.length / 2, section.length - 1] {
                    let object = flipped(&block, section.offset + at);
                    assert_names(read_all(&source(&block.meta, object.clone()).await).await, section.kind);
                    assert_names(verify(&block.meta.path, &object).map(|_| ()), section.kind);
                }
            }
        }
    });
}

#[test]
fn damage_to_the_table_of_contents_is_named() {
    run(async {
        let block = small();
        let end = block.bytes.len() as u64;
        let path = &block.meta.path;
        let last = block.meta.datasets[0].sections.last().unwrap();
        for at in last.offset + last.length..end {
            let store = InMemory::new();
            store.put(&Path::from(path.as_str()), flipped(&block, at).into()).await.unwrap();
            let error = reader::open(&store, path).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "byte {at}: {error:?}");
        }
        let store = InMemory::new();
        store.put(&Path::from("elsewhere"), block.bytes.clone().into()).await.unwrap();
        let error = reader::open(&store, "elsewhere").await.unwrap_err();
        assert!(error.to_string().contains("calls itself v1/"), "{error}");
        assert!(matches!(reader::open(&store, "nowhere").await, Err(Error::Store { .. })));
    });
}

#[test]
fn a_truncated_object_is_an_error() {
    run(async {
        let block = small();
        let path = &block.meta.path;
        for length in [0, 1, TRAILER_BYTES, 100, block.bytes.len() / 2, block.bytes.len() - 1] {
            let object = block.bytes.slice(..length);
            assert!(matches!(verify(path, &object), Err(Error::Corrupt { .. })), "{length}");
            let store = InMemory::new();
            store.put(&Path::from(path.as_str()), object.clone().into()).await.unwrap();
            assert!(reader::open(&store, path).await.is_err(), "{length}");
            let read = read_all(&source(&block.meta, object).await).await;
            assert!(read.is_err() || length == block.bytes.len() - 1, "{length}");
        }
    });
}

/// The object with these sections, under checksums that fit them.
fn forged(meta: &BlockMeta, object: &Bytes) -> (BlockMeta, Bytes) {
    let mut meta = meta.clone();
    for section in &mut meta.datasets[0].sections {
        section.crc32c =
            crc32c::crc32c(&object[section.offset as usize..(section.offset + section.length) as usize]);
    }
    let last = meta.datasets[0].sections.last().unwrap();
    let mut forged = BytesMut::from(&object[..(last.offset + last.length) as usize]);
    let toc = BlockEntry::from(&meta).encode_to_vec();
    forged.extend_from_slice(&toc);
    forged.extend_from_slice(&(toc.len() as u32).to_le_bytes());
    forged.extend_from_slice(&crc32c::crc32c(&toc).to_le_bytes());
    forged.extend_from_slice(b"CAMBIUM1");
    (meta, forged.freeze())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn forged_checksums_do_not_make_it_panic(
        section in 0..8usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let block = small();
        let section = block.meta.datasets[0].sections[section];
        let mut object = BytesMut::from(&block.bytes[..]);
        for (at, byte) in changes {
            object[section.offset as usize + at.index(section.length as usize)] = byte;
        }
        let (meta, object) = forged(&block.meta, &object.freeze());
        // A changed value or name can go unnoticed; what matters is that the reader returns.
        let _ = verify(&meta.path, &object);
    }

    #[test]
    fn arbitrary_tails_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), length in any::<u32>(), size in any::<u64>()) {
        let mut tail = bytes;
        let crc = crc32c::crc32c(&tail);
        let stated = if length % 2 == 0 { tail.len() as u32 } else { length };
        tail.extend_from_slice(&stated.to_le_bytes());
        tail.extend_from_slice(&crc.to_le_bytes());
        tail.extend_from_slice(b"CAMBIUM1");
        let _ = read_toc("path", &tail, size.max(tail.len() as u64));
        prop_assert!(verify("path", &tail.into()).is_err());
    }
}
