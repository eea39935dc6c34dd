//! Accepts connections and ends those on which nothing happens.
//!
//! ```text
//!   accept ──► first bytes ──► HTTP/1: head ──► body (see deadline) ──► answer ──► next head …
//!              HEAD_MAX    │           HEAD_MAX
//!                          └─► HTTP/2: pings, every PING_INTERVAL, answered within PING_MAX
//! ```
//!
//! Not `axum::serve`, which has no deadlines: whoever opens connections and says nothing would keep them for ever.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const HEAD_MAX: Duration = Duration::from_secs(75);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(20);
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What every HTTP/2 connection starts with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the accept, or the last answer, to the end of the next request's head. HTTP/1 connections are kept for as
    /// long between two requests; agents push once a minute.
    pub head_max: Duration,
    /// How often an HTTP/2 client is asked whether it is there.
    pub ping_interval: Duration,
    /// How long it may take to say so.
    pub ping_max: Duration,
    /// From shutdown to the end of the requests under way.
    pub drain_max: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { head_max: HEAD_MAX, ping_interval: PING_INTERVAL, ping_max: PING_MAX, drain_max: DRAIN_MAX }
    }
}

/// Serves until `shutdown`, then until the requests under way are answered or their time is over.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    deadlines: Deadlines,
    shutdown: CancellationToken,
) {
    let router = router.with_state(());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            // Errors are dealt with there: out of descriptors, it waits.
            (stream, _) = Listener::accept(&mut listener) => {
                connections.spawn(connection(stream, router.clone(), deadlines, shutdown.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(deadlines.drain_max, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "cut what was still under way at shutdown");
    }
}

async fn connection(stream: TcpStream, router: Router, deadlines: Deadlines, shutdown: CancellationToken) {
    // Answers are written whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(deadlines.head_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(deadlines.ping_interval)
        .keep_alive_timeout(deadlines.ping_max);
    let io = TokioIo::new(Greeted::new(stream, deadlines.head_max));
    let mut serving = pin!(builder.serve_connection(io, TowerToHyperService::new(router)));
    // How a connection ends is its client's business: most errors are clients that went away.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// A stream that must say soon which protocol it speaks. The deadlines of the protocol begin after that.
struct Greeted {
    stream: TcpStream,
    /// How much of [`PREFACE`] has come; none when what came was something else, or all of it.
    greeting: Option<Greeting>,
}

struct Greeting {
    seen: usize,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl Greeted {
    #[expect(clippy::disallowed_methods, reason = "a peer's silence is in real time")]
    fn new(stream: TcpStream, max: Duration) -> Self {
        let deadline = Box::pin(tokio::time::sleep(max));
        Self { stream, greeting: Some(Greeting { seen: 0, deadline }) }
    }

    fn greet(&mut self, bytes: &[u8]) {
        let Some(greeting) = &mut self.greeting else { return };
        let expected = &PREFACE[greeting.seen..];
        if bytes.len() < expected.len() && expected.starts_with(bytes) {
            greeting.seen += bytes.len();
        } else {
            self.greeting = None;
        }
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer)? {
            Poll::Ready(()) => {
                self.greet(&buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                let Some(greeting) = &mut self.greeting else { return Poll::Pending };
                ready!(greeting.deadline.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
