//! The gRPC door for other roles: `cambium.ingester.v1`. For the internal port: whoever may call it may read and write
//! for any tenant.

use std::sync::Arc;
use std::time::Duration;

use cambium_blocks::Dataset;
use cambium_blocks::remote::answer::{self, Deadline, Messages};
use cambium_blocks::remote::open::{decode_offset, encode_log, encode_offset};
use cambium_ingestlog::log::RECORD_BYTES_MAX;
use cambium_model::block::{LogId, Offset, Partition};
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_proto::wire::{OWNER_METADATA, ingester as wire};
use cambium_runtime::error::{ApiError, HasKind, Kind};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use wire::ingester_service_server::{IngesterService, IngesterServiceServer};

use crate::claims;
use crate::error::Error;
use crate::opened::{OpenedHeads, SWEEP_INTERVAL};
use crate::service::{Handle, Shared};

/// Bytes of a request, at most: those of the largest record that a log takes, and a little around it.
pub const REQUEST_BYTES_MAX: usize = RECORD_BYTES_MAX + (64 << 10);

/// `cambium.ingester.v1.IngesterService` over this ingester. Ids of open heads follow from the seed, which must be
/// random and nobody else's.
pub fn ingester_service(handle: Handle, seed: [u8; 32]) -> IngesterServiceServer<Ingester> {
    let shared = Arc::clone(handle.shared());
    let opened = OpenedHeads::new(Arc::clone(&shared.deps.clock), shared.metrics.clone(), seed);
    let opened = Arc::new(opened);
    shared.tasks.spawn("open heads", sweep(Arc::clone(&shared), Arc::clone(&opened)));
    IngesterServiceServer::new(Ingester { handle, opened }).max_decoding_message_size(REQUEST_BYTES_MAX)
}

async fn sweep(shared: Arc<Shared>, opened: Arc<OpenedHeads>) {
    let shutdown = shared.tasks.shutdown_signal();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = shared.deps.clock.sleep(SWEEP_INTERVAL) => opened.sweep(),
        }
    }
}

/// The service.
#[derive(Debug)]
pub struct Ingester {
    handle: Handle,
    opened: Arc<OpenedHeads>,
}

impl Ingester {
    fn head(&self, head: Option<wire::HeadRequest>) -> Result<Arc<Dataset>, Status> {
        let head = head.ok_or_else(|| invalid("head is missing"))?;
        self.opened.get(&head.id, TenantNumber(head.tenant_number)).map_err(status)
    }

    fn deadline<M>(&self, request: &Request<M>) -> Deadline {
        Deadline::of(request.metadata(), Arc::clone(&self.handle.shared().deps.clock))
    }

    /// The tenant's heads, each with its log; and the logs asked for that are not here.
    async fn open(
        &self,
        tenant: &Tenant,
        committed: &[(LogId, Offset)],
        keep: Duration,
    ) -> Result<wire::OpenHeadsResponse, Status> {
        let mut response = wire::OpenHeadsResponse::default();
        let heads = match self.handle.heads(tenant.number, committed) {
            Ok(heads) => heads,
            Err(Error::SnapshotTooOld { log, offset }) => {
                response.snapshot_too_old = Some(encode_offset(log, offset));
                return Ok(response);
            }
            Err(other) => return Err(status(other)),
        };
        response.missing = heads.missing.into_iter().map(encode_log).collect();
        let (logs, heads): (Vec<LogId>, Vec<_>) = heads.found.into_iter().unzip();
        if heads.iter().any(|head| head.tenant != *tenant) {
            return Err(invalid("tenant and tenant_number are not of one tenant"));
        }
        let opened = self.opened.open(heads, keep).map_err(status)?;
        for (log, (id, head)) in logs.into_iter().zip(opened) {
            response.heads.push(answer::opened(&*head, id, log).await?);
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl IngesterService for Ingester {
    type SeriesStream = Messages<wire::Piece>;
    type ProfilesStream = Messages<wire::Piece>;
    type TreeStream = Messages<wire::Piece>;
    type SamplesStream = Messages<wire::Samples>;
    type StackTreeStream = Messages<wire::Piece>;
    type SampleLabelsStream = Messages<wire::Piece>;

    async fn write(
        &self,
        request: Request<wire::WriteRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let wire::WriteRequest { partition, record } = request.into_inner();
        let ack = self.handle.write(Partition(partition), record).await.map_err(write_status)?;
        let (applied, duplicates) = (ack.applied as u64, ack.duplicates as u64);
        Ok(Response::new(wire::WriteResponse { applied, duplicates }))
    }

    async fn claim(
        &self,
        request: Request<wire::ClaimRequest>,
    ) -> Result<Response<wire::ClaimResponse>, Status> {
        let (log, pushes) = claims::decode(request.into_inner()).map_err(|what| invalid(&what))?;
        let claimed = self.handle.claim(log, &pushes).map_err(write_status)?;
        Ok(Response::new(claims::encode_answer(claimed)))
    }

    async fn flush(&self, _: Request<wire::FlushRequest>) -> Result<Response<wire::FlushResponse>, Status> {
        let flushed = self.handle.flush().await.map_err(status)?;
        Ok(Response::new(wire::FlushResponse { flushed: flushed as u64 }))
    }

    async fn open_heads(
        &self,
        request: Request<wire::OpenHeadsRequest>,
    ) -> Result<Response<wire::OpenHeadsResponse>, Status> {
        let wire::OpenHeadsRequest { tenant_number, tenant, committed, keep_ms } = request.into_inner();
        let id = TenantId::new(&tenant).map_err(|error| invalid(&error.to_string()))?;
        let tenant = Tenant { id, number: TenantNumber(tenant_number) };
        let committed: Result<Vec<_>, _> = committed.into_iter().map(decode_offset).collect();
        let committed = committed.map_err(|error| invalid(&error.to_string()))?;
        self.open(&tenant, &committed, Duration::from_millis(keep_ms)).await.map(Response::new)
    }

    async fn close_heads(
        &self,
        request: Request<wire::CloseHeadsRequest>,
    ) -> Result<Response<wire::CloseHeadsResponse>, Status> {
        let wire::CloseHeadsRequest { tenant_number, ids } = request.into_inner();
        let close = |id| self.opened.close(id, TenantNumber(tenant_number));
        ids.iter().try_for_each(|id| close(id)).map_err(status)?;
        Ok(Response::new(wire::CloseHeadsResponse {}))
    }

    async fn series(
        &self,
        request: Request<wire::HeadRequest>,
    ) -> Result<Response<Self::SeriesStream>, Status> {
        let deadline = self.deadline(&request);
        let head = self.head(Some(request.into_inner()))?;
        deadline.answer(answer::series(&*head)).await
    }

    async fn profiles(
        &self,
        request: Request<wire::ProfilesRequest>,
    ) -> Result<Response<Self::ProfilesStream>, Status> {
        let (deadline, mut request) = (self.deadline(&request), request.into_inner());
        let head = self.head(request.head.take())?;
        deadline.answer(answer::profiles(&*head, request)).await
    }

    async fn tree(&self, request: Request<wire::TreeRequest>) -> Result<Response<Self::TreeStream>, Status> {
        let (deadline, mut request) = (self.deadline(&request), request.into_inner());
        let head = self.head(request.head.take())?;
        deadline.answer(answer::tree(&*head, request)).await
    }

    async fn samples(
        &self,
        request: Request<wire::SamplesRequest>,
    ) -> Result<Response<Self::SamplesStream>, Status> {
        let (deadline, mut request) = (self.deadline(&request), request.into_inner());
        let head = self.head(request.head.take())?;
        deadline.answer(answer::samples(&*head, request)).await
    }

    async fn stack_tree(
        &self,
        request: Request<wire::HeadRequest>,
    ) -> Result<Response<Self::StackTreeStream>, Status> {
        let deadline = self.deadline(&request);
        let head = self.head(Some(request.into_inner()))?;
        deadline.answer(answer::stack_tree(&*head)).await
    }

    async fn sample_labels(
        &self,
        request: Request<wire::HeadRequest>,
    ) -> Result<Response<Self::SampleLabelsStream>, Status> {
        let deadline = self.deadline(&request);
        let head = self.head(Some(request.into_inner()))?;
        deadline.answer(answer::sample_labels(&*head)).await
    }
}

fn status(error: impl HasKind) -> Status {
    ApiError::from(error).into()
}

fn invalid(what: &str) -> Status {
    ApiError::new(Kind::Invalid, what).into()
}

/// The status of a refused write; it says whether the partition is somewhere else.
fn write_status(error: Error) -> Status {
    let moved = matches!(error, Error::NotOwner(_));
    let mut status = status(error);
    if moved {
        status.metadata_mut().insert(OWNER_METADATA, MetadataValue::from_static("another"));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_write_says_whether_another_may_take_it() {
        let says = |error| write_status(error).metadata().contains_key(OWNER_METADATA);
        assert!(says(Error::NotOwner(Partition(3))));
        assert!(!says(Error::HeadFull { held_bytes: 2, budget_bytes: 1 }));
    }
}
