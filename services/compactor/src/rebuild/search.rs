//! The heaviest set of vertices of which no two conflict.
//!
//! Blocks conflict with what they were merged from and with other attempts at the same merge, so the graph falls into small
//! parts, and in those most vertices have the same neighbours as their siblings. What is left is searched, with a bound.

use std::collections::{BTreeMap, BTreeSet};

use super::conflicts::Conflicts;

/// Steps after which the search of one part ends with the best that it has found.
const STEPS_MAX: usize = 100_000;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heaviest {
    /// The vertices, sorted.
    pub(super) chosen: Vec<usize>,
    /// Whether no set is heavier; else the search was given up.
    pub(super) is_proven: bool,
}

/// The heaviest set; of several, the one that the order prefers. `order` names every vertex once.
pub(super) fn heaviest(conflicts: &Conflicts, weights: &[u64], order: &[usize]) -> Heaviest {
    let mut chosen = Vec::new();
    let mut is_proven = true;
    for part in parts(conflicts, order) {
        let siblings = siblings(conflicts, &part);
        let part = Part::new(conflicts, weights, &siblings);
        let mut search = Search { part: &part, best: None, steps: 0 };
        search.run((0..siblings.len()).collect(), Vec::new(), 0);
        is_proven &= search.steps < STEPS_MAX;
        let (_, best) = search.best.unwrap_or_default();
        chosen.extend(best.into_iter().flat_map(|index| &siblings[index]));
    }
    chosen.sort_unstable();
    Heaviest { chosen, is_proven }
}

/// The connected parts, each in the order of preference.
fn parts(conflicts: &Conflicts, order: &[usize]) -> Vec<Vec<usize>> {
    let mut part_of = vec![usize::MAX; conflicts.len()];
    let mut parts: Vec<Vec<usize>> = Vec::new();
    for &start in order {
        if part_of[start] != usize::MAX {
            continue;
        }
        part_of[start] = parts.len();
        let mut waiting = vec![start];
        while let Some(vertex) = waiting.pop() {
            for &next in &conflicts[vertex] {
                if part_of[next] == usize::MAX {
                    part_of[next] = parts.len();
                    waiting.push(next);
                }
            }
        }
        parts.push(Vec::new());
    }
    order.iter().for_each(|vertex| parts[part_of[*vertex]].push(*vertex));
    parts
}

/// Vertices with the same conflicts: they are chosen together or not at all.
fn siblings(conflicts: &Conflicts, part: &[usize]) -> Vec<Vec<usize>> {
    let mut places: BTreeMap<&BTreeSet<usize>, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &vertex in part {
        let place = *places.entry(&conflicts[vertex]).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(vertex),
            None => groups.push(vec![vertex]),
        }
    }
    groups
}

/// One part of the graph, its vertices numbered by preference.
struct Part {
    weights: Vec<u64>,
    conflicts: Vec<BTreeSet<usize>>,
}

impl Part {
    fn new(conflicts: &Conflicts, weights: &[u64], siblings: &[Vec<usize>]) -> Self {
        let places: BTreeMap<usize, usize> =
            siblings.iter().enumerate().flat_map(|(i, group)| group.iter().map(move |v| (*v, i))).collect();
        let weight = |group: &Vec<usize>| group.iter().map(|vertex| weights[*vertex]).sum();
        let neighbours =
            |group: &Vec<usize>| conflicts[group[0]].iter().map(|vertex| places[vertex]).collect();
        Self {
            weights: siblings.iter().map(weight).collect(),
            conflicts: siblings.iter().map(neighbours).collect(),
        }
    }

    /// A vertex that weighs as much as all that stands against it: some heaviest set has it.
    fn free(&self, left: &BTreeSet<usize>) -> Option<usize> {
        let opposed = |vertex: usize| -> u64 {
            self.conflicts[vertex].intersection(left).map(|other| self.weights[*other]).sum()
        };
        left.iter().copied().find(|vertex| self.weights[*vertex] >= opposed(*vertex))
    }

    /// No set of these is heavier: of vertices that all conflict with each other at most one is chosen, so weights are
    /// shared out among such cliques.
    fn bound(&self, left: &BTreeSet<usize>) -> u64 {
        let mut weights: BTreeMap<usize, u64> =
            left.iter().map(|vertex| (*vertex, self.weights[*vertex])).collect();
        let mut bound = 0;
        while let Some((&first, _)) = weights.first_key_value() {
            let mut clique = vec![first];
            for &vertex in self.conflicts[first].iter().filter(|vertex| weights.contains_key(vertex)) {
                if clique.iter().all(|member| *member == vertex || self.conflicts[*member].contains(&vertex))
                {
                    clique.push(vertex);
                }
            }
            let least = clique.iter().map(|vertex| weights[vertex]).min().unwrap_or(0);
            bound += least;
            for vertex in clique {
                weights.entry(vertex).and_modify(|weight| *weight -= least);
            }
            weights.retain(|_, weight| *weight > 0);
        }
        bound
    }
}

/// Depth first, with what has been found so far.
struct Search<'a> {
    part: &'a Part,
    best: Option<(u64, Vec<usize>)>,
    steps: usize,
}

impl Search<'_> {
    fn run(&mut self, mut left: BTreeSet<usize>, mut chosen: Vec<usize>, mut weight: u64) {
        loop {
            self.steps += 1;
            while let Some(vertex) = self.part.free(&left) {
                weight += self.choose(vertex, &mut left, &mut chosen);
            }
            let best = self.best.as_ref().map(|(best, _)| *best);
            let Some(&preferred) = left.first() else {
                if best.is_none_or(|best| weight > best) {
                    self.best = Some((weight, chosen));
                }
                return;
            };
            let hopeless = best.is_some_and(|best| weight + self.part.bound(&left) <= best);
            if hopeless || (self.steps >= STEPS_MAX && best.is_some()) {
                return;
            }
            let (mut rest, mut with) = (left.clone(), chosen.clone());
            let added = self.choose(preferred, &mut rest, &mut with);
            self.run(rest, with, weight + added);
            left.remove(&preferred);
        }
    }

    /// Takes a vertex, and out what conflicts with it. Returns its weight.
    fn choose(&self, vertex: usize, left: &mut BTreeSet<usize>, chosen: &mut Vec<usize>) -> u64 {
        chosen.push(vertex);
        left.remove(&vertex);
        for other in &self.part.conflicts[vertex] {
            left.remove(other);
        }
        self.part.weights[vertex]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(vertices: usize, edges: &[(usize, usize)]) -> Conflicts {
        let mut conflicts = vec![BTreeSet::new(); vertices];
        for &(a, b) in edges.iter().filter(|(a, b)| a != b) {
            conflicts[a].insert(b);
            conflicts[b].insert(a);
        }
        conflicts
    }

    #[test]
    fn the_preferred_of_equals_is_chosen() {
        // 0 stands for 1 and 2 together.
        let conflicts = graph(3, &[(0, 1), (0, 2)]);
        for (order, expected) in [([0, 1, 2], vec![0]), ([1, 2, 0], vec![1, 2])] {
            let found = heaviest(&conflicts, &[5, 2, 3], &order);
            assert_eq!(found, Heaviest { chosen: expected, is_proven: true });
        }
    }

    proptest! {
        #[test]
        fn no_set_is_heavier(
            weights in prop::collection::vec(0..20_u64, 1..10),
            edges in prop::collection::vec((0..10_usize, 0..10_usize), 0..20),
        ) {
            let count = weights.len();
            let edges: Vec<_> = edges.into_iter().filter(|(a, b)| *a < count && *b < count).collect();
            let conflicts = graph(count, &edges);
            let found = heaviest(&conflicts, &weights, &(0..count).collect::<Vec<_>>());
            let weight = |set: &[usize]| set.iter().map(|vertex| weights[*vertex]).sum::<u64>();
            let is_free = |set: &[usize]| set.iter().all(|a| set.iter().all(|b| !conflicts[*a].contains(b)));
            prop_assert!(is_free(&found.chosen) && found.is_proven);
            for bits in 0..1_usize << count {
                let set: Vec<usize> = (0..count).filter(|vertex| bits >> vertex & 1 == 1).collect();
                prop_assert!(!is_free(&set) || weight(&set) <= weight(&found.chosen));
            }
        }
    }
}
