//! Blocks in a real S3 server; skipped where peers are.

use std::sync::Arc;

use cambium_blocks::guarded::Guarded;
use cambium_blocks::stores::{self, Config, config, prove_conditional_put};
use cambium_blocks::testing::{Shape, random_dataset, random_profiles, store_laws, tenant};
use cambium_blocks::writer::{Compression, put};
use cambium_blocks::{Error, reader};
use cambium_model::time::TimeRange;
use cambium_peers::Minio;
use cambium_runtime::clock::SystemClock;
use cambium_runtime::error::{HasKind, Kind};
use cambium_runtime::metrics::Metrics;
use cambium_runtime::quantity::Span;
use cambium_runtime::secret::Secret;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::contract::dataset;
use crate::oracle::Oracle;
use crate::store::{block, sources_in};

fn config(server: &Minio) -> Config {
    let s3 = config::S3 {
        access_key_id: Some(Minio::ACCESS_KEY_ID.to_owned()),
        secret_access_key: Some(Secret::new(Minio::SECRET_ACCESS_KEY)),
        ..config::S3::default()
    };
    Config {
        endpoint: Some(server.endpoint().to_owned()),
        allow_http: true,
        ca_file: server.ca_file(),
        retries_max: 2,
        s3,
        ..Config::default()
    }
}

/// The server's bucket, or a folder in it.
fn open(config: &Config, prefix: &str) -> stores::Opened {
    stores::open(&format!("s3://{}/{prefix}", Minio::BUCKET), config).unwrap()
}

fn guarded(config: &Config, prefix: &str) -> Arc<dyn ObjectStore> {
    let opened = open(config, prefix);
    Arc::new(Guarded::new(opened.store, opened.bounds, Arc::new(SystemClock::new()), &Metrics::new()))
}

#[tokio::test]
async fn a_bucket_keeps_the_laws_of_stores() {
    let Some(server) = Minio::start() else { return };
    let clock = SystemClock::new();
    for prefix in ["", "a/prefix"] {
        let store = guarded(&config(&server), prefix);
        prove_conditional_put(&*store, &clock).await.unwrap();
        store_laws(&*store).await;
    }

    let kind = async |config: &Config, bucket: &str| {
        let store = stores::open(&format!("s3://{bucket}"), config).unwrap().store;
        prove_conditional_put(&*store, &clock).await.unwrap_err().kind()
    };
    let good = config(&server);
    let mut wrong = good.clone();
    wrong.s3.secret_access_key = Some(Secret::new("another"));
    assert_eq!(kind(&wrong, Minio::BUCKET).await, Kind::Forbidden);
    assert_eq!(kind(&good, "absent").await, Kind::NotFound);
    let mut encrypted = good.clone();
    (encrypted.s3.encryption, encrypted.s3.kms_key_id) =
        (config::Encryption::SseKms, Some("no-such-key".to_owned()));
    assert_eq!(kind(&encrypted, Minio::BUCKET).await, Kind::NotFound);
    encrypted.s3.kms_key_id = Some(Minio::KMS_KEY_ID.to_owned());
    store_laws(&*guarded(&encrypted, "kms")).await;
    encrypted.s3.encryption = config::Encryption::SseS3;
    store_laws(&*guarded(&encrypted, "s3")).await;
}

#[tokio::test]
async fn blocks_are_put_once_and_answer_as_the_oracle() {
    let Some(server) = Minio::start() else { return };
    let store = guarded(&config(&server), "cluster-1");
    let profiles = random_profiles(7, &Shape::default());
    let (dataset, oracle) = (dataset(&profiles, 1), Oracle::new(&profiles));
    for (level, compression) in [(0, Compression::Hot), (3, Compression::Cold)] {
        let encoded = block(std::slice::from_ref(&dataset), level, compression);
        put(&*store, &encoded).await.unwrap();
        put(&*store, &encoded).await.expect("it is its own");
        let other = block(&[random_dataset(tenant(1), 8, &Shape::default())], level, compression);
        assert_eq!(other.meta.path, encoded.meta.path);
        assert!(matches!(put(&*store, &other).await, Err(Error::PathTaken { .. })));
        assert_eq!(reader::open(&*store, &encoded.meta.path).await.unwrap(), encoded.meta);
        let source = sources_in(Arc::clone(&store), &encoded).remove(0);
        let types: std::collections::BTreeSet<_> =
            profiles.iter().flat_map(|profile| &profile.types).collect();
        for profile_type in types {
            oracle.check(&source, profile_type, |_| true, TimeRange::ALL).await;
        }
    }
}

#[tokio::test]
async fn a_server_is_trusted_by_who_signed_its_certificate() {
    let Some(server) = Minio::secured() else { return };
    let good = Config { allow_http: false, ..config(&server) };
    prove_conditional_put(&*open(&good, "").store, &SystemClock::new()).await.unwrap();
    let strange = Config { ca_file: None, retries_max: 0, ..good };
    let error = prove_conditional_put(&*open(&strange, "").store, &SystemClock::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
}

/// A request that comes while the server is away is repeated, and gives up when it has been told to.
#[tokio::test]
async fn an_outage_is_waited_for() {
    let Some(mut server) = Minio::start() else { return };
    let path = Path::from("object");
    let mut config = config(&server);
    let impatient = open(&config, "").store;
    (config.retries_max, config.retry_timeout) = (1_000, Span(std::time::Duration::from_secs(60)));
    let patient = open(&config, "").store;
    patient.put(&path, "before".into()).await.unwrap();

    server.server.kill();
    assert!(impatient.get(&path).await.is_err());
    let starting = tokio::task::spawn_blocking(move || {
        server.server.start();
        server
    });
    let reading = async { patient.get(&path).await?.bytes().await };
    assert_eq!(reading.await.unwrap(), "before");
    drop(starting.await.unwrap());
}
