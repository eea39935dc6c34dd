//! The keys of the metadata store: built here and nowhere else.
//!
//! A key is one letter for its kind, then fixed-width big-endian numbers, so that keys sort as their parts do; a text
//! comes last. Every kind that belongs to a tenant carries the tenant's number right after the letter: one range
//! holds all of a tenant's keys of that kind, and no tenant's reads can reach another's.
//!
//! | letter | rest of the key                               | value                        |
//! |--------|-----------------------------------------------|------------------------------|
//! | `A`    | SHA-256 of a token [32]                       | `TokenRecord`                |
//! | `B`    | partition [4], log [4], first offset [8]      | `BlockEntry` of level 0      |
//! | `C`    |                                               | partition count, u32         |
//! | `L`    | tenant [4], location id [16]                  | `Location`                   |
//! | `M`    | tenant [4], build ref [7]                     | `BuildObject`                |
//! | `N`    | tenant [4]                                    | the tenant's name, UTF-8     |
//! | `P`    | partition [4], log [4]                        | `LogState`                   |
//! | `T`    | the tenant's name                             | `TenantRecord`               |
//! | `U`    |                                               | next tenant number, u32      |
//!
//! Messages are `cambium.metastore.v1`; a bare u32 is four bytes, big endian.

use std::fmt;

use cambium_model::block::{LogId, Offset, Partition};
use cambium_model::stacktrace::{BuildRef, LocationId};
use cambium_model::tenant::{TenantId, TenantNumber};

use crate::kv::{Key, KeyRange};

/// What a key leads to; its letter is the key's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A token, by its hash.
    Token = b'A',
    /// A level 0 block, by its place in its log.
    Block = b'B',
    /// How many partitions the cluster has.
    PartitionCount = b'C',
    /// Names of a location.
    Location = b'L',
    /// What a build ref stands for.
    BuildObject = b'M',
    /// A tenant's name, by its number.
    TenantName = b'N',
    /// How far a log is in blocks.
    LogState = b'P',
    /// A tenant, by its name.
    Tenant = b'T',
    /// The number that the next tenant gets.
    NextTenantNumber = b'U',
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Block => "block entry",
            Self::PartitionCount => "partition count",
            Self::Location => "location",
            Self::BuildObject => "build object",
            Self::TenantName => "tenant name",
            Self::LogState => "log state",
            Self::Tenant => "tenant",
            Self::NextTenantNumber => "next tenant number",
        })
    }
}

/// The key of this kind with these parts after the letter.
fn key(kind: Kind, parts: &[&[u8]]) -> Key {
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.push(kind as u8);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Key::new(bytes)
}

/// All keys of a kind.
fn all(kind: Kind) -> KeyRange {
    KeyRange::prefix(&[kind as u8])
}

pub(crate) fn token(hash: &[u8; 32]) -> Key {
    key(Kind::Token, &[hash])
}

pub(crate) fn tokens() -> KeyRange {
    all(Kind::Token)
}

pub(crate) fn block(log: LogId, first: Offset) -> Key {
    let (partition, number) = (log.partition.0.to_be_bytes(), log.log.to_be_bytes());
    key(Kind::Block, &[&partition, &number, &first.0.to_be_bytes()])
}

/// The log's blocks that begin in `[from, to)`, in log order.
pub(crate) fn blocks(log: LogId, from: Offset, to: Offset) -> KeyRange {
    KeyRange { start: block(log, from), end: block(log, to) }
}

pub(crate) fn partition_count() -> Key {
    key(Kind::PartitionCount, &[])
}

pub(crate) fn location(tenant: TenantNumber, id: LocationId) -> Key {
    key(Kind::Location, &[&tenant.0.to_be_bytes(), &id.0])
}

pub(crate) fn build_object(tenant: TenantNumber, build: BuildRef) -> Key {
    key(Kind::BuildObject, &[&tenant.0.to_be_bytes(), &build.0])
}

pub(crate) fn tenant_name(number: TenantNumber) -> Key {
    key(Kind::TenantName, &[&number.0.to_be_bytes()])
}

pub(crate) fn log_state(log: LogId) -> Key {
    key(Kind::LogState, &[&log.partition.0.to_be_bytes(), &log.log.to_be_bytes()])
}

pub(crate) fn log_states() -> KeyRange {
    all(Kind::LogState)
}

/// The log that a key of [`log_states`] names; `None` for a key of another shape.
pub(crate) fn log_of(key: &Key) -> Option<LogId> {
    let [_, p0, p1, p2, p3, l0, l1, l2, l3] = *key.as_bytes() else { return None };
    let partition = Partition(u32::from_be_bytes([p0, p1, p2, p3]));
    Some(LogId { partition, log: u32::from_be_bytes([l0, l1, l2, l3]) })
}

pub(crate) fn tenant(id: &TenantId) -> Key {
    key(Kind::Tenant, &[id.as_str().as_bytes()])
}

pub(crate) fn tenants() -> KeyRange {
    all(Kind::Tenant)
}

pub(crate) fn next_tenant_number() -> Key {
    key(Kind::NextTenantNumber, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_as_documented() {
        let log = LogId { partition: Partition(1), log: 0x0203 };
        let id = TenantId::new("team-a").unwrap();
        let named = LocationId::named(7, 9);
        let build = BuildRef([1, 2, 3, 4, 5, 6, 7]);
        let cases: [(Key, &[u8]); 9] = [
            (token(&[b'h'; 32]), b"Ahhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh"),
            (block(log, Offset(4)), b"B\0\0\0\x01\0\0\x02\x03\0\0\0\0\0\0\0\x04"),
            (partition_count(), b"C"),
            (location(TenantNumber(5), named), b"L\0\0\0\x05\x02\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09"),
            (build_object(TenantNumber(5), build), b"M\0\0\0\x05\x01\x02\x03\x04\x05\x06\x07"),
            (tenant_name(TenantNumber(5)), b"N\0\0\0\x05"),
            (log_state(log), b"P\0\0\0\x01\0\0\x02\x03"),
            (tenant(&id), b"Tteam-a"),
            (next_tenant_number(), b"U"),
        ];
        for (key, expected) in cases {
            assert_eq!(key.as_bytes(), expected);
        }
        assert_eq!(log_of(&log_state(log)), Some(log));
        assert_eq!(log_of(&partition_count()), None);
    }

    #[test]
    fn blocks_sort_by_log_and_offset() {
        let at = |partition, log, first| block(LogId { partition: Partition(partition), log }, Offset(first));
        let sorted = [at(0, 0, 9), at(0, 1, 0), at(0, 256, 255), at(0, 256, 256), at(1, 0, 0), at(256, 0, 0)];
        assert!(sorted.is_sorted());
    }
}
