//! What only a process under test does: dies at a named point, lives faster. Built only with the feature `failpoints`;
//! without it the variables are refused, so that a test cannot believe in what never was.
//!
//! `CAMBIUM_CRASH_AT=flush-before-commit` kills the process with SIGKILL when it first gets there,
//! `CAMBIUM_CRASH_AT=flush-before-commit:3` at the third time. `CAMBIUM_CLOCK` is a [`FastClock`].

use std::sync::Arc;

use cambium_runtime::clock::{Clock, FastClock, SystemClock};

/// The clock of the process: the machine's, unless the environment names another.
pub fn clock() -> Result<Arc<dyn Clock>, String> {
    match std::env::var("CAMBIUM_CLOCK") {
        Err(_) => Ok(Arc::new(SystemClock::new())),
        Ok(text) if cfg!(feature = "failpoints") => {
            let clock: FastClock = text.parse().map_err(|error| format!("CAMBIUM_CLOCK: {error}"))?;
            Ok(Arc::new(clock))
        }
        Ok(text) => Err(format!("CAMBIUM_CLOCK={text}: this binary was built without failpoints")),
    }
}

/// Arms the point that the environment names.
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
