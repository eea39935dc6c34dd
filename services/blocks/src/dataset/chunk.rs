//! A run of profiles with their samples, in the form that a head keeps them.
//!
//! Most of a head is this: its vectors grow by a quarter, not by doubling, and values are packed ([`super::values`]).

use std::ops::Range;

use cambium_model::profile::ProfileId;

use super::values::{PackedValues, ValuePlace};

/// Samples that a chunk has room for; a profile with more gets a chunk of its own. A power of two, so that a full
/// chunk's stacks fill what the allocator gives out for them.
pub const CHUNK_SAMPLES: usize = 64 << 10;

/// Rows that a vector grows by at first.
const GROWTH_MIN: usize = 8;

/// A run of profiles with their samples.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The profiles; each one's samples lie in the same chunk.
    pub profiles: Vec<ProfileRow>,
    /// Each sample's node in the tree; sorted within a profile, each stack × label set once.
    pub stacks: Vec<u32>,
    /// Each sample's position in the dataset's label sets; empty while no sample of the chunk has labels.
    pub label_sets: Vec<u32>,
    /// Each sample's value; never 0.
    values: PackedValues,
}

/// One profile of one type of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileRow {
    /// The push it came with.
    pub id: ProfileId,
    /// Row in the series table.
    pub series: u32,
    /// First of its samples in the chunk.
    pub first_sample: u32,
    /// How many samples.
    pub samples: u32,
    /// Where their values are.
    pub values: ValuePlace,
    /// When, nanoseconds since the epoch.
    pub time_ns: i64,
    /// Over how long; 0 for an instant.
    pub duration_ns: i64,
    /// Units of the period type between two samples.
    pub period: i64,
    /// Sum of its samples' values.
    pub total: i64,
}

// A series with one profile is mostly this.
const _: () = assert!(size_of::<ProfileRow>() == 64);

/// A profile on its way into a chunk: the fields of [`ProfileRow`] that its samples do not give.
#[derive(Clone, Copy, Debug)]
pub struct NewProfile {
    /// The push it came with.
    pub id: ProfileId,
    /// Row in the series table.
    pub series: u32,
    /// When, nanoseconds since the epoch.
    pub time_ns: i64,
    /// Over how long; 0 for an instant.
    pub duration_ns: i64,
    /// Units of the period type between two samples.
    pub period: i64,
}

/// Its samples: sorted by stack, each stack × label set once, no value 0.
#[derive(Clone, Copy, Debug)]
pub struct NewSamples<'a> {
    /// Nodes in the tree.
    pub stacks: &'a [u32],
    /// As many values.
    pub values: &'a [i64],
    /// As many positions in the dataset's label sets, or none where no sample has labels.
    pub label_sets: &'a [u32],
}

impl ProfileRow {
    /// Where its samples lie in its chunk.
    pub fn sample_range(&self) -> Range<usize> {
        let first = self.first_sample as usize;
        first..first + self.samples as usize
    }
}

impl Chunk {
    /// Whether a profile of so many samples still belongs here.
    pub fn has_room(&self, samples: usize) -> bool {
        self.stacks.len() + samples <= CHUNK_SAMPLES && self.profiles.len() < CHUNK_SAMPLES
    }

    /// Appends a profile, whether there is room or not.
    pub fn push(&mut self, profile: NewProfile, samples: NewSamples<'_>) {
        let NewSamples { stacks, values, label_sets } = samples;
        debug_assert_eq!(stacks.len(), values.len());
        let first = self.stacks.len();
        reserve(&mut self.stacks, stacks.len());
        self.stacks.extend_from_slice(stacks);
        if !label_sets.is_empty() || !self.label_sets.is_empty() {
            // Profiles without labels, before this one or this one itself, have the empty set.
            let end = self.stacks.len();
            let missing = end - self.label_sets.len();
            reserve(&mut self.label_sets, missing);
            self.label_sets.resize(end - label_sets.len(), 0);
            self.label_sets.extend_from_slice(label_sets);
        }
        reserve(&mut self.profiles, 1);
        self.profiles.push(ProfileRow {
            id: profile.id,
            series: profile.series,
            first_sample: first as u32,
            samples: stacks.len() as u32,
            values: self.values.push(values),
            time_ns: profile.time_ns,
            duration_ns: profile.duration_ns,
            period: profile.period,
            // Who accepted the profile has checked that its values add up.
            total: values.iter().fold(0, |total, value| total.wrapping_add(*value)),
        });
    }

    /// Appends the values of a profile of this chunk to `into`, one per sample.
    pub fn read_values(&self, row: &ProfileRow, into: &mut Vec<i64>) {
        self.values.read(row.values, row.samples as usize, into);
    }

    /// The values of all samples.
    pub fn values(&self) -> Vec<i64> {
        let mut values = Vec::with_capacity(self.stacks.len());
        self.profiles.iter().for_each(|row| self.read_values(row, &mut values));
        values
    }

    /// Bytes allocated.
    pub fn heap_bytes(&self) -> usize {
        self.profiles.capacity() * size_of::<ProfileRow>()
            + (self.stacks.capacity() + self.label_sets.capacity()) * size_of::<u32>()
            + self.values.heap_bytes()
    }

    /// Gives back what is reserved for more.
    pub fn shrink(&mut self) {
        self.profiles.shrink_to_fit();
        self.stacks.shrink_to_fit();
        self.label_sets.shrink_to_fit();
        self.values.shrink();
    }
}

/// Room for so many more items: an open chunk reserves at most a quarter more than it holds.
pub(super) fn reserve<T>(items: &mut Vec<T>, more: usize) {
    if items.capacity() - items.len() < more {
        items.reserve_exact(more.max(items.len() / 4).max(GROWTH_MIN));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn profile(series: u32) -> NewProfile {
        NewProfile { id: ProfileId([0; 16]), series, time_ns: 0, duration_ns: 0, period: 0 }
    }

    proptest! {
        #[test]
        fn profiles_get_their_samples_back(
            profiles in prop::collection::vec(
                (prop::collection::vec((any::<u32>(), any::<i64>(), 1..9u32), 0..40), any::<bool>(), 0..64u32),
                0..20,
            ),
        ) {
            let mut chunk = Chunk::default();
            for (samples, labelled, shift) in &profiles {
                let stacks: Vec<u32> = samples.iter().map(|sample| sample.0).collect();
                let values: Vec<i64> = samples.iter().map(|sample| sample.1 >> shift).collect();
                let label_sets: Vec<u32> = samples.iter().filter(|_| *labelled).map(|sample| sample.2).collect();
                chunk.push(profile(*shift), NewSamples { stacks: &stacks, values: &values, label_sets: &label_sets });
            }
            chunk.shrink();
            for ((samples, labelled, shift), row) in profiles.iter().zip(&chunk.profiles) {
                prop_assert_eq!(row.series, *shift);
                let mut values = Vec::new();
                chunk.read_values(row, &mut values);
                let expected: Vec<i64> = samples.iter().map(|sample| sample.1 >> shift).collect();
                prop_assert_eq!(&values, &expected);
                prop_assert_eq!(row.total, expected.iter().fold(0, |sum: i64, value| sum.wrapping_add(*value)));
                let range = row.sample_range();
                prop_assert!(chunk.stacks[range.clone()].iter().eq(samples.iter().map(|sample| &sample.0)));
                if !chunk.label_sets.is_empty() {
                    let sets = samples.iter().map(|sample| if *labelled { sample.2 } else { 0 });
                    prop_assert!(chunk.label_sets[range].iter().copied().eq(sets));
                }
            }
            prop_assert_eq!(chunk.values().len(), chunk.stacks.len());
            prop_assert!(chunk.label_sets.is_empty() || chunk.label_sets.len() == chunk.stacks.len());
        }
    }

    #[test]
    fn an_open_chunk_reserves_little() {
        let mut chunk = Chunk::default();
        while chunk.has_room(100) {
            chunk.push(profile(0), NewSamples { stacks: &[7; 100], values: &[1000; 100], label_sets: &[] });
            if chunk.stacks.len() >= 1_000 {
                let held = chunk.stacks.len() * (4 + 2) + chunk.profiles.len() * size_of::<ProfileRow>();
                assert!(chunk.heap_bytes() * 100 <= held * 126, "{} of {held} B", chunk.heap_bytes());
            }
        }
        chunk.shrink();
        let held = chunk.stacks.len() * (4 + 2) + chunk.profiles.len() * size_of::<ProfileRow>();
        assert_eq!(chunk.heap_bytes(), held);
    }
}
