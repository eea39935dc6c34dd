//! The sections `profiles` and `samples` (unless only sums are kept), and on the way the rollups: profiles come in, in the block's order, and are
//! written a row group at a time, so that a block of any size needs little memory.

use cambium_model::block::SectionKind;
use cambium_model::profile::ProfileId;
use cambium_model::time::bucket_start;
use parquet::errors::Result;

use super::Compression;
use super::rollup::Rollup;
use super::section::{Column, ROW_GROUP_ROWS_MAX, Section, SectionWriter, Shape, Values, ids, zstd};
use super::series_rollup::SeriesRollup;
use super::spool::Scratch;
use super::stacks::Stacks;

/// How samples are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// Whether some have labels.
    pub(crate) labelled: bool,
    /// Whether profiles keep the ids of their pushes.
    pub(crate) keep_ids: bool,
    pub(crate) compression: Compression,
    pub(crate) rollups: Rollups,
}

/// Which sums are written besides those by scope and bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollups {
    /// None: the block will soon be merged.
    Few,
    /// Those by series, where they pay.
    Series,
    /// Those, and by wider buckets.
    All,
    /// All, those by series whatever they take; and no samples.
    Alone,
}

impl Rollups {
    /// What a block of this level has.
    pub(crate) fn of_level(level: u8) -> Self {
        match level {
            0 => Self::Few,
            1 | 2 => Self::Series,
            _ => Self::All,
        }
    }

    /// Whether wider buckets are among them.
    pub(super) fn has_wider(self) -> bool {
        matches!(self, Self::All | Self::Alone)
    }
}

/// A profile on its way into a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewProfile {
    /// Its series in the block.
    pub(crate) series: u32,
    /// The profile type of the series.
    pub(crate) type_index: u32,
    /// The scope of the series.
    pub(crate) scope_index: u32,
    pub(crate) id: ProfileId,
    pub(crate) time_ns: i64,
    pub(crate) duration_ns: i64,
    pub(crate) period: i64,
    pub(crate) total: i64,
    /// How many samples it has or had.
    pub(crate) samples: u32,
}

/// The sections that hold profiles and their samples, and what the catalogue says of them.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) profiles: Section,
    /// None where only sums are kept.
    pub(crate) samples: Option<Section>,
    pub(crate) rollup: Section,
    pub(crate) coarse_rollup: Option<Section>,
    /// The rows, and how many each bucket has.
    pub(crate) series_rollup: Option<(Section, Section)>,
    pub(crate) first_ns: i64,
    pub(crate) last_ns: i64,
}

/// Writes profiles with their samples.
pub(crate) struct ProfileWriter<'a> {
    profiles: Profiles,
    samples: Option<Samples>,
    rollup: Rollup<'a>,
    series_rollup: Option<SeriesRollup<'a>>,
    /// Profiles so far, and the samples they have or had.
    written: usize,
    first_sample: u64,
    current_type: Option<u32>,
    times: Option<(i64, i64)>,
}

impl<'a> ProfileWriter<'a> {
    pub(crate) fn new(stacks: &'a Stacks, form: Form, scratch: &Scratch) -> Result<Self> {
        let by_series = form.rollups != Rollups::Few;
        let alone = form.rollups == Rollups::Alone;
        let by_series = by_series.then(|| SeriesRollup::new(stacks, alone, form.compression, scratch));
        let samples = (!alone).then(|| Samples::new(form, scratch));
        Ok(Self {
            profiles: Profiles::new(form.keep_ids, scratch)?,
            samples: samples.transpose()?,
            rollup: Rollup::new(stacks, form, scratch)?,
            series_rollup: by_series.transpose()?,
            written: 0,
            first_sample: 0,
            current_type: None,
            times: None,
        })
    }

    /// Adds a profile, which must not come before those added already, and its samples: (stack and label set, value), in
    /// any order, which is changed.
    pub(crate) fn add(&mut self, profile: &NewProfile, rows: &mut [(u64, i64)]) -> Result<()> {
        if self.current_type.replace(profile.type_index).is_some_and(|before| before != profile.type_index) {
            self.samples.as_mut().map_or(Ok(()), Samples::end_row_group)?;
        }
        rows.sort_unstable_by_key(|(key, _)| *key);
        // Up and down in turn: a step from the last stack of a profile back to the first of the next would be the
        // least difference of its block of 128, above which all others of the block are stored.
        if self.written % 2 == 1 {
            rows.reverse();
        }
        self.written += 1;
        let bucket_ns = bucket_start(profile.time_ns);
        self.rollup.add((profile.type_index, profile.scope_index), bucket_ns, rows)?;
        if let Some(rollup) = &mut self.series_rollup {
            rollup.add((profile.series, profile.scope_index), bucket_ns, rows)?;
            if rollup.is_vain() {
                self.series_rollup = None;
            }
        }
        self.profiles.add(profile, self.first_sample)?;
        self.first_sample += u64::from(profile.samples);
        let (first_ns, last_ns) = self.times.unwrap_or((profile.time_ns, profile.time_ns));
        self.times = Some((first_ns.min(profile.time_ns), last_ns.max(profile.time_ns)));
        match &mut self.samples {
            Some(samples) => samples.add(profile.series, profile.time_ns, rows),
            None => Ok(()),
        }
    }

    pub(crate) fn finish(self) -> Result<Encoded> {
        let (first_ns, last_ns) = self.times.unwrap_or_default();
        let (rollup, coarse_rollup) = self.rollup.finish()?;
        let by_series = self.series_rollup.map(SeriesRollup::finish).transpose()?;
        Ok(Encoded {
            profiles: self.profiles.finish()?,
            samples: self.samples.map(Samples::finish).transpose()?,
            rollup,
            coarse_rollup,
            series_rollup: by_series.flatten(),
            first_ns,
            last_ns,
        })
    }
}

/// Gathers profiles.
struct Profiles {
    section: SectionWriter,
    keep_ids: bool,
    series: Vec<i32>,
    time_ns: Vec<i64>,
    duration_ns: Vec<i64>,
    period: Vec<i64>,
    total: Vec<i64>,
    samples: Vec<i32>,
    first_sample: Vec<i64>,
    ids: Vec<[u8; 16]>,
}

impl Profiles {
    fn new(keep_ids: bool, scratch: &Scratch) -> Result<Self> {
        let column = |name: &str, shape| Column::new(name, shape, zstd(1));
        let mut columns = vec![
            column("series", Shape::Delta32),
            column("time_ns", Shape::Delta64),
            column("duration_ns", Shape::Dictionary64),
            column("period", Shape::Dictionary64),
            column("total", Shape::Delta64),
            column("samples", Shape::Delta32),
            column("first_sample", Shape::Delta64),
        ];
        if keep_ids {
            columns.push(Column::new("profile_id", Shape::Id, parquet::basic::Compression::UNCOMPRESSED));
        }
        Ok(Self {
            section: SectionWriter::new(SectionKind::Profiles, &columns, scratch)?,
            keep_ids,
            series: Vec::new(),
            time_ns: Vec::new(),
            duration_ns: Vec::new(),
            period: Vec::new(),
            total: Vec::new(),
            samples: Vec::new(),
            first_sample: Vec::new(),
            ids: Vec::new(),
        })
    }

    fn add(&mut self, profile: &NewProfile, first_sample: u64) -> Result<()> {
        if self.series.len() == ROW_GROUP_ROWS_MAX {
            self.end_row_group()?;
        }
        self.series.push(profile.series as i32);
        self.time_ns.push(profile.time_ns);
        self.duration_ns.push(profile.duration_ns);
        self.period.push(profile.period);
        self.total.push(profile.total);
        self.samples.push(profile.samples as i32);
        self.first_sample.push(first_sample as i64);
        if self.keep_ids {
            self.ids.push(profile.id.0);
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        let mut values = vec![
            Values::U32(&self.series),
            Values::I64(&self.time_ns),
            Values::I64(&self.duration_ns),
            Values::I64(&self.period),
            Values::I64(&self.total),
            Values::U32(&self.samples),
            Values::I64(&self.first_sample),
        ];
        let profile_ids = ids(self.ids.iter());
        if self.keep_ids {
            values.push(Values::Id(&profile_ids));
        }
        self.section.write(self.series.len(), &values)?;
        self.series.clear();
        self.time_ns.clear();
        self.duration_ns.clear();
        self.period.clear();
        self.total.clear();
        self.samples.clear();
        self.first_sample.clear();
        self.ids.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Section> {
        self.end_row_group()?;
        self.section.finish()
    }
}

/// Gathers samples.
struct Samples {
    section: SectionWriter,
    labelled: bool,
    series: Vec<i32>,
    time_ns: Vec<i64>,
    stack: Vec<i32>,
    value: Vec<i64>,
    label_set: Vec<i32>,
}

impl Samples {
    fn new(form: Form, scratch: &Scratch) -> Result<Self> {
        let Form { labelled, compression, .. } = form;
        let mut columns = vec![
            Column::new("series", Shape::Dictionary32, compression.values()),
            Column::new("time_ns", Shape::Dictionary64, compression.values()),
            Column::new("stack", Shape::Delta32, compression.stacks()),
            Column::new("value", Shape::Dictionary64, compression.values()),
        ];
        if labelled {
            columns.push(Column::new("label_set", Shape::Dictionary32, compression.values()));
        }
        Ok(Self {
            section: SectionWriter::new(SectionKind::Samples, &columns, scratch)?,
            labelled,
            series: Vec::new(),
            time_ns: Vec::new(),
            stack: Vec::new(),
            value: Vec::new(),
            label_set: Vec::new(),
        })
    }

    /// Adds a profile's samples: (stack and label set, value), largest key first.
    fn add(&mut self, series: u32, time_ns: i64, rows: &[(u64, i64)]) -> Result<()> {
        if self.stack.len() + rows.len() > ROW_GROUP_ROWS_MAX {
            self.end_row_group()?;
        }
        let end = self.stack.len() + rows.len();
        self.series.resize(end, series as i32);
        self.time_ns.resize(end, time_ns);
        self.stack.extend(rows.iter().map(|(key, _)| (key >> 32) as i32));
        self.value.extend(rows.iter().map(|(_, value)| *value));
        if self.labelled {
            self.label_set.extend(rows.iter().map(|(key, _)| *key as i32));
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        let mut values = vec![
            Values::U32(&self.series),
            Values::I64(&self.time_ns),
            Values::U32(&self.stack),
            Values::I64(&self.value),
        ];
        if self.labelled {
            values.push(Values::U32(&self.label_set));
        }
        self.section.write(self.stack.len(), &values)?;
        self.series.clear();
        self.time_ns.clear();
        self.stack.clear();
        self.value.clear();
        self.label_set.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Section> {
        self.end_row_group()?;
        self.section.finish()
    }
}
