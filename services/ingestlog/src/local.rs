//! The write-ahead log: segment files in a folder of their own, one fsync per group of appends.
//!
//! ```text
//!   append ──► queue (bounded) ──► writer thread: all that waits, one write, one sync ──► acks
//!                                        │ publishes
//!   read ──► index: which run of which segment ──► file
//!
//!   {root}/{log id}/   lock   0000000000000000.seg   00000000000010a3.seg   quarantine/
//! ```
//!
//! There is no timer: while one group is being synced the next one gathers, and that is the batching window. One
//! thread owns the files, so that nothing in them needs a lock; readers use the index and never see what is not
//! durable.
//!
//! Laws: a segment is written at its end only; a folder is open once at a time; what is lost is named.

pub mod disk;

mod index;
mod recovery;
mod scan;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::{io, thread};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task;

use cambium_model::block::{LogId, Offset};
use cambium_runtime::clock::Clock;

use crate::local::disk::Disk;
use crate::local::index::Index;
use crate::local::recovery::{Recovered, recover};
use crate::local::writer::Writer;
use crate::log::{Entry, Error, Log, RECORD_BYTES_MAX, Stats};

pub use recovery::Recovery;

/// How many appends may wait for their group; more wait in [`Log::append`].
pub const PENDING_APPENDS_MAX: usize = 256;

/// A group takes no more appends once it has this many payload bytes.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// After this many bytes a segment is left for a new one, unless the configuration says otherwise.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Where a log lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder in which every log has one, named by its id. Created where it is absent.
    pub root: PathBuf,
    /// After this many bytes a segment is left for a new one.
    pub segment_bytes: u64,
}

impl Config {
    /// Logs under `root`, with segments of [`SEGMENT_BYTES`].
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), segment_bytes: SEGMENT_BYTES }
    }
}

/// What a log needs of the process.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Tells how long a sync takes.
    pub clock: Arc<dyn Clock>,
    /// Keeps the files.
    pub disk: Arc<dyn Disk>,
}

/// A log on a local disk. To open it again, [`close`](Log::close) it first: dropping it lets go of the files only
/// when the writer thread has noticed.
#[derive(Debug)]
pub struct LocalLog {
    id: LogId,
    disk: Arc<dyn Disk>,
    index: Arc<Index>,
    commands: mpsc::Sender<Command>,
    /// What the writer publishes; it ends with the writer.
    end: watch::Receiver<u64>,
}

/// What the writer thread is asked to do, and where it answers.
#[derive(Debug)]
enum Command {
    Append { record: Bytes, ack: oneshot::Sender<Result<Offset, Error>> },
    Truncate { upto: Offset, ack: oneshot::Sender<Result<(), Error>> },
    Close { ack: oneshot::Sender<()> },
}

impl LocalLog {
    /// Opens a log, or creates it. Repairs what a crash left, and reports what it cannot repair.
    pub async fn open(id: LogId, config: Config, deps: Deps) -> Result<(Self, Recovery), Error> {
        blocking(move || {
            let (writer, recovery) = open_writer(id, &config, deps)?;
            let (disk, index) = (Arc::clone(&writer.disk), Arc::clone(&writer.index));
            let (folder, end) = (writer.folder.clone(), writer.end.subscribe());
            let (commands, receiver) = mpsc::channel(PENDING_APPENDS_MAX);
            thread::Builder::new()
                .name(format!("log {id}"))
                .spawn(move || write(writer, receiver))
                .map_err(|source| Error::io(&folder, source))?;
            Ok((Self { id, disk, index, commands, end }, recovery))
        })
        .await
    }

    /// Hands a command to the writer and waits for its answer.
    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Error> {
        self.commands.send(command).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}

#[async_trait]
impl Log for LocalLog {
    fn id(&self) -> LogId {
        self.id
    }

    async fn append(&self, record: Bytes) -> Result<Offset, Error> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLarge { bytes: record.len(), bytes_max: RECORD_BYTES_MAX });
        }
        let (ack, answer) = oneshot::channel();
        self.ask(Command::Append { record, ack }, answer).await?
    }

    async fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        let (index, disk) = (Arc::clone(&self.index), Arc::clone(&self.disk));
        blocking(move || index.read(&*disk, from.0, bytes_max)).await
    }

    async fn wait(&self, from: Offset) -> Result<(), Error> {
        self.end.clone().wait_for(|end| *end > from.0).await.map(drop).map_err(|_| Error::Closed)
    }

    async fn truncate(&self, upto: Offset) -> Result<(), Error> {
        let (ack, answer) = oneshot::channel();
        self.ask(Command::Truncate { upto, ack }, answer).await?
    }

    fn first(&self) -> Offset {
        Offset(self.index.state().first())
    }

    fn next(&self) -> Offset {
        Offset(self.index.state().next)
    }

    fn stats(&self) -> Stats {
        let queue_depth = (self.commands.max_capacity() - self.commands.capacity()) as u64;
        let state = self.index.state();
        let bytes = state.segments.iter().map(|segment| segment.bytes).sum();
        Stats { bytes, segments: state.segments.len() as u64, queue_depth, ..state.stats }
    }

    async fn close(&self) {
        let (ack, answer) = oneshot::channel();
        // An error means that it is closed already.
        let _ = self.ask(Command::Close { ack }, answer).await;
    }
}

/// Takes the lock of a log and puts its files in order.
fn open_writer(id: LogId, config: &Config, deps: Deps) -> Result<(Writer, Recovery), Error> {
    let Deps { clock, disk } = deps;
    let folder = config.root.join(id.to_string());
    disk.create_folder(&folder).map_err(|source| Error::io(&folder, source))?;
    let lock_path = folder.join("lock");
    let lock = disk.lock(&lock_path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { path: lock_path.clone() },
        _ => Error::io(&lock_path, source),
    })?;
    let Recovered { segments, next, active, recovery } = recover(&*disk, &folder, id)?;
    let writer = Writer {
        id,
        folder,
        segment_bytes: config.segment_bytes,
        disk,
        clock,
        index: Arc::new(Index::new(segments, next)),
        end: watch::Sender::new(next),
        active,
        buffer: Vec::new(),
        _lock: lock,
    };
    Ok((writer, recovery))
}

/// Runs what may wait for the disk where that harms nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down.
        Err(_) => Err(Error::Closed),
    }
}

/// The writer thread: takes what waits, group by group, until the log is closed or dropped.
fn write(mut writer: Writer, mut commands: mpsc::Receiver<Command>) {
    let mut after_group = None;
    while let Some(command) = after_group.take().or_else(|| commands.blocking_recv()) {
        match command {
            Command::Append { record, ack } => {
                let mut records = vec![record];
                let mut acks = vec![ack];
                after_group = gather(&mut commands, &mut records, &mut acks);
                let appended = writer.append(&records);
                for (place, ack) in (0..).zip(acks) {
                    // Whoever dropped the append does not want to know.
                    let _ = ack.send(appended.clone().map(|first| Offset(first.0 + place)));
                }
            }
            Command::Truncate { upto, ack } => {
                let _ = ack.send(writer.truncate(upto));
            }
            Command::Close { ack } => {
                // The lock is free before the caller goes on.
                drop(writer);
                let _ = ack.send(());
                return;
            }
        }
    }
}

/// Adds the appends that wait to a group, up to its bound. Returns a command that is not an append, if one came.
fn gather(
    commands: &mut mpsc::Receiver<Command>,
    records: &mut Vec<Bytes>,
    acks: &mut Vec<oneshot::Sender<Result<Offset, Error>>>,
) -> Option<Command> {
    let mut bytes = records.iter().map(Bytes::len).sum::<usize>();
    while bytes < GROUP_BYTES_MAX {
        match commands.try_recv() {
            Ok(Command::Append { record, ack }) => {
                bytes += record.len();
                records.push(record);
                acks.push(ack);
            }
            Ok(other) => return Some(other),
            // Nothing waits; a closed queue is noticed after the group.
            Err(_) => return None,
        }
    }
    None
}
