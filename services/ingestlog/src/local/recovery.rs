//! Opening a log after whatever ended the last one.
//!
//! ```text
//!   segment i:   [ good │ good │ ▒▒▒▒ │ good ] ▒▒▒   the next segment's first offset says how far it must reach:
//!                               gap                  short of it is damage, beyond it is void
//!   last segment:[ good │ good │ ▒▒▒▒ │ good │ good │ ▒▒▒▒ ]
//!                               gap     └─ begins a later group, so that everything before it was durable once
//!                                                    └─ torn: after the last such proof; cut
//! ```
//!
//! The last group may be in the system's memory only: the process died between write and sync, or a sync failed and
//! the system took the pages for clean. It is written again and synced before anyone reads it; else a second crash
//! could take back what was read, and offsets would be given twice.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cambium_model::block::{LogId, LogRange, Offset};

use crate::local::disk::{Disk, File};
use crate::local::index::Segment;
use crate::local::scan::{Scan, scan};
use crate::local::segment::{self, HEADER_BYTES, Header, HeaderFault, RECORD_HEADER_BYTES};
use crate::local::writer::Active;
use crate::log::Error;

/// How much is copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// Where copies of damaged segments go. Nothing here is read or deleted again; that is for the operator to do.
const QUARANTINE: &str = "quarantine";

/// What was found wrong when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes at the end that hold no record any more: appends that a crash interrupted and that nobody was promised.
    /// Damage to the last group that was written looks the same.
    pub void_bytes: u64,
    /// Durable records that are lost, also reported by [`Log::read`](crate::Log::read), until they are truncated.
    pub gaps: Vec<LogRange>,
    /// Copies of the damaged segments.
    pub quarantined: Vec<PathBuf>,
}

/// A log that has been put in order.
pub(super) struct Recovered {
    pub segments: VecDeque<Segment>,
    pub next: u64,
    /// The last segment, where it can be written on.
    pub active: Option<Active>,
    pub recovery: Recovery,
}

/// A segment file, found by its name.
struct Found {
    first: u64,
    path: Arc<Path>,
    file: Box<dyn File>,
    /// Its header's salt; none where the header is damaged, and then no record can be told from noise.
    salt: Option<u32>,
}

/// Finds out what the folder of a log holds, cuts what is torn and quarantines what is damaged.
pub(super) fn recover(disk: &dyn Disk, folder: &Path, id: LogId) -> Result<Recovered, Error> {
    let names = disk.list(folder).map_err(|source| Error::io(folder, source))?;
    let found = find_segments(disk, folder, id, &names)?;
    let limits: Vec<_> = found.iter().skip(1).map(|segment| Some(segment.first)).chain([None]).collect();

    let mut recovered =
        Recovered { segments: VecDeque::new(), next: 0, active: None, recovery: Recovery::default() };
    for (segment, limit) in found.into_iter().zip(limits) {
        recover_segment(disk, folder, id, segment, limit, &mut recovered)?;
    }
    // The names of the segments may be in the system's memory only, as may their last group.
    disk.sync_folder(folder).map_err(|source| Error::io(folder, source))?;
    Ok(recovered)
}

/// Opens the segments among the files of the folder, in the order of their offsets.
fn find_segments(disk: &dyn Disk, folder: &Path, id: LogId, names: &[String]) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for name in names {
        let path: Arc<Path> = folder.join(name).into();
        let failed = |source| Error::io(&path, source);
        if name.ends_with(".new") {
            // A segment that never got its name.
            disk.remove(&path).map_err(failed)?;
        }
        let Some(first) = segment::parse_file_name(name) else { continue };
        let file = disk.open(&path).map_err(failed)?;
        let salt = match read_header(&*file).map_err(failed)? {
            Ok(header) if header.id == id && header.first == first => Some(header.salt),
            Ok(Header { id: log, first, .. }) => {
                return Err(Error::Misplaced { path: path.to_path_buf(), log, first: Offset(first) });
            }
            Err(HeaderFault::Version(version)) => {
                return Err(Error::UnknownVersion { path: path.to_path_buf(), version });
            }
            Err(HeaderFault::Damaged) => None,
        };
        found.push(Found { first, path, file, salt });
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

fn read_header(file: &dyn File) -> io::Result<Result<Header, HeaderFault>> {
    let mut bytes = [0; HEADER_BYTES as usize];
    if file.size()? < HEADER_BYTES {
        return Ok(Err(HeaderFault::Damaged));
    }
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Header::decode(&bytes))
}

/// Puts one segment in order. `limit` is the first offset of the next one, none for the last.
fn recover_segment(
    disk: &dyn Disk,
    folder: &Path,
    id: LogId,
    found: Found,
    limit: Option<u64>,
    recovered: &mut Recovered,
) -> Result<(), Error> {
    let Found { first, path, file, salt } = found;
    let failed = |source| Error::io(&path, source);
    let mut scan = match salt {
        Some(salt) => scan(&*file, salt, first, limit.unwrap_or(u64::MAX)).map_err(failed)?,
        None => unreadable(first, file.size().map_err(failed)?),
    };
    let next = match limit {
        Some(limit) => limit,
        None => end_of_log(first, &mut scan),
    };
    let gaps: Vec<_> = gaps(first, &scan.runs, next)
        .map(|(first, next)| LogRange { log: id, first: Offset(first), next: Offset(next) })
        .collect();
    let end = scan.runs.last().map_or(HEADER_BYTES, |run| run.end);
    let good_bytes = HEADER_BYTES + scan.runs.iter().map(|run| run.end - run.start).sum::<u64>();
    let sound = salt.is_some() && gaps.is_empty();
    // A segment that ends well but too early has lost its successor; there is nothing in it to look at.
    if !sound && (salt.is_none() || good_bytes < scan.bytes) {
        recovered.recovery.quarantined.extend(quarantine(disk, folder, &path, &*file));
    }
    if let (None, Some(salt)) = (limit, salt) {
        recovered.recovery.void_bytes = scan.bytes - end;
        if sound {
            file.set_size(end).map_err(failed)?;
            scan.bytes = end;
        }
        write_again(&*file, scan.last_group, end).map_err(failed)?;
        recovered.active = sound.then(|| Active { file, path: Arc::clone(&path), salt, end });
    }
    recovered.recovery.gaps.extend(gaps);
    recovered.next = next;
    let salt = salt.unwrap_or_default();
    recovered.segments.push_back(Segment { first, salt, path, runs: scan.runs, bytes: scan.bytes });
    Ok(())
}

/// What can be said of a segment without a header: nothing, and no more records than these were in it.
fn unreadable(first: u64, bytes: u64) -> Scan {
    let records_max = bytes.saturating_sub(HEADER_BYTES).div_ceil(RECORD_HEADER_BYTES as u64);
    Scan { runs: Vec::new(), reached: first, proven: first + records_max, last_group: HEADER_BYTES, bytes }
}

/// Drops from the last segment what is torn, and returns the offset after its last durable record, lost ones
/// included.
fn end_of_log(first: u64, scan: &mut Scan) -> u64 {
    let mut reached = first;
    let torn = scan.runs.iter().position(|run| {
        let torn = run.first > reached && reached >= scan.proven;
        if !torn {
            reached = run.next;
        }
        torn
    });
    scan.runs.truncate(torn.unwrap_or(scan.runs.len()));
    reached.max(scan.proven)
}

/// The offsets between `first` and `next` that are in none of the runs, as first and next ones.
fn gaps(first: u64, runs: &[segment::Run], next: u64) -> impl Iterator<Item = (u64, u64)> {
    let ends = std::iter::once(first).chain(runs.iter().map(|run| run.next));
    let starts = runs.iter().map(|run| run.first).chain([next]);
    ends.zip(starts).filter(|(end, start)| end < start)
}

/// Makes the last group durable for certain. The bytes are those that are there, so that nothing can tear.
fn write_again(file: &dyn File, start: u64, end: u64) -> io::Result<()> {
    copy(file, file, start, end)?;
    file.sync()
}

fn copy(from: &dyn File, to: &dyn File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut position = start;
    while position < end {
        let bytes = (end - position).min(COPY_BYTES);
        buffer.resize(usize::try_from(bytes).expect("COPY_BYTES fits into memory"), 0);
        from.read_exact_at(&mut buffer, position)?;
        to.write_all_at(&buffer, position)?;
        position += bytes;
    }
    Ok(())
}

/// Keeps a copy of a damaged segment, for people to look at after the log has truncated it; none where that fails,
/// because a log that can be read must open all the same.
fn quarantine(disk: &dyn Disk, folder: &Path, path: &Path, file: &dyn File) -> Option<PathBuf> {
    let folder = folder.join(QUARANTINE);
    let name = path.file_name()?.to_str()?;
    let kept = folder.join(name);
    let unnamed = kept.with_extension("new");
    let keep = || {
        disk.create_folder(&folder)?;
        if disk.list(&folder)?.iter().any(|other| other == name) {
            return Ok(());
        }
        let target = disk.create(&unnamed)?;
        copy(file, &*target, 0, file.size()?)?;
        target.sync()?;
        disk.rename(&unnamed, &kept)?;
        disk.sync_folder(&folder)
    };
    match keep() {
        Ok(()) => Some(kept),
        Err(error) => {
            let segment = path.display();
            tracing::error!(%segment, %error, "a damaged segment could not be copied to the quarantine");
            None
        }
    }
}
