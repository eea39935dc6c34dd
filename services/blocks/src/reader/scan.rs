//! Sums and samples over runs of rows: the hot loops of a query.
//!
//! ```text
//!   steps (runs of rows) ──► windows, one per row group ──► pieces fetched ahead ──► decoded in batches ──► sums
//! ```

use std::ops::Range;
use std::sync::Arc;

use cambium_model::block::SectionKind;
use futures::{StreamExt, TryStreamExt, stream};

use super::fetch::{Dataset, count};
use super::pages::{Pages, Pieces};
use super::side::{ProfileTable, StackTable};
use crate::Error;
use crate::offload::{Caller, offload};
use crate::source::Samples;
use crate::sums::Accumulator;
use crate::writer::section::PAGE_ROWS;

/// Rows decoded at a time, at most: those of a page. Two columns of a batch stay in a core's own caches.
const BATCH_ROWS: u64 = PAGE_ROWS as u64;
/// Windows whose bytes are being fetched while an earlier one is summed: wide rollups, narrow ones and samples at once.
const WINDOWS_AHEAD: usize = 3;

/// Rows to add, in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) rows: Range<u64>,
    /// The series ends with these rows, and its sums are divided by this.
    pub(super) ends_series: Option<u32>,
}

/// Adds a step, joined with the last one where nothing ends between.
pub(super) fn push_step(steps: &mut Vec<Step>, rows: Range<u64>, ends_series: Option<u32>) {
    match steps.last_mut() {
        Some(last) if last.ends_series.is_none() && last.rows.end == rows.start => {
            *last = Step { rows: last.rows.start..rows.end, ends_series };
        }
        _ if rows.is_empty() => {}
        _ => steps.push(Step { rows, ends_series }),
    }
}

/// Rows of a section to add.
pub(super) type Part = (SectionKind, Vec<Step>);

/// The steps inside one row group.
#[derive(Debug)]
struct Window {
    pages: Arc<Pages>,
    /// Those to read.
    columns: Vec<usize>,
    group: usize,
    steps: Vec<Step>,
}

fn windows(pages: &Arc<Pages>, columns: &[usize], steps: &[Step]) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for step in steps {
        for (group, rows) in pages.by_group(&step.rows) {
            let ends_series = step.ends_series.filter(|_| rows.end == step.rows.end);
            let part = Step { rows, ends_series };
            match windows.last_mut() {
                Some(window) if window.group == group => window.steps.push(part),
                _ => windows.push(Window {
                    pages: Arc::clone(pages),
                    columns: columns.to_vec(),
                    group,
                    steps: vec![part],
                }),
            }
        }
    }
    windows
}

/// Adds rows of `samples` and of rollups to the sums.
pub(super) async fn add(
    dataset: &Dataset,
    parts: &[Part],
    mut sums: Accumulator,
) -> Result<Accumulator, Error> {
    let mut all = Vec::new();
    for (kind, steps) in parts.iter().filter(|(_, steps)| !steps.is_empty()) {
        let pages = dataset.pages(*kind).await?;
        let (values, counter) = match kind {
            SectionKind::Samples => ("value", &dataset.counters.sample_rows),
            _ => ("sum", &dataset.counters.rollup_rows),
        };
        count(counter, steps.iter().map(|step| step.rows.end - step.rows.start).sum());
        all.extend(windows(&pages, &[pages.column("stack")?, pages.column(values)?], steps));
    }
    let mut fetched = std::pin::pin!(fetch_ahead(dataset, all));
    while let Some((window, pieces)) = fetched.try_next().await? {
        sums = offload(move |caller| {
            add_window(&window, &pieces, &mut sums, caller)?;
            Ok(sums)
        })
        .await?;
    }
    Ok(sums)
}

fn fetch_ahead(
    dataset: &Dataset,
    windows: Vec<Window>,
) -> impl futures::Stream<Item = Result<(Window, Arc<Pieces>), Error>> {
    stream::iter(windows)
        .map(move |window| async move {
            let mut wanted = Vec::new();
            for column in &window.columns {
                let rows = window.steps.iter().map(|step| step.rows.clone());
                window.pages.want(window.group, *column, rows, &mut wanted)?;
            }
            let pieces = dataset.pieces(&window.pages, wanted).await?;
            Ok((window, pieces))
        })
        .buffered(WINDOWS_AHEAD)
}

fn add_window(
    window: &Window,
    pieces: &Arc<Pieces>,
    sums: &mut Accumulator,
    caller: &Caller,
) -> Result<(), Error> {
    let pages = &window.pages;
    let mut stack_cursor = pages.u32_cursor(pieces, window.group, window.columns[0])?;
    let mut value_cursor = pages.i64_cursor(pieces, window.group, window.columns[1])?;
    let (mut stacks, mut values) = (Vec::new(), Vec::new());
    for step in &window.steps {
        for rows in batches(&step.rows, pages.group_rows(window.group).start) {
            caller.check()?;
            stacks.clear();
            values.clear();
            stack_cursor.read(rows.clone(), &mut stacks)?;
            value_cursor.read(rows, &mut values)?;
            sums.add(&stacks, &values)
                .map_err(|unknown| pages.place.corrupt(format_args!("stack {} is unknown", unknown.0)))?;
        }
        if let Some(count) = step.ends_series {
            sums.end_series(count);
        }
    }
    Ok(())
}

/// Cuts rows where pages end, so that pages are decoded to where they are summed from.
fn batches(rows: &Range<u64>, group_start: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let (mut start, end) = (rows.start, rows.end);
    std::iter::from_fn(move || {
        let page_end = start + BATCH_ROWS - (start - group_start) % BATCH_ROWS;
        let batch = start..end.min(page_end);
        start = batch.end;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Samples of neighbouring profiles.
pub(super) async fn samples(
    dataset: &Dataset,
    profiles: &Arc<ProfileTable>,
    stacks: &Arc<StackTable>,
    runs: Vec<Range<usize>>,
) -> Result<Samples, Error> {
    let mut steps = Vec::new();
    runs.iter().for_each(|run| push_step(&mut steps, profiles.samples(run), None));
    let mut batch = Samples::default();
    if steps.is_empty() {
        return Ok(batch);
    }
    let pages = dataset.pages(SectionKind::Samples).await?;
    let (stack, value) = (pages.column("stack")?, pages.column("value")?);
    let label_set = pages.find_column("label_set");
    let columns: Vec<usize> = [stack, value].into_iter().chain(label_set).collect();
    count(&dataset.counters.sample_rows, steps.iter().map(|step| step.rows.end - step.rows.start).sum());
    let mut fetched = std::pin::pin!(fetch_ahead(dataset, windows(&pages, &columns, &steps)));
    while let Some((window, pieces)) = fetched.try_next().await? {
        let stacks = Arc::clone(stacks);
        batch = offload(move |_| {
            let pages = &window.pages;
            let [mut ids, mut labels] = [Vec::new(), Vec::new()];
            let mut stack_cursor = pages.u32_cursor(&pieces, window.group, stack)?;
            let mut value_cursor = pages.i64_cursor(&pieces, window.group, value)?;
            let mut label_cursor =
                label_set.map(|column| pages.u32_cursor(&pieces, window.group, column)).transpose()?;
            for step in &window.steps {
                stack_cursor.read(step.rows.clone(), &mut ids)?;
                value_cursor.read(step.rows.clone(), &mut batch.values)?;
                if let Some(cursor) = &mut label_cursor {
                    cursor.read(step.rows.clone(), &mut labels)?;
                }
            }
            for id in ids {
                let node = stacks.node_of_stack.get(id as u32 as usize);
                batch
                    .nodes
                    .push(*node.ok_or_else(|| pages.place.corrupt(format_args!("stack {id} is unknown")))?);
            }
            batch.label_sets.extend(labels.into_iter().map(|label_set| label_set as u32));
            Ok(batch)
        })
        .await?;
    }
    for profile in runs.into_iter().flatten() {
        let end = batch.series.len() + profiles.columns.samples[profile] as usize;
        batch.series.resize(end, profiles.columns.series[profile]);
        batch.time_ns.resize(end, profiles.columns.time_ns[profile]);
    }
    Ok(batch)
}
