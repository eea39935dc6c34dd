//! Which answers are compressed.

use http::{Extensions, HeaderMap, StatusCode, Version, header};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

/// Smallest answer that is compressed. One packet takes it as it is; the ack of a push has 60 bytes, and compressing
/// it took a twelfth of the work of a push.
const COMPRESSED_BYTES_MIN: u64 = 1 << 10;

/// Types that shrink: text, and Arrow, whose columns this server sends as they are. Nothing else: downloads of pprof
/// are gzip already, and gRPC compresses its messages itself.
const SHRINKING: [&str; 4] =
    ["text/", "application/json", "application/openmetrics-text", "application/vnd.apache.arrow.stream"];

/// Compresses what is worth it, fast rather than small: answers are read once, mostly on a near network.
pub fn layer() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(COMPRESSED_BYTES_MIN).and(NotForContentType::SSE).and(shrinks);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it)
}

fn shrinks(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|text| SHRINKING.iter().any(|start| text.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn is_compressed(content_type: &'static str, bytes: usize) -> bool {
        let answer = move || async move { ([(header::CONTENT_TYPE, content_type)], vec![b'a'; bytes]) };
        let router = Router::new().route("/", get(answer)).layer(layer());
        let request = Request::get("/").header(header::ACCEPT_ENCODING, "gzip").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip")
    }

    #[tokio::test]
    async fn what_is_small_or_does_not_shrink_is_sent_as_it_is() {
        for (content_type, bytes, expected) in [
            ("application/json", 1_023, false),
            ("application/json", 1_024, true),
            ("text/csv; charset=utf-8", 4_096, true),
            ("text/vnd.graphviz; charset=utf-8", 4_096, true),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", 4_096, true),
            ("application/vnd.apache.arrow.stream", 4_096, true),
            ("application/octet-stream", 4_096, false),
            ("application/grpc", 4_096, false),
            ("application/grpc-web+proto", 4_096, false),
            ("text/event-stream", 4_096, false),
            ("image/png", 4_096, false),
            ("", 4_096, false),
        ] {
            assert_eq!(is_compressed(content_type, bytes).await, expected, "{bytes} bytes of {content_type}");
        }
    }
}
