//! Finding the records of a segment, whatever happened to it.

use std::io;

use crate::local::disk::File;
use crate::local::segment::{HEADER_BYTES, RECORD_HEADER_BYTES, RecordHeader, Run, add_record};

/// How much of a file a scan fetches at once, unless one record is larger.
const WINDOW_BYTES: u64 = 1 << 20;

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scan {
    /// Its good records.
    pub runs: Vec<Run>,
    /// The offset after the last good record.
    pub reached: u64,
    /// Everything before this offset was durable once, because a later group was begun.
    pub proven: u64,
    /// Where the last group begins in the file.
    pub last_group: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Reads the records of a segment that starts with `first`, up to the offset `limit`, past any damage.
pub(super) fn scan(file: &dyn File, salt: u32, first: u64, limit: u64) -> io::Result<Scan> {
    let bytes = file.size()?;
    let mut scan = Scan { runs: Vec::new(), reached: first, proven: first, last_group: HEADER_BYTES, bytes };
    let mut window = Window { file, size: bytes, start: 0, bytes: Vec::new() };
    let mut position = HEADER_BYTES;
    while scan.reached < limit
        && let Some((start, record)) = find_record(&mut window, salt, position, scan.reached)?
        && record.offset < limit
    {
        scan.proven = scan.proven.max(record.offset - u64::from(record.group));
        let end = start + record.record_bytes();
        if end > bytes {
            // The payload is cut off. Only another header inside the rest could prove that it was whole once.
            position = start + RECORD_HEADER_BYTES as u64;
            continue;
        }
        position = end;
        let payload = window.get(start + RECORD_HEADER_BYTES as u64, u64::from(record.length))?;
        if crc32c::crc32c(payload) == record.payload_crc {
            add_record(&mut scan.runs, record.offset, start, end);
            scan.reached = record.offset + 1;
            if record.group == 0 {
                scan.last_group = start;
            }
        }
    }
    Ok(scan)
}

/// The first record header at or after `position` whose offset is not behind `reached`, and where it stands.
fn find_record(
    window: &mut Window<'_>,
    salt: u32,
    position: u64,
    reached: u64,
) -> io::Result<Option<(u64, RecordHeader)>> {
    let header_bytes = RECORD_HEADER_BYTES as u64;
    let mut position = position;
    while position + header_bytes <= window.size {
        if let Some(record) = RecordHeader::decode(window.get(position, header_bytes)?, salt)
            && record.offset >= reached
            && record.offset >= u64::from(record.group)
        {
            return Ok(Some((position, record)));
        }
        position += 1;
    }
    Ok(None)
}

/// A stretch of a file in memory, moved forward as needed.
struct Window<'f> {
    file: &'f dyn File,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `position` on; the caller knows that the file has them.
    fn get(&mut self, position: u64, count: u64) -> io::Result<&[u8]> {
        if position < self.start || position + count > self.start + self.bytes.len() as u64 {
            let wanted = count.max(WINDOW_BYTES).min(self.size - position);
            // A failed read must not leave old bytes under the new position.
            self.bytes.clear();
            self.start = position;
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.resize(memory_size(wanted), 0);
            self.file.read_exact_at(&mut bytes, position)?;
            self.bytes = bytes;
        }
        let at = memory_size(position - self.start);
        Ok(&self.bytes[at..at + memory_size(count)])
    }
}

/// A number of bytes that fits into memory: a window or a record.
fn memory_size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a record length is 32 bits and a window is smaller")
}
