//! Where a section's bytes go while it is written: memory, and a nameless file once they are many.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use tempfile::{SpooledData, SpooledTempFile};

use super::section::CHECKED_BYTES;

/// Where sections are written.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// A folder, and how many bytes of each section stay in memory; `None` keeps all of them there.
    disk: Option<(PathBuf, usize)>,
}

impl Scratch {
    /// Everything stays in memory.
    pub fn memory() -> Self {
        Self::default()
    }

    /// Sections larger than `memory_max` bytes go to files in `folder`, which must exist. Files have no names: whatever
    /// happens to the process, none is left.
    pub fn folder(folder: impl Into<PathBuf>, memory_max: usize) -> Self {
        Self { disk: Some((folder.into(), memory_max)) }
    }

    pub(super) fn open(&self) -> Spool {
        let file = match &self.disk {
            None => SpooledTempFile::new(usize::MAX),
            Some((folder, memory_max)) => tempfile::spooled_tempfile_in(*memory_max, folder),
        };
        Spool { file, bytes: 0, crc32c: 0, pieces: Vec::new(), piece_crc32c: 0 }
    }
}

/// Bytes written one after the other, with their checksums.
#[derive(Debug)]
pub struct Spool {
    file: SpooledTempFile,
    bytes: u64,
    crc32c: u32,
    /// Checksums of the full pieces.
    pieces: Vec<u32>,
    /// That of the piece at hand.
    piece_crc32c: u32,
}

impl Spool {
    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// Checksums of all pieces so far, the last one as far as it goes.
    pub(super) fn piece_checksums(&self) -> impl Iterator<Item = u32> + '_ {
        let begun = !self.bytes.is_multiple_of(CHECKED_BYTES as u64);
        self.pieces.iter().copied().chain(begun.then_some(self.piece_crc32c))
    }

    /// The bytes from the first on.
    ///
    /// # Errors
    /// Any that going back in the file gives.
    pub fn into_reader(mut self) -> io::Result<impl Read + Send + use<>> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(self.file)
    }

    /// The bytes, where they were to stay in memory.
    pub(super) fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self.file.into_inner() {
            SpooledData::InMemory(bytes) => Ok(Cursor::into_inner(bytes)),
            SpooledData::OnDisk(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let mut passed = &bytes[..written];
        self.crc32c = crc32c::crc32c_append(self.crc32c, passed);
        while !passed.is_empty() {
            let room = CHECKED_BYTES - (self.bytes % CHECKED_BYTES as u64) as usize;
            let (now, rest) = passed.split_at(room.min(passed.len()));
            self.piece_crc32c = crc32c::crc32c_append(self.piece_crc32c, now);
            self.bytes += now.len() as u64;
            if now.len() == room {
                self.pieces.push(std::mem::take(&mut self.piece_crc32c));
            }
            passed = rest;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_bytes_wherever_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2 * CHECKED_BYTES + 7).map(|i| (i * 7 / 3) as u8).collect();
        for scratch in [Scratch::memory(), Scratch::folder(folder.path(), 1_000)] {
            let mut spool = scratch.open();
            bytes.chunks(1_001).for_each(|part| spool.write_all(part).unwrap());
            assert_eq!(spool.crc32c(), crc32c::crc32c(&bytes));
            let pieces: Vec<u32> = bytes.chunks(CHECKED_BYTES).map(crc32c::crc32c).collect();
            assert_eq!(spool.piece_checksums().collect::<Vec<_>>(), pieces);
            assert_eq!(spool.len(), bytes.len() as u64);
            assert!(!spool.is_empty());
            assert!(spool.into_bytes().unwrap() == bytes);
        }
    }
}
