//! What every client of Kafka has in common: settings, logging, and what its errors mean.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use cambium_runtime::secret::Secret;

use super::Config;
use crate::log::Error;

/// Kafka's client knows us by this name; brokers write it into their logs.
const CLIENT_ID: &str = "cambium";

/// A batch, with all that is around its records, is this much larger than the largest of them, at most.
pub(super) const OVERHEAD_BYTES: u64 = 64 << 10;

/// Longest wait between attempts to reach a broker again, in milliseconds.
const RECONNECT_BACKOFF_MS_MAX: u32 = 1_000;

/// The settings of every client.
///
/// # Errors
/// [`Error::Refused`]: the file with the password cannot be read.
pub(super) fn settings(config: &Config) -> Result<ClientConfig, Error> {
    let mut settings = ClientConfig::new();
    settings
        .set("client.id", CLIENT_ID)
        .set("bootstrap.servers", &config.brokers)
        .set("socket.timeout.ms", config.request_timeout.0.as_millis().to_string())
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.max.ms", RECONNECT_BACKOFF_MS_MAX.to_string())
        .set("security.protocol", config.security.protocol.name());
    let security = &config.security;
    let files = [
        ("ssl.ca.location", &security.ca_file),
        ("ssl.certificate.location", &security.cert_file),
        ("ssl.key.location", &security.key_file),
    ];
    for (key, file) in files {
        if let Some(file) = file {
            settings.set(key, file.to_string_lossy());
        }
    }
    if security.protocol.has_user() {
        let password = match &security.password_file {
            Some(path) => {
                Some(Secret::read(path).map_err(|source| Error::Refused { source: Arc::new(source) })?)
            }
            None => security.password.clone(),
        };
        settings
            .set("sasl.mechanism", security.mechanism.name())
            .set("sasl.username", &security.user)
            .set("sasl.password", password.as_ref().map_or("", Secret::expose));
    }
    Ok(settings)
}

/// Hears what a client has to say beside its answers. Clones hear together.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    /// The last trouble: an operation that times out says nothing of why.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Context {
    /// All is well again: what was heard before explains nothing that comes now.
    pub(super) fn settled(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Puts the last trouble beside an error that may well come of it.
    pub(super) fn explain(&self, error: KafkaError) -> Trouble {
        let heard = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Trouble { error, heard }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, message, "kafka client")
            }
            // What it calls an error it tries again; an operation that fails of it says so itself.
            _ => tracing::warn!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        // That no broker is left says less than why one is not.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Context {}

/// A client's error, and the last thing the client complained of.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", heard.as_ref().map(|heard| format!(" ({heard})")).unwrap_or_default())]
pub struct Trouble {
    /// What the operation said.
    #[source]
    pub error: KafkaError,
    /// What the client said before.
    pub heard: Option<String>,
}

/// What the failure of a question means: nothing was changed.
pub(super) fn asked(trouble: Trouble) -> Error {
    let refused = is_refusal(&trouble.error);
    let source = Arc::new(trouble);
    if refused { Error::Refused { source } } else { Error::Unreachable { source } }
}

/// Whether asking again cannot help before a person has done something.
pub(super) fn is_refusal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                Code::UnknownTopic
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownPartition
                    | Code::TopicAuthorizationFailed
                    | Code::ClusterAuthorizationFailed
                    | Code::MessageSizeTooLarge
                    | Code::InvalidMessageSize
            )
        )
}
