//! The ingester as other processes see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cambium_blocks::remote::open::encode_offset;
use cambium_blocks::remote::{Asker, OpenError, Opened};
use cambium_ingester::grpc::ingester_service;
use cambium_ingestlog::MemoryLog;
use cambium_model::block::{LogId, Offset, Partition};
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_model::time::TimeRange;
use cambium_proto::record;
use cambium_proto::wire::ingester as wire;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{HasKind, Kind};
use cambium_runtime::tasks::Tasks;
use futures::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use object_store::memory::InMemory;
use tokio::io::DuplexStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Server};
use wire::ingester_service_client::IngesterServiceClient;

use crate::sandbox::{Durable, LOG, Running, START_NS, profile, tenant};

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(30);

fn durable() -> Durable {
    Durable::new(Arc::new(MemoryLog::new(LOG)), Arc::new(InMemory::new()))
}

/// A connection to the ingester, in memory.
async fn connect(running: &Running, tasks: &Tasks) -> Channel {
    let (client, server) = tokio::io::duplex(64 << 10);
    // One connection, and a server that does not end after it.
    let incoming = stream::iter([Ok::<DuplexStream, std::io::Error>(server)]).chain(stream::pending());
    let service = ingester_service(running.handle.clone(), [1; 32]);
    tasks.spawn("server", Server::builder().add_service(service).serve_with_incoming(incoming));
    let mut client = Some(client);
    let connector = tower::service_fn(move |_| {
        let client = client.take().ok_or_else(|| std::io::Error::other("connected once"));
        async move { client.map(TokioIo::new) }
    });
    Endpoint::from_static("http://ingester").connect_with_connector(connector).await.unwrap()
}

fn asker(durable: &Durable) -> Asker {
    let (timeout, clock) = (Duration::from_secs(60), Arc::new(durable.clock.clone()));
    Asker { tenant: tenant(), timeout, clock, tasks: Tasks::new() }
}

async fn times(opened: &Opened) -> Vec<i64> {
    let mut found = Vec::new();
    for (log, head) in &opened.heads {
        assert_eq!(*log, LOG);
        let rows = head.series().await.unwrap().len() as u32;
        found.extend(head.profiles(&vec![0..rows], TimeRange::ALL).await.unwrap().time_ns);
    }
    found
}

#[tokio::test]
async fn writes_are_applied_once() {
    let running = durable().open().await;
    let tasks = Tasks::new();
    let mut client = IngesterServiceClient::new(connect(&running, &tasks).await);
    let record = Bytes::from(record::encode(&tenant(), &[profile(1, START_NS)]));
    let request = |partition| wire::WriteRequest { partition, record: record.clone() };
    let first = client.write(request(0)).await.unwrap().into_inner();
    let second = client.write(request(0)).await.unwrap().into_inner();
    assert_eq!((first.applied, first.duplicates, second.applied, second.duplicates), (1, 0, 0, 1));
    let refused = client.write(request(9)).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.message(), "partition 9 is not owned by this process");
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));
    let broken = wire::WriteRequest { partition: 0, record: Bytes::from_static(b"no record") };
    assert_eq!(client.write(broken).await.err().unwrap().code(), Code::Internal);
    assert_eq!(client.flush(wire::FlushRequest {}).await.unwrap().into_inner().flushed, 1);
}

#[tokio::test]
async fn opened_heads_follow_the_blocks_and_do_not_change() {
    let durable = durable();
    let running = durable.open().await;
    let asker = asker(&durable);
    let channel = connect(&running, &asker.tasks).await;
    let open = async |offset: u64| asker.open(channel.clone(), &[(LOG, Offset(offset))]).await;
    running.write(&profile(0, START_NS)).await.unwrap();
    let first = open(0).await.unwrap();
    running.write(&profile(1, START_NS + 1)).await.unwrap();
    running.handle.flush().await.unwrap();
    running.write(&profile(2, START_NS + 2)).await.unwrap();
    assert_eq!(times(&first).await, [START_NS], "as it was");
    assert_eq!(times(&open(0).await.unwrap()).await, [0, 1, 2].map(|n| START_NS + n));
    assert_eq!(times(&open(2).await.unwrap()).await, [START_NS + 2]);
    let error = open(1).await.err().unwrap();
    assert!(
        matches!(error, OpenError::SnapshotTooOld { log: LOG, committed: Offset(1) }),
        "no cut begins there: {error}"
    );
}

#[tokio::test]
async fn logs_that_are_elsewhere_are_named() {
    let durable = durable();
    let running = durable.open().await;
    running.write(&profile(0, START_NS)).await.unwrap();
    let asker = asker(&durable);
    let channel = connect(&running, &asker.tasks).await;
    let other = |partition, log| LogId { partition: Partition(partition), log };
    let committed = [other(7, 0), LOG, other(0, 1)].map(|log| (log, Offset(0)));
    let opened = asker.open(channel.clone(), &committed).await.unwrap();
    assert_eq!(opened.missing, [other(7, 0), other(0, 1)]);
    assert_eq!(times(&opened).await, [START_NS]);
    let opened = asker.open(channel.clone(), &[]).await.unwrap();
    assert_eq!((opened.heads.len(), opened.missing), (0, vec![]), "nothing of what is not asked for");
    let nobody = Tenant { id: TenantId::new("u").unwrap(), number: TenantNumber(2) };
    let opened = Asker { tenant: nobody, ..asker }.open(channel, &committed).await.unwrap();
    assert_eq!((opened.heads.len(), opened.missing.len()), (0, 2));
}

#[tokio::test]
async fn a_head_is_asked_for_its_own_tenant_only() {
    let running = durable().open().await;
    running.write(&profile(0, START_NS)).await.unwrap();
    let tasks = Tasks::new();
    let mut client = IngesterServiceClient::new(connect(&running, &tasks).await);
    let open = |tenant: &str, tenant_number| wire::OpenHeadsRequest {
        tenant: tenant.to_owned(),
        tenant_number,
        committed: vec![encode_offset(LOG, Offset(0))],
        keep_ms: 60_000,
    };
    for (tenant, number) in [("other", 1), ("no name", 1), ("", 1)] {
        let refused = client.open_heads(open(tenant, number)).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument, "{tenant}: {refused}");
    }
    let head = client.open_heads(open("t", 1)).await.unwrap().into_inner().heads.remove(0);
    let ask = |tenant_number| wire::HeadRequest { id: head.id.clone(), tenant_number };
    let request = wire::CloseHeadsRequest { tenant_number: 2, ids: vec![head.id.clone()] };
    assert_eq!(client.close_heads(request).await.err().unwrap().code(), Code::PermissionDenied);
    assert_eq!(client.series(ask(2)).await.err().unwrap().code(), Code::PermissionDenied);
    assert_eq!(client.stack_tree(ask(2)).await.err().unwrap().code(), Code::PermissionDenied);
    assert_eq!(client.sample_labels(ask(2)).await.err().unwrap().code(), Code::PermissionDenied);
    let head_of = |tenant_number| Some(ask(tenant_number));
    let profiles = |head| wire::ProfilesRequest { head, selection: None };
    let tree = |head| wire::TreeRequest { head, ..Default::default() };
    let samples = |head| wire::SamplesRequest { head, ..Default::default() };
    for (head, code) in [
        (head_of(2), Code::PermissionDenied),
        (head_of(1), Code::InvalidArgument),
        (None, Code::InvalidArgument),
        (Some(wire::HeadRequest { id: Bytes::from_static(&[0; 16]), tenant_number: 1 }), Code::NotFound),
    ] {
        assert_eq!(client.profiles(profiles(head.clone())).await.err().unwrap().code(), code);
        assert_eq!(client.tree(tree(head.clone())).await.err().unwrap().code(), code);
        assert_eq!(client.samples(samples(head)).await.err().unwrap().code(), code);
    }
    assert!(client.series(ask(1)).await.is_ok());
    let request = wire::CloseHeadsRequest { tenant_number: 1, ids: vec![head.id.clone()] };
    client.close_heads(request).await.unwrap();
    assert_eq!(client.series(ask(1)).await.err().unwrap().code(), Code::NotFound);
}

#[tokio::test]
async fn a_querier_that_dies_leaves_no_heads_open() {
    let durable = durable();
    let running = durable.open().await;
    running.write(&profile(0, START_NS)).await.unwrap();
    // The owner's time passes, the querier's does not.
    let clock: Arc<dyn Clock> = Arc::new(cambium_runtime::clock::SystemClock::new());
    let asker = Asker { clock, ..asker(&durable) };
    let opened = asker.open(connect(&running, &asker.tasks).await, &[(LOG, Offset(0))]).await.unwrap();
    let open = |count| format!("cambium_ingester_heads_open {count}\n");
    assert!(running.metrics.encode().contains(&open(1)));
    durable.clock.advance(asker.timeout);
    let swept = async {
        while !running.metrics.encode().contains(&open(0)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, swept).await.expect("heads are let go");
    let error = opened.heads[0].1.series().await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}
