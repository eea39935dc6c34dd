//! The sink of a cluster whose logs are on the disks of ingesters: a record goes to whoever holds the partition's lease.
//!
//! ```text
//!   record ─► owner known? ─► channel, of this process itself: a call ─► acked
//!                ▲ no                         │ refused, or no answer
//!                └── another tenure, within 2 s ◄──┘        else 503: the sender tries again
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_cluster::peers::{Peers, Sender};
use cambium_cluster::view::View;
use cambium_metastore::owners::Owner;
use cambium_model::block::Partition;
use cambium_proto::wire::OWNER_METADATA;
use cambium_proto::wire::ingester::WriteRequest;
use cambium_proto::wire::ingester::ingester_service_client::IngesterServiceClient;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{HasKind, Kind};
use hashbrown::HashMap;
use tokio::sync::{Semaphore, watch};
use tonic::Code;

use super::owners::OwnersKnown;
use super::{Ack, Sink, SinkError};

/// How long a write waits for a partition to come to its next owner: a hand-over takes less, a death more.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// How long an owner may take for a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Writes that wait for one owner at a time: a slow one is refused more, and holds up nobody else.
const IN_FLIGHT_MAX: usize = 256;
/// When a sender should try again, where no owner is known: a dead one is replaced within about ten seconds.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why an owner did not take a record.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no node owns the partition now: the next owner takes over within seconds")]
    NoOwner,
    #[error("{0} owns the partition and is not to be found in the cluster")]
    Unknown(String),
    #[error("{owner} has {IN_FLIGHT_MAX} writes waiting already")]
    Busy { owner: String },
    #[error("{owner} did not answer in {WRITE_TIMEOUT:?}")]
    TimedOut { owner: String },
    #[error("{owner} cannot be reached")]
    Unreachable {
        owner: String,
        #[source]
        source: cambium_cluster::peers::Error,
    },
    #[error("{owner} refused")]
    Refused {
        owner: String,
        kind: Kind,
        #[source]
        source: tonic::Status,
    },
    #[error(transparent)]
    Local(SinkError),
}

impl Error {
    /// Whether another owner would not change it: the partition is where the record was sent.
    fn is_final(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::TimedOut { .. } => true,
            Self::NoOwner | Self::Unknown(_) | Self::Unreachable { .. } => false,
            // Of a call that got no answer the transport's error is the source.
            Self::Refused { source, .. } => {
                !source.metadata().contains_key(OWNER_METADATA) && std::error::Error::source(source).is_none()
            }
            Self::Local(error) => !error.moved,
        }
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { kind, .. } => *kind,
            Self::Local(error) => error.kind(),
            _ => Kind::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Local(error) => error.retry_after(),
            _ => Some(RETRY_AFTER),
        }
    }
}

/// What it takes to write to owners.
pub struct Deps {
    /// Who owns what.
    pub owners: OwnersKnown,
    /// Who is there.
    pub view: watch::Receiver<Arc<View>>,
    /// Channels to them.
    pub peers: Arc<Peers>,
    /// This node's credentials.
    pub sender: Sender,
    /// The ingester of this very process, where it has one.
    pub local: Option<Arc<dyn Sink>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Writes to the owners of partitions.
pub struct RingSink {
    deps: Deps,
    in_flight: std::sync::Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl RingSink {
    /// A sink.
    pub fn new(deps: Deps) -> Self {
        Self { deps, in_flight: Default::default() }
    }

    async fn write_to(&self, owner: &Owner, record: Bytes) -> Result<Ack, Error> {
        let view = Arc::clone(&self.deps.view.borrow());
        let name = || owner.holder.clone();
        if let Some(local) = &self.deps.local
            && view.this().as_str() == owner.holder
        {
            return local.write(owner.partition, record).await.map_err(Error::Local);
        }
        let node = view.named(&owner.holder);
        let node = node.ok_or_else(|| Error::Unknown(name()))?;
        let channel = self.deps.peers.channel(node);
        let channel = channel.map_err(|source| Error::Unreachable { owner: name(), source })?;
        let _permit =
            self.in_flight(&owner.holder).try_acquire_owned().map_err(|_| Error::Busy { owner: name() })?;
        let mut client = IngesterServiceClient::with_interceptor(channel, self.deps.sender.clone());
        let request = WriteRequest { partition: owner.partition.0, record };
        let written = tokio::select! {
            written = client.write(request) => written,
            () = self.deps.clock.sleep(WRITE_TIMEOUT) => return Err(Error::TimedOut { owner: name() }),
        };
        match written {
            Ok(response) => Ok(Ack { duplicate: response.into_inner().applied == 0 }),
            Err(source) => Err(Error::Refused { owner: name(), kind: kind_of(source.code()), source }),
        }
    }

    fn in_flight(&self, owner: &str) -> Arc<Semaphore> {
        let mut all = self.in_flight.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(held) = all.get(owner) {
            return Arc::clone(held);
        }
        // Owners of old that nobody waits for are forgotten.
        all.retain(|_, held| held.available_permits() < IN_FLIGHT_MAX);
        let new = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        all.insert(owner.to_owned(), Arc::clone(&new));
        new
    }

    /// Writes to one owner after the other, until one takes the record or none is left to try.
    async fn write_to_owners(&self, partition: Partition, record: Bytes) -> Result<Ack, Error> {
        let mut owner = match self.deps.owners.of(partition) {
            Some(owner) => owner,
            None => self.next_owner(partition, None).await.ok_or(Error::NoOwner)?,
        };
        loop {
            let error = match self.write_to(&owner, record.clone()).await {
                Ok(ack) => return Ok(ack),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => error,
            };
            owner = self.next_owner(partition, Some(owner.fence)).await.ok_or(error)?;
        }
    }

    async fn next_owner(&self, partition: Partition, fence: Option<u64>) -> Option<Owner> {
        tokio::select! {
            owner = self.deps.owners.other_than(partition, fence) => Some(owner),
            () = self.deps.clock.sleep(HAND_OVER_MAX) => None,
        }
    }
}

/// What a status means for the sender.
fn kind_of(code: Code) -> Kind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::ResourceExhausted => Kind::RateLimited,
        Code::Internal | Code::DataLoss | Code::Unimplemented => Kind::Internal,
        _ => Kind::Unavailable,
    }
}

#[async_trait]
impl Sink for RingSink {
    async fn write(&self, partition: Partition, record: Bytes) -> Result<Ack, SinkError> {
        self.write_to_owners(partition, record).await.map_err(|error| SinkError::new(partition, error))
    }
}

impl std::fmt::Debug for RingSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingSink").finish_non_exhaustive()
    }
}
