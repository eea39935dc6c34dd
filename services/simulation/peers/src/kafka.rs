//! Kafka: one broker that is its own controller, or two.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::certificate::{Certificate, certify};
use crate::process::run;
use crate::{Process, binary, free_address};

/// Names the cluster in the broker's files; any will do.
const CLUSTER: &str = "cambiumcambiumcambiumA";

/// A broker, perhaps with a second one that has no say. Their data stay as long as this value does.
#[derive(Debug)]
pub struct Kafka {
    /// The broker.
    pub broker: Process,
    follower: Option<Process>,
    jars: PathBuf,
    address: String,
    controller: String,
    secured: Option<Secured>,
    /// Dropped last.
    folder: TempDir,
}

/// How to get past the guard.
#[derive(Clone, Debug)]
pub struct Secured {
    /// `host:port` of the listener that speaks TLS and asks for a user (SCRAM-SHA-512).
    pub address: String,
    /// Who signed the broker's certificate (PEM).
    pub ca_file: PathBuf,
    /// The one user there is.
    pub user: &'static str,
    /// Its password.
    pub password: &'static str,
}

impl Kafka {
    /// A broker that anybody may talk to, running; none where peers are skipped.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        Self::build(false)
    }

    /// One that has a listener with TLS and a user besides.
    ///
    /// # Panics
    /// When it does not start.
    pub fn secured() -> Option<Self> {
        Self::build(true)
    }

    /// One with a second, so that a topic can have two replicas.
    ///
    /// # Panics
    /// When they do not start.
    pub fn replicated() -> Option<Self> {
        let mut kafka = Self::build(false)?;
        let folder = kafka.folder.path().join("follower");
        fs::create_dir(&folder).expect("a folder can be made");
        let settings =
            Settings { node: 2, address: &free_address(), controller: &kafka.controller, secured: None };
        let mut follower = broker(&kafka.jars, &folder, &settings);
        follower.start();
        kafka.follower = Some(follower);
        Some(kafka)
    }

    /// Where the listener without a guard answers, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The listener with one.
    ///
    /// # Panics
    /// When the broker was not started with [`Kafka::secured`].
    pub fn guarded(&self) -> &Secured {
        self.secured.as_ref().expect("the broker is a secured one")
    }

    /// The second broker.
    ///
    /// # Panics
    /// When there is none: they were not started with [`Kafka::replicated`].
    pub fn follower(&mut self) -> &mut Process {
        self.follower.as_mut().expect("there is a second one")
    }

    fn build(with_guard: bool) -> Option<Self> {
        let jars = binary("kafka", "*")?;
        let folder = TempDir::new().expect("a temporary folder");
        let (address, controller) = (free_address(), free_address());
        let secured = with_guard.then(|| certified(folder.path()));
        let settings =
            Settings { node: 1, address: &address, controller: &controller, secured: secured.as_ref() };
        let mut broker = broker(&jars, folder.path(), &settings);
        broker.start();
        Some(Self { broker, follower: None, jars, address, controller, secured, folder })
    }
}

/// What makes a broker another than the next.
struct Settings<'a> {
    /// The first is its own controller, and the others'.
    node: u8,
    address: &'a str,
    controller: &'a str,
    secured: Option<&'a Secured>,
}

/// A broker that is ready to start.
fn broker(jars: &Path, folder: &Path, settings: &Settings<'_>) -> Process {
    let file = folder.join("server.properties");
    fs::write(&file, properties(folder, settings)).expect("a file can be written");
    format(jars, &file, settings.secured);
    let jars = jars.to_owned();
    Process::new("kafka", folder, "Kafka Server started", move || {
        let mut command = java(&jars);
        command.args(["-Xms64m", "-Xmx512m", "kafka.Kafka"]).arg(&file);
        command
    })
}

fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(jars);
    command
}

/// Prepares the folder that the broker keeps its data in.
fn format(jars: &Path, settings: &Path, secured: Option<&Secured>) {
    let mut command = java(jars);
    command.args(["-Xmx256m", "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]).arg(settings);
    if let Some(Secured { user, password, .. }) = secured {
        command.arg("--add-scram").arg(format!("SCRAM-SHA-512=[name={user},password={password}]"));
    }
    run(command);
}

fn properties(folder: &Path, settings: &Settings<'_>) -> String {
    let Settings { node, address, controller, secured } = settings;
    let mut text = format!(
        "node.id={node}
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
log.dirs={}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL
inter.broker.listener.name=PLAINTEXT
broker.session.timeout.ms=4000
replica.lag.time.max.ms=4000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
",
        folder.join("data").display(),
    );
    let guarded = secured.map(|secured| format!(",GUARDED://{}", secured.address)).unwrap_or_default();
    let (roles, control) = match node {
        1 => ("broker,controller", format!(",CONTROLLER://{controller}")),
        _ => ("broker", String::new()),
    };
    let _ = writeln!(text, "process.roles={roles}");
    let _ = writeln!(text, "listeners=PLAINTEXT://{address}{control}{guarded}");
    let _ = writeln!(text, "advertised.listeners=PLAINTEXT://{address}{guarded}");
    if secured.is_some() {
        let _ = writeln!(text, "sasl.enabled.mechanisms=SCRAM-SHA-512");
        let _ = writeln!(text, "ssl.keystore.type=PEM");
        let _ = writeln!(text, "ssl.keystore.location={}", folder.join("broker.pem").display());
        let _ = writeln!(
            text,
            "listener.name.guarded.scram-sha-512.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;"
        );
    }
    text
}

fn certified(folder: &Path) -> Secured {
    let Certificate { ca_file, key, own } = certify(folder);
    fs::write(folder.join("broker.pem"), key + &own).expect("a file can be written");
    Secured { address: free_address(), ca_file, user: "cambium", password: "for tests only" }
}
