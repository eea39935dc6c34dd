//! Several datasets of one tenant to one: the work of compaction.
//!
//! ```text
//!   inputs (files) ─► series: union ─► trees: union, samples counted ─► order, stacks ranked anew
//!        └─────────── profiles, k-way by (series, time, id) ─► stacks renumbered ─► writer ─► sections (spooled)
//! ```
//!
//! Laws: every profile of the inputs that is not deleted is in the output once, with its samples as they were unless only
//! sums are to be kept; rollups are summed from samples, or from the finest sums there are; names are never touched; the
//! same inputs give the same bytes. Memory holds the series and
//! the tree of all inputs, the tree of one, and some pages of each: never a section of samples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use cambium_model::block::SectionKind;
use cambium_model::deletion::Deletion;
use cambium_model::retention::RetentionRules;

use crate::Error;
use crate::series_table::ScopeName;
use crate::writer::order::Order;
use crate::writer::samples::{Form, NewProfile, ProfileWriter, Rollups};
use crate::writer::series::{LabelSets, encode_series};
use crate::writer::spool::Scratch;
use crate::writer::stacks::Stacks;
use crate::writer::{Compression, EncodedDataset, Side, finish_dataset};

mod input;

mod profiles;

mod queue;

mod series;

mod stacks;

pub use input::Input;

use profiles::Profiles;
use queue::{Numbers, Queue, Sections};
use series::{NONE, Union};
use stacks::Merged;

/// What comes of a merge.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Only these scopes, where a dataset is split; all where none are named.
    pub scopes: Option<&'a BTreeSet<ScopeName>>,
    /// Only series of this class of these rules, from inputs whose series have not been told apart.
    pub class: Option<(&'a RetentionRules, usize)>,
    /// Profiles that were deleted.
    pub deletions: &'a [Deletion],
    /// The level of the block that it is for: higher ones have more rollups.
    pub level: u8,
    /// Whether samples are dropped and sums by series and bucket kept, as they are where an input has no more than those.
    pub downsample: bool,
    /// Whether profiles keep the ids of their pushes, where all inputs have them.
    pub keep_ids: bool,
    /// How hard samples are compressed.
    pub compression: Compression,
    /// Set when nobody waits for the result any more.
    pub stop: Option<&'a AtomicBool>,
}

impl Wanted<'_> {
    /// Everything that the inputs have but the ids of pushes, for a block of this level.
    pub fn everything(level: u8, compression: Compression) -> Self {
        Self {
            scopes: None,
            class: None,
            deletions: &[],
            level,
            downsample: false,
            keep_ids: false,
            compression,
            stop: None,
        }
    }
}

/// How many samples the inputs have of each scope, of what is wanted.
///
/// # Errors
/// As [`merge`].
pub fn samples_by_scope(inputs: &[Input], wanted: &Wanted<'_>) -> Result<BTreeMap<ScopeName, u64>, Error> {
    let union = Union::new(inputs, wanted);
    let mut samples = BTreeMap::new();
    for (place, input) in inputs.iter().enumerate() {
        let section = input.paged(SectionKind::Profiles)?;
        let mut profiles = Profiles::new(input, &section, &union, place)?;
        while let Some(profile) = profiles.next_kept()? {
            let scope = input.series.scope_of[profile.input_series as usize];
            let scope = &input.series.scopes[scope as usize];
            match samples.get_mut(scope) {
                Some(samples) => *samples += u64::from(profile.samples),
                None => drop(samples.insert(scope.clone(), u64::from(profile.samples))),
            }
        }
    }
    Ok(samples)
}

/// Merges datasets of one tenant; none comes of them where no profile is left. Takes a second per some 10 million
/// samples: call it where blocking is allowed.
///
/// # Errors
/// [`Error::Corrupt`] and [`Error::Parquet`] where an input does not hold what it says, [`Error::Scratch`] where the
/// scratch folder fails, [`Error::Encode`], [`Error::Cancelled`].
pub fn merge(
    inputs: &[Input],
    wanted: &Wanted<'_>,
    scratch: &Scratch,
) -> Result<Option<EncodedDataset>, Error> {
    let Some(first) = inputs.first() else { return Ok(None) };
    let union = Union::new(inputs, wanted);
    let mut merged = Merged::new(inputs, &union)?;
    if !merged.live.contains(&true) {
        return Ok(None);
    }
    let order = Order::new(&union.table, &merged.live);
    let stacks = Stacks::new(&merged.tree, &merged.counts, &scope_nodes(&order, &union, &merged));
    let label_sets = LabelSets::new(&merged.label_sets, &merged.used_label_sets);
    let downsample = wanted.downsample || inputs.iter().any(|input| input.meta().is_downsampled());
    let failed = |source| Error::Encode { path: "of a merge".to_owned(), source };
    let form = Form {
        labelled: !label_sets.is_empty() && !downsample,
        keep_ids: wanted.keep_ids && inputs.iter().all(has_ids),
        compression: wanted.compression,
        rollups: if downsample { Rollups::Alone } else { Rollups::of_level(wanted.level) },
    };
    let mut writer = ProfileWriter::new(&stacks, form, scratch).map_err(failed)?;
    let numbers = Numbers {
        rows: order.new_rows(&union.table),
        stacks: renumber(std::mem::take(&mut merged.stacks), |node| stacks.stack(node)),
        sets: renumber(std::mem::take(&mut merged.sets), |set| label_sets.places[set as usize]),
    };
    let sections = inputs.iter().map(Sections::open).collect::<Result<Vec<_>, _>>()?;
    let mut queue = Queue::new(inputs, &sections, &union, &numbers)?;
    let mut rows = Vec::new();
    while let Some((place, series, profile)) = queue.next()? {
        if wanted.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        queue.samples(place, &profile, &mut rows)?;
        let of_series = &order.series[series as usize];
        let new = NewProfile {
            series,
            type_index: of_series.type_index,
            scope_index: of_series.scope_index,
            id: profile.id,
            time_ns: profile.time_ns,
            duration_ns: profile.duration_ns,
            period: profile.period,
            total: profile.total,
            samples: profile.samples,
        };
        writer.add(&new, &mut rows).map_err(failed)?;
    }
    let (series, labels) = encode_series(&union.table, &order, scratch).map_err(failed)?;
    let label_sets = if downsample { LabelSets::default() } else { label_sets };
    let side = Side { series, labels, order: &order, stacks: &stacks, label_sets: &label_sets };
    let encoded = writer.finish().map_err(failed)?;
    finish_dataset(first.meta().tenant.clone(), encoded, side, scratch).map(Some).map_err(failed)
}

fn has_ids(input: &Input) -> bool {
    input.paged(SectionKind::Profiles).is_ok_and(|section| section.has("profile_id"))
}

/// For each scope of the block its scope node in the merged tree.
fn scope_nodes(order: &Order, union: &Union, merged: &Merged) -> Vec<Option<u32>> {
    let node = |scope: &ScopeName| {
        let place = union.table.scopes.iter().position(|held| held == scope)?;
        merged.sampled[place].then_some(merged.scope_nodes[place])
    };
    order.scopes.iter().map(node).collect()
}

/// For each input what the merged tree's numbers are in the output.
fn renumber(mut inputs: Vec<Vec<u32>>, number: impl Fn(u32) -> u32) -> Vec<Vec<u32>> {
    for held in inputs.iter_mut().flatten().filter(|held| **held != NONE) {
        *held = number(*held);
    }
    inputs
}
