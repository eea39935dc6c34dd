//! All partitions' logs in Kafka: every node can open each of them.

use std::sync::Arc;

use async_trait::async_trait;
use cambium_model::block::LogId;

use super::log::{Deps, KafkaLog};
use super::{Config, log_id};
use crate::log::{Error, Log};
use crate::logs::Logs;

/// The logs of a topic.
#[derive(Debug)]
pub struct KafkaLogs {
    config: Config,
    deps: Deps,
}

impl KafkaLogs {
    /// The logs of the topic that the settings name.
    pub fn new(config: Config, deps: Deps) -> Self {
        Self { config, deps }
    }
}

#[async_trait]
impl Logs for KafkaLogs {
    fn are_shared(&self) -> bool {
        true
    }

    async fn open(&self, id: LogId) -> Result<Arc<dyn Log>, Error> {
        debug_assert_eq!(id, log_id(id.partition), "a partition has one log");
        Ok(Arc::new(KafkaLog::open(id.partition, &self.config, self.deps.clone()).await?))
    }

    async fn held(&self) -> Result<Vec<LogId>, Error> {
        Ok(Vec::new())
    }

    async fn remove(&self, _id: LogId) -> Result<(), Error> {
        Ok(())
    }

    async fn set_aside(&self, _id: LogId) -> Result<(), Error> {
        Ok(())
    }
}
