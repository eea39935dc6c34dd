//! Labels that sit on samples: each distinct set once, in canonical order.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use cambium_model::profile::{SampleLabelValue, SampleLabels};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::error::{Error, Place};
use super::strings::Strings;
use super::wire::{Reader, VARINT};

/// A label as on the wire; texts are positions in the string table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Label {
    key: i64,
    text: i64,
    number: i64,
    unit: i64,
}

impl Label {
    pub(super) fn read(mut from: Reader<'_>, sample: usize, at: usize) -> Result<Self, Error> {
        let mut row = Self::default();
        while let Some((field, wire_type)) = from.key()? {
            match (field, wire_type) {
                (1, VARINT) => row.key = from.signed()?,
                (2, VARINT) => row.text = from.signed()?,
                (3, VARINT) => row.number = from.signed()?,
                (4, VARINT) => row.unit = from.signed()?,
                _ => from.skip(Place::Element("sample", sample, "label", at), 4, field, wire_type)?,
            }
        }
        Ok(row)
    }
}

/// The label sets of one profile.
#[derive(Debug, Default)]
pub(super) struct LabelSets {
    /// By position; the first is empty as soon as there is a second.
    sets: Vec<SampleLabels>,
    by_set: HashTable<u32>,
    /// The sets as the sender wrote them, one after the other: most samples are answered from here.
    rows: Vec<Label>,
    /// Which of `rows` are a set, and its position.
    known: Vec<(Range<usize>, u32)>,
    by_rows: HashTable<u32>,
    texts: HashMap<i64, Arc<str>>,
    hasher: DefaultHashBuilder,
}

impl LabelSets {
    /// Forgets the profile before.
    pub(super) fn clear(&mut self) {
        let kept = super::decode::KEPT_ROWS_MAX;
        self.sets.clear();
        self.rows.clear();
        self.rows.shrink_to(kept);
        self.known.clear();
        self.known.shrink_to(kept);
        for table in [&mut self.by_set, &mut self.by_rows] {
            table.clear();
            table.shrink_to(kept, |_| 0);
        }
        self.texts.clear();
        self.texts.shrink_to(kept);
    }

    /// The position of a sample's label set; 0 for none.
    pub(super) fn position(
        &mut self,
        rows: &[Label],
        sample: usize,
        strings: &Strings<'_>,
    ) -> Result<u32, Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let hash = self.hasher.hash_one(rows);
        let same = |&at: &u32| self.rows[self.known[at as usize].0.clone()] == *rows;
        if let Some(&at) = self.by_rows.find(hash, same) {
            return Ok(self.known[at as usize].1);
        }
        let set = self.canonical(rows, sample, strings)?;
        let position = if set.is_empty() { 0 } else { self.insert(set) };
        let Self { rows: all, known, by_rows, hasher, .. } = self;
        let start = all.len();
        all.extend_from_slice(rows);
        known.push((start..all.len(), position));
        let at = known.len() as u32 - 1;
        by_rows.insert_unique(hash, at, |&at| hasher.hash_one(&all[known[at as usize].0.clone()]));
        Ok(position)
    }

    /// The sets, for good; empty where no sample has labels.
    pub(super) fn take(&mut self) -> Vec<SampleLabels> {
        std::mem::take(&mut self.sets)
    }

    fn insert(&mut self, set: SampleLabels) -> u32 {
        let Self { sets, by_set, hasher, .. } = self;
        if sets.is_empty() {
            sets.push(SampleLabels::new());
        }
        let entry = by_set.entry(
            hasher.hash_one(&set),
            |&other| sets[other as usize] == set,
            |&other| hasher.hash_one(&sets[other as usize]),
        );
        let position = *entry.or_insert(sets.len() as u32).get();
        if position as usize == sets.len() {
            sets.push(set);
        }
        position
    }

    fn canonical(
        &mut self,
        rows: &[Label],
        sample: usize,
        strings: &Strings<'_>,
    ) -> Result<SampleLabels, Error> {
        let mut set = SampleLabels::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let mut text = |index, field| {
                self.text(index, strings, Place::ElementField("sample", sample, "label", at, field))
            };
            let key = text(row.key, "key")?;
            // As Go's pprof reads them: text outranks a number, and a label of neither is none.
            if row.text != 0 {
                set.push((key, SampleLabelValue::Text(text(row.text, "str")?)));
            } else if row.number != 0 || row.unit != 0 {
                set.push((key, SampleLabelValue::Number(row.number, text(row.unit, "num_unit")?)));
            }
        }
        set.sort_unstable();
        Ok(set)
    }

    fn text(&mut self, index: i64, strings: &Strings<'_>, place: Place) -> Result<Arc<str>, Error> {
        if let Some(known) = self.texts.get(&index) {
            return Ok(Arc::clone(known));
        }
        let text: Arc<str> = strings.text(index, || place)?.into();
        self.texts.insert(index, Arc::clone(&text));
        Ok(text)
    }
}
