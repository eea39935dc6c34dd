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
//! | `D`    | owner [4], day [4], level [1], fence [8], part [4] | `BlockEntry` of a merged block |
//! | `E`    | owner [4], day [4]                            | version of those, u64        |
//! | `F`    |                                               | last fence, u64              |
//! | `G`    | due, nanoseconds [8], path                    | empty                        |
//! | `I`    | tenant [4], profile id [16]                   | empty: the profile was imported |
//! | `J`    | name of the job                               | `LeaseRecord`                |
//! | `L`    | tenant [4], location id [16]                  | `Location`                   |
//! | `M`    | tenant [4], build ref [7]                     | `BuildObject`                |
//! | `N`    | tenant [4]                                    | the tenant's name, UTF-8     |
//! | `P`    | partition [4], log [4]                        | `LogState`                   |
//! | `R`    | tenant [4]                                    | `TenantRecord` of a deleted tenant |
//! | `T`    | the tenant's name                             | `TenantRecord`               |
//! | `U`    |                                               | next tenant number, u32      |
//! | `W`    | tenant [4]                                    | the last deletion's number, u64 |
//! | `X`    | tenant [4], number [8]                        | `DeletionRecord`             |
//! | `Z`    |                                               | empty: the catalogue is being rebuilt |
//!
//! Messages are `cambium.metastore.v1`; a bare u32 is four bytes, a bare u64 eight, big endian. A merged block's owner is
//! its tenant, or 0 where it holds several tenants'; its day, since the epoch, is that of its last profile.

use std::fmt;

use cambium_model::block::{BlockMeta, LogId, Offset, Partition};
use cambium_model::profile::ProfileId;
use cambium_model::stacktrace::{BuildRef, LocationId};
use cambium_model::tenant::{TenantId, TenantNumber};
use cambium_model::time::DAY_NS;

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
    /// A merged block, by its owner and day.
    Merged = b'D',
    /// How often the merged blocks of an owner's day have changed.
    MergedVersion = b'E',
    /// The last fence given.
    Fence = b'F',
    /// An object that nothing refers to any more, by when it may be deleted.
    Garbage = b'G',
    /// A profile that was imported.
    Imported = b'I',
    /// Who does a job.
    Lease = b'J',
    /// Names of a location.
    Location = b'L',
    /// What a build ref stands for.
    BuildObject = b'M',
    /// A tenant's name, by its number.
    TenantName = b'N',
    /// How far a log is in blocks.
    LogState = b'P',
    /// A tenant that was deleted, by its number.
    Retired = b'R',
    /// A tenant, by its name.
    Tenant = b'T',
    /// The number that the next tenant gets.
    NextTenantNumber = b'U',
    /// The number of a tenant's last deletion.
    LastDeletion = b'W',
    /// What a tenant has had deleted.
    Deletion = b'X',
    /// The catalogue is being rebuilt.
    Rebuilding = b'Z',
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Block => "block entry",
            Self::PartitionCount => "partition count",
            Self::Merged => "entry of a merged block",
            Self::MergedVersion => "version of merged blocks",
            Self::Fence => "fence",
            Self::Garbage => "garbage",
            Self::Imported => "imported profile",
            Self::Lease => "lease",
            Self::Location => "location",
            Self::BuildObject => "build object",
            Self::TenantName => "tenant name",
            Self::LogState => "log state",
            Self::Retired => "deleted tenant",
            Self::Tenant => "tenant",
            Self::NextTenantNumber => "next tenant number",
            Self::LastDeletion => "number of the last deletion",
            Self::Deletion => "deletion",
            Self::Rebuilding => "mark of a rebuild",
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
pub(crate) fn all(kind: Kind) -> KeyRange {
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

/// Whose the merged blocks are that hold several tenants'.
pub(crate) const SHARED: TenantNumber = TenantNumber(0);

/// The owner and the day of merged blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OwnerDay {
    pub(crate) owner: TenantNumber,
    pub(crate) day: u32,
}

impl OwnerDay {
    /// Where a merged block has its entry.
    pub(crate) fn of(block: &BlockMeta) -> Self {
        let owner = match block.datasets.as_slice() {
            [only] => only.tenant.number,
            _ => SHARED,
        };
        Self { owner, day: day_of(block.datasets.iter().map(|dataset| dataset.last_ns).max().unwrap_or(0)) }
    }

    fn parts(&self) -> ([u8; 4], [u8; 4]) {
        (self.owner.0.to_be_bytes(), self.day.to_be_bytes())
    }
}

/// Days since the Unix epoch; 0 for what lies before.
pub(crate) fn day_of(time_ns: i64) -> u32 {
    u32::try_from(time_ns.div_euclid(DAY_NS)).unwrap_or(0)
}

/// A block's entry: of level 0 by its place in its log, of another by its owner, day and fence.
pub(crate) fn entry(block: &BlockMeta) -> Key {
    if block.level == 0 {
        let range = block.log_ranges[0];
        return self::block(range.log, range.first);
    }
    let (owner, day) = OwnerDay::of(block).parts();
    let (fence, part) = (block.epoch.to_be_bytes(), block.part.to_be_bytes());
    key(Kind::Merged, &[&owner, &day, &[block.level], &fence, &part])
}

/// All merged blocks of this owner and day.
pub(crate) fn merged(place: OwnerDay) -> KeyRange {
    let (owner, day) = place.parts();
    KeyRange::prefix(key(Kind::Merged, &[&owner, &day]).as_bytes())
}

pub(crate) fn merged_version(place: OwnerDay) -> Key {
    let (owner, day) = place.parts();
    key(Kind::MergedVersion, &[&owner, &day])
}

/// The versions of all of an owner's days from this one on.
pub(crate) fn merged_versions(from: OwnerDay) -> KeyRange {
    let owner = key(Kind::MergedVersion, &[&from.owner.0.to_be_bytes()]);
    KeyRange { start: merged_version(from), end: KeyRange::prefix(owner.as_bytes()).end }
}

/// The versions of all owners' days.
pub(crate) fn all_merged_versions() -> KeyRange {
    all(Kind::MergedVersion)
}

/// The owner and day that a key of [`merged_versions`] names; `None` for a key of another shape.
pub(crate) fn owner_day(key: &Key) -> Option<OwnerDay> {
    let [_, o0, o1, o2, o3, d0, d1, d2, d3] = *key.as_bytes() else { return None };
    let owner = TenantNumber(u32::from_be_bytes([o0, o1, o2, o3]));
    Some(OwnerDay { owner, day: u32::from_be_bytes([d0, d1, d2, d3]) })
}

pub(crate) fn fence() -> Key {
    key(Kind::Fence, &[])
}

pub(crate) fn lease(job: &str) -> Key {
    key(Kind::Lease, &[job.as_bytes()])
}

/// The leases on all jobs whose names begin so.
pub(crate) fn leases_of(jobs: &str) -> KeyRange {
    KeyRange::prefix(lease(jobs).as_bytes())
}

/// The job that a key of a lease names; `None` for a key of another shape.
pub(crate) fn lease_job(key: &Key) -> Option<&str> {
    std::str::from_utf8(key.as_bytes().get(1..)?).ok()
}

pub(crate) fn garbage(due_ns: i64, path: &str) -> Key {
    key(Kind::Garbage, &[&due_ns.max(0).to_be_bytes(), path.as_bytes()])
}

/// What is due before this time, the oldest first.
pub(crate) fn garbage_before(due_ns: i64) -> KeyRange {
    KeyRange { start: key(Kind::Garbage, &[]), end: key(Kind::Garbage, &[&due_ns.max(0).to_be_bytes()]) }
}

/// When an object is due, and its path; `None` for a key of another shape.
pub(crate) fn garbage_of(key: &Key) -> Option<(i64, String)> {
    let (due, path) = key.as_bytes().get(1..)?.split_first_chunk()?;
    Some((i64::from_be_bytes(*due), String::from_utf8(path.to_vec()).ok()?))
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

/// A tenant's locations.
pub(crate) fn locations(tenant: TenantNumber) -> KeyRange {
    KeyRange::prefix(key(Kind::Location, &[&tenant.0.to_be_bytes()]).as_bytes())
}

/// A tenant's objects.
pub(crate) fn build_objects(tenant: TenantNumber) -> KeyRange {
    KeyRange::prefix(key(Kind::BuildObject, &[&tenant.0.to_be_bytes()]).as_bytes())
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

pub(crate) fn log_states_of(partition: Partition) -> KeyRange {
    KeyRange::prefix(key(Kind::LogState, &[&partition.0.to_be_bytes()]).as_bytes())
}

/// The log that a key of [`log_states`] names; `None` for a key of another shape.
pub(crate) fn log_of(key: &Key) -> Option<LogId> {
    let [_, p0, p1, p2, p3, l0, l1, l2, l3] = *key.as_bytes() else { return None };
    let partition = Partition(u32::from_be_bytes([p0, p1, p2, p3]));
    Some(LogId { partition, log: u32::from_be_bytes([l0, l1, l2, l3]) })
}

pub(crate) fn last_deletion(tenant: TenantNumber) -> Key {
    key(Kind::LastDeletion, &[&tenant.0.to_be_bytes()])
}

pub(crate) fn deletion(tenant: TenantNumber, id: u64) -> Key {
    key(Kind::Deletion, &[&tenant.0.to_be_bytes(), &id.to_be_bytes()])
}

/// A tenant's deletions, in the order of their numbers.
pub(crate) fn deletions(tenant: TenantNumber) -> KeyRange {
    KeyRange::prefix(key(Kind::Deletion, &[&tenant.0.to_be_bytes()]).as_bytes())
}

/// All tenants' deletions.
pub(crate) fn all_deletions() -> KeyRange {
    all(Kind::Deletion)
}

/// The tenant and the number that a key of [`deletions`] names; `None` for a key of another shape.
pub(crate) fn deletion_of(key: &Key) -> Option<(TenantNumber, u64)> {
    let (tenant, id) = key.as_bytes().get(1..)?.split_first_chunk()?;
    Some((TenantNumber(u32::from_be_bytes(*tenant)), u64::from_be_bytes(id.try_into().ok()?)))
}

pub(crate) fn tenant(id: &TenantId) -> Key {
    key(Kind::Tenant, &[id.as_str().as_bytes()])
}

pub(crate) fn retired(tenant: TenantNumber) -> Key {
    key(Kind::Retired, &[&tenant.0.to_be_bytes()])
}

/// All deleted tenants.
pub(crate) fn all_retired() -> KeyRange {
    all(Kind::Retired)
}

/// Everything that is kept of a tenant besides its blocks, its name and its own record.
pub(crate) fn of_tenant(tenant: TenantNumber) -> [KeyRange; 5] {
    let kinds = [Kind::Imported, Kind::Location, Kind::BuildObject, Kind::LastDeletion, Kind::Deletion];
    kinds.map(|kind| KeyRange::prefix(key(kind, &[&tenant.0.to_be_bytes()]).as_bytes()))
}

pub(crate) fn tenants() -> KeyRange {
    all(Kind::Tenant)
}

/// All entries of blocks of level 0.
pub(crate) fn all_blocks() -> KeyRange {
    all(Kind::Block)
}

/// All entries of merged blocks.
pub(crate) fn all_merged() -> KeyRange {
    all(Kind::Merged)
}

/// What a rebuilt catalogue begins without.
pub(crate) fn of_catalogue() -> [KeyRange; 6] {
    [Kind::Block, Kind::Merged, Kind::MergedVersion, Kind::LogState, Kind::Garbage, Kind::Lease].map(all)
}

pub(crate) fn rebuilding() -> Key {
    key(Kind::Rebuilding, &[])
}

pub(crate) fn rebuildings() -> KeyRange {
    all(Kind::Rebuilding)
}

pub(crate) fn imported(tenant: TenantNumber, profile: ProfileId) -> Key {
    key(Kind::Imported, &[&tenant.0.to_be_bytes(), &profile.0])
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
        let place = OwnerDay { owner: TenantNumber(5), day: 0x0102 };
        let cases: [(Key, &[u8]); 18] = [
            (token(&[b'h'; 32]), b"Ahhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh"),
            (block(log, Offset(4)), b"B\0\0\0\x01\0\0\x02\x03\0\0\0\0\0\0\0\x04"),
            (partition_count(), b"C"),
            (merged_version(place), b"E\0\0\0\x05\0\0\x01\x02"),
            (fence(), b"F"),
            (garbage(258, "v1/x"), b"G\0\0\0\0\0\0\x01\x02v1/x"),
            (imported(TenantNumber(5), ProfileId([b'p'; 16])), b"I\0\0\0\x05pppppppppppppppp"),
            (lease("l0"), b"Jl0"),
            (location(TenantNumber(5), named), b"L\0\0\0\x05\x02\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09"),
            (build_object(TenantNumber(5), build), b"M\0\0\0\x05\x01\x02\x03\x04\x05\x06\x07"),
            (tenant_name(TenantNumber(5)), b"N\0\0\0\x05"),
            (log_state(log), b"P\0\0\0\x01\0\0\x02\x03"),
            (retired(TenantNumber(5)), b"R\0\0\0\x05"),
            (tenant(&id), b"Tteam-a"),
            (next_tenant_number(), b"U"),
            (last_deletion(TenantNumber(5)), b"W\0\0\0\x05"),
            (deletion(TenantNumber(5), 6), b"X\0\0\0\x05\0\0\0\0\0\0\0\x06"),
            (rebuilding(), b"Z"),
        ];
        for (key, expected) in cases {
            assert_eq!(key.as_bytes(), expected);
        }
        assert_eq!(log_of(&log_state(log)), Some(log));
        assert_eq!(log_of(&partition_count()), None);
        assert_eq!(owner_day(&merged_version(place)), Some(place));
        assert_eq!(deletion_of(&deletion(TenantNumber(5), 6)), Some((TenantNumber(5), 6)));
        assert_eq!(garbage_of(&garbage(258, "v1/x")), Some((258, "v1/x".to_owned())));
    }

    #[test]
    fn blocks_sort_by_log_and_offset() {
        let at = |partition, log, first| block(LogId { partition: Partition(partition), log }, Offset(first));
        let sorted = [at(0, 0, 9), at(0, 1, 0), at(0, 256, 255), at(0, 256, 256), at(1, 0, 0), at(256, 0, 0)];
        assert!(sorted.is_sorted());
    }
}
