//! A disk that fails as disks do, for crash tests here and elsewhere.
//!
//! ```text
//!   write, set_size ──► cache (what reads see) ──sync──► durable (what a power loss leaves)
//!   create, rename, remove ──► names seen ──sync_folder──► names durable
//! ```
//!
//! What is not synced when the power goes is lost, kept or torn, each change on its own, as the seed decides. A
//! file's sync that fails does the same and then takes the rest for clean, as Linux does: it stays in the cache and
//! no later sync makes it durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::local::disk::{Disk, File, Lock};

/// What can happen to an operation that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room. A write has written a part.
    Full,
    /// The device fails. A write has written a part.
    Broken,
    /// The process dies in the middle. From then on everything fails until [`FaultyDisk::kill`] or
    /// [`FaultyDisk::power_loss`].
    Crash,
}

/// A disk in memory whose faults a test chooses. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: u64,
    /// Counts the lives of the process: handles and locks of an earlier one are dead.
    life: u64,
    crashed: bool,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    capacity_bytes: u64,
    files: Vec<Content>,
    folders: BTreeMap<PathBuf, Folder>,
    locks: BTreeSet<PathBuf>,
}

/// A file's bytes, apart from its names.
#[derive(Debug, Default)]
struct Content {
    cache: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { bytes: Vec<u8>, position: u64 },
    Size { bytes: u64 },
}

#[derive(Debug, Default)]
struct Folder {
    seen: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    unsynced: Vec<NameChange>,
}

/// Some names gone and one there: a removal has no `there`, a creation nothing `gone`.
#[derive(Debug)]
struct NameChange {
    gone: Option<String>,
    there: Option<(String, usize)>,
}

impl FaultyDisk {
    /// An empty disk without faults; the seed decides what a power loss leaves.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: seed,
            life: 0,
            crashed: false,
            operations: 0,
            faults: BTreeMap::new(),
            capacity_bytes: u64::MAX,
            files: Vec::new(),
            folders: BTreeMap::new(),
            locks: BTreeSet::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets the changing operation after `operations` more of them fail.
    pub fn fail_after(&self, operations: u64, fault: Fault) {
        let mut state = self.state();
        let due = state.operations + operations;
        state.faults.insert(due, fault);
    }

    /// Forgets the faults that have not happened yet.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Lets the disk have this much room, used bytes included.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Bytes in files that have a name.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Whether a [`Fault::Crash`] has happened and nothing works.
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// The process dies and starts anew: open files and locks are gone, what was written is still seen.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.crashed = false;
        state.locks.clear();
    }

    /// The machine dies and starts anew: besides, what was not synced is lost, kept or torn.
    pub fn power_loss(&self) {
        self.kill();
        let mut state = self.state();
        let State { random, files, folders, .. } = &mut *state;
        for content in files {
            content.settle(random);
            content.cache.clone_from(&content.durable);
        }
        for folder in folders.values_mut() {
            for change in std::mem::take(&mut folder.unsynced) {
                if draw(random, 2) == 0 {
                    change.apply(&mut folder.durable);
                }
            }
            folder.seen.clone_from(&folder.durable);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl State {
    /// Counts a changing operation; the fault that is due at it, if one is.
    fn begin(&mut self) -> io::Result<Option<Fault>> {
        self.alive()?;
        let fault = self.faults.remove(&self.operations);
        self.operations += 1;
        self.crashed = fault == Some(Fault::Crash);
        Ok(fault)
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(failure(Fault::Crash)) } else { Ok(()) }
    }

    fn used_bytes(&self) -> u64 {
        let named = self.folders.values().flat_map(|folder| folder.seen.values());
        named.map(|file| self.files[*file].cache.len() as u64).sum()
    }

    fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        self.folders.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The folder of a file and its name in it.
    fn place(&mut self, path: &Path) -> io::Result<(&mut Folder, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidFilename)?;
        let folder = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
        Ok((self.folder(folder)?, name.to_owned()))
    }

    /// Writes to the cache and remembers that it is not durable. Grows a file no further than there is room.
    fn write(&mut self, file: usize, bytes: &[u8], position: u64) -> io::Result<()> {
        let room = self.capacity_bytes.saturating_sub(self.used_bytes());
        let size = self.files[file].cache.len() as u64;
        let fits = size.saturating_add(room).saturating_sub(position).min(bytes.len() as u64);
        let written = &bytes[..usize::try_from(fits).expect("no more than there are bytes")];
        self.change(file, Change::Write { bytes: written.to_vec(), position });
        if written.len() < bytes.len() { Err(failure(Fault::Full)) } else { Ok(()) }
    }

    fn change(&mut self, file: usize, change: Change) {
        let content = &mut self.files[file];
        change.apply(&mut content.cache);
        content.unsynced.push(change);
    }
}

impl Content {
    /// Decides for every change that is not durable whether it becomes so, and forgets about the rest.
    fn settle(&mut self, random: &mut u64) {
        for change in std::mem::take(&mut self.unsynced) {
            match (draw(random, 4), change) {
                (0, _) => {}
                (1, Change::Write { bytes, position }) => {
                    let torn =
                        usize::try_from(draw(random, bytes.len() as u64 + 1)).expect("within the bytes");
                    Change::Write { bytes: bytes[..torn].to_vec(), position }.apply(&mut self.durable);
                }
                (2, Change::Write { bytes, position }) => {
                    // Pages reach the disk in any order.
                    let page = usize::try_from(draw(random, 64) + 1).expect("a small number");
                    for (number, bytes) in (0..).zip(bytes.chunks(page)) {
                        if draw(random, 2) == 0 {
                            let position = position + number * page as u64;
                            Change::Write { bytes: bytes.to_vec(), position }.apply(&mut self.durable);
                        }
                    }
                }
                (_, change) => change.apply(&mut self.durable),
            }
        }
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        let size = |bytes: u64| usize::try_from(bytes).expect("a file in memory");
        match self {
            Self::Write { bytes, position } => {
                let start = size(*position);
                let end = start + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[start..end].copy_from_slice(bytes);
            }
            Self::Size { bytes } => file.resize(size(*bytes), 0),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((name, file)) = &self.there {
            names.insert(name.clone(), *file);
        }
    }
}

impl Folder {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.seen.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The error of an operation that did nothing.
fn failure(fault: Fault) -> io::Error {
    match fault {
        Fault::Full => io::ErrorKind::StorageFull.into(),
        Fault::Broken => io::Error::other("the device failed"),
        Fault::Crash => io::Error::other("the process is dead"),
    }
}

fn refuse(fault: Option<Fault>) -> io::Result<()> {
    fault.map_or(Ok(()), |fault| Err(failure(fault)))
}

/// A number below `bound` (SplitMix64).
fn draw(random: &mut u64, bound: u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % bound
}

impl Disk for FaultyDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        refuse(state.begin()?)?;
        state.folders.entry(path.to_owned()).or_default();
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.alive()?;
        Ok(state.folder(folder)?.seen.keys().cloned().collect())
    }

    fn folders(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        let inside = state.folders.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename_folder(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        refuse(state.begin()?)?;
        let moved = state.folders.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.folders.insert(to.to_owned(), moved);
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        refuse(state.begin()?)?;
        state.folders.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        refuse(state.begin()?)?;
        let file = state.files.len();
        let life = state.life;
        let (folder, name) = state.place(path)?;
        folder.change(NameChange { gone: None, there: Some((name, file)) });
        state.files.push(Content::default());
        Ok(Box::new(FaultyFile { disk: self.clone(), life, file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.alive()?;
        let life = state.life;
        let (folder, name) = state.place(path)?;
        let file = folder.find(&name)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), life, file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        refuse(state.begin()?)?;
        let (_, new_name) = state.place(to)?;
        let (folder, old_name) = state.place(from)?;
        let file = folder.find(&old_name)?;
        folder.change(NameChange { gone: Some(old_name), there: Some((new_name, file)) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        refuse(state.begin()?)?;
        let (folder, name) = state.place(path)?;
        folder.find(&name)?;
        folder.change(NameChange { gone: Some(name), there: None });
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        // A folder's changes are in the journal: a sync that fails leaves them for the next one.
        refuse(state.begin()?)?;
        let folder = state.folder(folder)?;
        folder.unsynced.clear();
        folder.durable.clone_from(&folder.seen);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        state.alive()?;
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(FaultyLock { disk: self.clone(), life: state.life, path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct FaultyLock {
    disk: FaultyDisk,
    life: u64,
    path: PathBuf,
}

impl Lock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    life: u64,
    file: usize,
}

impl FaultyFile {
    /// The disk, unless the process that opened the file is dead.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        state.alive()?;
        if state.life == self.life { Ok(state) } else { Err(failure(Fault::Crash)) }
    }
}

impl File for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.state()?.files[self.file].cache.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        let state = self.state()?;
        let start = usize::try_from(position).map_err(io::Error::other)?;
        let found = state.files[self.file].cache.get(start..start + bytes.len());
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let fault = state.begin()?;
        let written = match fault {
            None => bytes.len(),
            Some(_) => {
                usize::try_from(draw(&mut state.random, bytes.len() as u64 + 1)).expect("within the bytes")
            }
        };
        let result = state.write(self.file, &bytes[..written], position);
        refuse(fault)?;
        result
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        refuse(state.begin()?)?;
        state.change(self.file, Change::Size { bytes });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let fault = state.begin()?;
        let State { random, files, .. } = &mut *state;
        let content = &mut files[self.file];
        match fault {
            None => {
                for change in content.unsynced.drain(..) {
                    change.apply(&mut content.durable);
                }
            }
            Some(Fault::Full | Fault::Broken) => content.settle(random),
            // What becomes of it is decided by a power loss, if one follows.
            Some(Fault::Crash) => {}
        }
        refuse(fault)
    }
}
