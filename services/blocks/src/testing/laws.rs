//! What a store must do for blocks to lie in it, as code: run on every store that there is.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

/// Runs every law on an empty store, and leaves it empty. Panics where one is broken.
pub async fn store_laws(store: &dyn ObjectStore) {
    objects_are_put_whole_and_once(store).await;
    parts_copies_and_renames_work(store).await;
    for name in names(store).await {
        store.delete(&Path::from(name)).await.expect("it is there");
    }
    assert_eq!(names(store).await, [""; 0], "all is deleted");
}

async fn objects_are_put_whole_and_once(store: &dyn ObjectStore) {
    let path = Path::from("a/b/c.blk");
    let create = || PutOptions::from(PutMode::Create);
    store.put_opts(&path, "one".into(), create()).await.expect("it is absent");
    let again = store.put_opts(&path, "two".into(), create()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    assert_eq!(content(store, &path).await, "one");
    store.put(&path, "three".into()).await.expect("it may be replaced");
    let ranges = store.get_ranges(&path, &[1..3, 0..1, 3..5]).await.expect("they are inside");
    assert_eq!(ranges, ["hr", "t", "ee"]);
    assert_eq!(store.head(&path).await.expect("it is there").size, 5);
    assert_eq!(names(store).await, ["a/b/c.blk"], "no unfinished object is left");
    store.delete(&path).await.expect("it is there");
    let absent = store.head(&path).await;
    assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
}

async fn parts_copies_and_renames_work(store: &dyn ObjectStore) {
    let mut upload = store.put_multipart(&Path::from("x/y")).await.expect("nothing fails here");
    for part in ["ab", "cd"] {
        // The smallest part that S3 takes, and a rest.
        let bytes = if part == "ab" { part.repeat(5 << 19) } else { part.to_owned() };
        upload.put_part(bytes.into()).await.expect("nothing fails here");
    }
    upload.complete().await.expect("nothing fails here");
    store.copy(&Path::from("x/y"), &Path::from("z")).await.expect("it is there");
    store.rename(&Path::from("z"), &Path::from("w")).await.expect("it is there");
    let found = content(store, &Path::from("w")).await;
    assert_eq!((found.len(), &found[..2], &found[found.len() - 2..]), ((5 << 20) + 2, "ab", "cd"));
    assert_eq!(names(store).await, ["w", "x/y"]);
}

async fn content(store: &dyn ObjectStore, path: &Path) -> String {
    let read = async { store.get(path).await?.bytes().await };
    String::from_utf8(read.await.expect("it is there").to_vec()).expect("it was text")
}

async fn names(store: &dyn ObjectStore) -> Vec<String> {
    let listed: Vec<ObjectMeta> = store.list(None).try_collect().await.expect("nothing fails here");
    let mut names: Vec<String> = listed.into_iter().map(|object| object.location.to_string()).collect();
    names.sort();
    names
}
