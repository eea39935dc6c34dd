//! A cluster of processes, each with a folder of its own, around a real metadata store and one folder of blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use cambium_peers::{Kafka, Minio, Tikv, free_address};
use cambium_runtime::clock::{Clock, SystemClock};

use crate::{Client, Sandbox};

/// Longest wait for anything that a cluster does by itself: a dead owner is replaced in a quarter of that.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Partitions of the log.
pub const PARTITIONS: u32 = 6;

/// Where acknowledged records and blocks are.
#[derive(Debug)]
pub enum Durability {
    /// Records on the disks of ingesters, blocks in a folder.
    Local(tempfile::TempDir),
    /// Records in Kafka, blocks in S3.
    Remote(Box<Kafka>, Box<Minio>),
}

impl Durability {
    /// Of a cluster on one machine's disk.
    ///
    /// # Panics
    /// When there is no folder.
    pub fn local() -> Self {
        Self::Local(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Of a cluster that survives machines; none where peers are skipped.
    ///
    /// # Panics
    /// When the peers do not start.
    pub fn remote() -> Option<Self> {
        Some(Self::Remote(Box::new(Kafka::start()?), Box::new(Minio::start()?)))
    }

    /// What processes are told of it.
    fn arguments(&self) -> Vec<String> {
        let setting = |name: &str, value: &str| [format!("--{name}"), value.to_owned()];
        match self {
            Self::Local(folder) => setting("blocks.store", &folder.path().to_string_lossy()).to_vec(),
            Self::Remote(kafka, minio) => [
                setting("ingest-log.kind", "kafka"),
                setting("ingest-log.kafka.brokers", kafka.address()),
                setting("ingest-log.kafka.replication-factor", "1"),
                setting("ingest-log.kafka.min-insync-replicas", "1"),
                setting("blocks.store", &format!("s3://{}/blocks", Minio::BUCKET)),
                setting("blocks.remote.endpoint", minio.endpoint()),
                setting("blocks.remote.s3.access-key-id", Minio::ACCESS_KEY_ID),
                setting("blocks.remote.s3.secret-access-key", Minio::SECRET_ACCESS_KEY),
            ]
            .concat()
            .into_iter()
            .chain(["--blocks.remote.allow-http=true".to_owned()])
            .collect(),
        }
    }
}

/// The processes and what they share.
#[derive(Debug)]
pub struct Cluster {
    nodes: BTreeMap<String, Sandbox>,
    /// The metadata store.
    pub tikv: Tikv,
    /// The log and the blocks.
    pub durability: Durability,
    binary: String,
    join: String,
}

impl Cluster {
    /// No processes yet; none where peers are skipped.
    ///
    /// # Panics
    /// When the peers do not start.
    pub fn new(binary: &str, durability: Durability) -> Option<Self> {
        Some(Self {
            nodes: BTreeMap::new(),
            tikv: Tikv::start()?,
            durability,
            binary: binary.to_owned(),
            join: free_address(),
        })
    }

    /// Starts a process with these roles; the first one is whom others join through.
    ///
    /// # Panics
    /// When it does not start.
    pub fn add(&mut self, name: &str, target: &str) {
        let gossip = if self.nodes.is_empty() { self.join.clone() } else { free_address() };
        let partitions = PARTITIONS.to_string();
        let arguments = [
            "--cluster.enabled=true",
            "--cluster.name",
            name,
            "--cluster.gossip.listen",
            &gossip,
            "--cluster.gossip.join",
            &self.join,
            "--metastore.kind",
            "tikv",
            "--metastore.tikv.endpoints",
            self.tikv.address(),
            "--partitions",
            &partitions,
            "--target",
            target,
        ];
        let durability = self.durability.arguments();
        let arguments: Vec<&str> =
            arguments.into_iter().chain(durability.iter().map(String::as_str)).collect();
        self.nodes.insert(name.to_owned(), Sandbox::new(&self.binary, &arguments));
        self.start(name);
    }

    /// Starts a process again on its folder.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&mut self, name: &str) {
        self.node_mut(name).start_crashing_at(None).expect("the server starts");
    }

    /// `kill -9`.
    pub fn kill(&mut self, name: &str) {
        self.node_mut(name).kill();
    }

    /// Asks the process to stop and waits until it has.
    pub fn stop(&mut self, name: &str) {
        self.node_mut(name).stop();
    }

    /// Lets the process stand still, or go on.
    pub fn freeze(&self, name: &str, frozen: bool) {
        let signal = if frozen { libc::SIGSTOP } else { libc::SIGCONT };
        let process = libc::pid_t::try_from(self.node(name).process_id()).expect("a process' number");
        // SAFETY: kill takes no pointers; the process is our child and not waited for yet.
        unsafe {
            libc::kill(process, signal);
        }
    }

    /// A process.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn node(&self, name: &str) -> &Sandbox {
        self.nodes.get(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    fn node_mut(&mut self, name: &str) -> &mut Sandbox {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// A client of a process' public port.
    pub fn client(&self, name: &str) -> Client {
        self.node(name).client()
    }

    /// The partitions that take writes at a process; none where it does not answer.
    pub fn partitions_of(&self, name: &str) -> Vec<u64> {
        let Ok(answer) = self.node(name).operator().get("/services", &[]) else { return Vec::new() };
        let held = answer.json()["data"]["ingester"]["partitions"].clone();
        held.as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect()
    }

    /// Waits until these ingesters own all partitions; says how long that took.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn until_owned_by(&self, ingesters: &[&str]) -> Duration {
        until(&format!("{ingesters:?} own all partitions"), || {
            let held: usize = ingesters.iter().map(|name| self.partitions_of(name).len()).sum();
            held == PARTITIONS as usize
        })
    }
}

/// Waits for something that a cluster does by itself; says how long that took.
///
/// # Panics
/// When it has not happened after [`DEADLINE`].
#[expect(clippy::disallowed_methods, reason = "processes under test live in real time")]
pub fn until(what: &str, mut happened: impl FnMut() -> bool) -> Duration {
    let clock = SystemClock::new();
    while !happened() {
        assert!(clock.monotonic() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(POLL_INTERVAL);
    }
    clock.monotonic()
}

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
