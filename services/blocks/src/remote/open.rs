//! The querier's side: heads of one process opened for one query, and closed when nobody holds them any more.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cambium_model::block::{LogId, Offset, Partition};
use cambium_model::tenant::{Tenant, TenantNumber};
use cambium_proto::wire::ingester as wire;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{HasKind, Kind};
use cambium_runtime::tasks::Tasks;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::{Code, Request, Status};
use wire::ingester_service_client::IngesterServiceClient;

use super::Malformed;
use super::pieces::MESSAGE_BYTES_MAX;
use super::source::RemoteSource;
use crate::{Error, Source};

/// Time that closing heads may take; the owner lets go of them by itself later.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// What carries calls to one process: a channel, with whatever is wrapped around it.
pub trait Transport:
    GrpcService<
        Body,
        Future: Send,
        Error: Into<StdError> + Send,
        ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> Transport for T where
    T: GrpcService<
            Body,
            Future: Send,
            Error: Into<StdError> + Send,
            ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// A query, as far as its heads are concerned.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Whose profiles.
    pub tenant: Tenant,
    /// How long the query may take from now on. Every call says what is left of it, and none begins after it.
    pub timeout: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where heads are closed, after the query.
    pub tasks: Tasks,
}

/// The heads of one process.
#[derive(Debug, Default)]
pub struct Opened {
    /// One snapshot for each cut of a log, each open until it is dropped.
    pub heads: Vec<(LogId, Arc<dyn Source>)>,
    /// Of the logs asked for those that the process does not hold.
    pub missing: Vec<LogId>,
}

/// Why heads are not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log no longer holds what follows the offset, because newer blocks do: take a new snapshot of the catalogue.
    #[error("log {log} no longer holds its profiles from offset {} on", .committed.0)]
    SnapshotTooOld {
        /// The log.
        log: LogId,
        /// The offset.
        committed: Offset,
    },
    /// The process did not answer, or refused.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl HasKind for OpenError {
    fn kind(&self) -> Kind {
        match self {
            Self::SnapshotTooOld { .. } => Kind::Unavailable,
            Self::Failed(error) => error.kind(),
        }
    }
}

impl Asker {
    /// Opens the tenant's heads of one process: of each of these logs from its offset on.
    pub async fn open<T: Transport>(
        &self,
        transport: T,
        committed: &[(LogId, Offset)],
    ) -> Result<Opened, OpenError> {
        let session = Session {
            client: IngesterServiceClient::new(transport).max_decoding_message_size(MESSAGE_BYTES_MAX),
            tenant: self.tenant.number,
            until: self.clock.monotonic().saturating_add(self.timeout),
            clock: Arc::clone(&self.clock),
            tasks: self.tasks.clone(),
            ids: Vec::new(),
        };
        let request = wire::OpenHeadsRequest {
            tenant_number: self.tenant.number.0,
            tenant: self.tenant.id.as_str().to_owned(),
            committed: committed.iter().map(|(log, offset)| encode_offset(*log, *offset)).collect(),
            keep_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let answer = session.client.clone().open_heads(session.request(request)?).await;
        let response = answer.map_err(|status| session.failed(status))?.into_inner();
        session.opened(response)
    }
}

/// What all sources of an [`Opened`] share: the connection, the deadline, and that heads are closed in the end.
pub(super) struct Session<T: Transport> {
    pub(super) client: IngesterServiceClient<T>,
    tenant: TenantNumber,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    /// On the monotonic clock.
    until: Duration,
    /// Of what is to be closed.
    ids: Vec<Bytes>,
}

impl<T: Transport> Session<T> {
    fn opened(mut self, response: wire::OpenHeadsResponse) -> Result<Opened, OpenError> {
        self.ids = response.heads.iter().map(|head| head.id.clone()).collect();
        if let Some(too_old) = response.snapshot_too_old {
            let (log, committed) = decode_offset(too_old).map_err(Error::Malformed)?;
            return Err(OpenError::SnapshotTooOld { log, committed });
        }
        let session = Arc::new(self);
        let head = |head: wire::OpenedHead| {
            let log = decode_log(head.log)?;
            let source: Arc<dyn Source> = Arc::new(RemoteSource::new(Arc::clone(&session), head, log));
            Ok((log, source))
        };
        let heads = response.heads.into_iter().map(head).collect::<Result<_, _>>();
        Ok(Opened {
            heads: heads.map_err(Error::Malformed)?,
            missing: response.missing.into_iter().map(log_id).collect(),
        })
    }

    /// The head, as requests name it.
    pub(super) fn head(&self, id: &Bytes) -> wire::HeadRequest {
        wire::HeadRequest { id: id.clone(), tenant_number: self.tenant.0 }
    }

    /// A request that says how much time is left.
    pub(super) fn request<M>(&self, message: M) -> Result<Request<M>, Error> {
        let mut request = Request::new(message);
        request.set_timeout(self.left().ok_or_else(|| {
            let status = Status::deadline_exceeded("the query's deadline has passed");
            Error::Remote { kind: Kind::Timeout, status }
        })?);
        Ok(request)
    }

    fn left(&self) -> Option<Duration> {
        self.until.checked_sub(self.clock.monotonic()).filter(|left| !left.is_zero())
    }

    /// What a failed call means to the query.
    pub(super) fn failed(&self, status: Status) -> Error {
        let kind = match status.code() {
            // The channel looks at the deadline, too, and calls it a cancellation.
            Code::DeadlineExceeded => Kind::Timeout,
            _ if self.left().is_none() => Kind::Timeout,
            Code::Ok
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::AlreadyExists
            | Code::Unimplemented
            | Code::DataLoss => Kind::Internal,
            // The owner says so itself; where the connection broke, there is a cause.
            Code::Internal if std::error::Error::source(&status).is_none() => Kind::Internal,
            // It has gone, is going, or has let go of the head.
            Code::Internal
            | Code::Unknown
            | Code::Unavailable
            | Code::NotFound
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted => Kind::Unavailable,
        };
        Error::Remote { kind, status }
    }
}

impl<T: Transport> Drop for Session<T> {
    fn drop(&mut self) {
        // Without a runtime there is nobody to close them: the owner's bound of time does.
        if self.ids.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let ids = std::mem::take(&mut self.ids);
        let mut request = Request::new(wire::CloseHeadsRequest { tenant_number: self.tenant.0, ids });
        request.set_timeout(CLOSE_TIME_MAX);
        let mut client = self.client.clone();
        let clock = Arc::clone(&self.clock);
        self.tasks.spawn("close heads", async move {
            tokio::select! {
                closed = client.close_heads(request) => if let Err(error) = closed {
                    tracing::debug!(%error, "heads not closed: their owner lets go of them in time");
                },
                () = clock.sleep(CLOSE_TIME_MAX) => {}
            }
        });
    }
}

/// An offset as messages have it.
pub fn encode_offset(log: LogId, offset: Offset) -> wire::LogOffset {
    wire::LogOffset { log: Some(encode_log(log)), offset: offset.0 }
}

/// A log as messages have it.
pub fn encode_log(log: LogId) -> wire::Log {
    wire::Log { partition: log.partition.0, log: log.log }
}

/// The offset of a message.
///
/// # Errors
/// [`Malformed::Missing`]
pub fn decode_offset(offset: wire::LogOffset) -> Result<(LogId, Offset), Malformed> {
    Ok((decode_log(offset.log)?, Offset(offset.offset)))
}

/// The log of a message.
///
/// # Errors
/// [`Malformed::Missing`]
pub fn decode_log(log: Option<wire::Log>) -> Result<LogId, Malformed> {
    log.map(log_id).ok_or(Malformed::Missing("log"))
}

fn log_id(log: wire::Log) -> LogId {
    LogId { partition: Partition(log.partition), log: log.log }
}
