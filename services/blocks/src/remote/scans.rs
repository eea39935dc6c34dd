//! What is asked for: rows, ranges and picks.

use cambium_model::time::TimeRange;
use cambium_proto::wire::ingester as wire;
use wire::tree_request::Pick as WirePick;

use super::{Malformed, has_length};
use crate::series_table::RowSet;
use crate::source::{Pick, SampleScan, TreeScan};

/// Rows and a range.
pub fn encode_selection(rows: &RowSet, range: TimeRange) -> wire::Selection {
    let mut end = 0;
    let mut runs = Vec::with_capacity(2 * rows.len());
    for run in rows {
        runs.extend([run.start - end, run.end - run.start]);
        end = run.end;
    }
    wire::Selection { runs, start_ns: range.start_ns, end_ns: range.end_ns }
}

/// Rows of a table of `series` rows, and a range.
///
/// # Errors
/// [`Malformed`] where the rows are not runs of the table that ascend and do not touch.
pub fn decode_selection(
    selection: Option<wire::Selection>,
    series: usize,
) -> Result<(RowSet, TimeRange), Malformed> {
    let wire::Selection { runs, start_ns, end_ns } = selection.ok_or(Malformed::Missing("selection"))?;
    let (pairs, []) = runs.as_chunks() else { return Err(Malformed::Runs) };
    let mut rows = RowSet::with_capacity(pairs.len());
    let mut end = 0_u32;
    for &[passed, taken] in pairs {
        if taken == 0 || (passed == 0 && !rows.is_empty()) {
            return Err(Malformed::Runs);
        }
        let start = end.checked_add(passed).ok_or(Malformed::Runs)?;
        end = start.checked_add(taken).ok_or(Malformed::Runs)?;
        rows.push(start..end);
    }
    if end as usize > series {
        return Err(Malformed::Range { column: "rows", value: u64::from(end) - 1, end: series as u64 });
    }
    Ok((rows, TimeRange::new(start_ns, end_ns)))
}

/// The scan of a head; `has_stack_tree` where values alone are wanted.
pub fn encode_tree_scan(head: wire::HeadRequest, scan: &TreeScan, has_stack_tree: bool) -> wire::TreeRequest {
    let pick = match &scan.pick {
        Pick::Sum => None,
        Pick::Mean(counts) => Some(WirePick::Mean(wire::Counts { profiles: counts.clone() })),
        Pick::At(times) => Some(WirePick::At(encode_times(times))),
    };
    let selection = Some(encode_selection(&scan.rows, scan.range));
    wire::TreeRequest { head: Some(head), selection, pick, has_stack_tree }
}

/// A scan of a table of `series` rows.
///
/// # Errors
/// [`Malformed`]
pub fn decode_tree_scan(request: wire::TreeRequest, series: usize) -> Result<TreeScan, Malformed> {
    let (rows, range) = decode_selection(request.selection, series)?;
    let pick = match request.pick {
        None => Pick::Sum,
        Some(WirePick::Mean(wire::Counts { profiles })) => {
            has_length("mean.profiles", profiles.len(), count(&rows))?;
            Pick::Mean(profiles)
        }
        Some(WirePick::At(times)) => Pick::At(decode_times(times, count(&rows))?),
    };
    Ok(TreeScan { rows, range, pick })
}

/// The scan of a head.
pub fn encode_sample_scan(head: wire::HeadRequest, scan: &SampleScan) -> wire::SamplesRequest {
    let selection = Some(encode_selection(&scan.rows, scan.range));
    wire::SamplesRequest { head: Some(head), selection, at: scan.at.as_deref().map(encode_times) }
}

/// A scan of a table of `series` rows.
///
/// # Errors
/// [`Malformed`]
pub fn decode_sample_scan(request: wire::SamplesRequest, series: usize) -> Result<SampleScan, Malformed> {
    let (rows, range) = decode_selection(request.selection, series)?;
    let at = request.at.map(|times| decode_times(times, count(&rows))).transpose()?;
    Ok(SampleScan { rows, range, at })
}

fn encode_times(times: &[Option<i64>]) -> wire::Times {
    let is_set = times.iter().map(Option::is_some).collect();
    wire::Times { is_set, time_ns: times.iter().copied().flatten().collect() }
}

fn decode_times(times: wire::Times, series: usize) -> Result<Vec<Option<i64>>, Malformed> {
    let wire::Times { is_set, time_ns } = times;
    has_length("at.is_set", is_set.len(), series)?;
    has_length("at.time_ns", time_ns.len(), is_set.iter().filter(|is_set| **is_set).count())?;
    let mut time_ns = time_ns.into_iter();
    Ok(is_set.into_iter().map(|is_set| if is_set { time_ns.next() } else { None }).collect())
}

/// How many rows.
fn count(rows: &RowSet) -> usize {
    rows.iter().map(ExactSizeIterator::len).sum()
}

/// Whether a row is one of these.
pub(super) fn has_row(rows: &RowSet, row: u32) -> bool {
    let at = rows.partition_point(|run| run.end <= row);
    rows.get(at).is_some_and(|run| run.start <= row)
}
