//! The inputs' profiles in the output's order, with their samples renumbered.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use cambium_model::block::SectionKind;
use cambium_model::profile::ProfileId;

use super::input::{Column, Input, PagedSection};
use super::profiles::{Profile, Profiles};
use super::series::{NONE, Union};
use crate::Error;

/// What everything is called in the output.
#[derive(Debug)]
pub(super) struct Numbers {
    /// For each row of the union its series.
    pub(super) rows: Vec<u32>,
    /// For each input, for each of its stacks.
    pub(super) stacks: Vec<Vec<u32>>,
    /// For each input, for each of its label sets.
    pub(super) sets: Vec<Vec<u32>>,
}

/// The sections of an input that are read along.
pub(super) struct Sections {
    profiles: PagedSection,
    values: PagedSection,
}

impl Sections {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { profiles: input.paged(SectionKind::Profiles)?, values: input.paged(input.values().0)? })
    }
}

/// Merges the inputs' profiles.
pub(super) struct Queue<'a> {
    readers: Vec<Reader<'a>>,
    /// The next profile of each input, by the output's order.
    heads: BinaryHeap<Reverse<(u32, i64, ProfileId, usize)>>,
    numbers: &'a Numbers,
    stacks: Vec<i32>,
    values: Vec<i64>,
    sets: Vec<i32>,
}

struct Reader<'a> {
    section: &'a PagedSection,
    profiles: Profiles<'a>,
    head: Option<Profile>,
    stack: Column<'a, i32>,
    value: Column<'a, i64>,
    label_set: Option<Column<'a, i32>>,
}

impl<'a> Queue<'a> {
    pub(super) fn new(
        inputs: &[Input],
        sections: &'a [Sections],
        union: &'a Union,
        numbers: &'a Numbers,
    ) -> Result<Self, Error> {
        let mut new = Self {
            readers: Vec::with_capacity(inputs.len()),
            heads: BinaryHeap::with_capacity(inputs.len()),
            numbers,
            stacks: Vec::new(),
            values: Vec::new(),
            sets: Vec::new(),
        };
        for (place, (input, held)) in inputs.iter().zip(sections).enumerate() {
            let section = &held.values;
            let labelled = section.has("label_set");
            new.readers.push(Reader {
                section,
                profiles: Profiles::new(input, &held.profiles, union, place)?,
                head: None,
                stack: section.column("stack")?,
                value: section.column(input.values().1)?,
                label_set: if labelled { Some(section.column("label_set")?) } else { None },
            });
            new.advance(place)?;
        }
        Ok(new)
    }

    /// Which input the next profile is of, its series in the output, and itself.
    pub(super) fn next(&mut self) -> Result<Option<(usize, u32, Profile)>, Error> {
        let Some(Reverse((series, _, _, place))) = self.heads.pop() else { return Ok(None) };
        let profile = self.readers[place].head.take().expect("the queue holds the heads of readers");
        self.advance(place)?;
        Ok(Some((place, series, profile)))
    }

    fn advance(&mut self, place: usize) -> Result<(), Error> {
        let reader = &mut self.readers[place];
        reader.head = reader.profiles.next_kept()?;
        if let Some(profile) = &reader.head {
            let row = profile.series.expect("it is kept");
            let key = (self.numbers.rows[row as usize], profile.time_ns, profile.id, place);
            self.heads.push(Reverse(key));
        }
        Ok(())
    }

    /// Reads a profile's samples: (stack and label set, value). Those of one input must be read in their order.
    pub(super) fn samples(
        &mut self,
        place: usize,
        profile: &Profile,
        rows: &mut Vec<(u64, i64)>,
    ) -> Result<(), Error> {
        let reader = &mut self.readers[place];
        let (stacks, sets) = (&self.numbers.stacks[place], &self.numbers.sets[place]);
        self.stacks.clear();
        self.values.clear();
        reader.stack.read(profile.rows(), &mut self.stacks)?;
        reader.value.read(profile.rows(), &mut self.values)?;
        rows.clear();
        for (stack, value) in self.stacks.iter().zip(&self.values) {
            let number = stacks.get(*stack as u32 as usize).filter(|number| **number != NONE);
            let number = number.ok_or_else(|| reader.section.pages.place.corrupt("a sample has no stack"))?;
            rows.push((u64::from(*number) << 32, *value));
        }
        let Some(column) = &mut reader.label_set else { return Ok(()) };
        self.sets.clear();
        column.read(profile.rows(), &mut self.sets)?;
        for ((key, _), set) in rows.iter_mut().zip(&self.sets) {
            let set = sets.get(*set as u32 as usize);
            let set = set.ok_or_else(|| reader.section.pages.place.corrupt("a sample has no label set"))?;
            *key |= u64::from(*set);
        }
        Ok(())
    }
}
