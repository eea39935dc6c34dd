//! Objects that nobody needs: those of replaced blocks, after a grace, and those that nothing ever referred to.

use std::collections::BTreeSet;

use cambium_blocks::layout::BLOCKS_PREFIX;
use cambium_metastore::Catalogue;
use cambium_model::time::SECOND_NS;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::Error;

/// How long the objects of replaced blocks stay: longer than any query that has seen their entries.
pub const GRACE_NS: i64 = 900 * SECOND_NS;

/// Objects deleted at a time.
const BATCH: usize = 128;
/// An object that no entry names and that is younger than this may be on its way into the catalogue.
const ORPHAN_AGE_NS: i64 = 24 * 3_600 * SECOND_NS;

/// Deletes the objects that are due at this time. Returns how many.
///
/// # Errors
/// [`Error::Store`], [`Error::Catalogue`]: what was deleted is deleted, the rest is still due.
pub async fn garbage(catalogue: &Catalogue, store: &dyn ObjectStore, now_ns: i64) -> Result<u64, Error> {
    let mut deleted = 0;
    loop {
        let due = catalogue.garbage(now_ns, BATCH).await?;
        if due.is_empty() {
            return Ok(deleted);
        }
        fail::fail_point!("sweep-before-delete");
        for garbage in &due {
            delete(store, &garbage.path).await?;
        }
        fail::fail_point!("sweep-before-forget");
        catalogue.forget_garbage(&due).await?;
        deleted += due.len() as u64;
    }
}

/// Deletes an object; one that is not there is deleted.
async fn delete(store: &dyn ObjectStore, path: &str) -> Result<(), Error> {
    match store.delete(&Path::from(path)).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(source) => Err(Error::Store { path: path.to_owned(), source }),
    }
}

/// Objects below the blocks' folder that are old and that neither an entry nor the garbage names.
///
/// # Errors
/// [`Error::Store`], [`Error::Catalogue`].
pub async fn orphans(
    catalogue: &Catalogue,
    store: &dyn ObjectStore,
    now_ns: i64,
) -> Result<BTreeSet<String>, Error> {
    let prefix = Path::from(BLOCKS_PREFIX);
    let failed = |source| Error::Store { path: BLOCKS_PREFIX.to_owned(), source };
    let mut listed = store.list(Some(&prefix));
    let mut old = BTreeSet::new();
    while let Some(object) = listed.try_next().await.map_err(failed)? {
        let modified_ns = object.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
        if modified_ns < now_ns.saturating_sub(ORPHAN_AGE_NS) {
            old.insert(object.location.to_string());
        }
    }
    // After the listing: whatever was committed meanwhile is seen.
    let held = catalogue.all().await?;
    let flushed = held.logs.iter().flat_map(|log| &log.blocks);
    for block in flushed.chain(held.merged.iter().flat_map(|owned| &owned.blocks)) {
        old.remove(&block.path);
    }
    for garbage in catalogue.garbage(i64::MAX, usize::MAX).await? {
        old.remove(&garbage.path);
    }
    Ok(old)
}

/// Deletes those of `found` that were found before as well: in between, whoever was about to commit one has done so.
/// Returns how many.
///
/// # Errors
/// [`Error::Store`].
pub async fn delete_orphans(
    store: &dyn ObjectStore,
    before: &BTreeSet<String>,
    found: &BTreeSet<String>,
) -> Result<u64, Error> {
    let mut deleted = 0;
    for path in found.intersection(before) {
        fail::fail_point!("orphan-before-delete");
        delete(store, path).await?;
        deleted += 1;
    }
    Ok(deleted)
}
