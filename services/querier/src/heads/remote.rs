//! The heads of a cluster: each log is asked for at the node that holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cambium_blocks::Source;
use cambium_blocks::remote::{Asker, OpenError};
use cambium_cluster::peers::{Peers, Sender};
use cambium_cluster::view::View;
use cambium_metastore::catalogue::OpenLog;
use cambium_model::block::{LogId, Offset};
use cambium_model::tenant::Tenant;
use cambium_runtime::clock::Clock;
use cambium_runtime::tasks::Tasks;
use futures::future::join_all;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;

use super::{Found, Heads, HeadsError};

/// How long a node may take to open its heads: one that takes longer is as good as gone.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// What it takes to ask nodes.
pub struct Deps {
    /// Who is there.
    pub view: watch::Receiver<Arc<View>>,
    /// Channels to them.
    pub peers: Arc<Peers>,
    /// This node's credentials.
    pub sender: Sender,
    /// The heads of this very process, where it has some.
    pub local: Option<Arc<dyn Heads>>,
    /// How long a query may take: heads are kept for it that long.
    pub query_timeout: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where heads are closed after a query.
    pub tasks: Tasks,
}

/// Asks the holders of logs.
pub struct RemoteHeads {
    deps: Deps,
}

impl RemoteHeads {
    /// Heads of whoever is in the view.
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    /// The heads of one node. A node that cannot be asked has none, and all its logs are missing.
    async fn of_node(&self, tenant: &Tenant, holder: &str, logs: Vec<OpenLog>) -> Result<Found, HeadsError> {
        let view = Arc::clone(&self.deps.view.borrow());
        if let Some(local) = &self.deps.local
            && view.this().as_str() == holder
        {
            return local.heads(tenant, &logs).await;
        }
        let node = view.named(holder);
        let Some(channel) = node.and_then(|node| self.deps.peers.channel(node).ok()) else {
            return Ok(Found { heads: Vec::new(), missing: logs });
        };
        let asker = Asker {
            tenant: tenant.clone(),
            timeout: self.deps.query_timeout,
            clock: Arc::clone(&self.deps.clock),
            tasks: self.deps.tasks.clone(),
        };
        let committed: Vec<(LogId, Offset)> = logs.iter().map(|open| (open.log, open.next)).collect();
        let transport = InterceptedService::new(channel, self.deps.sender.clone());
        let opened = tokio::select! {
            opened = asker.open(transport, &committed) => opened,
            () = self.deps.clock.sleep(OPEN_TIMEOUT) => {
                tracing::warn!(holder, "heads not opened in {OPEN_TIMEOUT:?}");
                return Ok(Found { heads: Vec::new(), missing: logs });
            }
        };
        match opened {
            Ok(opened) => {
                let missing = logs.into_iter().filter(|open| opened.missing.contains(&open.log)).collect();
                let heads = opened.heads.into_iter().map(|(_, head)| head as Arc<dyn Source>).collect();
                Ok(Found { heads, missing })
            }
            Err(OpenError::SnapshotTooOld { log, committed }) => {
                Err(HeadsError::SnapshotTooOld { log, committed })
            }
            Err(error @ OpenError::Failed(_)) => {
                tracing::warn!(holder, %error, "heads not opened");
                Ok(Found { heads: Vec::new(), missing: logs })
            }
        }
    }
}

#[async_trait]
impl Heads for RemoteHeads {
    async fn heads(&self, tenant: &Tenant, logs: &[OpenLog]) -> Result<Found, HeadsError> {
        let mut by_holder: BTreeMap<&str, Vec<OpenLog>> = BTreeMap::new();
        // A log without a holder was found by a rebuild of the catalogue: whoever has it says so when it starts.
        for open in logs.iter().filter(|open| !open.holder.is_empty()) {
            by_holder.entry(&open.holder).or_default().push(open.clone());
        }
        let asking = by_holder.into_iter().map(|(holder, logs)| self.of_node(tenant, holder, logs));
        let mut all = Found::default();
        for found in join_all(asking).await {
            let Found { heads, missing } = found?;
            all.heads.extend(heads);
            all.missing.extend(missing);
        }
        Ok(all)
    }
}

impl fmt::Debug for RemoteHeads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHeads").finish_non_exhaustive()
    }
}
