//! From the ids that a sender chose to positions in a table.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

const MISSING: u32 = u32::MAX;

/// How many times as many slots as ids the dense table may have.
const SPARSENESS_MAX: u64 = 4;

/// Two rows of one id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    pub(super) id: u64,
    pub(super) row: usize,
    pub(super) first: usize,
}

/// Positions by id: an array where ids are near sequential, as every known sender's are, else a hash table.
#[derive(Debug, Default)]
pub(super) struct Ids {
    dense: Vec<u32>,
    sparse: HashMap<u64, u32>,
}

impl Ids {
    /// Takes the ids of a table's rows, in order, in place of those before. Id 0 must not be among them.
    pub(super) fn rebuild(
        &mut self,
        ids: impl ExactSizeIterator<Item = u64> + Clone,
    ) -> Result<(), Duplicate> {
        self.dense.clear();
        self.sparse.clear();
        let id_max = ids.clone().max().unwrap_or(0);
        if id_max <= SPARSENESS_MAX * ids.len() as u64 {
            self.dense.resize(id_max as usize + 1, MISSING);
            for (row, id) in ids.enumerate() {
                let slot = &mut self.dense[id as usize];
                if *slot != MISSING {
                    return Err(Duplicate { id, row, first: *slot as usize });
                }
                *slot = row as u32;
            }
        } else {
            for (row, id) in ids.enumerate() {
                match self.sparse.entry(id) {
                    Entry::Occupied(first) => {
                        return Err(Duplicate { id, row, first: *first.get() as usize });
                    }
                    Entry::Vacant(slot) => slot.insert(row as u32),
                };
            }
        }
        Ok(())
    }

    /// The row of this id.
    #[inline(always)]
    pub(super) fn row(&self, id: u64) -> Option<u32> {
        match self.dense.get(id as usize) {
            Some(&row) => (row != MISSING).then_some(row),
            None if self.sparse.is_empty() => None,
            None => self.sparse.get(&id).copied(),
        }
    }

    /// Lets go of what an unusually large profile needed.
    pub(super) fn shrink_to(&mut self, rows: usize) {
        self.dense.clear();
        self.dense.shrink_to(rows);
        self.sparse.clear();
        self.sparse.shrink_to(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_whatever_the_ids() {
        #[track_caller]
        fn check(ids: &[u64], absent: &[u64]) {
            let mut table = Ids::default();
            table.rebuild([9, 99, 999].into_iter()).unwrap();
            table.rebuild(ids.iter().copied()).unwrap();
            for (row, &id) in ids.iter().enumerate() {
                assert_eq!(table.row(id), Some(row as u32), "{id}");
            }
            for &id in absent {
                assert_eq!(table.row(id), None, "{id}");
            }
        }
        check(&[], &[0, 1, 9, u64::MAX]);
        check(&[1, 2, 3], &[0, 4, 99]);
        check(&[3, 1, 8], &[0, 2, 9]);
        check(&[u64::MAX, 1, 1 << 40], &[0, 2, 99]);
    }

    #[test]
    fn duplicates_are_found_whatever_the_ids() {
        let mut table = Ids::default();
        assert_eq!(table.rebuild([1, 2, 1].into_iter()), Err(Duplicate { id: 1, row: 2, first: 0 }));
        let far = u64::MAX;
        assert_eq!(table.rebuild([1, far, 2, far].into_iter()), Err(Duplicate { id: far, row: 3, first: 1 }));
    }
}
