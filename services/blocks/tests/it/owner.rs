//! An owner of heads that has any sources, at the other end of a connection in memory.

use std::sync::Arc;
use std::time::Duration;

use cambium_blocks::Source;
use cambium_blocks::remote::answer::{self, Deadline, Messages};
use cambium_blocks::remote::{Asker, Opened};
use cambium_blocks::testing::tenant;
use cambium_model::block::{LogId, Partition};
use cambium_proto::wire::ingester as wire;
use cambium_runtime::clock::{Clock, SystemClock};
use cambium_runtime::tasks::Tasks;
use futures::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, async_trait};
use wire::ingester_service_server::{IngesterService, IngesterServiceServer};

/// Bytes under way between the two ends.
const CONNECTION_BYTES: usize = 64 << 10;

pub const LOG: LogId = LogId { partition: Partition(3), log: 1 };

/// Serves sources; head `n` is the `n`th.
#[derive(Clone)]
pub struct Owner {
    pub sources: Vec<Arc<dyn Source>>,
    pub clock: Arc<dyn Clock>,
    /// Heads closed so far.
    pub closed: watch::Sender<usize>,
    /// Cuts the connections.
    pub hung_up: watch::Sender<bool>,
}

impl Owner {
    pub fn of(sources: Vec<Arc<dyn Source>>) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self { sources, clock, closed: watch::Sender::new(0), hung_up: watch::Sender::new(false) }
    }

    /// The other end.
    pub async fn connect(&self, tasks: &Tasks) -> Channel {
        let (client, mut near) = tokio::io::duplex(CONNECTION_BYTES);
        let (mut far, server) = tokio::io::duplex(CONNECTION_BYTES);
        let mut hung_up = self.hung_up.subscribe();
        tasks.spawn("wire", async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = hung_up.wait_for(|hung_up| *hung_up) => {}
            }
        });
        // One connection, and a server that does not end after it.
        let incoming = stream::iter([Ok::<DuplexStream, std::io::Error>(server)]).chain(stream::pending());
        let service = IngesterServiceServer::new(self.clone());
        tasks.spawn("owner", Server::builder().add_service(service).serve_with_incoming(incoming));
        let mut client = Some(client);
        let connector = tower::service_fn(move |_| {
            let client = client.take().ok_or_else(|| std::io::Error::other("connected once"));
            async move { client.map(TokioIo::new) }
        });
        Endpoint::from_static("http://owner").connect_with_connector(connector).await.unwrap()
    }

    /// The sources, as somebody else has them.
    pub async fn opened(&self) -> Vec<Arc<dyn Source>> {
        let asker = asker(Arc::new(SystemClock::new()));
        let channel = self.connect(&asker.tasks).await;
        let Opened { heads, missing } = asker.open(channel, &[]).await.unwrap();
        assert!(missing.is_empty() && heads.iter().all(|(log, _)| *log == LOG));
        heads.into_iter().map(|(_, source)| source).collect()
    }

    fn source(&self, head: Option<wire::HeadRequest>) -> Result<&dyn Source, Status> {
        let head = head.ok_or_else(|| Status::invalid_argument("no head"))?;
        let number = head.id.first().ok_or_else(|| Status::invalid_argument("no id"))?;
        let source =
            self.sources.get(usize::from(*number)).ok_or_else(|| Status::not_found("no such head"))?;
        Ok(&**source)
    }

    fn deadline<M>(&self, request: &Request<M>) -> Deadline {
        Deadline::of(request.metadata(), Arc::clone(&self.clock))
    }
}

/// A query of a minute.
pub fn asker(clock: Arc<dyn Clock>) -> Asker {
    Asker { tenant: tenant(1), timeout: Duration::from_secs(60), clock, tasks: Tasks::new() }
}

#[async_trait]
impl IngesterService for Owner {
    type SeriesStream = Messages<wire::Piece>;
    type ProfilesStream = Messages<wire::Piece>;
    type TreeStream = Messages<wire::Piece>;
    type SamplesStream = Messages<wire::Samples>;
    type StackTreeStream = Messages<wire::Piece>;
    type SampleLabelsStream = Messages<wire::Piece>;

    async fn claim(&self, _: Request<wire::ClaimRequest>) -> Result<Response<wire::ClaimResponse>, Status> {
        unreachable!("sources claim nothing")
    }

    async fn write(&self, _: Request<wire::WriteRequest>) -> Result<Response<wire::WriteResponse>, Status> {
        Err(Status::unimplemented("reads only"))
    }

    async fn flush(&self, _: Request<wire::FlushRequest>) -> Result<Response<wire::FlushResponse>, Status> {
        Err(Status::unimplemented("reads only"))
    }

    async fn open_heads(
        &self,
        request: Request<wire::OpenHeadsRequest>,
    ) -> Result<Response<wire::OpenHeadsResponse>, Status> {
        assert_eq!(request.get_ref().keep_ms, 60_000);
        let mut response = wire::OpenHeadsResponse::default();
        for (number, source) in (0..).zip(&self.sources) {
            response.heads.push(answer::opened(&**source, [number; 16], LOG).await?);
        }
        Ok(Response::new(response))
    }

    async fn close_heads(
        &self,
        request: Request<wire::CloseHeadsRequest>,
    ) -> Result<Response<wire::CloseHeadsResponse>, Status> {
        self.closed.send_modify(|closed| *closed += request.get_ref().ids.len());
        Ok(Response::new(wire::CloseHeadsResponse {}))
    }

    async fn series(
        &self,
        request: Request<wire::HeadRequest>,
    ) -> Result<Response<Self::SeriesStream>, Status> {
        let deadline = self.deadline(&request);
        deadline.answer(answer::series(self.source(Some(request.into_inner()))?)).await
    }

    async fn profiles(
        &self,
        request: Request<wire::ProfilesRequest>,
    ) -> Result<Response<Self::ProfilesStream>, Status> {
        let (deadline, mut request) = (self.deadline(&request), request.into_inner());
        deadline.answer(answer::profiles(self.source(request.head.take())?, request)).await
    }

    async fn tree(&self, request: Request<wire::TreeRequest>) -> Result<Response<Self::TreeStream>, Status> {
        let (deadline, mut request) = (self.deadline(&request), request.into_inner());
        deadline.answer(answer::tree(self.source(request.head.take())?, request)).await
    }

    async fn samples(
        &self,
        request: Request<wire::SamplesRequest>,
    ) -> Result<Response<Self::SamplesStream>, Status> {
        let (deadline, mut request) = (self.deadline(&request), request.into_inner());
        deadline.answer(answer::samples(self.source(request.head.take())?, request)).await
    }

    async fn stack_tree(
        &self,
        request: Request<wire::HeadRequest>,
    ) -> Result<Response<Self::StackTreeStream>, Status> {
        let deadline = self.deadline(&request);
        deadline.answer(answer::stack_tree(self.source(Some(request.into_inner()))?)).await
    }

    async fn sample_labels(
        &self,
        request: Request<wire::HeadRequest>,
    ) -> Result<Response<Self::SampleLabelsStream>, Status> {
        let deadline = self.deadline(&request);
        deadline.answer(answer::sample_labels(self.source(Some(request.into_inner()))?)).await
    }
}
