use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;

use super::*;
use crate::key::ClusterKey;
use crate::node::WIRE_VERSION_MAX;
use crate::node::tests::node;

fn credentials(key: &str) -> Credentials {
    Credentials::new("c", ClusterKey::from_setting(key).unwrap().as_ref())
}

const KEY: &str = "correct horse battery staple";

/// Asks the service that every server here has.
async fn ask(channel: Channel, sender: Sender) -> Result<(), Code> {
    let mut client = HealthClient::new(InterceptedService::new(channel, sender));
    let answer = client.check(HealthCheckRequest::default()).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

/// The service, behind a guard.
fn guarded() -> InterceptedService<HealthServer<impl tonic_health::pb::health_server::Health>, Guard> {
    let (_, service) = tonic_health::server::health_reporter();
    InterceptedService::new(service, credentials(KEY).guard())
}

/// A server in memory, what connects to it, and how often that did.
fn in_memory(tasks: &Tasks) -> (Connector, Arc<AtomicUsize>) {
    const CONNECTIONS_MAX: usize = 8;
    let (connections, accepted) = mpsc::channel::<io::Result<DuplexStream>>(CONNECTIONS_MAX);
    let shutdown = tasks.shutdown_signal();
    let incoming = ReceiverStream::new(accepted);
    tasks.spawn("server", async move {
        let server = Server::builder().add_service(guarded());
        server.serve_with_incoming_shutdown(incoming, shutdown.cancelled()).await.unwrap();
    });
    let count = Arc::new(AtomicUsize::new(0));
    let connected = Arc::clone(&count);
    let connector: Connector = Arc::new(move |_| {
        connected.fetch_add(1, Ordering::Relaxed);
        let connections = connections.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            connections.send(Ok(theirs)).await.map_err(io::Error::other)?;
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    });
    (connector, count)
}

#[tokio::test]
async fn a_channel_is_one_for_a_life_and_address_of_a_node() {
    let tasks = Tasks::new();
    let (connector, count) = in_memory(&tasks);
    let peers = Arc::new(Peers::with_connector(Config::default(), None, connector));
    let sender = credentials(KEY).sender(&node("me", "").name);
    let connections = || count.load(Ordering::Relaxed);
    let first = node("a", "");
    let channel = peers.channel(&first).unwrap();
    assert_eq!(connections(), 0, "nothing is connected before it is used");
    assert_eq!(ask(channel, sender.clone()).await, Ok(()));
    assert_eq!(ask(peers.channel(&first).unwrap(), sender.clone()).await, Ok(()));
    let changed = Node { revision: 9, ..first.clone() };
    assert_eq!(ask(peers.channel(&changed).unwrap(), sender.clone()).await, Ok(()));
    assert_eq!(connections(), 1);
    for (made, other) in [
        (2, Node { generation: 2, ..first.clone() }),
        (3, Node { internal: "127.0.0.1:9".to_owned(), generation: 2, ..first.clone() }),
    ] {
        assert_eq!(ask(peers.channel(&other).unwrap(), sender.clone()).await, Ok(()));
        assert_eq!(connections(), made, "{other:?}");
    }
    tasks.shut_down().await;
}

#[tokio::test]
async fn channels_go_with_their_nodes() {
    let tasks = Tasks::new();
    let (connector, _) = in_memory(&tasks);
    let peers = Arc::new(Peers::with_connector(Config::default(), None, connector));
    let (me, stays, goes) = (node("me", ""), node("stays", ""), node("goes", ""));
    let view = |nodes: &[&Node]| {
        Arc::new(View::new(me.name.clone(), nodes.iter().map(|node| Arc::new(Node::clone(node))), []))
    };
    let views = watch::Sender::new(view(&[&me, &stays, &goes]));
    peers.follow(views.subscribe(), &tasks);
    peers.channel(&stays).unwrap();
    peers.channel(&goes).unwrap();
    views.send_replace(view(&[&me, &stays]));
    let gone = async {
        while peers.held().len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    assert!(peers.held().contains_key(&stays.name));
    peers.retain(&view(&[&Node { generation: 2, ..stays.clone() }]));
    assert_eq!(peers.held().len(), 0, "another life is another node");
    tasks.shut_down().await;
}

#[tokio::test]
async fn strangers_and_the_incompatible_are_not_talked_with() {
    let tasks = Tasks::new();
    let (connector, _) = in_memory(&tasks);
    let peers = Peers::with_connector(Config::default(), None, connector);
    let a = node("a", "");
    for key in ["", "the key of another cluster"] {
        let stranger = credentials(key).sender(&a.name);
        assert_eq!(ask(peers.channel(&a).unwrap(), stranger).await, Err(Code::PermissionDenied));
    }
    let newer = Node { wire_version: WIRE_VERSION_MAX + 1, ..a.clone() };
    assert!(matches!(peers.channel(&newer), Err(Error::Incompatible { .. })));
    let nowhere = Node { internal: "no address".to_owned(), ..a.clone() };
    assert!(matches!(peers.channel(&nowhere), Err(Error::Address { .. })));
    tasks.shut_down().await;
}

/// Certificates for `localhost`: an authority's, a node's of it, and one of another authority.
fn certificates(folder: &Path) -> bool {
    let script = r#"
        set -e
        for ca in ca other; do
          openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$ca \
            -keyout $ca.key -out $ca.pem
          openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=node -keyout $ca-node.key -out node.csr
          printf 'subjectAltName=DNS:cambium.internal\nbasicConstraints=CA:FALSE\n' > node.ext
          openssl x509 -req -in node.csr -CA $ca.pem -CAkey $ca.key -CAcreateserial -days 2 -extfile node.ext -out $ca-node.pem
        done"#;
    let run = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    run.status.success()
}

#[tokio::test]
async fn over_tls_both_ends_show_certificates_of_the_authority() {
    let folder = tempfile::tempdir().unwrap();
    if !certificates(folder.path()) {
        eprintln!(
            "SKIPPED over_tls_both_ends_show_certificates_of_the_authority: no openssl to make certificates with"
        );
        return;
    }
    let tls = |ca: &str, node: &str| Tls {
        ca: folder.path().join(format!("{ca}.pem")),
        cert: folder.path().join(format!("{node}.pem")),
        key: folder.path().join(format!("{node}.key")),
        server_name: "cambium.internal".to_owned(),
    };
    let ours = tls("ca", "ca-node");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let internal = listener.local_addr().unwrap().to_string();
    let tasks = Tasks::new();
    let (server, shutdown) = (ours.server().unwrap(), tasks.shutdown_signal());
    tasks.spawn("server", async move {
        let server = Server::builder().tls_config(server).unwrap().add_service(guarded());
        let incoming = TcpListenerStream::new(listener);
        server.serve_with_incoming_shutdown(incoming, shutdown.cancelled()).await.unwrap();
    });
    let a = Node { internal, ..node("a", "") };
    let asked = async |tls: Option<ClientTlsConfig>| {
        let peers = Peers::new(Config::default(), tls);
        ask(peers.channel(&a).unwrap(), credentials(KEY).sender(&a.name)).await
    };
    assert_eq!(asked(Some(ours.client().unwrap())).await, Ok(()));
    let cases = [
        ("without TLS", None),
        ("a caller of another authority", Some(tls("ca", "other-node").client().unwrap())),
        ("a server of another authority", Some(tls("other", "ca-node").client().unwrap())),
        (
            "another name",
            Some(Tls { server_name: "x.internal".to_owned(), ..ours.clone() }.client().unwrap()),
        ),
    ];
    for (what, tls) in cases {
        assert!(asked(tls).await.is_err(), "{what}");
    }
    let missing = tls("nobody", "ca-node").client().unwrap_err();
    assert!(missing.to_string().ends_with("nobody.pem cannot be read"), "{missing}");
    tasks.shut_down().await;
}
