//! What merging blocks costs, and how much memory it takes whatever it merges.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use cambium_blocks::layout::merged_path;
use cambium_blocks::local::DurableLocal;
use cambium_blocks::merge::{Input, Wanted, merge};
use cambium_blocks::reader;
use cambium_blocks::writer::spool::Scratch;
use cambium_blocks::writer::{self, Compression, EncodedBlock};
use cambium_ingester::head::Head;
use cambium_loadtest::w::INTERVAL_NS;
use cambium_model::block::{BlockMeta, LogRange, Offset};
use cambium_model::limits::TenantLimits;
use futures::TryStreamExt;
use object_store::ObjectStore;

use crate::Bench;
use crate::ceiling::Ceiling;
use crate::cpu::{best, process_time};
use crate::fleet::{Fleet, LOG, START_NS, tenant};
use crate::table::{Row, Unit};
use cambium_simulation::process::memory;

const COMPACT_MIN: f64 = 10e6;
/// Blocks that W is split into by time.
const BLOCKS: u64 = 12;
/// The level of what is written: the highest has the most rollups.
const LEVEL: u8 = 3;
/// Bytes of a section that stay in memory, as the compactor has it.
const SECTION_MEMORY_BYTES: usize = 256 << 10;
/// What the large merge takes, and what it may need for it.
const LARGE_BYTES: u64 = 4 << 30;
/// Blocks of level 0 in each of its blocks of level 1: with it the large merge has as many inputs as a job takes.
const FLUSHED: u64 = 4;
const LARGE_MEMORY_MAX: f64 = 512.0 * (1 << 20) as f64;

/// Under this name the program merges the blocks of a folder, and says what memory it needed.
pub const CHILD: &str = "merge-folder";

fn wanted() -> Wanted<'static> {
    Wanted::everything(LEVEL, Compression::Cold)
}

/// Merging W from blocks of some minutes, and four gigabytes of it.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let fleet = bench.w()?;
    let folder = tempfile::tempdir()?;
    let scratch = Scratch::folder(folder.path(), SECTION_MEMORY_BYTES);
    let inputs = (0..BLOCKS).map(|part| part_of(&fleet, part)).collect::<anyhow::Result<Vec<_>>>()?;
    let (seconds, merged) = best(|| Ok(merge(&inputs, &wanted(), &scratch)?))?;
    let merged = merged.context("something comes of W")?;
    anyhow::ensure!(merged.meta().samples as f64 == fleet.samples(), "all samples are there");
    bench.table.add(
        Row::new("W: compaction, samples per core", fleet.samples() / seconds, Unit::PerSecond)
            .at_least(COMPACT_MIN)
            .scaled(&bench.ceilings()?, Ceiling::Decode)
            .note(format!("{BLOCKS} blocks to one of level 3, cold, {:.2} s", seconds)),
    );
    drop((inputs, merged));
    large(bench, &fleet, folder.path())
}

/// A part of the rounds as a block of level 0 in a file.
fn part_of(fleet: &Fleet, part: u64) -> anyhow::Result<Input> {
    let per_block = fleet.workload.rounds() / BLOCKS;
    let scope_labels = TenantLimits::default().scope_labels;
    let mut head = Head::new(tenant());
    for round in part * per_block..(part + 1) * per_block {
        for series in 0..fleet.workload.series() {
            head.add(&fleet.workload.profile(series, round, START_NS), &scope_labels);
        }
    }
    let range = LogRange { log: LOG, first: Offset(part), next: Offset(part + 1) };
    let block = writer::encode(&[head.into_dataset()], range, 1, 0, Compression::Hot)?;
    open(block)
}

fn open(block: EncodedBlock) -> anyhow::Result<Input> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&block.bytes)?;
    Ok(Input::open(Arc::new(file), Arc::new(block.meta), 0)?)
}

/// Four gigabytes in as many blocks as one job takes, merged by a process of its own.
fn large(bench: &mut Bench, fleet: &Fleet, folder: &Path) -> anyhow::Result<()> {
    eprintln!("writing {LARGE_BYTES} bytes of blocks");
    let store = DurableLocal::open(folder)?;
    let scratch = Scratch::folder(folder, SECTION_MEMORY_BYTES);
    let (mut bytes, mut blocks, mut dataset) = (0, 0_u64, fleet.dataset.clone());
    while bytes < LARGE_BYTES {
        // A block of level 1 is made of some of level 0, each W at another time.
        let mut inputs = Vec::new();
        for part in 0..FLUSHED {
            let range = LogRange { log: LOG, first: Offset(part), next: Offset(part + 1) };
            let block = writer::encode(std::slice::from_ref(&dataset), range, 1, 0, Compression::Hot)?;
            inputs.push(open(block)?);
            let shift_ns = INTERVAL_NS * fleet.workload.rounds() as i64;
            for chunk in &mut dataset.chunks {
                let profiles = &mut Arc::make_mut(chunk).profiles;
                profiles.iter_mut().for_each(|profile| profile.time_ns += shift_ns);
            }
        }
        let wanted = Wanted { keep_ids: true, compression: Compression::Hot, ..wanted() };
        let merged = merge(&inputs, &wanted, &scratch)?.context("something comes of W")?;
        let header = BlockMeta {
            path: merged_path(1, Some(tenant().number), blocks + 1, 0, merged.meta().last_ns),
            level: 1,
            size_bytes: 0,
            toc_crc32c: 0,
            log_ranges: Vec::new(),
            epoch: blocks + 1,
            datasets: Vec::new(),
            sources: Vec::new(),
            part: 0,
            parts: 1,
        };
        bytes += bench.runtime.block_on(writer::assemble(header, vec![merged]).put(&store))?.size_bytes;
        blocks += 1;
    }
    let answer = Command::new(std::env::current_exe()?).arg(CHILD).arg(folder).output()?;
    anyhow::ensure!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let text = String::from_utf8(answer.stdout)?;
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [samples, seconds, peak_bytes, out_bytes] = numbers[..] else { anyhow::bail!("answered {text:?}") };
    anyhow::ensure!(samples == fleet.samples() * (blocks * FLUSHED) as f64, "all samples are there");
    bench.table.add(
        Row::new("compaction of 4 GiB: peak memory", peak_bytes, Unit::Bytes).at_most(LARGE_MEMORY_MAX).note(
            format!(
                "{blocks} blocks, {samples:.0} samples to one of {:.2} GB in {seconds:.0} s of CPU: {:.1} M samples/s",
                out_bytes / 1e9,
                samples / seconds / 1e6
            ),
        ),
    );
    Ok(())
}

/// The child: samples, CPU seconds, peak memory and bytes of the result.
#[expect(clippy::print_stdout, reason = "the answer")]
pub fn child(folder: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = DurableLocal::open(folder)?;
    let objects: Vec<_> = runtime.block_on(store.list(None).try_collect())?;
    let mut inputs = Vec::with_capacity(objects.len());
    for object in objects {
        let path = object.location.to_string();
        let meta = runtime.block_on(reader::open(&store, &path))?;
        inputs.push(Input::open(Arc::new(File::open(folder.join(path))?), Arc::new(meta), 0)?);
    }
    inputs.sort_by_key(|input| input.meta().first_ns);
    let began = process_time();
    let scratch = Scratch::folder(folder, SECTION_MEMORY_BYTES);
    let merged = merge(&inputs, &wanted(), &scratch)?.context("something is left")?;
    let seconds = (process_time() - began).as_secs_f64();
    let (_, peak_bytes) = memory(std::process::id())?;
    println!("{} {seconds} {peak_bytes} {}", merged.meta().samples, merged.size_bytes());
    Ok(())
}
