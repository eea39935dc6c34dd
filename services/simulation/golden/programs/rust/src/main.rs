//! A small text grinder whose only purpose is to be profiled: `grinder <file>` records its own CPU profile with the
//! pprof crate and writes it as pprof. It has generics (angle brackets in names), trait methods, closures, inlined
//! iterator chains, recursion, and a second thread.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::Write;
use std::time::{Duration, Instant};

use pprof::protos::Message;

/// How long the work is profiled.
const WINDOW: Duration = Duration::from_millis(2500);

/// A way to turn a word into a number; implemented twice so that both show as `<T as Weigh>::weigh`.
trait Weigh {
    fn weigh(&self, word: &str) -> u64;
}

struct Vowels;
struct Bytes {
    factor: u64,
}

impl Weigh for Vowels {
    #[inline(never)]
    fn weigh(&self, word: &str) -> u64 {
        word.chars().filter(|letter| "aeiou".contains(*letter)).count() as u64
    }
}

impl Weigh for Bytes {
    #[inline(never)]
    fn weigh(&self, word: &str) -> u64 {
        word.bytes().map(|byte| step(u64::from(byte), self.factor)).sum()
    }
}

/// Small enough to be inlined into the closure that is inlined into `weigh`.
#[inline(always)]
fn step(value: u64, factor: u64) -> u64 {
    (0..8).fold(value, |sum, turn| mix(sum, factor ^ turn))
}

#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    (a ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)
}

/// Direct recursion over a slice, halving it.
#[inline(never)]
fn fold_halves<T: Copy + Into<u64> + Debug>(values: &[T]) -> u64 {
    match values {
        [] => 0,
        [one] => step((*one).into(), 3),
        _ => {
            let (left, right) = values.split_at(values.len() / 2);
            fold_halves(left).wrapping_add(fold_halves(right))
        }
    }
}

#[inline(never)]
fn count_words(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_insert(0) += 1;
    }
    counts
}

#[inline(never)]
fn grind(text: &str, until: Instant) -> u64 {
    let weighers: [Box<dyn Weigh>; 2] = [Box::new(Vowels), Box::new(Bytes { factor: 7 })];
    let mut total = 0u64;
    while Instant::now() < until {
        let counts = count_words(text);
        let mut words: Vec<_> = counts.iter().collect();
        words.sort_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
        for weigher in &weighers {
            total = total.wrapping_add(words.iter().map(|(word, _)| weigher.weigh(word)).fold(0, u64::wrapping_add));
        }
        total = total.wrapping_add(fold_halves(text.as_bytes()));
    }
    total
}

fn main() {
    let file = std::env::args().nth(1).expect("usage: grinder <file>");
    let text: String = (0..2000).map(|i| format!("word{} lorem{} ipsum ", i % 97, i % 13)).collect();
    let guard = pprof::ProfilerGuardBuilder::default()
        .frequency(99)
        .blocklist(&["libc", "libgcc", "pthread", "vdso"])
        .build()
        .expect("the profiler starts");
    let until = Instant::now() + WINDOW;
    let total = std::thread::scope(|scope| {
        let other = std::thread::Builder::new().name("second".into());
        let other = other.spawn_scoped(scope, || grind(&text, until)).expect("a thread starts");
        grind(&text, until).wrapping_add(other.join().expect("the thread ends"))
    });
    let report = guard.report().build().expect("the report is built");
    let profile = report.pprof().expect("the report becomes pprof");
    let mut out = std::fs::File::create(&file).expect("the file is created");
    out.write_all(&profile.encode_to_vec()).expect("the file is written");
    eprintln!("{total} ground");
}
