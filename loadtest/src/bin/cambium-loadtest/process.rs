//! What the kernel says of a process: its CPU time and its memory.

use std::time::Duration;

use anyhow::Context;

/// Ticks of a process' CPU clock in a second, on every Linux.
const TICKS: u64 = 100;

/// CPU time of a process in user and kernel, to hundredths of a second. `self` is this one. Errors: there is no such
/// process, or this is not Linux.
pub fn cpu_time(process: &str) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).context(path)?;
    // The second field is a name in parentheses that may hold anything.
    let fields = stat.rsplit(')').next().context("stat has a name")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS))
}

/// Resident memory of a process, bytes. Errors: as [`cpu_time`].
pub fn resident_bytes(process: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).context(path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("status has VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory() {
        assert!(super::resident_bytes("self").unwrap() > 1 << 20);
        super::cpu_time("self").unwrap();
        assert!(super::cpu_time("0").is_err());
    }
}
