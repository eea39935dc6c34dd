//! Clients that are slow, silent or gone, on real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::middleware;
use axum::routing::{get, post};
use bytes::Bytes;
use cambium_runtime::clock::{Clock, SystemClock};
use futures::channel::mpsc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::*;
use crate::http::deadline::{BodyDeadline, limit_silence};

/// Long enough for a test's own steps on a busy machine, short enough to wait for.
const SHORT: Duration = Duration::from_millis(600);
/// By then everything has ended.
const LONG: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the server of a test is its own")]
async fn server() -> Server {
    let deadlines =
        Deadlines { head_max: SHORT, ping_interval: SHORT / 2, ping_max: SHORT / 2, drain_max: SHORT };
    let clock = Arc::new(SystemClock::new());
    // As a call of a method without messages.
    let called = |_: Bytes| async { ([("grpc-status", "0"), ("content-type", "application/grpc")], "") };
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/", post(|body: Bytes| async move { format!("{} bytes", body.len()) }))
        .route("/slow", get(|| async { SystemClock::new().sleep(SHORT / 2).await }))
        .route("/test.Test/Call", post(called))
        .layer(middleware::from_fn_with_state(BodyDeadline { silence_max: SHORT, clock }, limit_silence));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let serving = tokio::spawn(serve(listener, router, deadlines, shutdown.clone()));
    Server { address, shutdown, serving }
}

impl Server {
    /// What a client gets that says this and then nothing, until the server ends the connection.
    async fn answer(&self, said: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        rest(&mut stream).await
    }

    /// Answers of a call whose requests are sent on.
    async fn call(&self, requests: mpsc::UnboundedReceiver<()>) -> Result<(), tonic::Status> {
        let channel =
            Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let codec: ProstCodec<(), ()> = ProstCodec::default();
        let path = "/test.Test/Call".parse().unwrap();
        let answer = client.streaming(tonic::Request::new(requests), path, codec).await?;
        assert_eq!(answer.into_inner().message().await?, None);
        Ok(())
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await;
    // A connection may also be reset.
    let _ = ended.expect("the server ends the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn pause(duration: Duration) {
    SystemClock::new().sleep(duration).await;
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let server = server().await;
    for said in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        assert_eq!(server.answer(said.as_bytes()).await, "", "{said:?}");
    }
    let kept = server.answer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(kept.starts_with("HTTP/1.1 200") && kept.ends_with("\r\n\r\nhere"), "{kept}");
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_gone() {
    let server = server().await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // It gets settings, pings and the end.
    server.answer(&[PREFACE, &settings].concat()).await;
}

#[tokio::test]
async fn a_body_that_stops_is_answered_408() {
    let server = server().await;
    for said in ["Content-Length: 10\r\n\r\n123", "Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n"] {
        let answer = server.answer(format!("POST / HTTP/1.1\r\nHost: a\r\n{said}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], "error");
        assert_eq!(body["errorType"], "timeout");
        assert_eq!(body["error"], "nothing of the body came for 600ms");
    }
}

#[tokio::test]
async fn a_slow_body_that_comes_is_taken() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    for _ in 0..10 {
        pause(SHORT / 6).await;
        stream.write_all(b"x").await.unwrap();
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("10 bytes"), "{answer}");
}

#[tokio::test]
async fn a_body_keeps_what_is_known_of_its_length() {
    let seen = |body: Body| async move { format!("{:?}", axum::body::HttpBody::size_hint(&body).exact()) };
    let deadline = BodyDeadline { silence_max: SHORT, clock: Arc::new(SystemClock::new()) };
    let router =
        Router::new().route("/", post(seen)).layer(middleware::from_fn_with_state(deadline, limit_silence));
    let request = http::Request::post("/").body(Body::from("12345")).unwrap();
    let answer = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), "Some(5)");
}

#[tokio::test]
async fn a_grpc_stream_may_be_silent() {
    let server = server().await;
    let (sender, requests) = mpsc::unbounded();
    let sending = async {
        for _ in 0..3 {
            sender.unbounded_send(()).unwrap();
            pause(SHORT * 2).await;
        }
        drop(sender);
    };
    let (called, ()) = tokio::join!(server.call(requests), sending);
    called.unwrap();
}

/// gRPC needs HTTP/2: whoever says so in HTTP/1 is treated as everybody else.
#[tokio::test]
async fn the_name_of_grpc_is_no_excuse() {
    let server = server().await;
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 10\r\n\r\n123";
    let answer = server.answer(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn shutdown_waits_for_answers_and_not_for_silent_streams() {
    let server = server().await;
    let (sender, requests) = mpsc::unbounded();
    sender.unbounded_send(()).unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let stopping = async {
        pause(SHORT / 4).await;
        server.shutdown.cancel();
        rest(&mut slow).await
    };
    let (called, answer) = tokio::join!(server.call(requests), stopping);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    called.expect_err("it was cut");
    tokio::time::timeout(LONG, server.serving).await.expect("it ends").unwrap();
    TcpStream::connect(server.address).await.expect_err("nobody listens");
    drop(sender);
}
