//! A placement driver and one store: TiKV, as far as it can be had here.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use tempfile::TempDir;

use crate::{Process, binary, free_address};

/// Regions of tests that do not care stay whole.
const REGION_BYTES: u64 = 64 << 20;

/// A cluster of one placement driver, the real one, and one store, a stand-in for TiKV's. Their data stay as long as this
/// value does. The keyspace is split at `m`, `n`, `t` and `u`.
#[derive(Debug)]
pub struct Tikv {
    /// The placement driver.
    pub placement: Process,
    /// The store.
    pub store: Process,
    address: String,
    /// Dropped last.
    _folder: TempDir,
}

impl Tikv {
    /// Both, running; none where peers are skipped.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start() -> Option<Self> {
        Self::with_region_bytes(REGION_BYTES)
    }

    /// Both, running; a region of half as much again as `bytes` is split within seconds.
    ///
    /// # Panics
    /// When they do not start.
    pub fn with_region_bytes(bytes: u64) -> Option<Self> {
        let address = free_address();
        Self::of(&address, &address, bytes)
    }

    /// Both, running; the placement driver sends its clients to `advertised`, whence somebody forwards to `address`.
    ///
    /// # Panics
    /// When they do not start.
    pub fn behind(advertised: &str, address: &str) -> Option<Self> {
        Self::of(address, advertised, REGION_BYTES)
    }

    fn of(address: &str, advertised: &str, region_bytes: u64) -> Option<Self> {
        let driver = binary("pd", "pd-server")?;
        let store = binary("tikv", "tikv-store")?;
        let folder = TempDir::new().expect("a temporary folder");
        let (peers, own) = (free_address(), free_address());
        let (address, advertised) = (address.to_owned(), advertised.to_owned());
        let placement = {
            let (data, address) = (folder.path().join("pd"), address.clone());
            Process::new("pd", folder.path(), "leader is ready to serve", move || {
                let mut command = Command::new(&driver);
                command.arg("--name=pd").arg(format!("--data-dir={}", data.display()));
                command.arg(format!("--client-urls=http://{address}"));
                command.arg(format!("--advertise-client-urls=http://{advertised}"));
                command.arg(format!("--peer-urls=http://{peers}"));
                command
            })
        };
        let store = {
            let (data, address) = (folder.path().join("store"), address.clone());
            Process::new("store", folder.path(), "serving", move || {
                let mut command = Command::new(&store);
                command.arg(format!("-pd={address}")).arg(format!("-addr={own}"));
                command.arg(format!("-data={}", data.display())).arg(format!("-region-bytes={region_bytes}"));
                command
            })
        };
        let mut cluster = Self { placement, store, address, _folder: folder };
        cluster.placement.start();
        cluster.store.start();
        Some(cluster)
    }

    /// Where the placement driver answers, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many regions the placement driver knows.
    ///
    /// # Panics
    /// When it does not say.
    pub fn regions(&self) -> usize {
        let answer = self.get("/pd/api/v1/regions").expect("the placement driver answers");
        let count = answer.split_once("\"count\":").expect("it counts").1.trim_start();
        let digits = count.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).expect("a number")
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
