//! A server as a process on a folder of its own, that a test can kill and start again.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use cambium_runtime::clock::{Clock, FastClock, SystemClock};
use serde_json::Value;

use crate::http::Client;

/// Longest wait until a server answers, or until one that was told to stop has.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder, and at most one process on it.
#[derive(Debug)]
pub struct Sandbox {
    binary: PathBuf,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    /// The clock of what is started, as text.
    clock: Option<String>,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    public: String,
    internal: String,
    logs: std::thread::JoinHandle<Vec<String>>,
    /// Where it is to die.
    point: Option<String>,
}

impl Sandbox {
    /// An empty folder for `binary`, which gets `arguments` at every start.
    ///
    /// # Panics
    /// When no folder can be made.
    pub fn new(binary: &str, arguments: &[&str]) -> Self {
        Self {
            binary: binary.into(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            clock: None,
            process: None,
        }
    }

    /// A copy of another one's folder, whose server must be stopped.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn copy_of(other: &Self, arguments: &[&str]) -> Self {
        assert!(other.process.is_none(), "a folder that changes cannot be copied");
        let copy = Self::new(&other.binary.to_string_lossy(), arguments);
        copy_folder(other.data_dir(), copy.data_dir()).expect("a folder can be copied");
        copy
    }

    /// Servers started from now on live by this clock; the binary must have failpoints.
    pub fn set_clock(&mut self, clock: &FastClock) {
        self.clock = Some(clock.to_string());
    }

    /// An empty folder with a server already running on it.
    pub fn running(binary: &str, arguments: &[&str]) -> Self {
        let mut sandbox = Self::new(binary, arguments);
        sandbox.start();
        sandbox
    }

    /// The same folder, for servers that get other arguments.
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        self
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the server and waits until it answers, and has done what the compactor found to do at the start: from then on a
    /// test knows when that looks for work.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(&mut self) {
        self.start_crashing_at(None).expect("the server starts");
        let clock = SystemClock::new();
        while self.metric("cambium_compactor_rounds_total") < 1.0 {
            assert!(clock.monotonic() < DEADLINE, "the compactor does not come to rest");
        }
    }

    /// The value of a sample of the metrics endpoint.
    ///
    /// # Panics
    /// When there is none.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.operator().get("/metrics", &[]).expect("an answer").text();
        let found = text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("{sample} is not in\n{text}"))
    }

    /// Starts the server with a crash point armed. `None` where it died before it was ready.
    ///
    /// # Panics
    /// When it neither starts nor dies.
    pub fn start_crashing_at(&mut self, point: Option<&str>) -> Option<()> {
        assert!(self.process.is_none(), "one process at a time");
        let mut command = Command::new(&self.binary);
        command
            .arg("--data-dir")
            .arg(self.folder.path())
            .args(["--listen", "127.0.0.1:0", "--internal.listen", "127.0.0.1:0"])
            .args(["--log.format", "json", "--self-profiling.enabled=false"])
            .args(&self.arguments)
            .env_remove("CAMBIUM_CRASH_AT")
            .env_remove("CAMBIUM_CLOCK")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(point) = point {
            command.env("CAMBIUM_CRASH_AT", point);
        }
        if let Some(clock) = &self.clock {
            command.env("CAMBIUM_CLOCK", clock);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()));
        let stderr = child.stderr.take().expect("piped above");
        let (sender, ready) = mpsc::sync_channel(1);
        let logs = std::thread::spawn(move || read_logs(stderr, &sender));
        match ready.recv_timeout(DEADLINE) {
            Ok((public, internal)) => {
                let point = point.map(str::to_owned);
                self.process = Some(Process { child, public, internal, logs, point });
                Some(())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = child.wait().expect("a child can be waited for");
                let logs = logs.join().unwrap_or_default();
                assert!(point.is_some(), "the server ended with {status} before it was ready: {logs:#?}");
                None
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("the server is not ready after {DEADLINE:?}: {:#?}", logs.join());
            }
        }
    }

    /// A client of the public port.
    pub fn client(&self) -> Client {
        Client::new(&self.process().public)
    }

    /// A client of the internal port.
    pub fn operator(&self) -> Client {
        Client::new(&self.process().internal)
    }

    /// Where the internal port is, as settings say it.
    pub fn operator_address(&self) -> String {
        self.process().internal.trim_start_matches("http://").to_owned()
    }

    /// The running process' number.
    pub fn process_id(&self) -> u32 {
        self.process().child.id()
    }

    /// Flushes every head; the error is for a server that died meanwhile.
    pub fn flush(&self) -> Result<u64, String> {
        let answer =
            self.operator().post("/ingester/flush", &[], &[], &[]).map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(answer.text());
        }
        Ok(answer.json()["data"]["blocks"].as_u64().unwrap_or_default())
    }

    /// `kill -9`; returns what the server logged.
    pub fn kill(&mut self) -> Vec<String> {
        let mut process = self.process.take().expect("a running server");
        // It may have died already, which is what the caller wants.
        let _ = process.child.kill();
        let _ = process.child.wait();
        process.logs.join().unwrap_or_default()
    }

    /// Waits until the server has died at the armed point.
    ///
    /// # Panics
    /// When it has not after a minute.
    pub fn wait_dead(&mut self) -> Vec<String> {
        let mut process = self.process.take().expect("a running server");
        let logs = process.logs;
        let (sender, ended) = mpsc::sync_channel(1);
        std::thread::spawn(move || sender.send(logs.join().unwrap_or_default()));
        let logs = ended.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let _ = process.child.kill();
            panic!("{:?} was never reached: this test tests nothing", process.point)
        });
        let _ = process.child.wait();
        logs
    }

    /// Asks the server to stop and waits until it has.
    ///
    /// # Panics
    /// When it ends with an error.
    pub fn stop(&mut self) {
        let answer = self.operator().post("/ingester/shutdown", &[], &[], &[]).expect("the server answers");
        assert_eq!(answer.status, 204, "{}", answer.text());
        let mut process = self.process.take().expect("a running server");
        let status = process.child.wait().expect("a child can be waited for");
        let logs = process.logs.join().unwrap_or_default();
        assert!(status.success(), "stopped with {status}: {logs:#?}");
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("a running server")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Reads the log to its end; tells the addresses as soon as the server says them.
fn read_logs(stderr: ChildStderr, ready: &mpsc::SyncSender<(String, String)>) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let fields: Value = serde_json::from_str(&line).unwrap_or_default();
        let fields = &fields["fields"];
        if fields["message"] == "ready" {
            let address = |name: &str| format!("http://{}", fields[name].as_str().unwrap_or_default());
            let _ = ready.send((address("address"), address("internal")));
        }
        lines.push(line);
    }
    lines
}
