//! The gRPC doors: our own agents' stream, and Parca's unary call.
//!
//! Both hold a bounded number of pushes in flight and read no further request while it is reached, so that the
//! sender feels the back-pressure in its own flow control.

use cambium_model::labels::Labels;
use cambium_model::profile::ProfileId;
use cambium_model::tenant::TenantId;
use cambium_proto::wire::ingest::ingest_service_server::{IngestService, IngestServiceServer};
use cambium_proto::wire::ingest::{PushRequest, PushResponse, Status as Verdict};
use cambium_proto::wire::parca::profile_store_service_server::{
    ProfileStoreService, ProfileStoreServiceServer,
};
use cambium_proto::wire::parca::{RawProfileSeries, WriteRawRequest, WriteRawResponse};
use cambium_runtime::error::ApiError;
use cambium_runtime::tenancy::{Access, AuthError, Identity};
use futures::stream::{self, BoxStream, StreamExt};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use crate::error::Error;
use crate::service::{Handle, Push, Receipt};

/// Pushes of one stream, or of one `WriteRaw`, that are under way at one time.
pub const STREAM_PUSHES_MAX: usize = 16;

/// `cambium.ingest.v1.IngestService` over this distributor.
pub fn ingest_service(handle: Handle) -> IngestServiceServer<Ingest> {
    let message_bytes_max = message_bytes_max(&handle);
    IngestServiceServer::new(Ingest { handle })
        .max_decoding_message_size(message_bytes_max)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
}

/// `parca.profilestore.v1alpha1.ProfileStoreService` over this distributor: `WriteRaw`. Any other method of that
/// service is answered with `Unimplemented`.
pub fn profile_store_service(handle: Handle) -> ProfileStoreServiceServer<ProfileStore> {
    let message_bytes_max = message_bytes_max(&handle);
    ProfileStoreServiceServer::new(ProfileStore { handle })
        .max_decoding_message_size(message_bytes_max)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
}

/// Our agents' service.
#[derive(Debug)]
pub struct Ingest {
    handle: Handle,
}

/// Parca's service.
#[derive(Debug)]
pub struct ProfileStore {
    handle: Handle,
}

#[tonic::async_trait]
impl IngestService for Ingest {
    type StreamStream = BoxStream<'static, Result<PushResponse, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let tenant = writer(&request)?;
        let handle = self.handle.clone();
        let answers = request
            .into_inner()
            .map(move |request| answer(handle.clone(), tenant.clone(), request))
            .buffer_unordered(STREAM_PUSHES_MAX);
        Ok(Response::new(answers.boxed()))
    }
}

#[tonic::async_trait]
impl ProfileStoreService for ProfileStore {
    /// Stores every profile it can. If any was refused the call fails with the first refusal worth a retry, or else
    /// the first, and says how many there were: a retry of the whole call is harmless.
    async fn write_raw(
        &self,
        request: Request<WriteRawRequest>,
    ) -> Result<Response<WriteRawResponse>, Status> {
        let tenant = writer(&request)?;
        let WriteRawRequest { series, normalized, .. } = request.into_inner();
        let pushes =
            series.into_iter().enumerate().flat_map(|(index, series)| raw_pushes(index, series, normalized));
        let outcomes: Vec<(String, Result<Receipt, Error>)> = stream::iter(pushes)
            .map(|(place, push)| {
                let (handle, tenant) = (self.handle.clone(), tenant.clone());
                async move { (place, submit(&handle, &tenant, push).await) }
            })
            .buffered(STREAM_PUSHES_MAX)
            .collect()
            .await;

        let count = outcomes.len();
        let refusals = outcomes.into_iter().filter_map(|(place, outcome)| Some((place, outcome.err()?)));
        let refusals: Vec<(String, ApiError)> =
            refusals.map(|(place, error)| (place, ApiError::from(error))).collect();
        let retryable = refusals.iter().find(|(_, error)| error.retry_after.is_some());
        let Some((place, error)) = retryable.or(refusals.first()) else {
            return Ok(Response::new(WriteRawResponse {}));
        };
        let message = format!("{place}: {} ({} of {count} profiles refused)", error.message, refusals.len());
        Err(Status::from(ApiError { message, ..error.clone() }))
    }
}

/// The tenant of a call that may write.
fn writer<T>(request: &Request<T>) -> Result<TenantId, Status> {
    let identity = request.extensions().get::<Identity>().ok_or(AuthError::NoTenant);
    let tenant = identity.and_then(|identity| identity.require(Access::Write).cloned());
    tenant.map_err(|error| ApiError::from(error).into())
}

/// One profile of a stream: its verdict, whatever it is. Only a broken stream is an error.
async fn answer(
    handle: Handle,
    tenant: TenantId,
    request: Result<PushRequest, Status>,
) -> Result<PushResponse, Status> {
    let request = request?;
    let sent_id = request.profile_id.clone();
    Ok(match submit(&handle, &tenant, push_of(request)).await {
        Ok(receipt) => PushResponse {
            profile_id: receipt.id.0.to_vec().into(),
            status: Some(Verdict::default()),
            samples: receipt.samples,
        },
        Err(error) => {
            let error = ApiError::from(error);
            let retry_after_ms = error.retry_after.map_or(0, |wait| wait.as_millis() as u64);
            let status = Verdict { code: error.kind.grpc() as i32, message: error.message, retry_after_ms };
            PushResponse { profile_id: sent_id, status: Some(status), samples: 0 }
        }
    })
}

/// Pushes what was read, or counts what could not be.
async fn submit(handle: &Handle, tenant: &TenantId, push: Result<Push, Error>) -> Result<Receipt, Error> {
    let admitted = handle.admit(tenant).await?;
    match push {
        Ok(push) => admitted.push(push).await,
        Err(error) => Err(admitted.refuse(error)),
    }
}

fn push_of(request: PushRequest) -> Result<Push, Error> {
    let labels = Labels::from_pairs(request.labels.iter().map(|label| (&label.name, &label.value)))?;
    let id = match request.profile_id.as_ref() {
        [] => None,
        bytes => Some(ProfileId(bytes.try_into().map_err(|_| Error::ProfileId)?)),
    };
    Ok(Push {
        body: request.profile,
        labels,
        name: (!request.name.is_empty()).then_some(request.name),
        time_ns: (request.time_ns != 0).then_some(request.time_ns),
        id,
        addresses_relative: false,
    })
}

/// The profiles of one series, each with its place in the request. Parca's `__name__` label names the profile.
fn raw_pushes(
    index: usize,
    series: RawProfileSeries,
    addresses_relative: bool,
) -> impl Iterator<Item = (String, Result<Push, Error>)> {
    let pairs = series.labels.unwrap_or_default().labels;
    let labels = Labels::from_pairs(pairs.iter().map(|label| (&label.name, &label.value)));
    series.samples.into_iter().enumerate().map(move |(at, sample)| {
        let push = labels.clone().map_err(Error::Labels).map(|labels| Push {
            body: sample.raw_profile,
            labels,
            name: None,
            time_ns: None,
            id: None,
            addresses_relative,
        });
        (format!("series[{index}].samples[{at}]"), push)
    })
}

fn message_bytes_max(handle: &Handle) -> usize {
    usize::try_from(handle.config().grpc_message_bytes_max.0).unwrap_or(usize::MAX)
}
