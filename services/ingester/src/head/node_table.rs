//! Nodes of a tree by path and scope: the index that every sample of every push goes through.
//!
//! Slots are eight bytes and a path is a hash already, so that looking up many paths is a row of independent reads of
//! memory, which the processor does side by side; a general hash table's look-up is too long for that.

use cambium_model::stacktrace::PathHash;

/// Slots of the smallest table that is not empty.
const SLOTS_MIN: usize = 16;

/// No such node.
pub(super) const NO_NODE: u32 = u32::MAX;

/// Positions of nodes. Whoever asks has the nodes' paths.
#[derive(Debug, Default)]
pub(super) struct NodeTable {
    /// A power of two, at most two thirds taken.
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The upper half of the path, and the scope on top: where the path is that of the node, equal tags mean equal
    /// scopes.
    tag: u32,
    /// The node's position plus 1; 0 in a free slot.
    node: u32,
}

impl NodeTable {
    /// A node that is probably the one of this path and scope: the first of their tag. `NO_NODE` where there is none
    /// for certain.
    #[inline]
    pub(super) fn probable(&self, path: PathHash, scope: u32) -> u32 {
        self.find(path, scope, |_| true)
    }

    /// The node of this path and scope that is the `same`, or `NO_NODE`.
    #[inline]
    pub(super) fn find(&self, path: PathHash, scope: u32, same: impl Fn(u32) -> bool) -> u32 {
        if self.slots.is_empty() {
            return NO_NODE;
        }
        let (tag, mask) = (tag(path, scope), self.slots.len() - 1);
        let mut at = home(path, scope) & mask;
        loop {
            let slot = self.slots[at];
            if slot.node == 0 {
                return NO_NODE;
            }
            if slot.tag == tag && same(slot.node - 1) {
                return slot.node - 1;
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a node that is not in the table; `paths` are those of all nodes.
    pub(super) fn insert(&mut self, path: PathHash, scope: u32, node: u32, paths: &[PathHash]) {
        if self.len + 1 > self.slots.len() / 3 * 2 {
            self.grow(paths);
        }
        self.put(path, scope, node);
        self.len += 1;
    }

    /// Bytes allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    fn put(&mut self, path: PathHash, scope: u32, node: u32) {
        let mask = self.slots.len() - 1;
        let mut at = home(path, scope) & mask;
        while self.slots[at].node != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = Slot { tag: tag(path, scope), node: node + 1 };
    }

    fn grow(&mut self, paths: &[PathHash]) {
        let slots = vec![Slot::default(); (self.slots.len() * 2).max(SLOTS_MIN)];
        let before = std::mem::replace(&mut self.slots, slots);
        for slot in before.iter().filter(|slot| slot.node != 0) {
            let path = paths[slot.node as usize - 1];
            let scope = slot.tag ^ tag(path, 0);
            self.put(path, scope, slot.node - 1);
        }
    }
}

#[inline]
fn tag(path: PathHash, scope: u32) -> u32 {
    (path.0 >> 32) as u32 ^ scope
}

/// The first slot to look at. The same path of many scopes must not crowd together.
#[inline]
fn home(path: PathHash, scope: u32) -> usize {
    (path.0 as u32).wrapping_add(scope.wrapping_mul(0x9E37_79B9)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_by_path_and_scope() {
        let mut table = NodeTable::default();
        assert_eq!(table.probable(PathHash(0), 0), NO_NODE);
        // Paths that share homes, tags or both; every scope has each path.
        let paths: Vec<PathHash> = (0..300_u64)
            .flat_map(|n| [PathHash(n % 7 + (n << 33)), PathHash(n << 40), PathHash(n * n + 1)])
            .flat_map(|path| [path; 3])
            .collect();
        let mut paths_of_scopes: Vec<(PathHash, u32)> = paths.iter().copied().zip((0..3).cycle()).collect();
        paths_of_scopes.sort_unstable();
        paths_of_scopes.dedup();
        let paths: Vec<PathHash> = paths_of_scopes.iter().map(|(path, _)| *path).collect();
        for (node, (path, scope)) in paths_of_scopes.iter().enumerate() {
            let same = |node: u32| paths[node as usize] == *path;
            assert_eq!(table.find(*path, *scope, same), NO_NODE);
            table.insert(*path, *scope, node as u32, &paths);
        }
        for (node, (path, scope)) in paths_of_scopes.iter().enumerate() {
            let same = |node: u32| paths[node as usize] == *path;
            assert_eq!(table.find(*path, *scope, same), node as u32);
            assert_ne!(table.probable(*path, *scope), NO_NODE);
            assert_eq!(table.find(*path, *scope + 3, same), NO_NODE);
        }
    }
}
