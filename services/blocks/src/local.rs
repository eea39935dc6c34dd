//! A folder as an object store that keeps its word: what `put` has returned for survives a power cut.
//!
//! `object_store`'s `LocalFileSystem` never syncs. Here a file is written and synced under another name, then linked
//! to its own, then every folder from its own up to the root is synced. So no object is ever seen half written under
//! its name either. Everything else is `LocalFileSystem`'s.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

const STORE: &str = "local folder";

/// An [`ObjectStore`] over a local folder, durable when `put` returns.
#[derive(Clone)]
pub struct DurableLocal {
    inner: Arc<LocalFileSystem>,
    root: Arc<FilePath>,
    /// Makes the names of unfinished files unique within the process.
    staged: Arc<AtomicU64>,
}

impl DurableLocal {
    /// Opens the folder, making it first where it does not exist.
    ///
    /// # Errors
    /// Any that making, syncing or opening the folder gives.
    pub fn open(root: &FilePath) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        sync_folder(&root)?;
        if let Some(above) = root.parent() {
            sync_folder(above)?;
        }
        let inner = LocalFileSystem::new_with_prefix(&root)?;
        Ok(Self { inner: Arc::new(inner), root: root.into(), staged: Arc::default() })
    }

    /// Removes what a process that died has left of objects it was putting; nobody may put any meanwhile. Returns how many
    /// files.
    ///
    /// # Errors
    /// Any that listing or removing gives.
    pub fn remove_unfinished(&self) -> io::Result<u64> {
        remove_staged(&self.root)
    }

    fn file_path(&self, location: &Path) -> Result<PathBuf> {
        self.inner.path_to_filesystem(location)
    }

    /// A name beside `path` that no other writer uses and that `LocalFileSystem` never lists: it takes names that end
    /// in `#` and digits for unfinished uploads.
    fn staging_path(&self, path: &FilePath) -> PathBuf {
        let serial = self.staged.fetch_add(1, Ordering::Relaxed);
        let unique = (u64::from(std::process::id()) << 32) | serial;
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{unique}"));
        PathBuf::from(name)
    }
}

impl fmt::Debug for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableLocal({})", self.root.display())
    }
}

fn remove_staged(folder: &FilePath) -> io::Result<u64> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            removed += remove_staged(&entry.path())?;
        } else if is_staged(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether it is a name of [`DurableLocal::staging_path`], or one that `LocalFileSystem` gives to an upload.
fn is_staged(name: &str) -> bool {
    let digits = name.rsplit_once('#').map(|(_, digits)| digits);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

fn store_error(source: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: STORE, source: Box::new(source) }
}

/// Makes the folder's own entries durable.
fn sync_folder(path: &FilePath) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs every folder from the one that holds `path` up to `root`.
fn sync_folders(path: &FilePath, root: &FilePath) -> io::Result<()> {
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        sync_folder(folder)?;
    }
    Ok(())
}

fn write_durably(
    payload: &PutPayload,
    staging: &FilePath,
    path: &FilePath,
    root: &FilePath,
    create: bool,
) -> Result<()> {
    let folder = path.parent().expect("an object lies in the root or below");
    fs::create_dir_all(folder).map_err(store_error)?;
    let written = stage(payload, staging).map_err(store_error).and_then(|()| {
        if !create {
            return fs::rename(staging, path).map_err(store_error);
        }
        fs::hard_link(staging, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists {
                path: path.display().to_string(),
                source: Box::new(source),
            },
            _ => store_error(source),
        })
    });
    // After a rename it is gone; after a link it is a second name; after an error it is garbage.
    let _ = fs::remove_file(staging);
    written?;
    sync_folders(path, root).map_err(store_error)
}

fn stage(payload: &PutPayload, staging: &FilePath) -> io::Result<()> {
    let mut file = File::create_new(staging)?;
    payload.iter().try_for_each(|piece| file.write_all(piece))?;
    file.sync_all()
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            // `LocalFileSystem` refuses it, in its own words.
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        let path = self.file_path(location)?;
        let staging = self.staging_path(&path);
        let root = Arc::clone(&self.root);
        blocking(move || write_durably(&payload, &staging, &path, &root, create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload { upload, path: self.file_path(location)?, root: Arc::clone(&self.root) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync_object(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync_object(to).await
    }
}

impl DurableLocal {
    async fn sync_object(&self, location: &Path) -> Result<()> {
        let path = self.file_path(location)?;
        let root = Arc::clone(&self.root);
        blocking(move || sync_file_and_folders(&path, &root)).await
    }
}

fn sync_file_and_folders(path: &FilePath, root: &FilePath) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(store_error)?;
    sync_folders(path, root).map_err(store_error)
}

/// An upload in parts that is durable when `complete` returns.
#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
    root: Arc<FilePath>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        let (path, root) = (self.path.clone(), Arc::clone(&self.root));
        blocking(move || sync_file_and_folders(&path, &root)).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::testing::store_laws;

    fn names(store: &DurableLocal) -> Vec<String> {
        let listed: Vec<ObjectMeta> = futures::executor::block_on(store.list(None).try_collect()).unwrap();
        listed.into_iter().map(|object| object.location.to_string()).collect()
    }

    #[tokio::test]
    async fn keeps_the_laws_of_stores() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::open(&folder.path().join("new/objects")).unwrap();
        store_laws(&store).await;
    }

    #[tokio::test]
    async fn what_a_crash_has_left_unfinished_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::open(folder.path()).unwrap();
        store.put(&Path::from("a/b"), "whole".into()).await.unwrap();
        let mut upload = store.put_multipart(&Path::from("a/large")).await.unwrap();
        upload.put_part("part".into()).await.unwrap();
        fs::write(store.staging_path(&folder.path().join("a/small")), "part").unwrap();
        assert_eq!([store.remove_unfinished().unwrap(), store.remove_unfinished().unwrap()], [2, 0]);
        assert_eq!(names(&store), ["a/b"]);
    }

    #[tokio::test]
    async fn what_is_a_folder_cannot_be_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::open(folder.path()).unwrap();
        store.put(&Path::from("a/b"), "x".into()).await.unwrap();
        assert!(store.put(&Path::from("a"), "x".into()).await.is_err());
        assert_eq!(names(&store), ["a/b"]);
    }
}
