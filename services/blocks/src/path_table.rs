//! Numbers paths in the order they are first met: the index of every tree that is folded or merged.
//!
//! Path hashes are hashes already, so a slot is found without hashing again; slots are eight bytes and look-ups do not
//! depend on each other, because folding and merging spend their time waiting for memory.

use cambium_model::stacktrace::PathHash;

/// Slots of the smallest table.
const SLOTS_MIN: usize = 16;

/// Distinct paths and their positions.
#[derive(Debug)]
pub struct PathTable {
    paths: Vec<PathHash>,
    /// The upper half of a path and its position plus 1, at the place that the lower half names or after it; 0 marks a
    /// free slot. A power of two of them, at most two thirds taken.
    slots: Vec<(u32, u32)>,
}

impl PathTable {
    /// Bytes that a path costs at most, when the table has just grown.
    pub const PATH_BYTES: usize = 2 * size_of::<PathHash>() + 3 * size_of::<(u32, u32)>();

    /// An empty table with room for so many paths.
    pub fn with_capacity(paths: usize) -> Self {
        let mut table = Self { paths: Vec::with_capacity(paths), slots: Vec::new() };
        table.resize(paths);
        table
    }

    /// A path's position: that of an equal one, or the next.
    #[inline]
    pub fn position(&mut self, path: PathHash) -> u32 {
        let slot = self.slot(path);
        let (_, found) = self.slots[slot];
        if found != 0 {
            return found - 1;
        }
        let position = self.paths.len() as u32;
        self.slots[slot] = (tag(path), position + 1);
        self.paths.push(path);
        if self.paths.len() > self.slots.len() / 3 * 2 {
            self.resize(self.paths.len() * 2);
        }
        position
    }

    /// The path at a position.
    #[inline]
    pub fn path(&self, position: u32) -> PathHash {
        self.paths[position as usize]
    }

    /// How many paths.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// All paths, by position.
    pub fn into_paths(self) -> Vec<PathHash> {
        self.paths
    }

    /// The slot that holds the path, or the free one where it belongs.
    #[inline]
    fn slot(&self, path: PathHash) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = path.0 as usize & mask;
        loop {
            let (held, position) = self.slots[at];
            if position == 0 || (held == tag(path) && self.path(position - 1) == path) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    fn resize(&mut self, paths: usize) {
        let slots = (paths * 3 / 2 + 1).next_power_of_two().max(SLOTS_MIN);
        self.slots = vec![(0, 0); slots];
        for position in 0..self.paths.len() {
            let slot = self.slot(self.paths[position]);
            self.slots[slot] = (tag(self.paths[position]), position as u32 + 1);
        }
    }
}

#[inline]
fn tag(path: PathHash) -> u32 {
    (path.0 >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_dense_and_stay() {
        let mut table = PathTable::with_capacity(0);
        // Neighbours in the lower half share slots, equal upper halves share tags.
        let paths: Vec<PathHash> =
            (0..200_u64).flat_map(|n| [PathHash(n % 7), PathHash(n << 32), PathHash(n * n)]).collect();
        let mut seen: Vec<PathHash> = Vec::new();
        for path in &paths {
            let expected = seen.iter().position(|other| other == path).unwrap_or(seen.len());
            if expected == seen.len() {
                seen.push(*path);
            }
            assert_eq!(table.position(*path) as usize, expected);
        }
        for (position, path) in seen.iter().enumerate() {
            assert_eq!(table.position(*path) as usize, position);
        }
        assert_eq!(table.into_paths(), seen);
    }
}
