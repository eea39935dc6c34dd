//! Dies at a named point, for the tests of durability. Built only with the feature `failpoints`.
//!
//! `CAMBIUM_CRASH_AT=flush-before-commit` kills the process with SIGKILL when it first gets there,
//! `CAMBIUM_CRASH_AT=flush-before-commit:3` at the third time.

/// Arms the point that the environment names; without the feature the variable is refused, so that a test cannot
/// believe that it crashed something.
pub fn arm() -> Result<(), String> {
    let Ok(point) = std::env::var("CAMBIUM_CRASH_AT") else {
        return Ok(());
    };
    arm_at(&point)
}

#[cfg(feature = "failpoints")]
fn arm_at(point: &str) -> Result<(), String> {
    use std::sync::atomic::{AtomicU32, Ordering};

    let (name, count) = match point.split_once(':') {
        Some((name, count)) => (name, count.parse().map_err(|_| format!("bad count in {point:?}"))?),
        None => (point, 1),
    };
    let left = AtomicU32::new(count);
    fail::cfg_callback(name, move || {
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // SAFETY: kill and getpid take no pointers and cannot break memory; SIGKILL does not return.
            unsafe {
                libc::kill(libc::getpid(), libc::SIGKILL);
            }
            loop {
                std::thread::park();
            }
        }
    })
}

#[cfg(not(feature = "failpoints"))]
fn arm_at(point: &str) -> Result<(), String> {
    Err(format!("CAMBIUM_CRASH_AT={point}: this binary was built without failpoints"))
}
