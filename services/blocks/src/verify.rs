//! Does a block hold what it says? Every byte, every reference and every sum of a whole object.
//!
//! What `cambium admin verify` runs, and a fuzz target: hostile bytes give an error, nothing else.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cambium_model::block::{BlockMeta, SectionKind};
use cambium_model::time::{ROLLUP_BUCKET_NS, bucket_start, coarse_bucket_start};

use crate::Error;
use crate::dataset::{CHUNK_SAMPLES, RollupKey};
use crate::reader::pages::{Pages, Pieces};
use crate::reader::place::Place;
use crate::reader::rollup::{RollupIndex, SeriesBuckets};
use crate::reader::series;
use crate::reader::side::{ProfileTable, StackSections, StackTable, label_sets};
use crate::series_table::SeriesTable;
use crate::toc::{read_toc, section_name};

/// Checks a whole object and returns the entry that the catalogue should hold for it.
///
/// # Errors
/// [`Error::Corrupt`] or [`Error::Parquet`]: the first thing that does not hold.
pub fn verify(path: &str, object: &Bytes) -> Result<BlockMeta, Error> {
    let meta = read_toc(path, object, object.len() as u64)?;
    for index in 0..meta.datasets.len() {
        DatasetCheck::new(&meta, index, object)?.run()?;
    }
    Ok(meta)
}

mod sums;

struct DatasetCheck {
    series: Arc<SeriesTable>,
    profiles: ProfileTable,
    stacks: StackTable,
    label_sets: usize,
    /// None where only sums are left.
    samples: Option<Open>,
    rollups: Vec<Rollup>,
    series_rollup: Option<(Open, SeriesBuckets)>,
}

/// A section of rollups of scopes.
struct Rollup {
    open: Open,
    index: RollupIndex,
    /// The start of the bucket that holds an instant.
    bucket_start: fn(i64) -> i64,
}

/// A section that is read in batches.
struct Open {
    pages: Pages,
    pieces: Arc<Pieces>,
}

/// Samples of some profiles.
struct SampleColumns {
    series: Vec<u32>,
    times: Vec<i64>,
    stacks: Vec<u32>,
    values: Vec<i64>,
    label_sets: Vec<u32>,
}

/// Sum and number of profiles by stack.
type Sums = BTreeMap<u32, (i128, u32)>;

impl DatasetCheck {
    fn new(meta: &BlockMeta, index: usize, object: &Bytes) -> Result<Self, Error> {
        let dataset = &meta.datasets[index];
        let path: Arc<str> = meta.path.as_str().into();
        let part = |kind: SectionKind| -> Result<(Place, Bytes), Error> {
            let section = *dataset.section(kind).ok_or_else(|| Error::Corrupt {
                path: meta.path.clone(),
                what: format!("dataset {index} has no section {}", section_name(kind)),
            })?;
            // The table of contents has been checked: its sections lie in the object.
            let range = section.offset as usize..(section.offset + section.length) as usize;
            Ok((Place { path: Arc::clone(&path), section }, object.slice(range)))
        };
        let (place, bytes) = part(SectionKind::Series)?;
        let series = series::decode(&place, &dataset.types, bytes)?;
        let (place, bytes) = part(SectionKind::Profiles)?;
        let profiles = ProfileTable::decode(
            &place,
            bytes,
            dataset.series,
            (!dataset.is_downsampled()).then_some(dataset.samples),
        )?;
        let (first, last) = profiles.time_bounds().unwrap_or((dataset.first_ns, dataset.last_ns));
        if (first, last) != (dataset.first_ns, dataset.last_ns) {
            return Err(place
                .corrupt(format_args!("times are {first} to {last}, not those of the table of contents")));
        }
        let (stacks_place, stacks) = part(SectionKind::Stacks)?;
        let (nodes_place, nodes) = part(SectionKind::Nodes)?;
        let (locations_place, locations) = part(SectionKind::Locations)?;
        let places = StackSections { stacks: stacks_place, nodes: nodes_place, locations: locations_place };
        let stacks = StackTable::decode(&places, StackSections { stacks, nodes, locations })?;
        let label_sets = match dataset.section(SectionKind::LabelSets) {
            Some(_) => {
                let (place, bytes) = part(SectionKind::LabelSets)?;
                label_sets(&place, bytes)?.len()
            }
            None => 1,
        };
        let open = |kind| {
            let (place, bytes) = part(kind)?;
            let (pages, pieces) = Pages::whole(&place, &bytes)?;
            Ok(Open { pages, pieces: Arc::new(pieces) })
        };
        let rollup = |kind, bucket_start| {
            let open = open(kind)?;
            let index = RollupIndex::read(&open.pages, &open.pieces)?;
            Ok::<_, Error>(Rollup { open, index, bucket_start })
        };
        let mut rollups = vec![rollup(SectionKind::Rollup, bucket_start)?];
        if dataset.section(SectionKind::CoarseRollup).is_some() {
            rollups.push(rollup(SectionKind::CoarseRollup, coarse_bucket_start)?);
        }
        let mut series_rollup = None;
        if let Some(section) = dataset.section(SectionKind::SeriesRollup) {
            let (place, bytes) = part(SectionKind::SeriesBuckets)?;
            let buckets = SeriesBuckets::decode(
                &place,
                bytes,
                (dataset.series, section.rows),
                dataset.is_downsampled(),
            )?;
            series_rollup = Some((open(SectionKind::SeriesRollup)?, buckets));
        }
        let samples = (!dataset.is_downsampled()).then(|| open(SectionKind::Samples)).transpose()?;
        Ok(Self { series, profiles, stacks, label_sets, samples, rollups, series_rollup })
    }

    /// Walks the profiles of one (type, scope) after the other and compares samples with profiles, then rollups with
    /// samples.
    fn run(&self) -> Result<(), Error> {
        let columns = &self.profiles.columns;
        let key = |profile: usize| {
            let row = columns.series[profile] as usize;
            (self.series.type_of[row], self.series.scope_of[row])
        };
        let mut rollups_seen = vec![0; self.rollups.len()];
        let mut series_seen = 0;
        let mut buckets: BTreeMap<i64, Sums> = BTreeMap::new();
        let mut of_series = SeriesSums::default();
        let mut start = 0;
        while start < columns.series.len() {
            let mut end = start;
            let mut samples = 0;
            let chunk = if self.samples.is_some() { CHUNK_SAMPLES } else { usize::MAX };
            while end < columns.series.len() && key(end) == key(start) && samples < chunk {
                samples += columns.samples[end] as usize;
                end += 1;
            }
            match &self.samples {
                Some(open) => self.check_profiles(open, start..end, &mut buckets, &mut of_series)?,
                None => series_seen += self.check_sums(start..end, &mut buckets)?,
            }
            if end == columns.series.len() || key(end) != key(start) {
                let expected = std::mem::take(&mut buckets);
                for (rollup, seen) in self.rollups.iter().zip(&mut rollups_seen) {
                    *seen += rollup.check(key(start), &expected)?;
                }
                of_series.end();
            }
            for (key, sums) in of_series.ended.drain(..) {
                series_seen += self.check_series(key, &sums)?;
            }
            start = end;
        }
        for (rollup, seen) in self.rollups.iter().zip(rollups_seen) {
            if seen != rollup.index.rows.len() {
                return Err(rollup.open.pages.place.corrupt("sums what has no samples"));
            }
        }
        match &self.series_rollup {
            Some((open, buckets)) if buckets.bucket_ns.len() != series_seen => {
                Err(open.pages.place.corrupt("sums what has no samples"))
            }
            _ => Ok(()),
        }
    }

    /// Checks the samples of neighbouring profiles and adds them to the sums of their buckets.
    fn check_profiles(
        &self,
        open: &Open,
        profiles: Range<usize>,
        buckets: &mut BTreeMap<i64, Sums>,
        of_series: &mut SeriesSums,
    ) -> Result<(), Error> {
        let rows = self.profiles.samples(&profiles);
        let samples = SampleColumns {
            series: open.u32("series", &rows)?,
            times: open.i64("time_ns", &rows)?,
            stacks: open.u32("stack", &rows)?,
            values: open.i64("value", &rows)?,
            label_sets: match open.pages.find_column("label_set") {
                Some(_) => open.u32("label_set", &rows)?,
                None => vec![0; (rows.end - rows.start) as usize],
            },
        };
        let columns = &self.profiles.columns;
        for profile in profiles {
            let own = self.profiles.samples(&(profile..profile + 1));
            let within = (own.start - rows.start) as usize..(own.end - rows.start) as usize;
            if let Err(what) = self.check_profile(profile, &samples, within.clone()) {
                let Range { start, end } = own;
                return Err(open.pages.place.corrupt(format_args!("rows {start} to {end}: {what}")));
            }
            // Before this there is no start of a bucket in 64 bits.
            if within.is_empty() || columns.time_ns[profile] < i64::MIN + ROLLUP_BUCKET_NS {
                continue;
            }
            let bucket_ns = bucket_start(columns.time_ns[profile]);
            let (stacks, values) = (&samples.stacks[within.clone()], &samples.values[within]);
            add(buckets.entry(bucket_ns).or_default(), stacks, values);
            if self.series_rollup.is_some() {
                add(of_series.at((columns.series[profile], bucket_ns)), stacks, values);
            }
        }
        Ok(())
    }

    /// Checks one profile's samples, which are those `within` the columns.
    fn check_profile(
        &self,
        profile: usize,
        samples: &SampleColumns,
        within: Range<usize>,
    ) -> Result<(), &'static str> {
        let columns = &self.profiles.columns;
        if samples.series[within.clone()].iter().any(|series| *series != columns.series[profile])
            || samples.times[within.clone()].iter().any(|time_ns| *time_ns != columns.time_ns[profile])
        {
            return Err("series or time differ from the profile's");
        }
        let (stacks, label_sets) = (&samples.stacks[within.clone()], &samples.label_sets[within.clone()]);
        if stacks.iter().any(|stack| *stack as usize >= self.stacks.node_of_stack.len())
            || label_sets.iter().any(|label_set| *label_set as usize >= self.label_sets)
        {
            return Err("a stack or label set does not exist");
        }
        let keys = stacks.iter().zip(label_sets);
        let sorted = match profile % 2 {
            0 => keys.is_sorted_by(|a, b| a < b),
            _ => keys.is_sorted_by(|a, b| a > b),
        };
        if !sorted {
            return Err("stacks are not sorted");
        }
        if samples.values[within].iter().fold(0i64, |sum, value| sum.wrapping_add(*value))
            != columns.total[profile]
        {
            return Err("values do not add up to the profile's total");
        }
        Ok(())
    }

    /// Compares the rollup of one series and bucket, if the block has it; whether it does.
    fn check_series(&self, (row, bucket_ns): (u32, i64), expected: &Sums) -> Result<usize, Error> {
        let Some((open, buckets)) = &self.series_rollup else { return Ok(0) };
        let all = buckets.of_series(row);
        let Ok(found) = buckets.bucket_ns[all.clone()].binary_search(&bucket_ns) else {
            return Ok(0); // read from samples
        };
        let bucket = all.start + found;
        let rows = buckets.rows(&(bucket..bucket + 1));
        let mut ordered: Vec<(u32, i128)> = expected.iter().map(|(stack, (sum, _))| (*stack, *sum)).collect();
        if bucket % 2 == 1 {
            ordered.reverse();
        }
        open.check(&rows, &ordered)?;
        self.check_keys((row, bucket_ns), &rows)?;
        Ok(1)
    }
}

/// Adds a profile's samples, equal stacks next to each other.
fn add(sums: &mut Sums, stacks: &[u32], values: &[i64]) {
    let mut before = None;
    for (stack, value) in stacks.iter().zip(values) {
        let (sum, profiles) = sums.entry(*stack).or_default();
        *sum += i128::from(*value);
        *profiles += u32::from(before != Some(stack));
        before = Some(stack);
    }
}

/// Sums of one series and bucket after the other.
#[derive(Default)]
struct SeriesSums {
    current: Option<((u32, i64), Sums)>,
    ended: Vec<((u32, i64), Sums)>,
}

impl SeriesSums {
    fn at(&mut self, key: (u32, i64)) -> &mut Sums {
        if self.current.as_ref().is_some_and(|(held, _)| *held != key) {
            self.end();
        }
        &mut self.current.get_or_insert_with(|| (key, Sums::new())).1
    }

    fn end(&mut self) {
        self.ended.extend(self.current.take());
    }
}

impl Rollup {
    /// Compares the rollups of one (type, scope) that the block has with the sums by bucket of ten minutes, and returns how
    /// many those are.
    fn check(
        &self,
        (type_index, scope_index): (u32, u32),
        buckets: &BTreeMap<i64, Sums>,
    ) -> Result<usize, Error> {
        let mut expected: BTreeMap<i64, Sums> = BTreeMap::new();
        for (bucket_ns, sums) in buckets {
            let bucket = expected.entry((self.bucket_start)(*bucket_ns)).or_default();
            for (stack, (sum, profiles)) in sums {
                let held = bucket.entry(*stack).or_default();
                *held = (held.0 + sum, held.1 + profiles);
            }
        }
        let mut seen = 0;
        for (bucket_ns, expected) in expected {
            let key = RollupKey { type_index, scope_index, bucket_ns };
            // One that is missing is read from samples.
            if let Some(rows) = self.index.rows.get(&key) {
                seen += 1;
                let sums: Vec<_> = expected.iter().map(|(stack, (sum, _))| (*stack, *sum)).collect();
                self.open.check(rows, &sums)?;
                let profiles = expected.into_values().map(|(_, profiles)| profiles);
                if self.open.pages.find_column("profiles").is_some()
                    && !self.open.u32("profiles", rows)?.into_iter().eq(profiles)
                {
                    return Err(self.open.pages.place.corrupt("counts profiles that have not the stack"));
                }
            }
        }
        Ok(seen)
    }
}

impl Open {
    /// Compares rows of a rollup with the sums that they should be.
    fn check(&self, rows: &Range<u64>, expected: &[(u32, i128)]) -> Result<(), Error> {
        let (stacks, sums) = (self.u32("stack", rows)?, self.i64("sum", rows)?);
        if stacks.into_iter().zip(sums.into_iter().map(i128::from)).eq(expected.iter().copied()) {
            return Ok(());
        }
        let Range { start, end } = rows;
        Err(self.pages.place.corrupt(format_args!("rows {start} to {end} are not the samples' sums")))
    }

    fn u32(&self, column: &str, rows: &Range<u64>) -> Result<Vec<u32>, Error> {
        let mut values = Vec::new();
        for (group, rows) in self.pages.by_group(rows) {
            self.pages
                .u32_cursor(&self.pieces, group, self.pages.column(column)?)?
                .read(rows, &mut values)?;
        }
        Ok(values.into_iter().map(|value| value as u32).collect())
    }

    fn i64(&self, column: &str, rows: &Range<u64>) -> Result<Vec<i64>, Error> {
        let mut values = Vec::new();
        for (group, rows) in self.pages.by_group(rows) {
            self.pages
                .i64_cursor(&self.pieces, group, self.pages.column(column)?)?
                .read(rows, &mut values)?;
        }
        Ok(values)
    }
}
