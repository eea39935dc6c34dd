//! What a log holds and where, shared between its writer and its readers, and how it is read.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use cambium_model::block::Offset;

use crate::local::disk::Disk;
use crate::local::segment::{RECORD_HEADER_BYTES, RecordHeader, Run};
use crate::log::{Entry, Error, Stats};

/// A segment and its good, durable records.
#[derive(Debug)]
pub(super) struct Segment {
    /// The offset that its name says.
    pub first: u64,
    /// What its checksums start from.
    pub salt: u32,
    /// Where it is.
    pub path: Arc<Path>,
    /// Its records. Where a run does not begin at the end of the one before, records are lost.
    pub runs: Vec<Run>,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What the writer publishes. The lock is held for moments, never during a disk operation.
#[derive(Debug, Default)]
pub(super) struct Index {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// In order. The next segment's first offset ends a segment, whatever its file holds beyond.
    pub segments: VecDeque<Segment>,
    /// The offset after the last durable record.
    pub next: u64,
    /// `bytes`, `segments` and `queue_depth` are filled in when asked for.
    pub stats: Stats,
}

/// One step of a read, decided under the lock and done outside.
#[derive(Debug)]
enum Step {
    Gap { first: u64, next: u64 },
    Run { path: Arc<Path>, salt: u32, run: Run },
}

impl Index {
    pub(super) fn new(segments: VecDeque<Segment>, next: u64) -> Self {
        Self { state: Mutex::new(State { segments, next, stats: Stats::default() }) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    /// Reads entries; see [`Log::read`](crate::log::Log::read). Blocks.
    pub(super) fn read(&self, disk: &dyn Disk, from: u64, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        let steps = self.state().plan(from, bytes_max)?;
        let mut entries = Vec::new();
        let mut bytes_left = bytes_max;
        for step in steps {
            match step {
                Step::Gap { first, next } => {
                    entries.push(Entry::Gap { first: Offset(first), next: Offset(next) });
                }
                Step::Run { path, salt, run } => {
                    let bytes = match read_run(disk, &path, run) {
                        Ok(bytes) => bytes,
                        // Truncated in the meantime, perhaps; then the offset is out of range now.
                        Err(error) => return Err(self.state().check(from).err().unwrap_or(error)),
                    };
                    if !decode_run(&bytes, &path, salt, run, from, &mut bytes_left, &mut entries)? {
                        break;
                    }
                }
            }
        }
        Ok(entries)
    }
}

impl State {
    pub(super) fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.first)
    }

    fn check(&self, from: u64) -> Result<(), Error> {
        let (first, next) = (self.first(), self.next);
        if (first..=next).contains(&from) {
            return Ok(());
        }
        Err(Error::OutOfRange { from: Offset(from), first: Offset(first), next: Offset(next) })
    }

    /// The gaps and runs from `from` on that suffice for `bytes_max`.
    fn plan(&self, from: u64, bytes_max: usize) -> Result<Vec<Step>, Error> {
        self.check(from)?;
        let mut steps = Vec::new();
        let mut reached = from;
        let mut bytes = 0;
        let before = self.segments.partition_point(|segment| segment.first <= from);
        for segment in self.segments.range(before.saturating_sub(1)..) {
            let skipped = segment.runs.partition_point(|run| run.next <= from);
            for run in &segment.runs[skipped..] {
                if run.first > reached {
                    steps.push(Step::Gap { first: reached, next: run.first });
                }
                steps.push(Step::Run { path: Arc::clone(&segment.path), salt: segment.salt, run: *run });
                reached = run.next;
                // How much of the first run lies before `from` is known only when it is read: it does not count.
                if run.first >= from {
                    bytes += run.payload_bytes();
                }
                if bytes > bytes_max as u64 {
                    return Ok(steps);
                }
            }
        }
        if reached < self.next {
            steps.push(Step::Gap { first: reached, next: self.next });
        }
        Ok(steps)
    }
}

/// The bytes of a run.
fn read_run(disk: &dyn Disk, path: &Path, run: Run) -> Result<Bytes, Error> {
    let file = disk.open(path).map_err(|source| Error::io(path, source))?;
    let size = usize::try_from(run.end - run.start).expect("a run is little more than one record");
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, run.start).map_err(|source| Error::io(path, source))?;
    Ok(bytes.into())
}

/// Appends a run's records from the offset `from` on to `entries`. False when the bytes have run out.
fn decode_run(
    bytes: &Bytes,
    path: &Path,
    salt: u32,
    run: Run,
    from: u64,
    bytes_left: &mut usize,
    entries: &mut Vec<Entry>,
) -> Result<bool, Error> {
    let mut at = 0;
    for offset in run.first..run.next {
        let payload = decode_record(bytes, at, salt, offset)
            .ok_or_else(|| Error::Damaged { path: PathBuf::from(path), position: run.start + at as u64 })?;
        at += RECORD_HEADER_BYTES + payload.len();
        if offset < from {
            continue;
        }
        if payload.len() > *bytes_left && !entries.is_empty() {
            return Ok(false);
        }
        *bytes_left = bytes_left.saturating_sub(payload.len());
        entries.push(Entry::Record { offset: Offset(offset), payload });
    }
    Ok(true)
}

/// The payload of the record at `at`, if it is the one with this offset and sound.
fn decode_record(bytes: &Bytes, at: usize, salt: u32, offset: u64) -> Option<Bytes> {
    let start = at + RECORD_HEADER_BYTES;
    let record = RecordHeader::decode(bytes.get(at..start)?, salt)?;
    let end = start + usize::try_from(record.length).ok()?;
    let sound = record.offset == offset && crc32c::crc32c(bytes.get(start..end)?) == record.payload_crc;
    sound.then(|| bytes.slice(start..end))
}
