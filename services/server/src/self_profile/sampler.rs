//! Samples where the process' CPU time goes: a timer of CPU time, a signal handler, stacks by frame pointers.
//!
//! ```text
//!   kernel ── SIGPROF, so many per second of CPU time ──► on_tick ──► SLOTS ──► collect ──► every Recording
//! ```
//!
//! The handler interrupts any code anywhere and may do almost nothing: it takes no lock, allocates nothing, and reads
//! the stack through the kernel, which refuses an address where nothing is. What it cannot put down it counts.
//!
//! Not the pprof crate, because it resolves names in this process when it starts, which keeps the debug information of
//! the whole binary in memory; by frame pointers it loses the innermost frame, the very line that runs; and it keeps
//! 18 MB of tables.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libc::{c_int, c_void};

/// How often [`collect`] must be called while something is recorded.
pub const COLLECT_INTERVAL: Duration = Duration::from_millis(250);
/// Samples that find room between two calls of [`collect`]: eight processors' at 250 a second, which is as often as
/// most kernels tick.
const SLOTS_MAX: usize = 512;
/// Frames of a sample; a deeper stack loses its outermost ones.
const FRAMES_MAX: usize = 256;
/// Different stacks of one recording; samples of further ones are lost and counted.
const STACKS_MAX: usize = 65_536;
/// How far above the stack pointer a frame can lie: the largest stack of a thread of ours, `cli::STACK_BYTES`.
const STACK_BYTES_MAX: u64 = 16 << 20;

/// Why CPU time cannot be sampled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel takes no handler or no timer, or lets nobody read memory through it.
    #[error("{what}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Room for one sample. The handler owns it from `WRITING` to `FULL`, [`collect`] from `FULL` to `FREE`.
struct Slot {
    state: AtomicU32,
    depth: AtomicUsize,
    frames: [AtomicU64; FRAMES_MAX],
}

const FREE: u32 = 0;
const WRITING: u32 = 1;
const FULL: u32 = 2;

// A signal has one handler in a process and a handler gets nothing but the signal: what it touches is static.

/// Where the handler puts samples.
static SLOTS: [Slot; SLOTS_MAX] = [const { Slot::new() }; SLOTS_MAX];
/// The slot that the next sample tries.
static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);
/// Samples for which there was no room since the last [`collect`].
static LOST: AtomicU64 = AtomicU64::new(0);
/// Whether somebody records. A signal may still be under way when nobody does any more.
static ARMED: AtomicBool = AtomicBool::new(false);
/// This process, so that the handler need not ask.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// Who records. Never touched by the handler.
static STATE: Mutex<State> =
    Mutex::new(State { recordings: BTreeMap::new(), next: 0, frequency: 0, installed: false });

struct State {
    recordings: BTreeMap<u64, Samples>,
    next: u64,
    frequency: u32,
    installed: bool,
}

/// Stacks with how often each was seen.
#[derive(Debug, Default)]
pub struct Samples {
    /// Addresses, innermost first; each lies within the instruction that runs or calls.
    pub stacks: HashMap<Box<[u64]>, u64>,
    /// Samples for which there was no room.
    pub lost: u64,
    /// Samples per second of CPU time.
    pub frequency: u32,
}

/// Samples from now on. Several at a time get the same ones; dropping it ends it.
#[derive(Debug)]
pub struct Recording {
    id: u64,
}

impl Recording {
    /// Starts at `frequency` samples per second of CPU time, or at that of a recording already under way.
    pub fn start(frequency: u32) -> Result<Self, Error> {
        let mut state = state();
        if state.recordings.is_empty() {
            PROCESS.store(std::process::id().cast_signed(), Ordering::Relaxed);
            probe()?;
            state.install()?;
            // What a signal left that came after the end of the last recording.
            visit(|_| {});
            LOST.store(0, Ordering::Relaxed);
            ARMED.store(true, Ordering::Relaxed);
            state.frequency = frequency.max(1);
            set_timer(state.frequency)?;
        }
        let id = state.next;
        state.next += 1;
        let samples = Samples { frequency: state.frequency, ..Samples::default() };
        state.recordings.insert(id, samples);
        Ok(Self { id })
    }

    /// Ends it.
    pub fn finish(self) -> Samples {
        collect();
        // Only `drop` removes it besides.
        state().recordings.get_mut(&self.id).map(std::mem::take).unwrap_or_default()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let mut state = state();
        state.recordings.remove(&self.id);
        if state.recordings.is_empty() {
            ARMED.store(false, Ordering::Relaxed);
            // Stopping a timer that was started with the same call does not fail, and the handler does nothing now.
            let _ = set_timer(0);
        }
    }
}

/// Moves what the handler has put down into every recording.
pub fn collect() {
    let mut state = state();
    let mut stack = Vec::with_capacity(FRAMES_MAX);
    visit(|slot| {
        let depth = slot.depth.load(Ordering::Relaxed).min(FRAMES_MAX);
        stack.clear();
        stack.extend(slot.frames[..depth].iter().map(|frame| frame.load(Ordering::Relaxed)));
        // All but the innermost are return addresses: the call is the instruction before.
        stack.iter_mut().skip(1).for_each(|address| *address = address.saturating_sub(1));
        state.recordings.values_mut().for_each(|samples| samples.add(&stack));
    });
    let lost = LOST.swap(0, Ordering::Relaxed);
    state.recordings.values_mut().for_each(|samples| samples.lost += lost);
}

impl Samples {
    fn add(&mut self, stack: &[u64]) {
        if let Some(count) = self.stacks.get_mut(stack) {
            *count += 1;
        } else if self.stacks.len() < STACKS_MAX {
            self.stacks.insert(stack.into(), 1);
        } else {
            self.lost += 1;
        }
    }
}

impl State {
    /// The handler stays for good: without one a late signal would end the process.
    fn install(&mut self) -> Result<(), Error> {
        if self.installed {
            return Ok(());
        }
        // SAFETY: all zeros is an empty set of flags and signals, and the handler is set below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_tick;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and does only what a handler may.
        let done = unsafe { libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut()) };
        check(done, "a handler of SIGPROF")?;
        self.installed = true;
        Ok(())
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            depth: AtomicUsize::new(0),
            frames: [const { AtomicU64::new(0) }; FRAMES_MAX],
        }
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows every full slot and frees it.
fn visit(mut show: impl FnMut(&Slot)) {
    for slot in SLOTS.iter().filter(|slot| slot.state.load(Ordering::Acquire) == FULL) {
        show(slot);
        slot.state.store(FREE, Ordering::Release);
    }
}

fn check(returned: c_int, what: &'static str) -> Result<(), Error> {
    if returned == 0 { Ok(()) } else { Err(Error::Refused { what, source: io::Error::last_os_error() }) }
}

/// A tick at every `1 / frequency` seconds of CPU time; 0 for none.
fn set_timer(frequency: u32) -> Result<(), Error> {
    let micros = 1_000_000_u32.checked_div(frequency).map_or(0, |micros| micros.max(1));
    let interval =
        libc::timeval { tv_sec: i64::from(micros / 1_000_000), tv_usec: i64::from(micros % 1_000_000) };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: reads the timer above, and a null pointer means that the old one is of no interest.
    let done = unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
    check(done, "a timer of CPU time")
}

/// Some sandboxes forbid the call that the handler reads stacks by; its samples would have one frame each.
fn probe() -> Result<(), Error> {
    let known = [1_u64, 2];
    let source = io::Error::last_os_error;
    match read(known.as_ptr() as u64) {
        Some(found) if found == known => Ok(()),
        _ => Err(Error::Refused { what: "reading memory with process_vm_readv", source: source() }),
    }
}

extern "C" fn on_tick(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if !ARMED.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: the address of this thread's errno, which is the interrupted code's and is given back as it was.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: with SA_SIGINFO the kernel passes a `ucontext_t` that nobody else touches.
    if let Some(context) = unsafe { context.cast::<libc::ucontext_t>().as_ref() } {
        let slot = &SLOTS[NEXT_SLOT.fetch_add(1, Ordering::Relaxed) % SLOTS_MAX];
        let taken = slot.state.compare_exchange(FREE, WRITING, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_ok() {
            slot.depth.store(walk(&Registers::of(context), &slot.frames), Ordering::Relaxed);
            slot.state.store(FULL, Ordering::Release);
        } else {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Where the interrupted code was.
struct Registers {
    instruction: u64,
    frame: u64,
    stack: u64,
}

impl Registers {
    #[cfg(target_arch = "x86_64")]
    fn of(context: &libc::ucontext_t) -> Self {
        let register = |number: c_int| context.uc_mcontext.gregs[number as usize].cast_unsigned();
        Self {
            instruction: register(libc::REG_RIP),
            frame: register(libc::REG_RBP),
            stack: register(libc::REG_RSP),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn of(context: &libc::ucontext_t) -> Self {
        let registers = &context.uc_mcontext;
        Self { instruction: registers.pc, frame: registers.regs[29], stack: registers.sp }
    }
}

/// Follows the chain of frames; returns how many it put into `frames`, innermost first.
///
/// On both architectures a frame starts with the address of its caller's frame and the address to return to.
fn walk(registers: &Registers, frames: &[AtomicU64]) -> usize {
    let (mut frame, mut lowest) = (registers.frame, registers.stack);
    let mut depth = 0;
    let mut put = |address: u64| {
        frames[depth].store(address, Ordering::Relaxed);
        depth += 1;
        depth < frames.len()
    };
    let mut room = put(registers.instruction);
    // Callers lie higher. Code without frame pointers (in libc) may hold anything there.
    while room && frame.is_multiple_of(8) && frame >= lowest && frame - registers.stack < STACK_BYTES_MAX {
        let Some([caller, return_address]) = read(frame) else { break };
        if return_address == 0 {
            break;
        }
        room = put(return_address);
        lowest = frame + 16;
        frame = caller;
    }
    depth
}

/// Two words of this process at `address`, or none where nothing can be read. Does not fault.
fn read(address: u64) -> Option<[u64; 2]> {
    let mut words = [0_u64; 2];
    let length = size_of_val(&words);
    let to = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: length };
    let from = libc::iovec { iov_base: address as *mut c_void, iov_len: length };
    // SAFETY: writes `words` alone, and the kernel checks the address that it reads.
    let read = unsafe { libc::process_vm_readv(PROCESS.load(Ordering::Relaxed), &to, 1, &from, 1, 0) };
    (read == length.cast_signed()).then_some(words)
}

#[cfg(test)]
mod tests;
