//! A deadline for bodies that stop coming: 408, and the connection is free for somebody else.
//!
//! It is for the silence between two pieces, not for the whole: a large body on a slow line takes its time. A gRPC
//! stream may be silent for as long as its client lives, for which the listener asks with pings.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{ApiError, Kind};
use http::{HeaderValue, StatusCode, Version, header};
use hyper::body::{Frame, SizeHint};

/// Longest silence within a body.
pub const BODY_SILENCE_MAX: Duration = Duration::from_secs(30);

/// What the layer needs.
#[derive(Clone, Debug)]
pub struct BodyDeadline {
    /// Longest silence.
    pub silence_max: Duration,
    /// Measures it.
    pub clock: Arc<dyn Clock>,
}

/// The layer: whatever the handler makes of a body that broke off, the client is told that it was late.
pub async fn limit_silence(State(deadline): State<BodyDeadline>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || is_grpc(&request) {
        return next.run(request).await;
    }
    let version = request.version();
    let late = Arc::new(AtomicBool::new(false));
    let silence_max = deadline.silence_max;
    let watched = |body| Watched { body, deadline, late: Arc::clone(&late), silence: None };
    let response = next.run(request.map(|body| Body::new(watched(body)))).await;
    if late.load(Ordering::Relaxed) { too_late(silence_max, version) } else { response }
}

/// Real gRPC, which is HTTP/2 only: gRPC-web sends one message, as any other request.
fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn too_late(silence_max: Duration, version: Version) -> Response {
    let message = format!("nothing of the body came for {silence_max:?}");
    let mut response = ApiError::new(Kind::Timeout, message).into_response();
    // Of the two that waited it was the client that took too long.
    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    if version < Version::HTTP_2 {
        // The rest of the body may still come and would be taken for the next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body, and how long it has been silent.
struct Watched {
    body: Body,
    deadline: BodyDeadline,
    late: Arc<AtomicBool>,
    /// Running while the next piece is waited for.
    silence: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.silence = None;
            return Poll::Ready(frame);
        }
        let silence = this.silence.get_or_insert_with(|| {
            let BodyDeadline { silence_max, clock } = this.deadline.clone();
            Box::pin(async move { clock.sleep(silence_max).await })
        });
        std::task::ready!(silence.as_mut().poll(context));
        this.silence = None;
        this.late.store(true, Ordering::Relaxed);
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Poll::Ready(Some(Err(axum::Error::new(late))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
