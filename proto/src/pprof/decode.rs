//! The decoder: one profile after the other through the same tables.

use std::sync::Arc;

use cambium_model::labels::Labels;
use cambium_model::limits::TenantLimits;
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::profile_type::ProfileType;
use cambium_model::stacktrace::BuildRef;
use cambium_model::symbols;
use cambium_model::tenant::TenantNumber;
use hashbrown::HashSet;
use xxhash_rust::xxh3::Xxh3;

use super::error::{Error, Place};
use super::normalise::{NO_MAPPING, Resolved, file_address};
use super::profile_types::profile_types;
use super::prune::Pruner;
use super::samples::{Lookups, Samples};
use super::strings::Strings;
use super::tables::{Function, Tables};

/// Rows of each table that a decoder keeps room for; what a larger profile needed is given back at the next one.
pub(super) const KEPT_ROWS_MAX: usize = 64 << 10;

/// What one profile may have. The names in messages are those of the tenant's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, uncompressed.
    pub bytes_max: usize,
    /// Sample messages.
    pub samples_max: usize,
    /// Frames of one stack.
    pub stack_depth_max: usize,
    /// Labels of one sample.
    pub sample_labels_max: usize,
    /// Bytes of one string that is used.
    pub symbol_bytes_max: usize,
}

impl From<&TenantLimits> for Limits {
    fn from(limits: &TenantLimits) -> Self {
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            bytes_max: size(limits.profile_bytes_max),
            samples_max: size(limits.profile_samples_max),
            stack_depth_max: size(limits.stack_depth_max),
            sample_labels_max: size(limits.sample_labels_max),
            symbol_bytes_max: size(limits.symbol_bytes_max),
        }
    }
}

/// What comes with a profile's bytes.
#[derive(Clone, Debug)]
pub struct Push<'a> {
    /// The sender's id or [`push_id`].
    pub id: ProfileId,
    /// The series' labels.
    pub labels: Labels,
    /// The profile's name; `None` for [`default_name`](super::default_name).
    pub name: Option<&'a str>,
    /// Whether addresses are relative to their objects' files already (Parca's `normalized`).
    pub addresses_relative: bool,
}

/// The id of a push whose sender gave none: of everything that the sender sent, before anything is assigned here, so
/// that a retry has the same. `time_ns` is the time given beside the profile; 0 for none.
pub fn push_id(
    body: &[u8],
    labels: &Labels,
    name: Option<&str>,
    time_ns: i64,
    tenant: TenantNumber,
) -> ProfileId {
    let mut hash = Xxh3::new();
    hash.update(&tenant.0.to_le_bytes());
    hash.update(&time_ns.to_le_bytes());
    let texts = labels.iter().flat_map(|(name, value)| [name, value]).chain(name);
    for text in texts {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(body);
    ProfileId(hash.digest128().to_be_bytes())
}

/// Decodes profiles, one after the other, in tables that it keeps.
#[derive(Debug, Default)]
pub struct Decoder {
    tables: Tables,
    resolved: Resolved,
    pruner: Pruner,
    samples: Samples,
}

/// A decoded profile. Names stay in the decoder until somebody asks for them.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// The profile; its time is the profile's own, 0 where it has none.
    pub profile: Profile,
    /// Sample messages of the pprof, before equal ones were summed.
    pub samples: usize,
    raw: &'a [u8],
    decoder: &'a Decoder,
    addresses_relative: bool,
}

impl Decoder {
    /// A decoder with empty tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes an uncompressed pprof message.
    pub fn decode<'a>(
        &'a mut self,
        raw: &'a [u8],
        limits: &Limits,
        push: Push<'_>,
    ) -> Result<Decoded<'a>, Error> {
        let bytes_max = limits.bytes_max.min(u32::MAX as usize);
        if raw.is_empty() {
            return Err(Error::Empty);
        }
        if raw.len() > bytes_max {
            return Err(Error::TooLarge { bytes_max });
        }
        let Self { tables, resolved, pruner, samples } = self;
        tables.read(raw, limits)?;
        let scalars = tables.scalars;
        let strings = Strings::new(raw, &tables.strings, limits.symbol_bytes_max)?;
        let types = types(tables, &strings, push.name)?;
        resolved.resolve(tables, &strings)?;
        let pattern = |index, field| strings.text(index, || Place::Field(field));
        let patterns =
            (pattern(scalars.drop_frames, "drop_frames")?, pattern(scalars.keep_frames, "keep_frames")?);
        let name = |function: &Function| strings.checked(function.name);
        pruner.prune_locations(
            patterns,
            &mut tables.locations,
            &resolved.line_functions,
            tables.functions.iter().map(name),
        )?;
        resolved.identify(tables, push.addresses_relative);
        samples.read(raw, &Lookups { tables, resolved, pruner, strings: &strings }, types.len(), limits)?;
        let label_sets = samples.label_sets.take();
        let profile = Profile {
            id: push.id,
            labels: push.labels,
            time_ns: not_negative("time_nanos", scalars.time_nanos)?,
            duration_ns: not_negative("duration_nanos", scalars.duration_nanos)?,
            period: not_negative("period", scalars.period)?,
            locations: (samples.stacks.rows.iter()).map(|&row| resolved.location_ids[row as usize]).collect(),
            nodes: samples.stacks.nodes.clone(),
            sample_nodes: samples.stacks.sample_nodes.clone(),
            values: samples.stacks.columns(types.len())?,
            sample_label_sets: if label_sets.is_empty() {
                Vec::new()
            } else {
                samples.stacks.sample_label_sets.clone()
            },
            label_sets,
            types,
        };
        let samples = tables.samples.len();
        Ok(Decoded { profile, samples, raw, decoder: self, addresses_relative: push.addresses_relative })
    }
}

impl Decoded<'_> {
    /// What the profile says of the location at `index` of its `locations`. Panics where there is none.
    pub fn location(&self, index: usize) -> symbols::Location {
        let Decoder { tables, resolved, samples, .. } = self.decoder;
        let row = samples.stacks.rows[index] as usize;
        let location = &tables.locations[row];
        let mapping = resolved.location_mappings[row];
        let address = file_address(location, tables.mappings.get(mapping as usize), self.addresses_relative);
        let lines = location.lines().map(|line| self.line(line)).collect();
        symbols::Location { mapping: self.mapping(mapping), address, lines }
    }

    /// The loaded objects that native locations of the profile refer to, each once, in order of appearance. Native
    /// locations without a mapping, or with one that has neither file nor build id, have no object.
    pub fn mappings(&self) -> Vec<(BuildRef, symbols::Mapping)> {
        let Decoder { tables, resolved, samples, .. } = self.decoder;
        let mut seen = HashSet::new();
        let native = |&row: &u32| tables.locations[row as usize].lines().is_empty();
        (samples.stacks.rows.iter().filter(|row| native(row)))
            .map(|&row| resolved.location_mappings[row as usize])
            .filter(|&mapping| mapping != NO_MAPPING && seen.insert(resolved.build_ref(mapping)))
            .map(|mapping| (resolved.build_ref(mapping), self.mapping(mapping)))
            .filter(|(_, mapping)| *mapping != symbols::Mapping::default())
            .collect()
    }

    fn strings(&self) -> Strings<'_> {
        Strings::again(self.raw, &self.decoder.tables.strings)
    }

    fn mapping(&self, row: u32) -> symbols::Mapping {
        let strings = self.strings();
        self.decoder.tables.mappings.get(row as usize).map_or_else(Default::default, |mapping| {
            symbols::Mapping {
                file: strings.checked(mapping.file).into(),
                build_id: strings.checked(mapping.build_id).into(),
            }
        })
    }

    fn line(&self, line: usize) -> symbols::Line {
        let Decoder { tables, resolved, .. } = self.decoder;
        let strings = self.strings();
        let row = tables.lines[line];
        let function = &tables.functions[resolved.line_functions[line] as usize];
        let name: Arc<str> = strings.checked(function.name).into();
        let system_name = match strings.checked(function.system_name) {
            same if *same == *name => Arc::clone(&name),
            other => other.into(),
        };
        let file = strings.checked(function.file).into();
        symbols::Line {
            function: symbols::Function { name, system_name, file, start_line: function.start_line },
            line: row.line,
            column: row.column,
        }
    }
}

fn types(tables: &Tables, strings: &Strings<'_>, name: Option<&str>) -> Result<Vec<ProfileType>, Error> {
    if tables.sample_types.is_empty() {
        return Err(Error::SampleTypeMissing);
    }
    let mut sample_types = Vec::with_capacity(tables.sample_types.len());
    for (index, row) in tables.sample_types.iter().enumerate() {
        let ty = strings.text(row.ty, || Place::RowField("sample_type", index, "type"))?;
        let unit = strings.text(row.unit, || Place::RowField("sample_type", index, "unit"))?;
        sample_types.push((ty, unit));
    }
    let period = tables.scalars.period_type;
    let period_type = (
        strings.text(period.ty, || Place::Nested("period_type", "type"))?,
        strings.text(period.unit, || Place::Nested("period_type", "unit"))?,
    );
    profile_types(name, &sample_types, period_type, tables.scalars.duration_nanos)
}

fn not_negative(field: &'static str, value: i64) -> Result<i64, Error> {
    if value < 0 { Err(Error::Negative { field, value }) } else { Ok(value) }
}
