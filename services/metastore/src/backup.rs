//! A backup: what the bucket cannot give back, in one file.
//!
//! ```text
//!   "CAMBKUP1" (length u32 LE, BackupFrame)* 0 u32 SHA-256 of all before     written and read in frames
//! ```
//!
//! Tokens, tenants, deletions and which profiles were imported; names of locations and objects where asked for. Blocks,
//! logs and fences are not in it: `rebuild-catalogue` reads them from the bucket, before a restore or after it.
//!
//! Laws: a backup is of one snapshot; nothing is restored of a file that is not whole; restoring does not lower a counter,
//! bring back a tenant that was deleted, or take away what the backup does not know; restoring again changes nothing.

use std::io::{self, Read, Write};

use bytes::Bytes;
use cambium_proto::wire::metastore as stored;
use cambium_runtime::error::{self, HasKind};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::error::{Error as StoreError, decode, decode_u32};
use crate::keys::{self, Kind};
use crate::kv::{self, Key, KvStore, Snapshot};
use crate::tenants::Records;

/// What every backup begins with; the last byte is the version.
const MAGIC: [u8; 8] = *b"CAMBKUP1";

/// Entries of a frame, and keys written at a time.
const FRAME_ENTRIES: usize = 128;

/// Largest frame that is read.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// What is in every backup.
const KINDS: [Kind; 8] = [
    Kind::Token,
    Kind::PartitionCount,
    Kind::Imported,
    Kind::Retired,
    Kind::Tenant,
    Kind::NextTenantNumber,
    Kind::LastDeletion,
    Kind::Deletion,
];

/// What is in a backup with symbols besides.
const SYMBOLS: [Kind; 2] = [Kind::Location, Kind::BuildObject];

/// Why a backup could not be written or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or holds a corrupt value.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read or written.
    #[error("the backup's file")]
    File(#[from] io::Error),
    /// The file is not a whole backup of a version that is known.
    #[error("not a whole backup: {0}")]
    Damaged(&'static str),
    /// The store holds other values than the backup.
    #[error(
        "the store has {entries} tokens or deletions that differ from the backup's: say --replace to overwrite them"
    )]
    Differs {
        /// How many.
        entries: u64,
    },
    /// The store was created with another number of partitions.
    #[error("the store was created with {held} partitions, the backup is of one with {backed_up}")]
    Partitions {
        /// The store's.
        held: u32,
        /// The backup's.
        backed_up: u32,
    },
}

impl From<kv::Error> for Error {
    fn from(error: kv::Error) -> Self {
        Self::Store(error.into())
    }
}

impl HasKind for Error {
    fn kind(&self) -> error::Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::File(_) => error::Kind::Unavailable,
            Self::Damaged(_) => error::Kind::Invalid,
            Self::Differs { .. } | Self::Partitions { .. } => error::Kind::Unprocessable,
        }
    }
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// When it was made, nanoseconds since the Unix epoch.
    pub created_ns: i64,
    /// Whether names of locations and objects are in it.
    pub symbols: bool,
    /// The file of tenants' limits; empty for none.
    pub overrides: String,
}

/// How many entries of each kind there were.
pub type Counts = Vec<(Kind, u64)>;

/// Whether a restore may overwrite what differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// No.
    Refuse,
    /// Yes.
    Replace,
}

/// Writes a backup of the store as it is now.
///
/// # Errors
/// [`Error::Store`], [`Error::File`]: what was written is no backup.
pub async fn write(
    store: &dyn KvStore,
    header: &Header,
    out: &mut (dyn Write + Send),
) -> Result<Counts, Error> {
    let snapshot = store.snapshot().await?;
    let mut out = Summed { inner: out, sum: Sha256::new() };
    out.write_all(&MAGIC)?;
    let head = stored::BackupHeader {
        created_ns: header.created_ns,
        symbols: header.symbols,
        overrides: header.overrides.clone(),
    };
    write_frame(&mut out, &stored::BackupFrame { header: Some(head), entries: Vec::new() })?;
    let symbols: &[Kind] = if header.symbols { &SYMBOLS } else { &[] };
    let mut counts = Counts::new();
    for kind in KINDS.iter().chain(symbols) {
        counts.push((*kind, write_kind(&*snapshot, *kind, &mut out).await?));
    }
    out.write_all(&0_u32.to_le_bytes())?;
    let sum = out.sum.clone().finalize();
    out.inner.write_all(&sum)?;
    Ok(counts)
}

async fn write_kind(snapshot: &dyn Snapshot, kind: Kind, out: &mut impl Write) -> Result<u64, Error> {
    let mut range = keys::all(kind);
    let mut count = 0;
    loop {
        let page = snapshot.scan(range.clone(), FRAME_ENTRIES).await?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        range.start = kv::after(last);
        count += page.len() as u64;
        let entry = |(key, value): (Key, Bytes)| stored::BackupEntry {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value,
        };
        let entries = page.into_iter().map(entry).collect();
        write_frame(out, &stored::BackupFrame { header: None, entries })?;
    }
}

fn write_frame(out: &mut impl Write, frame: &stored::BackupFrame) -> Result<(), Error> {
    let bytes = frame.encode_to_vec();
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a frame is too large"))?;
    out.write_all(&length.to_le_bytes())?;
    Ok(out.write_all(&bytes)?)
}

/// Reads a backup from its beginning to its end, and checks that it is whole.
///
/// # Errors
/// [`Error::Damaged`], [`Error::File`].
pub fn check(file: &mut dyn Read) -> Result<Header, Error> {
    let mut frames = Frames::begin(file)?;
    while frames.next()?.is_some() {}
    Ok(frames.header)
}

/// Puts a backup's entries into the store. `file` begins anew at every call, because it is read twice: nothing is written
/// of a backup that is not whole or that the store disagrees with. `now_ns` dates the end of tenants whose name is
/// somebody else's by now.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Differs`], [`Error::Partitions`]: nothing has been written. On [`Error::Store`] and
/// [`Error::File`] do the same again.
pub async fn restore<R: Read>(
    store: &dyn KvStore,
    mut file: impl FnMut() -> io::Result<R>,
    overwrite: Overwrite,
    now_ns: i64,
) -> Result<(Header, Counts), Error> {
    let mut tenants = Records::read(store).await?;
    let mut differing = 0;
    let mut first = file()?;
    let mut frames = Frames::begin(&mut first)?;
    while let Some(entries) = frames.next()? {
        let held = held(store, &entries).await?;
        for (entry, held) in entries.iter().zip(held) {
            let differs = held.as_ref().is_some_and(|held| *held != entry.value);
            match kind_of(entry)? {
                Kind::Token | Kind::Deletion => differing += u64::from(differs),
                Kind::Tenant | Kind::Retired => tenants.add(&decode(Kind::Tenant, &entry.value)?)?,
                Kind::PartitionCount if differs => {
                    let count = |value: &[u8]| decode_u32(Kind::PartitionCount, value);
                    let (held, backed_up) = (count(&held.unwrap_or_default())?, count(&entry.value)?);
                    return Err(Error::Partitions { held, backed_up });
                }
                _ => {}
            }
        }
    }
    if differing > 0 && overwrite == Overwrite::Refuse {
        return Err(Error::Differs { entries: differing });
    }
    let mut second = file()?;
    let mut frames = Frames::begin(&mut second)?;
    let mut counts: Counts = Counts::new();
    while let Some(entries) = frames.next()? {
        restore_frame(store, &entries, &mut counts).await?;
        fail::fail_point!("restore-frame");
    }
    tenants.write(store, now_ns, FRAME_ENTRIES / 2).await?;
    Ok((frames.header, counts))
}

/// Writes a frame's entries, but for those of tenants, which are settled in the end.
async fn restore_frame(
    store: &dyn KvStore,
    entries: &[stored::BackupEntry],
    counts: &mut Counts,
) -> Result<(), Error> {
    let held = held(store, entries).await?;
    let mut puts = Vec::new();
    for (entry, held) in entries.iter().zip(held) {
        let kind = kind_of(entry)?;
        match counts.iter_mut().find(|(counted, _)| *counted == kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((kind, 1)),
        }
        let is_wanted = match kind {
            Kind::Tenant | Kind::Retired => false,
            // Numbers in big endian, all of a length: they compare as their bytes do.
            Kind::NextTenantNumber | Kind::LastDeletion => held.is_none_or(|held| held < entry.value),
            Kind::Token | Kind::Deletion => held.as_ref() != Some(&entry.value),
            // Whoever writes one of these writes the same.
            _ => held.is_none(),
        };
        puts.extend(is_wanted.then(|| (Key::new(entry.key.clone()), entry.value.to_vec())));
    }
    Ok(kv::put_all(store, puts).await?)
}

async fn held(store: &dyn KvStore, entries: &[stored::BackupEntry]) -> Result<Vec<Option<Bytes>>, Error> {
    let keys: Vec<Key> = entries.iter().map(|entry| Key::new(entry.key.clone())).collect();
    Ok(store.snapshot().await?.batch_get(&keys).await?)
}

fn kind_of(entry: &stored::BackupEntry) -> Result<Kind, Error> {
    let mut kinds = KINDS.iter().chain(&SYMBOLS);
    let kind = kinds.find(|kind| entry.key.first() == Some(&(**kind as u8)));
    kind.copied().ok_or(Error::Damaged("an entry is of a kind that no backup has"))
}

/// What goes through is summed.
struct Summed<T> {
    inner: T,
    sum: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.update(&buffer[..read]);
        Ok(read)
    }
}

/// The frames of a file after its header.
struct Frames<'a> {
    file: Summed<&'a mut dyn Read>,
    header: Header,
}

impl<'a> Frames<'a> {
    fn begin(file: &'a mut dyn Read) -> Result<Self, Error> {
        let mut file = Summed { inner: file, sum: Sha256::new() };
        let mut magic = [0; MAGIC.len()];
        read_exact(&mut file, &mut magic)?;
        if magic != MAGIC {
            return Err(Error::Damaged("it does not begin like one of this version"));
        }
        let frame = read_frame(&mut file)?;
        let header = frame.and_then(|frame| frame.header).ok_or(Error::Damaged("it has no header"))?;
        let stored::BackupHeader { created_ns, symbols, overrides } = header;
        Ok(Self { file, header: Header { created_ns, symbols, overrides } })
    }

    /// The next frame's entries; none where the file ends as it should.
    fn next(&mut self) -> Result<Option<Vec<stored::BackupEntry>>, Error> {
        if let Some(frame) = read_frame(&mut self.file)? {
            return Ok(Some(frame.entries));
        }
        let expected = self.file.sum.clone().finalize();
        let mut sum = [0; 32];
        read_exact(&mut self.file.inner, &mut sum)?;
        if sum[..] != expected[..] {
            return Err(Error::Damaged("its checksum is another"));
        }
        Ok(None)
    }
}

fn read_frame(file: &mut impl Read) -> Result<Option<stored::BackupFrame>, Error> {
    let mut length = [0; 4];
    read_exact(file, &mut length)?;
    let length = u32::from_le_bytes(length);
    if length == 0 {
        return Ok(None);
    }
    if length > FRAME_BYTES_MAX {
        return Err(Error::Damaged("a frame is too large"));
    }
    let mut bytes = vec![0; length as usize];
    read_exact(file, &mut bytes)?;
    let frame = stored::BackupFrame::decode(&*bytes);
    frame.map(Some).map_err(|_| Error::Damaged("a frame cannot be read"))
}

fn read_exact(file: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> Result<(), Error> {
    file.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Damaged("it is cut off"),
        _ => error.into(),
    })
}

#[cfg(test)]
mod tests;
