//! The one that writes: groups of appends into the active segment, and truncation.
//!
//! ```text
//!   group ─► one write ─► one sync ─► index: readable, acknowledged
//!               │ fails      │ fails
//!               ▼            │
//!        cut back to the     │   The segment is never written again. A new one that starts with the
//!        last durable byte ──┴─► same offset makes whatever the old one holds beyond it void, also
//!            (cut fails)         after a restart. Should that fail as well: Undetermined.
//! ```

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fail::fail_point;
use tokio::sync::watch;

use cambium_model::block::{LogId, Offset};
use cambium_runtime::clock::Clock;

use crate::local::disk::{Disk, File, Lock};
use crate::local::index::{Index, Segment};
use crate::local::scan::scan;
use crate::local::segment::{self, HEADER_BYTES, Header, RECORD_HEADER_BYTES, RecordHeader};
use crate::log::Error;

/// The buffer goes back to this size after a group that needed more.
const BUFFER_BYTES_KEPT: usize = 16 << 20;

/// The owner of a log's files.
#[derive(Debug)]
pub(super) struct Writer {
    pub id: LogId,
    pub folder: PathBuf,
    pub segment_bytes: u64,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub index: Arc<Index>,
    /// The offset after the last durable record, for those who wait for more.
    pub end: watch::Sender<u64>,
    /// The segment that takes the next group; none when the next group needs a new one.
    pub active: Option<Active>,
    /// A group on its way to the disk.
    pub buffer: Vec<u8>,
    /// Held until the writer is dropped.
    pub _lock: Box<dyn Lock>,
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Active {
    pub file: Box<dyn File>,
    pub path: Arc<Path>,
    pub salt: u32,
    /// Where the next group goes: everything before is durable.
    pub end: u64,
}

impl Writer {
    /// Makes a group durable, all or nothing, and returns the offset of its first record.
    pub(super) fn append(&mut self, records: &[Bytes]) -> Result<Offset, Error> {
        let appended = self.append_group(records);
        let mut state = self.index.state();
        match &appended {
            Ok(_) => {
                state.stats.appended_records += records.len() as u64;
                state.stats.appended_bytes += records.iter().map(|record| record.len() as u64).sum::<u64>();
            }
            Err(_) => state.stats.failed_appends += records.len() as u64,
        }
        appended
    }

    fn append_group(&mut self, records: &[Bytes]) -> Result<Offset, Error> {
        let first = self.index.state().next;
        let mut active = self.take_active()?;
        encode_group(&mut self.buffer, records, first, active.salt);

        fail_point!("log-append-before-write");
        if let Err(source) = active.file.write_all_at(&self.buffer, active.end) {
            return Err(self.undo_write(active, source));
        }
        fail_point!("log-append-after-write");
        if let Err(source) = self.sync(&active) {
            self.examine(&active);
            return Err(self.supersede(&active.path, source));
        }
        fail_point!("log-append-after-sync");

        self.publish(records, &mut active);
        self.active = Some(active);
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(Offset(first))
    }

    /// The segment for the next group. Whoever takes it puts it back only when it can be trusted.
    fn take_active(&mut self) -> Result<Active, Error> {
        match self.active.take() {
            Some(active) if active.end < self.segment_bytes => Ok(active),
            _ => self.create_segment(),
        }
    }

    /// A new segment for the offsets from `next` on. It appears whole or not at all, and from then on the one
    /// before must not be written, even if this returns an error.
    fn create_segment(&self) -> Result<Active, Error> {
        let first = self.index.state().next;
        let path: Arc<Path> = self.folder.join(segment::file_name(first)).into();
        let unnamed = path.with_extension("new");
        let salt = random_salt();
        let create = || {
            let file = self.disk.create(&unnamed)?;
            file.write_all_at(&Header { id: self.id, first, salt }.encode(), 0)?;
            file.sync()?;
            self.disk.rename(&unnamed, &path)?;
            self.disk.sync_folder(&self.folder)?;
            Ok(file)
        };
        let file = create().map_err(|source| Error::io(&path, source))?;
        let mut state = self.index.state();
        // One without a durable record has the same name and is replaced.
        state.segments.pop_back_if(|segment| segment.first == first);
        state.segments.push_back(Segment {
            first,
            salt,
            path: Arc::clone(&path),
            runs: Vec::new(),
            bytes: HEADER_BYTES,
        });
        Ok(Active { file, path, salt, end: HEADER_BYTES })
    }

    fn sync(&self, active: &Active) -> io::Result<()> {
        let began = self.clock.monotonic();
        let synced = active.file.sync();
        let took: Duration = self.clock.monotonic().saturating_sub(began);
        let mut state = self.index.state();
        state.stats.syncs += 1;
        state.stats.sync_time += took;
        synced
    }

    /// Makes a group that is durable readable.
    fn publish(&self, records: &[Bytes], active: &mut Active) {
        let mut state = self.index.state();
        let first = state.next;
        let segment = state.segments.back_mut().expect("the active segment is the last one");
        for (offset, record) in (first..).zip(records) {
            let end = active.end + (RECORD_HEADER_BYTES + record.len()) as u64;
            segment::add_record(&mut segment.runs, offset, active.end, end);
            active.end = end;
        }
        segment.bytes = active.end;
        state.next += records.len() as u64;
        self.end.send_replace(state.next);
    }

    /// After a failed write: takes away what of it reached the file, and says what the appends failed with.
    fn undo_write(&mut self, active: Active, source: io::Error) -> Error {
        if active.file.set_size(active.end).and_then(|()| active.file.sync()).is_err() {
            return self.supersede(&active.path, source);
        }
        let error = Error::io(&active.path, source);
        self.active = Some(active);
        error
    }

    /// Voids what the failed segment holds beyond the durable records, by a new segment with the same next offset.
    fn supersede(&mut self, failed: &Path, source: io::Error) -> Error {
        match self.create_segment() {
            Ok(active) => {
                self.active = Some(active);
                Error::io(failed, source)
            }
            Err(_) => Error::Undetermined { path: failed.to_owned(), source: Arc::new(source) },
        }
    }

    /// After a failed sync: looks whether the durable records of the segment are still there. The system may have
    /// thrown away pages that they share with the failed group.
    fn examine(&self, failed: &Active) {
        let (first, next) = {
            let state = self.index.state();
            (state.segments.back().expect("the failed segment is the last one").first, state.next)
        };
        match scan(&*failed.file, failed.salt, first, next) {
            Ok(scan) => {
                if scan.reached < next {
                    tracing::error!(log = %self.id, reached = scan.reached, next, "durable records were lost");
                }
                let mut state = self.index.state();
                state.segments.back_mut().expect("the failed segment is the last one").runs = scan.runs;
            }
            Err(error) => {
                tracing::error!(log = %self.id, %error, "a segment cannot be read after a failed sync")
            }
        }
    }

    /// Deletes the segments that hold nothing from `upto` on.
    pub(super) fn truncate(&mut self, upto: Offset) -> Result<(), Error> {
        fail_point!("log-truncate-before");
        self.delete_before(upto.0)?;
        let state = self.index.state();
        let all = upto.0 >= state.next && state.segments.back().is_some_and(|last| last.first < state.next);
        drop(state);
        if all {
            // An empty segment remembers the next offset in place of the records.
            self.active = None;
            self.active = Some(self.create_segment()?);
            self.delete_before(upto.0)?;
        }
        Ok(())
    }

    /// Deletes every segment whose successor starts at `upto` or before: never the last one. From the front, and
    /// none before the one in front of it is durably gone, so that no crash can leave a hole that looks like damage.
    fn delete_before(&self, upto: u64) -> Result<(), Error> {
        loop {
            let path = match &self.index.state().segments {
                segments if segments.len() < 2 || segments[1].first > upto => return Ok(()),
                segments => Arc::clone(&segments[0].path),
            };
            match self.disk.sync_folder(&self.folder).and_then(|()| self.disk.remove(&path)) {
                // Somebody else removed it; the log no longer needs it either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|source| Error::io(&path, source))?,
            }
            self.index.state().segments.pop_front();
            fail_point!("log-truncate-after-delete");
        }
    }
}

/// The bytes of a group whose first record has the offset `first`.
fn encode_group(buffer: &mut Vec<u8>, records: &[Bytes], first: u64, salt: u32) {
    buffer.clear();
    for (group, record) in (0_u32..).zip(records) {
        let header = RecordHeader {
            payload_crc: crc32c::crc32c(record),
            length: u32::try_from(record.len()).expect("RECORD_BYTES_MAX was checked at the door"),
            group,
            offset: first + u64::from(group),
        };
        buffer.extend_from_slice(&header.encode(salt));
        buffer.extend_from_slice(record);
    }
}

/// A number that nobody outside can guess: the standard library seeds its hashers with such.
fn random_salt() -> u32 {
    (RandomState::new().hash_one(()) >> 32) as u32
}
