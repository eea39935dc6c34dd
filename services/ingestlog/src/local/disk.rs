//! The few things a log asks of a file system, narrow enough that a test can let each of them fail.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file system.
///
/// Nothing is durable before it is synced: a file's bytes by [`File::sync`], its name by [`Disk::sync_folder`].
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates a folder and its parents where they are absent; their names are durable on return.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// The names of the files in a folder, in any order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// The names of the folders in a folder, in any order.
    fn folders(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Gives a folder another name in the same folder; durable on return.
    fn rename_folder(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a folder with all files in it; durable on return.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// An empty file under this name, in place of one that may be there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// A file that exists, to read and to write.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Gives a file another name in the same folder, in place of one that may be there. Atomic.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes what was created, renamed and removed in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Locks a file, created where it is absent, against other processes until the lock is dropped.
    /// [`io::ErrorKind::WouldBlock`] where it is locked.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// An open file.
pub trait File: fmt::Debug + Send + Sync {
    /// Bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills `bytes` from `position` on; an error where the file is shorter.
    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `position`. After an error any part of them may be there.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn set_size(&self, bytes: u64) -> io::Result<()>;

    /// Makes bytes and size durable. After an error nobody knows what is, and trying again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// Held for as long as a log is open.
pub trait Lock: fmt::Debug + Send {}

/// The machine's file system.
#[derive(Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = parent_of(path);
        self.create_folder(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_folder(parent)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Names of ours are ASCII; whatever else lies here is not ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn folders(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename_folder(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.sync_folder(parent_of(from))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)?;
        self.sync_folder(parent_of(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::File::options().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::File::options().write(true).create(true).truncate(false).open(path)?;
        file.try_lock()?;
        Ok(Box::new(SystemLock { _file: file }))
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The system gives the lock back when the file is closed, be it by the death of the process.
#[derive(Debug)]
struct SystemLock {
    _file: fs::File,
}

impl Lock for SystemLock {}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, position)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, position)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
