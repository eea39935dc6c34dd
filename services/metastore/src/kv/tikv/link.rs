//! The client and its connections: built when first needed, and anew where they seem dead.
//!
//! tikv-client mends most things by itself, but it waits for a timestamp for ever, and a connection to a machine that
//! is gone without a word ends only when TCP gives up, after many minutes. So an operation that gives up has a new
//! client built beside the old one, which serves until then: snapshots can be read while placement drivers are away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cambium_runtime::clock::Clock;
use cambium_runtime::tasks::Tasks;
use futures::future::{Either, select};
use prometheus_client::metrics::counter::Counter;
use tikv_client::TransactionClient;

use super::Config;
use super::failure::Failure;

/// Time between two attempts to build a client.
const BUILD_INTERVAL: Duration = Duration::from_secs(2);

/// Longest time of one call of the client's to a placement driver or store; it repeats those itself.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// Largest message from a store, bytes. Reads are split where it is not enough.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The way to the cluster.
pub(super) struct Link {
    config: Config,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    connections: Counter,
    state: Mutex<State>,
    /// Held by who builds a client.
    building: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    client: Option<TransactionClient>,
    /// When the last attempt to build one began.
    tried: Option<Duration>,
}

impl Link {
    pub(super) fn new(config: Config, clock: Arc<dyn Clock>, tasks: Tasks, connections: Counter) -> Self {
        let (state, building) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { config, clock, tasks, connections, state, building }
    }

    /// The client; the first caller builds it while the others wait.
    pub(super) async fn client(&self) -> Result<TransactionClient, Failure> {
        if let Some(client) = self.current() {
            return Ok(client);
        }
        let _building = self.building.lock().await;
        match self.current() {
            Some(client) => Ok(client),
            None => self.build().await,
        }
    }

    /// An operation has got no answer until its deadline: builds another client, unless one has just been tried.
    pub(super) fn gave_up(self: &Arc<Self>) {
        let now = self.clock.monotonic();
        let is_early = |tried: Duration| now.saturating_sub(tried) < BUILD_INTERVAL;
        if self.current().is_none() || self.state().tried.is_some_and(is_early) {
            return;
        }
        let link = Arc::clone(self);
        self.tasks.spawn("tikv-connect", async move {
            let Ok(_building) = link.building.try_lock() else { return };
            if let Err(failure) = link.build().await {
                tracing::warn!(%failure, "no new connection to TiKV");
            }
        });
    }

    async fn build(&self) -> Result<TransactionClient, Failure> {
        self.state().tried = Some(self.clock.monotonic());
        let mut config = tikv_client::Config::default()
            .with_timeout(CALL_TIMEOUT_MAX.min(self.config.deadline() / 2))
            .with_grpc_max_decoding_message_size(MESSAGE_BYTES_MAX);
        if let Some(tls) = &self.config.tls {
            config = config.with_security(&tls.ca_file, &tls.cert_file, &tls.key_file);
        }
        let built = TransactionClient::new_with_config(self.config.endpoints.clone(), config);
        // The client waits for connections without a bound of its own.
        let client = match select(Box::pin(built), self.clock.sleep(self.config.deadline())).await {
            Either::Left((client, _)) => client?,
            Either::Right(_) => return Err(Failure::Late),
        };
        self.connections.inc();
        self.state().client = Some(client.clone());
        Ok(client)
    }

    fn current(&self) -> Option<TransactionClient> {
        self.state().client.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
