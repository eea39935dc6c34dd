//! CPU time: what work costs whatever else the machine does.

use std::time::Duration;

/// How often a figure is taken; the best counts.
pub const RUNS: usize = 5;

/// CPU time of this process so far, all threads together.
pub fn process_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours that outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "every process has a CPU clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Does the work [`RUNS`] times; the seconds of CPU of the cheapest run, and what it gave.
pub fn best<T>(work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    best_of(RUNS, work)
}

/// Does the work so many times; the seconds of CPU of the cheapest run, and what it gave.
pub fn best_of<T>(runs: usize, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let mut best: Option<(f64, T)> = None;
    for _ in 0..runs {
        let start = process_time();
        let made = work()?;
        let spent = (process_time() - start).as_secs_f64();
        if best.as_ref().is_none_or(|(least, _)| spent < *least) {
            best = Some((spent, made));
        }
    }
    Ok(best.expect("there is at least one run"))
}
