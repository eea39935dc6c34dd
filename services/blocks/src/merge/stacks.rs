//! The inputs' trees as one, and how many samples end where.

use std::ops::Range;

use cambium_model::block::SectionKind;
use cambium_model::profile::SampleLabels;
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use hashbrown::HashMap;

use super::input::Input;
use super::profiles::Profiles;
use super::series::{NONE, Union};
use crate::Error;
use crate::reader::side::StackTable;
use crate::tree::Tree;

/// Samples counted at a time.
const BATCH_ROWS: u64 = 64 << 10;

/// The tree of all inputs.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) tree: Tree,
    /// How many samples end at each node.
    pub(super) counts: Vec<u32>,
    /// Which series of the union have profiles.
    pub(super) live: Vec<bool>,
    /// Label sets of samples; entry 0 is the empty one.
    pub(super) label_sets: Vec<SampleLabels>,
    pub(super) used_label_sets: Vec<bool>,
    /// For each input, for each of its stacks: the node here, or [`NONE`].
    pub(super) stacks: Vec<Vec<u32>>,
    /// For each input, for each of its label sets: the set here.
    pub(super) sets: Vec<Vec<u32>>,
    /// For each scope of the union its scope node, or [`NONE`].
    pub(super) scope_nodes: Vec<u32>,
    /// Which scopes of the union have samples that are kept.
    pub(super) sampled: Vec<bool>,
    children: HashMap<(u32, u32), u32>,
    locations: HashMap<LocationId, u32>,
    places_of_sets: HashMap<SampleLabels, u32>,
}

impl Merged {
    /// Reads all inputs once, one after the other: trees whole, profiles and the stacks of samples in pieces.
    pub(super) fn new(inputs: &[Input], union: &Union) -> Result<Self, Error> {
        let mut new = Self {
            live: vec![false; union.table.len()],
            label_sets: vec![SampleLabels::new()],
            used_label_sets: vec![true],
            scope_nodes: vec![NONE; union.table.scopes.len()],
            sampled: vec![false; union.table.scopes.len()],
            places_of_sets: HashMap::from_iter([(SampleLabels::new(), 0)]),
            ..Self::default()
        };
        for (place, input) in inputs.iter().enumerate() {
            let stacks = input.stacks()?;
            let scopes = scopes_with_samples(input, union, place)?;
            let stacks = new.add_tree(input, &stacks, &scopes, &union.scopes[place])?;
            new.stacks.push(stacks);
            let sets = input.label_sets()?.iter().map(|set| new.label_set(set)).collect();
            new.sets.push(sets);
            new.count(input, union, place)?;
        }
        // They are large, and only reading needed them.
        new.children = HashMap::new();
        new.locations = HashMap::new();
        Ok(new)
    }

    /// Adds the nodes of an input's kept scopes; `scopes` are those that have samples. Returns the node of each stack.
    fn add_tree(
        &mut self,
        input: &Input,
        stacks: &StackTable,
        scopes: &[u32],
        union_scopes: &[u32],
    ) -> Result<Vec<u32>, Error> {
        let tree = &stacks.tree;
        let mut scopes = scopes.iter();
        let mut nodes = Vec::with_capacity(tree.len());
        for node in &tree.nodes {
            if node.parent == NO_PARENT {
                let scope = scopes.next().ok_or_else(|| self.unfit(input))?;
                nodes.push(self.scope_node(union_scopes[*scope as usize]));
                continue;
            }
            nodes.push(match nodes[node.parent as usize] {
                NONE => NONE,
                parent => self.child(parent, tree.locations[node.location as usize]),
            });
        }
        if scopes.next().is_some() {
            return Err(self.unfit(input));
        }
        self.counts.resize(self.tree.len(), 0);
        Ok(stacks.node_of_stack.iter().map(|node| nodes[*node as usize]).collect())
    }

    fn unfit(&self, input: &Input) -> Error {
        match input.place(SectionKind::Nodes) {
            Ok(place) => place.corrupt("scope nodes are not those of the scopes with samples"),
            Err(error) => error,
        }
    }

    fn scope_node(&mut self, scope: u32) -> u32 {
        if scope == NONE {
            return NONE;
        }
        let node = &mut self.scope_nodes[scope as usize];
        if *node == NONE {
            *node = self.tree.push_scope();
        }
        *node
    }

    fn child(&mut self, parent: u32, id: LocationId) -> u32 {
        let tree = &mut self.tree;
        let location = *self.locations.entry(id).or_insert_with(|| {
            tree.locations.push(id);
            (tree.locations.len() - 1) as u32
        });
        *self.children.entry((parent, location)).or_insert_with(|| {
            let path = tree.paths[parent as usize].child(id);
            tree.push_node(Node { parent, location }, path)
        })
    }

    fn label_set(&mut self, set: &SampleLabels) -> u32 {
        if let Some(found) = self.places_of_sets.get(set) {
            return *found;
        }
        let place = self.label_sets.len() as u32;
        self.label_sets.push(set.clone());
        self.used_label_sets.push(false);
        self.places_of_sets.insert(set.clone(), place);
        place
    }

    /// Counts the samples of an input's kept profiles.
    fn count(&mut self, input: &Input, union: &Union, place: usize) -> Result<(), Error> {
        let section = input.paged(SectionKind::Profiles)?;
        let mut profiles = Profiles::new(input, &section, union, place)?;
        let samples = input.paged(input.values().0)?;
        let mut column = samples.column::<i32>("stack")?;
        let mut sets =
            if samples.has("label_set") { Some(samples.column::<i32>("label_set")?) } else { None };
        let (mut run, mut values): (Range<u64>, Vec<i32>) = (0..0, Vec::new());
        loop {
            let next = profiles.next_kept()?;
            if let Some(profile) = next {
                let series = profile.series.expect("it is kept") as usize;
                self.live[series] = true;
                self.sampled[union.table.scope_of[series] as usize] |= profile.samples > 0;
                let rows = profile.rows();
                if rows.start == run.end && rows.end - run.start <= BATCH_ROWS {
                    run.end = rows.end;
                    continue;
                }
            }
            values.clear();
            column.read(run.clone(), &mut values)?;
            for stack in &values {
                let node = self.stacks[place].get(*stack as u32 as usize).filter(|node| **node != NONE);
                let node = node.ok_or_else(|| samples.pages.place.corrupt("a sample has no stack"))?;
                self.counts[*node as usize] += 1;
            }
            if let Some(column) = &mut sets {
                values.clear();
                column.read(run.clone(), &mut values)?;
                for set in &values {
                    let set = self.sets[place].get(*set as u32 as usize);
                    let set = set.ok_or_else(|| samples.pages.place.corrupt("a sample has no label set"))?;
                    self.used_label_sets[*set as usize] = true;
                }
            }
            match next {
                Some(profile) => run = profile.rows(),
                None => return Ok(()),
            }
        }
    }
}

/// An input's scopes that have samples, in order: those have scope nodes.
fn scopes_with_samples(input: &Input, union: &Union, place: usize) -> Result<Vec<u32>, Error> {
    let section = input.paged(SectionKind::Profiles)?;
    let mut profiles = Profiles::new(input, &section, union, place)?;
    let mut has_samples = vec![false; input.series.scopes.len()];
    while let Some(profile) = profiles.next()? {
        has_samples[input.series.scope_of[profile.input_series as usize] as usize] |= profile.samples > 0;
    }
    Ok((0..).zip(has_samples).filter(|(_, has)| *has).map(|(scope, _)| scope).collect())
}
