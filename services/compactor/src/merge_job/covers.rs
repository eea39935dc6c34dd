//! Which records the outputs of a merge stand for: those of their inputs, shared out where a tenant is split by scope.

use std::collections::BTreeSet;
use std::sync::Arc;

use cambium_blocks::series_table::ScopeName;
use cambium_model::block::{BlockMeta, Cover, LogRange, RetentionClass, ScopeBound};

/// Neighbouring scopes: from the first bound to before the second.
pub(crate) type Bounds = (Option<ScopeBound>, Option<ScopeBound>);

/// The bounds of groups of scopes in their order: each begins at its first scope, so that together they leave nothing out.
pub(crate) fn bounds(groups: &[BTreeSet<ScopeName>]) -> Vec<Bounds> {
    let first = |group: &BTreeSet<ScopeName>| {
        let scope = group.first()?;
        Some(ScopeBound { value: scope.value.to_string(), label: scope.label.to_string() })
    };
    let from = |index: usize| if index == 0 { None } else { groups.get(index).and_then(first) };
    (0..groups.len()).map(|index| (from(index), from(index + 1))).collect()
}

/// What these datasets of a tenant stand for within the bounds; those whose series have not been told apart yet for this
/// class of them. Runs that touch are one.
pub(crate) fn within(
    inputs: &[(&Arc<BlockMeta>, usize)],
    bounds: &Bounds,
    class: Option<RetentionClass>,
) -> Vec<Cover> {
    let all = inputs.iter().flat_map(|(block, index)| block.covers(&block.datasets[*index]));
    let of_class = all.map(|cover| Cover { class: cover.class.or(class), ..cover });
    let mut clipped: Vec<Cover> = of_class.filter_map(|cover| clip(cover, bounds)).collect();
    clipped.sort_by(|a, b| {
        let key = |cover: &Cover| {
            (cover.range.log, cover.class, cover.from.clone(), cover.to.clone(), cover.range.first)
        };
        key(a).cmp(&key(b))
    });
    let mut joined: Vec<Cover> = Vec::new();
    for cover in clipped {
        match joined.last_mut() {
            Some(last)
                if last.range.log == cover.range.log
                    && (&last.from, &last.to, last.class) == (&cover.from, &cover.to, cover.class)
                    && cover.range.first <= last.range.next =>
            {
                last.range.next = last.range.next.max(cover.range.next);
            }
            _ => joined.push(cover),
        }
    }
    joined
}

/// The covers as a block of these log ranges carries them: none where they are just those.
pub(crate) fn stored(covers: Vec<Cover>, log_ranges: &[LogRange]) -> Vec<Cover> {
    let whole = log_ranges.iter().copied().map(Cover::whole);
    if whole.eq(covers.iter().cloned()) { Vec::new() } else { covers }
}

fn clip(cover: Cover, (from, to): &Bounds) -> Option<Cover> {
    // No bound below comes before every bound, as `None` does; no bound above comes after every one.
    let from = cover.from.max(from.clone());
    let to = match (cover.to, to) {
        (Some(a), Some(b)) => Some(a.min(b.clone())),
        (a, b) => a.or_else(|| b.clone()),
    };
    let is_empty = matches!((&from, &to), (Some(from), Some(to)) if from >= to);
    (!is_empty).then_some(Cover { from, to, ..cover })
}

#[cfg(test)]
mod tests {
    use cambium_model::block::{LogId, Offset, Partition};

    use super::*;

    fn scope(value: &str) -> ScopeName {
        ScopeName { value: value.into(), label: "service_name".into() }
    }

    fn bound(value: &str) -> Option<ScopeBound> {
        Some(ScopeBound { value: value.into(), label: "service_name".into() })
    }

    fn cover(first: u64, next: u64, from: Option<ScopeBound>, to: Option<ScopeBound>) -> Cover {
        let log = LogId { partition: Partition(0), log: 0 };
        Cover { from, to, ..Cover::whole(LogRange { log, first: Offset(first), next: Offset(next) }) }
    }

    #[test]
    fn groups_of_scopes_leave_nothing_out() {
        let groups = [["a", "c"], ["d", "m"], ["n", "z"]].map(|names| names.map(scope).into());
        let expected = [(None, bound("d")), (bound("d"), bound("n")), (bound("n"), None)];
        assert_eq!(bounds(&groups), expected);
        assert_eq!(bounds(&groups[..1]), [(None, None)]);
    }

    #[test]
    fn a_part_of_a_part_is_what_both_hold() {
        let cases = [
            (cover(0, 1, None, None), (bound("d"), None), Some(cover(0, 1, bound("d"), None))),
            (
                cover(0, 1, None, bound("k")),
                (bound("d"), bound("n")),
                Some(cover(0, 1, bound("d"), bound("k"))),
            ),
            (cover(0, 1, None, bound("d")), (bound("d"), None), None),
            (
                cover(0, 1, bound("b"), bound("c")),
                (None, bound("z")),
                Some(cover(0, 1, bound("b"), bound("c"))),
            ),
        ];
        for (whole, bounds, expected) in cases {
            assert_eq!(clip(whole.clone(), &bounds), expected, "{whole:?} {bounds:?}");
        }
    }
}
