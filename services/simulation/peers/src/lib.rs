//! Real infrastructure for tests: built by `build.sh` from pinned sources, started on free ports and a temporary folder.
//!
//! ```text
//!   build.sh ──► cache outside the checkout ──► Process ──► start: waits for its line, with a deadline
//!                                                  │        kill, stop, pause, resume, start again
//!                                                  ├── Kafka: one broker, or two
//!                                                  ├── Minio: an S3 server
//!                                                  └── Tikv: a placement driver and a store
//! ```
//!
//! Laws: a peer runs as a process of its own, none of its code is linked; nothing that is started outlives the value
//! that started it; what is missing is built, and `CAMBIUM_PEERS=skip` skips it by name and visibly.

#![expect(clippy::print_stderr, reason = "tests say what they skip")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

pub use kafka::Kafka;
pub use minio::Minio;
pub use process::Process;
pub use tikv::Tikv;

mod certificate;

mod kafka;

mod minio;

mod process;

mod tikv;

/// Ports that the kernel does not give to others' connections, so that a peer finds its own free when it starts again.
const PORT_MIN: u16 = 12_000;
const PORT_MAX: u16 = 32_000;

/// The binary of a peer, built if need be; none where peers are to be skipped, which is said on standard error.
///
/// # Panics
/// When it cannot be built.
pub fn binary(peer: &str, name: &str) -> Option<PathBuf> {
    if std::env::var("CAMBIUM_PEERS").is_ok_and(|value| value == "skip") {
        eprintln!("SKIPPED: what needs the peer {peer}, because CAMBIUM_PEERS=skip");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.sh");
    let output = Command::new(script).arg(peer).stderr(Stdio::inherit()).output().expect("bash is there");
    assert!(output.status.success(), "the peer {peer} cannot be built; CAMBIUM_PEERS=skip does without");
    let said = String::from_utf8(output.stdout).expect("the script speaks UTF-8");
    let folder = said.trim_end().split_once(' ').expect("the script says `name folder`").1;
    Some(Path::new(folder).join(name))
}

/// An address of this machine that nobody listens on.
///
/// # Panics
/// When there is none.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let ports = PORT_MAX - PORT_MIN;
    for _ in 0..ports {
        // Processes begin far apart, and never try one twice in a row.
        let apart = u16::try_from(std::process::id() % 499).expect("it is small") * 40;
        let step = apart.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % ports;
        let address = format!("127.0.0.1:{}", PORT_MIN + step);
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
    panic!("no port is free");
}
