//! The seam: an append-only sequence of records with offsets.
//!
//! Laws, tested by [`contract`](crate::contract):
//! 1. An offset returned by [`Log::append`] means that the record is durable, as far as the implementation goes.
//! 2. Records have the offsets 0, 1, 2, …; an append that begins after another returned has the larger one. Appends
//!    that run at the same time share a group, and may return in any order: whoever needs the order of the log
//!    sorts by offset.
//! 3. A record whose append failed never appears, neither at once nor after a restart. The exceptions say so:
//!    [`Error::Undetermined`], [`Error::Unconfirmed`], [`Error::Closed`], and an append whose future was dropped.
//! 4. [`Log::next`] never goes back, whatever is truncated and however often the log is reopened.
//! 5. Reading skips nothing in silence: lost records are an [`Entry::Gap`], what is no record an [`Entry::Poison`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use cambium_model::block::{LogId, Offset};
use cambium_runtime::error::{HasKind, Kind};

/// The most bytes one record may have.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// Why the log could not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The record is over [`RECORD_BYTES_MAX`], or over what this log is set to take.
    #[error("a record of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// No room. Nothing was kept; appends work again as soon as there is room.
    #[error("no space left for {}", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The disk failed. Nothing was kept.
    #[error("the disk failed at {}", path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The disk failed, and failed again when the append was to be undone: the record may be found after a restart.
    #[error("the disk failed at {} and the append could not be undone", path.display())]
    Undetermined {
        /// What was being written.
        path: PathBuf,
        /// What the disk said first.
        source: Arc<io::Error>,
    },
    /// Too many records wait for the remote log. Nothing was kept.
    #[error("too many records wait for the remote log")]
    QueueFull,
    /// The remote log did not confirm in time: the record may be found there.
    #[error("the remote log did not confirm the record")]
    Unconfirmed {
        /// What its client said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The remote log does not answer.
    #[error("the remote log does not answer")]
    Unreachable {
        /// What its client said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The remote log refuses what it is asked: its settings, its rights or ours are wrong.
    #[error("the remote log refuses")]
    Refused {
        /// What its client said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The offset is not between [`Log::first`] and [`Log::next`].
    #[error("offset {} is outside the log, which holds {} up to {}", from.0, first.0, next.0)]
    OutOfRange {
        /// The offset asked for.
        from: Offset,
        /// The first one kept.
        first: Offset,
        /// The first one after.
        next: Offset,
    },
    /// A record was good when the log was opened and is not any more. Reopening turns it into a gap.
    #[error("{} is damaged at byte {position}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where its record should be.
        position: u64,
    },
    /// A segment of a format that this version does not know.
    #[error("{} has format version {version}", path.display())]
    UnknownVersion {
        /// The segment.
        path: PathBuf,
        /// What its header says.
        version: u32,
    },
    /// A sound segment that belongs elsewhere: its header names another log or another offset than its path.
    #[error("{} belongs to log {log} at offset {}", path.display(), first.0)]
    Misplaced {
        /// The segment.
        path: PathBuf,
        /// The log in its header.
        log: LogId,
        /// The offset in its header.
        first: Offset,
    },
    /// Another process, or another part of this one, has the log open.
    #[error("{} is open elsewhere", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The log was closed. An append that was under way may or may not be kept.
    #[error("the log is closed")]
    Closed,
}

impl Error {
    /// What a failed operation on a file means.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let source = Arc::new(source);
        if full { Self::DiskFull { path, source } } else { Self::Io { path, source } }
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::TooLarge { .. } => Kind::TooLarge,
            Self::DiskFull { .. }
            | Self::Io { .. }
            | Self::Undetermined { .. }
            | Self::QueueFull
            | Self::Unconfirmed { .. }
            | Self::Unreachable { .. }
            | Self::Locked { .. }
            | Self::Closed => Kind::Unavailable,
            Self::OutOfRange { .. } => Kind::NotFound,
            Self::Refused { .. }
            | Self::Damaged { .. }
            | Self::UnknownVersion { .. }
            | Self::Misplaced { .. } => Kind::Internal,
        }
    }
}

/// What stands at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record, as it was appended.
    Record {
        /// Its place.
        offset: Offset,
        /// Its bytes.
        payload: Bytes,
    },
    /// Records that were durable once and that the disk has lost.
    Gap {
        /// The first one lost.
        first: Offset,
        /// The first one after.
        next: Offset,
    },
    /// Something that no append of ours has put there, or that has changed since: to be set aside by the owner. Only a
    /// log that others can write to has such.
    Poison {
        /// Its place.
        offset: Offset,
        /// Its bytes.
        payload: Bytes,
        /// How it differs from a record.
        why: Flaw,
    },
}

/// How something differs from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It has no mark of ours, or one that is no mark.
    #[error("it was not written by Cambium")]
    Foreign,
    /// Its mark is of a later version of Cambium.
    #[error("its format version {0} is not known")]
    UnknownVersion(u8),
    /// Its bytes do not have the checksum that its mark says.
    #[error("its checksum is wrong")]
    Checksum,
}

impl Entry {
    /// The offset to go on reading from.
    pub fn next(&self) -> Offset {
        match self {
            Self::Record { offset, .. } | Self::Poison { offset, .. } => Offset(offset.0 + 1),
            Self::Gap { next, .. } => *next,
        }
    }
}

/// What a log has done since it was opened, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes held.
    pub bytes: u64,
    /// Files held.
    pub segments: u64,
    /// Appends that wait for their group.
    pub queue_depth: u64,
    /// Records made durable.
    pub appended_records: u64,
    /// Their payload bytes.
    pub appended_bytes: u64,
    /// Appends that failed.
    pub failed_appends: u64,
    /// Groups synced to disk, failures included.
    pub syncs: u64,
    /// The time these took together.
    pub sync_time: Duration,
    /// Records that can be read and that [`Log::read`] has not returned: how far the owner is behind a log that others
    /// append to.
    pub lag_records: u64,
}

/// A log of one partition.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync {
    /// Which log this is.
    fn id(&self) -> LogId;

    /// Appends a record and returns its offset once it is durable. Waits while too many appends are pending, or
    /// fails with [`Error::QueueFull`]: that is the back-pressure. Dropping the future does not take the record back.
    async fn append(&self, record: Bytes) -> Result<Offset, Error>;

    /// What stands at `from` and after it, in order, until the payloads reach `bytes_max`; at least one entry, and
    /// none only where `from` is [`Log::next`].
    async fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Entry>, Error>;

    /// Returns as soon as there is something to read at `from`: [`Log::next`] is past it. For owners of a log that others
    /// append to. Fails with [`Error::Closed`] where the log is closed first.
    async fn wait(&self, from: Offset) -> Result<(), Error>;

    /// Allows the log to forget what stands before `upto`; an offset past the end means the end. Idempotent.
    async fn truncate(&self, upto: Offset) -> Result<(), Error>;

    /// The first offset that can be read: at most what was truncated up to. An owner that needs older ones has lost
    /// them.
    fn first(&self) -> Offset;

    /// The offset after the last durable record. Less than an owner has committed means that these are not the files
    /// it wrote: it must not append here.
    fn next(&self) -> Offset;

    /// Counters for the owner to publish.
    fn stats(&self) -> Stats;

    /// Finishes the pending appends and lets go of the log, so that it can be opened again. Idempotent.
    async fn close(&self);
}
