//! Which profiles of the selected series a merge takes: what each source must be told so that all of them together
//! sum, average, or give the newest or the closest.
//!
//! Of several profiles of one series with the same time the one with the greatest id counts as the newest and as the
//! closest. Blocks that no longer know ids keep their order; between two such blocks the later one wins.

use std::cmp::Ordering;

use cambium_blocks::source::{Pick as SourcePick, Profiles};
use cambium_blocks::tree::MEAN_SCALE;
use cambium_model::profile::ProfileId;
use cambium_model::time::{ROLLUP_BUCKET_NS, SECOND_NS, TimeRange};

use super::fold_profiles;
use super::selection::{Counted, Selected, SeriesIds, positions, profile_id, run};
use super::stages::Stages;
use crate::error::Error;
use crate::merged::{Collected, SingleProfile};
use crate::request::{Aggregation, Pick};

/// What to read of each source.
#[derive(Clone, Debug)]
pub(crate) struct Picked {
    /// The sources that have any.
    pub parts: Vec<Part>,
    /// By the profiles' time.
    pub range: TimeRange,
    /// Units per 1 of the sums.
    pub scale: i64,
    /// The profile, where one was asked for.
    pub single: Option<SingleProfile>,
}

impl Picked {
    /// What times are rounded to, in seconds; 0 where they are exact.
    pub fn resolution_secs(&self) -> u64 {
        let is_rounded = self.parts.iter().any(|part| part.one.source.is_downsampled());
        if is_rounded { (ROLLUP_BUCKET_NS / SECOND_NS).unsigned_abs() } else { 0 }
    }
}

/// What to read of one source.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The source and its series.
    pub one: Selected,
    /// Which of their profiles.
    pub pick: SourcePick,
}

/// Decides what to read.
pub(crate) async fn pick(selected: Vec<Selected>, pick: Pick, stages: &Stages) -> Result<Picked, Error> {
    match pick {
        Pick::Range { range, aggregation: Aggregation::Sum } => {
            let parts = selected.into_iter().map(|one| Part { one, pick: SourcePick::Sum }).collect();
            Ok(Picked { parts, range, scale: 1, single: None })
        }
        Pick::Range { range, aggregation: Aggregation::Avg } => {
            let parts = mean(selected, range, stages).await?;
            Ok(Picked { parts, range, scale: MEAN_SCALE, single: None })
        }
        Pick::Range { range, aggregation: Aggregation::Last } => {
            let parts = newest(selected, range, stages).await?;
            Ok(Picked { parts, range, scale: 1, single: None })
        }
        Pick::Closest { time_ns } => closest(selected, time_ns).await,
    }
}

/// How many profiles each series has over all sources.
async fn mean(selected: Vec<Selected>, range: TimeRange, stages: &Stages) -> Result<Vec<Part>, Error> {
    struct Counts {
        ids: Vec<Vec<u32>>,
        counts: Vec<u32>,
    }
    let (ids, series) = series_ids(&selected);
    let counts = Counts { ids, counts: vec![0; series.len()] };
    let add = |counts: &mut Counts, index: usize, one: &Selected, profiles: &Profiles| {
        let positions = positions(&one.rows);
        for row in &profiles.series {
            let position = positions[*row as usize];
            counts.counts[counts.ids[index][position as usize] as usize] += 1;
        }
        Ok(())
    };
    let Counts { ids, counts } =
        fold_profiles(&selected, Counted::InTree(range), stages, counts, add).await?;
    let of = |ids: Vec<u32>| SourcePick::Mean(ids.iter().map(|id| counts[*id as usize].max(1)).collect());
    Ok(selected.into_iter().zip(ids).map(|(one, ids)| Part { one, pick: of(ids) }).collect())
}

/// Time and id of the newest profile of a series.
type Newest = Option<(i64, ProfileId)>;

/// The time of each series' newest profile, told to the one source that has it.
async fn newest(selected: Vec<Selected>, range: TimeRange, stages: &Stages) -> Result<Vec<Part>, Error> {
    let (ids, series) = series_ids(&selected);
    let empty: Vec<Vec<Newest>> = ids.iter().map(|ids| vec![None; ids.len()]).collect();
    let add = |newest: &mut Vec<Vec<Newest>>, index: usize, one: &Selected, profiles: &Profiles| {
        let positions = positions(&one.rows);
        for profile in 0..profiles.series.len() {
            // They come in the order of time and id.
            let held = &mut newest[index][positions[profiles.series[profile] as usize] as usize];
            *held = Some((profiles.time_ns[profile], profile_id(profiles, profile)));
        }
        Ok(())
    };
    let held = fold_profiles(&selected, Counted::InRange(range), stages, empty, add).await?;
    // By series, the newest profile and the source that has it.
    let mut newest: Vec<Option<((i64, ProfileId), usize)>> = vec![None; series.len()];
    for (source, (ids, held)) in ids.iter().zip(&held).enumerate() {
        for (id, one) in ids.iter().zip(held) {
            let found = one.map(|found| (found, source));
            newest[*id as usize] = newest[*id as usize].max(found);
        }
    }
    let mut parts = Vec::with_capacity(selected.len());
    for (source, one) in selected.into_iter().enumerate() {
        let wins = |id: &u32| newest[*id as usize].filter(|(_, winner)| *winner == source);
        let times = ids[source].iter().map(|id| wins(id).map(|((time_ns, _), _)| time_ns)).collect();
        parts.push(Part { one, pick: SourcePick::At(times) });
    }
    Ok(parts)
}

fn series_ids(selected: &[Selected]) -> (Vec<Vec<u32>>, SeriesIds) {
    let mut series = SeriesIds::default();
    let ids = selected.iter().map(|one| series.of(&one.series, &one.rows)).collect();
    (ids, series)
}

/// The best profile so far.
struct Best {
    distance: u64,
    fingerprint: u64,
    id: ProfileId,
    profile: SingleProfile,
    /// Which selection has it, and in which row.
    source: usize,
    row: u32,
}

/// Opens sources from the nearest on and stops where no closer profile can follow.
async fn closest(mut selected: Vec<Selected>, time_ns: i64) -> Result<Picked, Error> {
    let distances = selected.iter().map(|one| distance_to_span(one, time_ns));
    let mut order: Vec<(u64, usize)> = distances.zip(0..).collect();
    order.sort_unstable();
    let mut best: Option<Best> = None;
    for (at_least, source) in order {
        let range = match &best {
            Some(best) if best.distance < at_least => break,
            Some(best) => around(time_ns, best.distance),
            None => TimeRange::ALL,
        };
        let one = &selected[source];
        let profiles = one.source.profiles(&one.rows, range).await?;
        for index in 0..profiles.series.len() {
            let distance = profiles.time_ns[index].abs_diff(time_ns);
            if best.as_ref().is_none_or(|best| distance <= best.distance) {
                best = Some(closer(best, candidate(one, source, &profiles, index, time_ns)));
            }
        }
    }
    let Some(Best { profile, source, row, .. }) = best else {
        return Ok(Picked { parts: Vec::new(), range: TimeRange::ALL, scale: 1, single: None });
    };
    let mut one = selected.swap_remove(source);
    one.rows = run(row, row + 1);
    let pick = SourcePick::At(vec![Some(profile.time_ns)]);
    let range = around(profile.time_ns, 0);
    Ok(Picked { parts: vec![Part { one, pick }], range, scale: 1, single: Some(profile) })
}

fn candidate(one: &Selected, source: usize, profiles: &Profiles, index: usize, time_ns: i64) -> Best {
    let (row, found_ns) = (profiles.series[index], profiles.time_ns[index]);
    let profile = SingleProfile {
        labels: one.series.labels(row),
        time_ns: found_ns,
        duration_ns: profiles.duration_ns[index],
        period: profiles.period[index],
    };
    Best {
        distance: found_ns.abs_diff(time_ns),
        fingerprint: one.series.fingerprints[row as usize],
        id: profile_id(profiles, index),
        profile,
        source,
        row,
    }
}

/// The better of two profiles; the second came later.
fn closer(held: Option<Best>, found: Best) -> Best {
    let Some(held) = held else { return found };
    let rank = |best: &Best| (best.distance, best.profile.time_ns, best.fingerprint);
    let labels = || found.profile.labels.iter().cmp(held.profile.labels.iter());
    match rank(&found).cmp(&rank(&held)).then_with(labels) {
        Ordering::Less => found,
        Ordering::Greater => held,
        Ordering::Equal if (found.id, found.source) >= (held.id, held.source) => found,
        Ordering::Equal => held,
    }
}

fn distance_to_span(one: &Selected, time_ns: i64) -> u64 {
    match one.span {
        Some((first, _)) if time_ns < first => time_ns.abs_diff(first),
        Some((_, last)) if last < time_ns => time_ns.abs_diff(last),
        _ => 0,
    }
}

fn around(time_ns: i64, distance: u64) -> TimeRange {
    let end_ns = time_ns.saturating_add_unsigned(distance).saturating_add(1);
    TimeRange::new(time_ns.saturating_sub_unsigned(distance), end_ns)
}

/// Head of the merged profile.
pub(crate) async fn collected(picked: &Picked, stages: &Stages) -> Result<Collected, Error> {
    struct Head {
        picks: Vec<SourcePick>,
        collected: Collected,
    }
    let selected: Vec<Selected> = picked.parts.iter().map(|part| part.one.clone()).collect();
    let picks = picked.parts.iter().map(|part| part.pick.clone()).collect();
    let add = |head: &mut Head, index: usize, one: &Selected, profiles: &Profiles| {
        let positions = positions(&one.rows);
        for profile in 0..profiles.series.len() {
            let key = |profile: usize| Some((profiles.series.get(profile)?, profiles.time_ns.get(profile)?));
            let is_picked = match &head.picks[index] {
                SourcePick::Sum | SourcePick::Mean(_) => true,
                // Profiles are ordered by id within a time: the last one counts.
                SourcePick::At(times) => {
                    let position = positions[profiles.series[profile] as usize];
                    times[position as usize] == Some(profiles.time_ns[profile])
                        && key(profile) != key(profile + 1)
                }
            };
            if is_picked {
                take(&mut head.collected, profiles, profile);
            }
        }
        Ok(())
    };
    let head = Head { picks, collected: Collected::default() };
    Ok(fold_profiles(&selected, Counted::InTree(picked.range), stages, head, add).await?.collected)
}

fn take(collected: &mut Collected, profiles: &Profiles, profile: usize) {
    let time_ns = profiles.time_ns[profile];
    collected.time_ns = if collected.profiles == 0 { time_ns } else { collected.time_ns.min(time_ns) };
    collected.duration_ns = collected.duration_ns.saturating_add(profiles.duration_ns[profile]);
    collected.period = collected.period.max(profiles.period[profile]);
    collected.profiles += 1;
}
