//! Identity of places in code: locations that mean the same in every block, and paths through them.
//!
//! ```text
//! native (no names yet)  0x01 | build ref [7]    | file address [8, big endian]   reversible, nothing written at ingest
//! named by the sender    0x02 | function key [7] | detail [8]                     looked up in the metastore
//! ```
//!
//! The function key hashes the inline chain's (system name, file), and the name where it is another; the detail hashes
//! build id or mapping file, file address, lines and columns. Trees fold by the function key at the default
//! granularity, by the whole id when lines or addresses are asked for.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

const NATIVE: u8 = 0x01;
const NAMED: u8 = 0x02;

/// A location's identity, 16 bytes: valid across profiles, blocks and processes of one tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocationId(pub [u8; 16]);

/// 56 bits that stand for a loaded object: a hash of its build id, or of its file name where it has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildRef(pub [u8; 7]);

impl BuildRef {
    /// The reference of an object with this build id, or with this file name where `build_id` is empty.
    pub fn new(build_id: &str, filename: &str) -> Self {
        let identity = if build_id.is_empty() { filename } else { build_id };
        Self(low_56_bits(xxh3_64(identity.as_bytes())))
    }
}

impl fmt::Debug for BuildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl LocationId {
    /// An address that has no names yet.
    pub fn native(build: BuildRef, file_address: u64) -> Self {
        Self::assemble(NATIVE, build.0, file_address)
    }

    /// A location whose sender named it: hashes of what is seen at function granularity and of the rest.
    pub fn named(function_hash: u64, detail_hash: u64) -> Self {
        Self::assemble(NAMED, low_56_bits(function_hash), detail_hash)
    }

    fn assemble(kind: u8, middle: [u8; 7], low: u64) -> Self {
        let mut id = [0; 16];
        id[0] = kind;
        id[1..8].copy_from_slice(&middle);
        id[8..].copy_from_slice(&low.to_be_bytes());
        Self(id)
    }

    /// The object and file address of a native location.
    pub fn as_native(&self) -> Option<(BuildRef, u64)> {
        if self.0[0] != NATIVE {
            return None;
        }
        let mut build = [0; 7];
        build.copy_from_slice(&self.0[1..8]);
        Some((BuildRef(build), self.low()))
    }

    /// Whether the metastore may hold names under this id.
    #[inline]
    pub fn is_named(&self) -> bool {
        self.0[0] == NAMED
    }

    /// What two locations share when they are the same at function granularity. A native location has no function
    /// yet, so it folds only with itself: the address is part of its key.
    #[inline]
    pub fn function_key(&self) -> u64 {
        if self.is_named() { self.high() } else { fold(self.high(), self.low() ^ SEEDS[2]) }
    }

    /// The first eight bytes as a number.
    #[inline]
    pub fn high(&self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("a slice of eight bytes"))
    }

    /// The last eight bytes as a number.
    #[inline]
    pub fn low(&self) -> u64 {
        u64::from_be_bytes(self.0[8..].try_into().expect("a slice of eight bytes"))
    }
}

impl fmt::Debug for LocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn low_56_bits(hash: u64) -> [u8; 7] {
    let mut low = [0; 7];
    low.copy_from_slice(&hash.to_be_bytes()[1..]);
    low
}

const SEEDS: [u64; 3] = [0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93, 0xA076_1D64_78BD_642F];

/// One multiplication to 128 bits, folded: the mixing step of wyhash.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// A path from the root to a node, as 64 bits: the key by which trees of different blocks are merged. Computed when
/// read, never stored; 64 bits suffice per query (10 M nodes collide with odds of 3 in a million).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathHash(pub u64);

impl PathHash {
    /// The empty path.
    pub const ROOT: Self = Self(0x5EED_CA3B_1C3B_1075);

    /// The path one location further away from the root: a step of wyhash over the location's 16 bytes. One
    /// multiplication, because along a stack each step waits for the one before.
    #[inline]
    pub fn child(self, location: LocationId) -> Self {
        Self(fold(self.0 ^ location.low(), location.high() ^ SEEDS[1]))
    }

    /// The path one folded key further away from the root, for trees that fold by function.
    #[inline]
    pub fn child_key(self, key: u64) -> Self {
        Self(fold(fold(self.0 ^ SEEDS[0], key ^ SEEDS[1]), SEEDS[2]))
    }
}

/// A node of a stack trace tree: its parent's position and its location's, in tables that the holder names.
/// [`NO_PARENT`] stands for the root. Parents come before their children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Position of the caller's node, or [`NO_PARENT`].
    pub parent: u32,
    /// Position of the location.
    pub location: u32,
}

/// The parent of an outermost frame.
pub const NO_PARENT: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_id_gives_its_address_back() {
        let build = BuildRef::new("abc", "/bin/x");
        let id = LocationId::native(build, 0x1234_5678_9abc);
        assert_eq!(id.as_native(), Some((build, 0x1234_5678_9abc)));
        assert!(!id.is_named());
        assert_ne!(id.function_key(), LocationId::native(build, 1).function_key());
    }

    #[test]
    fn named_ids_fold_by_function() {
        let a = LocationId::named(7, 1);
        let b = LocationId::named(7, 2);
        assert_ne!(a, b);
        assert_eq!(a.function_key(), b.function_key());
        assert_eq!(a.as_native(), None);
    }

    #[test]
    fn a_build_id_outranks_the_file_name() {
        assert_eq!(BuildRef::new("abc", "/bin/x"), BuildRef::new("abc", "/bin/y"));
        assert_ne!(BuildRef::new("", "/bin/x"), BuildRef::new("", "/bin/y"));
    }

    #[test]
    fn paths_depend_on_order() {
        let (a, b) = (LocationId::named(1, 1), LocationId::named(2, 2));
        assert_ne!(PathHash::ROOT.child(a).child(b), PathHash::ROOT.child(b).child(a));
    }
}
