//! What a segment file looks like, byte by byte.
//!
//! ```text
//!   {first offset, 16 hex digits}.seg
//!   ┌────────────────────────── header, 36 bytes ──────────────────────────┐
//!   │ "camblog\0" │ version u32 │ salt u32 │ partition u32 │ log u32 │ first u64 │ crc u32 │
//!   ├───────────────────── record header, 24 bytes ──────────────────┬─────┴───┐
//!   │ header crc u32 │ payload crc u32 │ length u32 │ group u32 │ offset u64 │ payload │   and so on
//!   └────────────────────────────────────────────────────────────────┴─────────┘
//! ```
//!
//! Integers are little-endian, checksums CRC32C. Every version keeps magic, version and the header's checksum where
//! they are.
//!
//! - A record header has a checksum of its own, so that a damaged payload does not hide the record after it.
//! - That checksum starts from the segment's random salt: bytes inside a payload, which come from outside, cannot
//!   pass for a record, nor can a record of another file.
//! - `group` counts the records of the same group before this one. A group is written only when the one before is
//!   durable, so a record proves that everything before `offset - group` was: what is missing there is damage, and
//!   what is missing after the last such proof is a torn tail that nobody was promised.

use cambium_model::block::{LogId, Partition};

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: u64 = 36;

/// Bytes of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 24;

/// How long a run may grow: what a read fetches at once, and the distance between two entries of the index.
const RUN_BYTES_MAX: u64 = 64 << 10;

const MAGIC: [u8; 8] = *b"camblog\0";

const VERSION: u32 = 1;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The log it belongs to.
    pub id: LogId,
    /// The offset of its first record; those of the segment before end here.
    pub first: u64,
    /// What the checksums of its record headers start from.
    pub salt: u32,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// The checksum does not fit.
    Damaged,
    /// Sound, but of a version that is not ours.
    Version(u32),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.id.partition.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.id.log.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Result<Self, HeaderFault> {
        if bytes[..8] != MAGIC || u32_at(bytes, 32) != crc32c::crc32c(&bytes[..32]) {
            return Err(HeaderFault::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let id = LogId { partition: Partition(u32_at(bytes, 16)), log: u32_at(bytes, 20) };
        Ok(Self { id, first: u64_at(bytes, 24), salt: u32_at(bytes, 12) })
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// Bytes of the payload.
    pub length: u32,
    /// How many records of the same group stand before it.
    pub group: u32,
    /// Its place in the log.
    pub offset: u64,
}

impl RecordHeader {
    pub(super) fn encode(&self, salt: u32) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.group.to_le_bytes());
        bytes[16..].copy_from_slice(&self.offset.to_le_bytes());
        let crc = crc32c::crc32c_append(salt, &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header that stands at the start of `bytes`, if one does; at least [`RECORD_HEADER_BYTES`] of them.
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let crc = crc32c::crc32c_append(salt, &bytes[4..RECORD_HEADER_BYTES]);
        (u32_at(bytes, 0) == crc).then(|| Self {
            payload_crc: u32_at(bytes, 4),
            length: u32_at(bytes, 8),
            group: u32_at(bytes, 12),
            offset: u64_at(bytes, 16),
        })
    }

    /// Bytes of header and payload.
    pub(super) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.length)
    }
}

/// Good records that follow one another: offsets `first..next` in the bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub first: u64,
    pub next: u64,
    pub start: u64,
    pub end: u64,
}

impl Run {
    /// Bytes of the payloads alone.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.end - self.start - RECORD_HEADER_BYTES as u64 * (self.next - self.first)
    }
}

/// Adds a good record in the bytes `start..end` to the runs of its segment.
pub(super) fn add_record(runs: &mut Vec<Run>, offset: u64, start: u64, end: u64) {
    match runs.last_mut() {
        Some(run) if run.next == offset && run.end == start && run.end - run.start < RUN_BYTES_MAX => {
            run.next += 1;
            run.end = end;
        }
        _ => runs.push(Run { first: offset, next: offset + 1, start, end }),
    }
}

/// The name of the segment that starts with this offset.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:016x}.seg")
}

/// The offset in the name of a segment; none where the name is not one.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    let first = u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok()?;
    (file_name(first) == name).then_some(first)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
