//! A process that a test starts and maltreats.

use std::fmt;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Longest wait until a peer is ready, or until one that was told to stop has.
const DEADLINE: Duration = Duration::from_secs(60);

/// A peer: at most one process at a time, always of the same command.
pub struct Process {
    name: &'static str,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    /// What it writes when it is ready.
    ready: &'static str,
    log: PathBuf,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Told when it is ready, closed when it has ended.
    said: Receiver<()>,
}

impl Process {
    /// A process that is ready when it writes a line with `ready` in it. What it writes is kept in `folder`.
    pub fn new(
        name: &'static str,
        folder: &Path,
        ready: &'static str,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self { name, command: Box::new(command), ready, log, running: None }
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it runs already, or does not become ready.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let (lines, output) = std::io::pipe().expect("a pipe");
        let errors = output.try_clone().expect("a pipe");
        let child = (self.command)().stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let (ready, said) = sync_channel(1);
        let (line, log) = (self.ready, self.log.clone());
        std::thread::spawn(move || {
            keep_lines(lines, &log, |text| {
                if text.contains(line) {
                    // Only the first time matters.
                    let _ = ready.try_send(());
                }
            })
        });
        self.running = Some(Running { child, said });
        let waited = self.running.as_ref().map(|running| running.said.recv_timeout(DEADLINE));
        if waited != Some(Ok(())) {
            self.kill();
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("{} is not ready: {}", self.name, &log[log.len().saturating_sub(4_000)..]);
        }
    }

    /// Kills it at once, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may have ended by itself.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// Tells it to stop and waits until it has.
    ///
    /// # Panics
    /// When it does not, or says that it failed.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let mut running = self.running.take().expect("signalled above");
        let ended = std::iter::repeat_with(|| running.said.recv_timeout(DEADLINE)).find_map(Result::err);
        assert_eq!(ended, Some(RecvTimeoutError::Disconnected), "{} stops", self.name);
        let status = running.child.wait().expect("a child can be waited for");
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// Stops its time.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets its time go on.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        let running = self.running.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        let id = libc::pid_t::try_from(running.child.id()).expect("the kernel's numbers fit");
        // SAFETY: `kill` touches no memory; the child has not been waited for, so the number is still its own.
        let result = unsafe { libc::kill(id, signal) };
        assert_eq!(result, 0, "{} can be signalled", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name).field("runs", &self.running.is_some()).finish()
    }
}

/// Appends what comes to the log until it ends.
fn keep_lines(lines: PipeReader, log: &Path, seen: impl Fn(&str)) {
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
    for line in BufReader::new(lines).split(b'\n').map_while(Result::ok) {
        let text = String::from_utf8_lossy(&line);
        writeln!(log, "{text}").expect("a log can be written");
        seen(&text);
    }
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn run(mut command: Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}
