//! The owner's side: questions to a source, answered as messages.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cambium_model::block::LogId;
use cambium_proto::wire::ingester as wire;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{ApiError, Kind};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use super::Malformed;
use super::labels::encode_label_sets;
use super::pieces::cut;
use super::profiles::{encode_profiles, encode_samples};
use super::scans::{decode_sample_scan, decode_selection, decode_tree_scan};
use super::series::encode_series;
use super::stacks::{encode_partial, encode_tree};
use crate::offload::offload;
use crate::{Error, Source};

/// Messages of an answer, as a service gives them back.
pub type Messages<M> = BoxStream<'static, Result<M, Status>>;

/// Time that an answer may take where the caller does not say.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);

/// What an opened source has of everything.
pub async fn opened(source: &dyn Source, id: [u8; 16], log: LogId) -> Result<wire::OpenedHead, Status> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(wire::OpenedHead {
        id: id.to_vec().into(),
        log: Some(wire::Log { partition: log.partition.0, log: log.log }),
        series: count(source.series().await.map_err(status)?.len()),
        nodes: count(source.stack_tree().await.map_err(status)?.len()),
        label_sets: count(source.sample_labels().await.map_err(status)?.len()),
    })
}

/// [`Source::series`]
pub async fn series(source: &dyn Source) -> Result<Messages<wire::Piece>, Status> {
    let table = source.series().await.map_err(status)?;
    pieces(move || encode_series(&table)).await
}

/// [`Source::profiles`]
pub async fn profiles(
    source: &dyn Source,
    request: wire::ProfilesRequest,
) -> Result<Messages<wire::Piece>, Status> {
    let table = source.series().await.map_err(status)?;
    let (rows, range) = decode_selection(request.selection, table.len()).map_err(refused)?;
    let profiles = source.profiles(&rows, range).await.map_err(status)?;
    pieces(move || encode_profiles(profiles)).await
}

/// [`Source::tree`]
pub async fn tree(source: &dyn Source, request: wire::TreeRequest) -> Result<Messages<wire::Piece>, Status> {
    let table = source.series().await.map_err(status)?;
    let has_stack_tree = request.has_stack_tree;
    let scan = decode_tree_scan(request, table.len()).map_err(refused)?;
    match source.tree(&scan).await {
        Ok(partial) => pieces(move || encode_partial(&partial, has_stack_tree)).await,
        Err(Error::Overflow { profile_type: overflow }) => {
            pieces(|| wire::PartialTree { overflow, ..wire::PartialTree::default() }).await
        }
        Err(other) => Err(status(other)),
    }
}

/// [`Source::samples`]
pub async fn samples(
    source: &dyn Source,
    request: wire::SamplesRequest,
) -> Result<Messages<wire::Samples>, Status> {
    let table = source.series().await.map_err(status)?;
    let scan = decode_sample_scan(request, table.len()).map_err(refused)?;
    let batches = source.samples(&scan).await.map_err(status)?;
    let messages = batches.flat_map(|batch| match batch {
        Ok(batch) => stream::iter(encode_samples(&batch)).map(Ok).left_stream(),
        Err(error) => stream::once(async { Err(status(error)) }).right_stream(),
    });
    Ok(messages.boxed())
}

/// [`Source::stack_tree`]
pub async fn stack_tree(source: &dyn Source) -> Result<Messages<wire::Piece>, Status> {
    let tree = source.stack_tree().await.map_err(status)?;
    pieces(move || encode_tree(&tree)).await
}

/// [`Source::sample_labels`]
pub async fn sample_labels(source: &dyn Source) -> Result<Messages<wire::Piece>, Status> {
    let sets = source.sample_labels().await.map_err(status)?;
    pieces(move || encode_label_sets(&sets)).await
}

async fn pieces<M: Message>(
    encode: impl FnOnce() -> M + Send + 'static,
) -> Result<Messages<wire::Piece>, Status> {
    let pieces = offload(move |_| Ok(cut(&encode()))).await.map_err(status)?;
    Ok(stream::iter(pieces).map(Ok).boxed())
}

fn status(error: Error) -> Status {
    ApiError::from(error).into()
}

fn refused(malformed: Malformed) -> Status {
    Status::invalid_argument(malformed.to_string())
}

/// Until when a caller waits. Work and stream end then, or when the caller goes away: whichever comes first.
#[derive(Clone, Debug)]
pub struct Deadline {
    clock: Arc<dyn Clock>,
    left: Duration,
}

impl Deadline {
    /// What the request says in `grpc-timeout`, at most [`ANSWER_TIME_MAX`].
    pub fn of(metadata: &MetadataMap, clock: Arc<dyn Clock>) -> Self {
        let text = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok());
        let left = text.and_then(timeout).unwrap_or(ANSWER_TIME_MAX).min(ANSWER_TIME_MAX);
        Self { clock, left }
    }

    /// Answers in time, or not at all.
    ///
    /// # Errors
    /// Those of the work, and `DEADLINE_EXCEEDED`, which may also end the stream.
    pub async fn answer<M: Send + 'static>(
        self,
        work: impl Future<Output = Result<Messages<M>, Status>>,
    ) -> Result<Response<Messages<M>>, Status> {
        let mut due: Due = Box::pin(async move { self.clock.sleep(self.left).await });
        let messages = tokio::select! {
            biased;
            () = &mut due => return Err(late()),
            messages = work => messages?,
        };
        let bounded = stream::unfold(Some((messages, due)), |state| async move {
            let (mut messages, mut due) = state?;
            tokio::select! {
                biased;
                () = &mut due => Some((Err(late()), None)),
                message = messages.next() => message.map(|message| (message, Some((messages, due)))),
            }
        });
        Ok(Response::new(bounded.boxed()))
    }
}

type Due = Pin<Box<dyn Future<Output = ()> + Send>>;

fn late() -> Status {
    ApiError::new(Kind::Timeout, "the caller's deadline has passed").into()
}

/// The value of `grpc-timeout`: at most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let cases = [
            ("2H", Some(Duration::from_secs(7_200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("500m", Some(Duration::from_millis(500))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("100000000S", None),
            ("1é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(timeout(text), expected, "{text:?}");
        }
    }
}
