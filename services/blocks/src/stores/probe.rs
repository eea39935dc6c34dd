//! Trying a store out before it is trusted.

use cambium_runtime::clock::Clock;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::Error;
use crate::layout;

/// Shows that the store leaves an object alone that is to be put only if absent, and that we may put, read and delete.
///
/// # Errors
/// [`Error::Unconditional`], or [`Error::Probe`] with what the store said.
pub async fn prove_conditional_put(store: &dyn ObjectStore, clock: &dyn Clock) -> Result<(), Error> {
    // Somebody who tries at the same moment, and meets our object, has seen what there is to see.
    let path = Path::from(layout::probe_path(clock.now_ns(), std::process::id()));
    let proved = try_out(store, &path).await;
    let deleted = store.delete(&path).await.map_err(|source| failed(store, "delete", &path, source));
    proved.and(deleted)
}

async fn try_out(store: &dyn ObjectStore, path: &Path) -> Result<(), Error> {
    let ignored = || Error::Unconditional { store: store.to_string(), path: path.to_string() };
    put_if_absent(store, path, "first").await?;
    if put_if_absent(store, path, "second").await? {
        return Err(ignored());
    }
    // It has said that it left the first alone.
    let read = async { store.get(path).await?.bytes().await };
    let found = read.await.map_err(|source| failed(store, "read", path, source))?;
    if found == "first" { Ok(()) } else { Err(ignored()) }
}

/// Whether the object was put.
async fn put_if_absent(store: &dyn ObjectStore, path: &Path, text: &'static str) -> Result<bool, Error> {
    match store.put_opts(path, text.into(), PutOptions::from(PutMode::Create)).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(source) => Err(failed(store, "put, if it is absent,", path, source)),
    }
}

fn failed(store: &dyn ObjectStore, doing: &'static str, path: &Path, source: object_store::Error) -> Error {
    Error::Probe { store: store.to_string(), doing, path: path.to_string(), source: Box::new(source) }
}
