//! The topic: made when it is absent, refused when it is not what the configuration says. One that is there is never
//! altered: it is its operator's, and what a change would do to records in it is for people to decide.

use std::fmt;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::task;

use cambium_runtime::clock::Clock;
use cambium_runtime::error::{HasKind, Kind};

use super::Config;
use super::client::{self, Context, OVERHEAD_BYTES, asked};
use crate::log;

/// How often a topic that was just made is looked for, until `request_timeout` has passed.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a client that has failed is listened to, again after everything it says.
const HEAR: Duration = Duration::from_millis(10);

/// Why there is no topic to work with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka does not answer, or refuses the question.
    #[error("topic {topic}")]
    Kafka {
        /// Its name.
        topic: String,
        /// What happened.
        #[source]
        source: log::Error,
    },
    /// The topic is there and must not be used.
    #[error("topic {topic} is not what the configuration says: {}", list(differences))]
    Differs {
        /// Its name.
        topic: String,
        /// All that is wrong.
        differences: Vec<Difference>,
    },
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Kafka { source, .. } => source.kind(),
            Self::Differs { .. } => Kind::Internal,
        }
    }
}

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What, by Kafka's name.
    pub setting: &'static str,
    /// How it is.
    pub found: String,
    /// How it must be, and what to do.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, must be {}", self.setting, self.found, self.wanted)
    }
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Makes sure that the topic has `partitions` partitions and keeps records as the configuration says; makes it where
/// there is none. Returns whether it was made.
pub async fn ensure_topic(config: &Config, partitions: u32, clock: &dyn Clock) -> Result<bool, Error> {
    let failed = |source| Error::Kafka { topic: config.topic.clone(), source };
    let mut shape = shape(config).await.map_err(failed)?;
    let absent = shape.is_none();
    if absent {
        create(config, partitions).await.map_err(failed)?;
        let deadline = clock.monotonic() + config.request_timeout.0;
        while shape.is_none() && clock.monotonic() < deadline {
            clock.sleep(LOOK_INTERVAL).await;
            shape = self::shape(config).await.map_err(failed)?;
        }
    }
    let shape = shape.ok_or(RDKafkaErrorCode::UnknownTopicOrPartition);
    let shape = shape.map_err(|code| failed(refused(KafkaError::MetadataFetch(code))))?;
    let mut differences = shape.differences(config, partitions);
    let found = settings(config).await.map_err(failed)?;
    differences.extend(wanted(config).iter().filter_map(|wanted| wanted.difference(&found)));
    match differences.is_empty() {
        true => Ok(absent),
        false => Err(Error::Differs { topic: config.topic.clone(), differences }),
    }
}

/// How the topic lies on the brokers.
#[derive(Clone, Copy, Debug)]
struct Shape {
    partitions: usize,
    /// Of the partition that has fewest.
    replicas: usize,
}

impl Shape {
    fn differences(self, config: &Config, partitions: u32) -> Vec<Difference> {
        let mut differences = Vec::new();
        if self.partitions != partitions as usize {
            let wanted = format!(
                "{partitions}: a partition's records stay where they are, so name another topic, or make a cluster of {} \
                 partitions",
                self.partitions
            );
            differences.push(Difference {
                setting: "partitions",
                found: self.partitions.to_string(),
                wanted,
            });
        }
        let (least, insync) = (config.replication_factor, config.min_insync_replicas);
        if self.replicas < usize::from(least.max(insync)) {
            let wanted = format!("{} or more (kafka-reassign-partitions.sh)", least.max(insync));
            differences.push(Difference { setting: "replicas", found: self.replicas.to_string(), wanted });
        }
        differences
    }
}

/// A setting of the topic.
struct Wanted {
    name: &'static str,
    /// What a new topic gets.
    value: String,
    /// The least that will do, where more will as well and `-1` means no bound.
    least: Option<u64>,
}

impl Wanted {
    fn difference(&self, found: &[(String, String)]) -> Option<Difference> {
        let value = found.iter().find(|(name, _)| name == self.name).map_or("unknown", |(_, value)| value);
        let fits = match self.least {
            None => value == self.value,
            Some(least) => value == "-1" || value.parse::<u64>().is_ok_and(|value| value >= least),
        };
        let or_more = if self.least.is_some() { " or more" } else { "" };
        let wanted = format!("{}{or_more} (kafka-configs.sh --alter)", self.value);
        (!fits).then(|| Difference { setting: self.name, found: value.to_owned(), wanted })
    }
}

fn wanted(config: &Config) -> Vec<Wanted> {
    let exactly = |name, value: &str| Wanted { name, value: value.to_owned(), least: None };
    let at_least = |name, least: u64| Wanted { name, value: least.to_string(), least: Some(least) };
    let retention_ms = u64::try_from(config.retention.0.as_millis()).unwrap_or(u64::MAX);
    vec![
        exactly("cleanup.policy", "delete"),
        at_least("retention.ms", retention_ms),
        exactly("retention.bytes", "-1"),
        // Age by Kafka's clock: a record must not be removed early because its writer's clock is wrong.
        exactly("message.timestamp.type", "LogAppendTime"),
        at_least("min.insync.replicas", config.min_insync_replicas.into()),
        at_least("max.message.bytes", config.record_bytes_max.0 + OVERHEAD_BYTES),
        // A replica that lacks records must not become the leader.
        exactly("unclean.leader.election.enable", "false"),
    ]
}

/// How the topic lies; none where it is absent.
async fn shape(config: &Config) -> Result<Option<Shape>, log::Error> {
    let context = Context::default();
    let failed = |error| asked(context.explain(error));
    // A consumer's question makes no topic, whatever brokers are set to.
    let client: BaseConsumer<Context> =
        client::settings(config)?.create_with_context(context.clone()).map_err(failed)?;
    let (topic, timeout) = (config.topic.clone(), config.request_timeout.0);
    let answer = task::spawn_blocking(move || {
        let answer = client.fetch_metadata(Some(&topic), timeout);
        // Now the client says what went wrong meanwhile.
        while client.poll(HEAR).is_some() {}
        answer
    })
    .await;
    let metadata = answer.map_err(|_| log::Error::Closed)?.map_err(failed)?;
    let Some(topic) = metadata.topics().first() else { return Ok(None) };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
            Ok(Some(Shape { partitions: topic.partitions().len(), replicas: replicas.unwrap_or_default() }))
        }
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(failed(KafkaError::MetadataFetch(code))),
    }
}

async fn create(config: &Config, partitions: u32) -> Result<(), log::Error> {
    let (admin, context) = admin(config)?;
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let replication = TopicReplication::Fixed(config.replication_factor.into());
    let wanted = wanted(config);
    let topic = wanted.iter().fold(NewTopic::new(&config.topic, partitions, replication), |topic, wanted| {
        topic.set(wanted.name, &wanted.value)
    });
    let options = AdminOptions::new().operation_timeout(Some(config.request_timeout.0));
    let answer = admin.create_topics([&topic], &options).await;
    let results = answer.map_err(|error| asked(context.explain(error)))?;
    match results.into_iter().next() {
        // Another process of ours came first.
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(refused(KafkaError::AdminOp(code))),
    }
}

/// The topic's settings, by name.
async fn settings(config: &Config) -> Result<Vec<(String, String)>, log::Error> {
    let (admin, context) = admin(config)?;
    let options = AdminOptions::new().request_timeout(Some(config.request_timeout.0));
    let answer = admin.describe_configs([&ResourceSpecifier::Topic(&config.topic)], &options).await;
    let results = answer.map_err(|error| asked(context.explain(error)))?;
    let found = results.into_iter().next().unwrap_or(Err(RDKafkaErrorCode::UnknownTopicOrPartition));
    let found = found.map_err(|code| refused(KafkaError::AdminOp(code)))?;
    Ok(found.entries.into_iter().map(|entry| (entry.name, entry.value.unwrap_or_default())).collect())
}

fn admin(config: &Config) -> Result<(AdminClient<Context>, Context), log::Error> {
    let context = Context::default();
    let admin = client::settings(config)?.create_with_context(context.clone());
    Ok((admin.map_err(|error| asked(context.explain(error)))?, context))
}

fn refused(error: KafkaError) -> log::Error {
    log::Error::Refused { source: std::sync::Arc::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_configured_is_named() {
        let config = Config::default();
        let good: Vec<_> =
            wanted(&config).into_iter().map(|wanted| (wanted.name.to_owned(), wanted.value)).collect();
        let check = |name: &str, value: &str, expected: Option<&str>| {
            let mut found = good.clone();
            found.iter_mut().find(|(found, _)| found == name).unwrap().1 = value.to_owned();
            let differences: Vec<_> =
                wanted(&config).iter().filter_map(|wanted| wanted.difference(&found)).collect();
            assert_eq!(differences.first().map(ToString::to_string).as_deref(), expected);
        };
        check("cleanup.policy", "delete", None);
        check("retention.ms", "-1", None);
        check("retention.ms", "999999999999", None);
        check(
            "retention.ms",
            "60000",
            Some("retention.ms is 60000, must be 604800000 or more (kafka-configs.sh --alter)"),
        );
        check(
            "cleanup.policy",
            "compact",
            Some("cleanup.policy is compact, must be delete (kafka-configs.sh --alter)"),
        );
        check(
            "min.insync.replicas",
            "1",
            Some("min.insync.replicas is 1, must be 2 or more (kafka-configs.sh --alter)"),
        );
        check(
            "max.message.bytes",
            "1048588",
            Some("max.message.bytes is 1048588, must be 33619968 or more (kafka-configs.sh --alter)"),
        );
        check(
            "retention.bytes",
            "1073741824",
            Some("retention.bytes is 1073741824, must be -1 (kafka-configs.sh --alter)"),
        );
    }

    #[test]
    fn partitions_and_replicas_are_exact_and_enough() {
        let config = Config::default();
        let check = |partitions, replicas, expected: &[&str]| {
            let differences = Shape { partitions, replicas }.differences(&config, 8);
            let settings: Vec<_> = differences.iter().map(|difference| difference.setting).collect();
            assert_eq!(settings, expected);
        };
        check(8, 3, &[]);
        check(8, 5, &[]);
        check(9, 3, &["partitions"]);
        check(4, 1, &["partitions", "replicas"]);
    }
}
