//! What the kernel says of another process and its files.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// Ticks of a process' CPU clock in a second, on every Linux.
const TICKS: u64 = 100;
/// Bytes of one of a file's blocks, as `stat` counts them.
const STAT_BLOCK_BYTES: u64 = 512;

/// CPU time of a process, in user and kernel, in hundredths of a second.
pub fn server_time(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is a name in parentheses that may hold anything.
    let fields = stat.rsplit(')').next().context("stat has a name")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>()).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS))
}

/// Memory of a process, resident: now and at its peak. Bytes.
pub fn memory(process: u32) -> anyhow::Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("status has the field")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        anyhow::Ok(kilobytes * 1024.0)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Bytes that the files below a folder occupy.
pub fn disk_bytes(folder: &Path) -> anyhow::Result<f64> {
    let mut bytes = 0.0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            (metadata.blocks() * STAT_BLOCK_BYTES) as f64
        };
    }
    Ok(bytes)
}
