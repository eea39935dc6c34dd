//! Profiles and samples.

use cambium_model::profile::ProfileId;
use cambium_proto::wire::ingester as wire;

use super::scans::has_row;
use super::{Malformed, all_below, has_length, ids};
use crate::series_table::RowSet;
use crate::source::{Profiles, Samples};

/// Samples of a message, at most. At 42 bytes each in the worst of cases, what they have in common included, a message
/// stays below [`MESSAGE_BYTES_MAX`](super::pieces::MESSAGE_BYTES_MAX).
pub const MESSAGE_SAMPLES_MAX: usize = 64 << 10;

/// The profiles as a message.
pub fn encode_profiles(profiles: Profiles) -> wire::Profiles {
    let Profiles { series, time_ns, duration_ns, period, total, samples, ids } = profiles;
    let ids: Vec<[u8; 16]> = ids.into_iter().map(|id| id.0).collect();
    let ids = ids.into_flattened().into();
    wire::Profiles { series, time_ns, duration_ns, period, total, samples, ids }
}

/// Profiles of these rows.
///
/// # Errors
/// [`Malformed`]
pub fn decode_profiles(message: wire::Profiles, rows: &RowSet) -> Result<Profiles, Malformed> {
    let wire::Profiles { series, time_ns, duration_ns, period, total, samples, ids: id_bytes } = message;
    let count = series.len();
    has_length("time_ns", time_ns.len(), count)?;
    has_length("duration_ns", duration_ns.len(), count)?;
    has_length("period", period.len(), count)?;
    has_length("total", total.len(), count)?;
    has_length("samples", samples.len(), count)?;
    let ids: Vec<ProfileId> = ids("ids", &id_bytes)?.iter().copied().map(ProfileId).collect();
    if !ids.is_empty() {
        has_length("ids", ids.len(), count)?;
    }
    let mut before = None;
    for (&row, &time_ns) in series.iter().zip(&time_ns) {
        let here = Some((row, time_ns));
        if before > here || !has_row(rows, row) {
            return Err(Malformed::Row(row));
        }
        before = here;
    }
    Ok(Profiles { series, time_ns, duration_ns, period, total, samples, ids })
}

/// The samples as messages of at most [`MESSAGE_SAMPLES_MAX`].
pub fn encode_samples(samples: &Samples) -> impl Iterator<Item = wire::Samples> + use<> + Send {
    let count = samples.nodes.len();
    let starts = (0..count).step_by(MESSAGE_SAMPLES_MAX);
    let part = |start: usize| encode_part(samples, start, count.min(start + MESSAGE_SAMPLES_MAX));
    starts.map(part).collect::<Vec<_>>().into_iter()
}

fn encode_part(samples: &Samples, start: usize, end: usize) -> wire::Samples {
    let mut message = wire::Samples {
        nodes: samples.nodes[start..end].to_vec(),
        values: samples.values[start..end].to_vec(),
        label_sets: samples.label_sets.get(start..end).map(<[u32]>::to_vec).unwrap_or_default(),
        ..wire::Samples::default()
    };
    let mut at = start;
    while at < end {
        let (row, time_ns) = (samples.series[at], samples.time_ns[at]);
        let is_other = |other: &usize| (samples.series[*other], samples.time_ns[*other]) != (row, time_ns);
        let next = (at + 1..end).find(is_other).unwrap_or(end);
        message.series.push(row);
        message.time_ns.push(time_ns);
        message.counts.push((next - at) as u32);
        at = next;
    }
    message
}

/// Samples of these rows, of a source with so many nodes and label sets.
///
/// # Errors
/// [`Malformed`]
pub fn decode_samples(
    message: wire::Samples,
    rows: &RowSet,
    nodes_end: usize,
    label_sets_end: usize,
) -> Result<Samples, Malformed> {
    let wire::Samples { series: row_of, time_ns: time_of, counts, nodes, values, label_sets } = message;
    has_length("time_ns", time_of.len(), row_of.len())?;
    has_length("counts", counts.len(), row_of.len())?;
    has_length("values", values.len(), nodes.len())?;
    if !label_sets.is_empty() {
        has_length("label_sets", label_sets.len(), nodes.len())?;
    }
    let found = counts.iter().map(|count| u64::from(*count)).sum();
    if found != nodes.len() as u64 {
        return Err(Malformed::Length { column: "counts", found, expected: nodes.len() as u64 });
    }
    all_below("nodes", &nodes, nodes_end)?;
    all_below("label_sets", &label_sets, label_sets_end)?;
    if let Some(row) = row_of.iter().find(|row| !has_row(rows, **row)) {
        return Err(Malformed::Row(*row));
    }
    let (mut series, mut time_ns) = (Vec::with_capacity(nodes.len()), Vec::with_capacity(nodes.len()));
    for ((row, time), count) in row_of.into_iter().zip(time_of).zip(counts) {
        let end = series.len() + count as usize;
        series.resize(end, row);
        time_ns.resize(end, time);
    }
    Ok(Samples { series, time_ns, nodes, values, label_sets })
}
