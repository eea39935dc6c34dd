//! Real time of a real processor is sampled here: the tests look for what must be there, not for how much of it.

use std::hint::black_box;
use std::thread;

use super::*;

/// Longest machine code of [`burn`].
const BURN_BYTES_MAX: u64 = 512;

/// Runs until every recording has seen it this often.
#[inline(never)]
fn burn(samples: u64) -> u64 {
    let mut x = 1_u64;
    while state().recordings.values().any(|recording| of_burn(recording) < samples) {
        for _ in 0..1_000_000 {
            x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        collect();
    }
    x
}

fn is_burn(address: u64) -> bool {
    let start = burn as fn(u64) -> u64 as usize as u64;
    (start..start + BURN_BYTES_MAX).contains(&address)
}

fn of_burn(samples: &Samples) -> u64 {
    let stacks = samples.stacks.iter().filter(|(stack, _)| stack.iter().any(|address| is_burn(*address)));
    stacks.map(|(_, count)| count).sum()
}

fn names(address: u64) -> Vec<String> {
    let mut found = Vec::new();
    // What is resolved is the address before.
    backtrace::resolve((address + 1) as *mut c_void, |symbol| {
        found.extend(symbol.name().map(|name| format!("{name:#}")));
    });
    found
}

/// One test, because there is one timer in a process.
#[test]
fn recordings_see_the_running_line_and_its_callers() {
    let first = Recording::start(250).unwrap();
    black_box(burn(20));
    let second = Recording::start(99).unwrap();
    let other = thread::spawn(|| black_box(burn(20)));
    other.join().unwrap();

    let second = second.finish();
    assert_eq!(second.frequency, 250, "the timer is the first one's");
    assert!(of_burn(&second) >= 20);
    let first = first.finish();
    assert!(of_burn(&first) >= of_burn(&second) + 20, "{} and {}", of_burn(&first), of_burn(&second));

    let leaf = first.stacks.keys().find(|stack| is_burn(stack[0])).expect("the line that runs is innermost");
    assert!(names(leaf[0]).iter().any(|name| name.ends_with("burn")), "{:?}", names(leaf[0]));
    // Threads and tests are started by the standard library, which has frame pointers.
    let callers: Vec<String> = leaf[1..].iter().flat_map(|address| names(*address)).collect();
    assert!(callers.iter().any(|name| name.contains("std::thread")), "{callers:?}");

    assert!(state().recordings.is_empty());
    assert!(!ARMED.load(Ordering::Relaxed));
}

#[test]
fn what_cannot_be_read_ends_a_stack() {
    PROCESS.store(std::process::id().cast_signed(), Ordering::Relaxed);
    assert_eq!(read(8), None);
    let frames = [const { AtomicU64::new(0) }; 4];
    let at = |frame| Registers { instruction: 77, frame, stack: frame & !0xfff };
    // A caller's frame below its own: no frame.
    let looped = [0x10_u64, 99];
    assert_eq!(walk(&at(looped.as_ptr() as u64), &frames), 2);
    assert_eq!([0, 1].map(|at| frames[at].load(Ordering::Relaxed)), [77, 99]);
    assert_eq!(walk(&at(9), &frames), 1, "unaligned");
    assert_eq!(walk(&at(4_096), &frames), 1, "nothing is there");
}
