use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use cambium_runtime::clock::SystemClock;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::config::{Azure, Gcs, S3};
use super::*;
use crate::testing::{FaultyStore, PutFault, store_laws};

fn s3() -> Config {
    let s3 = S3 {
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some(Secret::new("hunter2")),
        ..S3::default()
    };
    Config { s3, ..Config::default() }
}

/// Somebody's key for Google, as far as a client looks at it without sending anything.
fn google(folder: &FilePath) -> PathBuf {
    let path = folder.join("google.json");
    let text =
        r#"{"type": "authorized_user", "client_id": "i", "client_secret": "hunter2", "refresh_token": "t"}"#;
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn an_address_names_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        gcs: Gcs { credentials_file: Some(google(folder.path())) },
        azure: Azure {
            account: Some("account".to_owned()),
            access_key: Some(Secret::new("aHVudGVyMg==")),
            ..Azure::default()
        },
        ..s3()
    };
    let local = folder.path().join("blocks");
    let local = local.to_str().unwrap();
    for (address, expected) in [
        (local, format!("DurableLocal({local})")),
        (&format!("file://{local}"), format!("DurableLocal({local})")),
        ("memory://", "InMemory".to_owned()),
        ("s3://bucket", "AmazonS3(bucket)".to_owned()),
        ("s3://bucket/", "AmazonS3(bucket)".to_owned()),
        ("s3://bucket/a/b/", "PrefixObjectStore(a/b)".to_owned()),
        ("gs://bucket", "GoogleCloudStorage(bucket)".to_owned()),
        ("gs://bucket/a", "PrefixObjectStore(a)".to_owned()),
        ("az://container", "MicrosoftAzure { account: account, container: container }".to_owned()),
        ("az://container/a", "PrefixObjectStore(a)".to_owned()),
    ] {
        let opened = open(address, &config).unwrap();
        assert_eq!(opened.store.to_string(), expected, "{address}");
        let remote = opened.bounds == Bounds::REMOTE;
        assert_eq!(
            remote,
            ["s3:", "gs:", "az:"].iter().any(|scheme| address.starts_with(scheme)),
            "{address}"
        );
        assert_eq!(opened.folder.is_some(), expected.starts_with("DurableLocal"), "{address}");
        assert!(!format!("{opened:?}").contains("hunter2"), "{address}");
    }
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let not_an_address =
        "is not a folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://";
    let nowhere = || Some(PathBuf::from("/nowhere/at/all"));
    let with_ca = Config { ca_file: nowhere(), ..s3() };
    let with_key =
        Config { s3: S3 { secret_access_key_file: nowhere(), ..S3::default() }, ..Config::default() };
    for (address, config, expected) in [
        ("", s3(), not_an_address),
        ("file://", s3(), not_an_address),
        ("ftp://bucket", s3(), not_an_address),
        ("s3://", s3(), not_an_address),
        ("s3:///prefix", s3(), not_an_address),
        ("memory://name", s3(), not_an_address),
        ("s3://bucket/a//b", s3(), "\"s3://bucket/a//b\": the prefix"),
        ("/proc/nowhere", s3(), "folder /proc/nowhere"),
        ("s3://bucket", with_ca, "/nowhere/at/all"),
        ("s3://bucket", with_key, "/nowhere/at/all"),
        ("az://container", Config::default(), "az://container: the settings do not make a store"),
    ] {
        let error = open(address, &config).unwrap_err();
        assert!(error.to_string().contains(expected), "{address}: {error}");
    }
}

#[test]
fn settings_are_text_without_their_secrets() {
    let text = r#"{"endpoint": "https://s3.example:9000", "retry_timeout": "20s",
        "s3": {"access_key_id": "id", "secret_access_key": "hunter2", "encryption": "sse-kms"},
        "azure": {"account": "account", "access_key": "hunter2"}}"#;
    let config: Config = serde_json::from_str(text).unwrap();
    assert_eq!(config.s3.encryption, Encryption::SseKms);
    let (shown, written) = (format!("{config:?}"), serde_json::to_string(&config).unwrap());
    assert!(!shown.contains("hunter2") && !written.contains("hunter2"), "{shown}\n{written}");
    assert!(serde_json::from_str::<Config>(r#"{"s3": {"regions": "x"}}"#).is_err(), "a misspelt setting");
}

#[tokio::test]
async fn a_store_that_leaves_objects_alone_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["memory://", folder.path().to_str().unwrap()] {
        let store = open(address, &Config::default()).unwrap().store;
        prove_conditional_put(&*store, &SystemClock::new()).await.unwrap();
        store_laws(&*store).await;
        let left: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_named_with_what_it_was_asked() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    store.fail_puts(PutFault::NotWritten, 1);
    let error = prove_conditional_put(&store, &SystemClock::new()).await.unwrap_err();
    assert!(error.to_string().contains(": cannot put, if it is absent, probes/"), "{error}");
}

/// What a server was asked: the first line and the headers.
type Asked = Arc<Mutex<Vec<String>>>;

/// A server that agrees to everything, whatever the condition. It ends with the process.
fn careless() -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let told = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut request, mut buffer) = (String::new(), [0; 4096]);
            // Requests of this test have small bodies: what has come with the head or right after it is enough.
            while !request.contains("\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => request += &String::from_utf8_lossy(&buffer[..count]),
                }
            }
            let head = request.split("\r\n\r\n").next().unwrap_or_default().to_owned();
            told.lock().unwrap().push(head);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    (format!("http://{address}"), asked)
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_is_refused() {
    let (endpoint, asked) = careless();
    let config = Config { endpoint: Some(endpoint), allow_http: true, ..s3() };
    let store = open("s3://bucket/prefix", &config).unwrap().store;
    let error = prove_conditional_put(&*store, &SystemClock::new()).await.unwrap_err();
    assert!(matches!(error, Error::Unconditional { .. }), "{error:?}");
    assert!(error.to_string().contains("ignores If-None-Match: * and has replaced probes/"), "{error}");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3, "two puts and a deletion: {asked:#?}");
    assert!(asked[..2].iter().all(|head| head.starts_with("PUT /bucket/prefix/probes/")), "{asked:#?}");
    assert!(asked[..2].iter().all(|head| head.to_lowercase().contains("if-none-match: *")), "{asked:#?}");
    assert!(asked[2].starts_with("POST /bucket?delete "), "{asked:#?}");
}

#[tokio::test]
async fn encryption_is_asked_for() {
    let (endpoint, asked) = careless();
    for (encryption, kms_key_id, expected) in [
        (Encryption::Bucket, None, &[][..]),
        (Encryption::SseS3, None, &["x-amz-server-side-encryption: aes256"]),
        (Encryption::SseKms, None, &["x-amz-server-side-encryption: aws:kms"]),
        (
            Encryption::SseKms,
            Some("key-1"),
            &["x-amz-server-side-encryption: aws:kms", "x-amz-server-side-encryption-aws-kms-key-id: key-1"],
        ),
    ] {
        let mut config = Config { endpoint: Some(endpoint.clone()), allow_http: true, ..s3() };
        (config.s3.encryption, config.s3.kms_key_id) = (encryption, kms_key_id.map(str::to_owned));
        let store = open("s3://bucket", &config).unwrap().store;
        store.put(&Path::from("object"), "text".into()).await.unwrap();
        let head = asked.lock().unwrap().pop().unwrap().to_lowercase();
        let found: Vec<&str> = head
            .lines()
            .filter(|line| line.starts_with("x-amz-server-side-encryption") && !line.contains("bucket-key"))
            .collect();
        assert_eq!(found, expected, "{encryption:?}");
    }
}
