//! The process' profiles of itself have names, files, lines and inlined functions, which a child of it resolves.

use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use cambium_loadtest::synthetic::Synthetic;
use cambium_proto::pprof::Decompressor;
use cambium_proto::wire::perftools::{Function, Location, Profile};
use cambium_simulation::Sandbox;
use prost::Message;

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";
/// Longest profile, bytes.
const PROFILE_BYTES_MAX: usize = 64 << 20;

fn own_profile(sandbox: &Sandbox, path: &str, parameters: &[(&str, &str)]) -> Profile {
    let answer = sandbox.operator().get(path, parameters).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.content_type, "application/octet-stream");
    let mut decompressor = Decompressor::new();
    let bytes = decompressor.decompress(&answer.body, PROFILE_BYTES_MAX).expect("gzip");
    Profile::decode(bytes).expect("a pprof")
}

/// Gives the server something to do while `what` runs.
fn under_load<T>(sandbox: &Sandbox, what: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = sandbox.client();
            let start = now_ns();
            let mut pushed = 0;
            while !done.load(Ordering::Relaxed) {
                let profile = Synthetic { time_ns: start - pushed * 1_000_000, samples: 200, value: 7 };
                let answer =
                    client.push(r#"{service_name="api"}"#, &[("name", "process_cpu")], &profile.pprof());
                assert_eq!(answer.expect("an answer").status, 200);
                assert!(client.total(QUERY) > 0);
                pushed += 1;
            }
        });
        let result = what();
        done.store(true, Ordering::Relaxed);
        result
    })
}

struct Names<'a> {
    profile: &'a Profile,
    functions: HashMap<u64, &'a Function>,
}

impl<'a> Names<'a> {
    fn of(profile: &'a Profile) -> Self {
        Self { profile, functions: profile.function.iter().map(|row| (row.id, row)).collect() }
    }

    fn text(&self, index: i64) -> &'a str {
        &self.profile.string_table[usize::try_from(index).expect("an index")]
    }

    fn function(&self, id: u64) -> [&'a str; 3] {
        let function = self.functions[&id];
        [function.name, function.system_name, function.filename].map(|index| self.text(index))
    }

    /// Whether one of the functions here is ours, with its file and line.
    fn is_ours(&self, location: &Location) -> bool {
        location.line.iter().any(|line| {
            let [name, system_name, file] = self.function(line.function_id);
            let named = !name.is_empty() && !system_name.is_empty();
            named && file.contains("/services/") && file.ends_with(".rs") && line.line > 0
        })
    }

    /// Whether the function here has a name for people besides the linker's.
    fn is_demangled(&self, location: &Location) -> bool {
        location.line.iter().any(|line| {
            let [name, system_name, _] = self.function(line.function_id);
            name.contains("::") && system_name.starts_with('_') && !system_name.contains("::")
        })
    }
}

/// Everything that a profile of the process must have, whatever was sampled: of each sort so many locations.
#[track_caller]
fn check_named(profile: &Profile, least: usize) {
    let names = Names::of(profile);
    let count = |fits: &dyn Fn(&&Location) -> bool| profile.location.iter().filter(fits).count();
    let all = profile.location.len();
    let (ours, demangled) = (count(&|row| names.is_ours(row)), count(&|row| names.is_demangled(row)));
    assert!(ours >= least, "{ours} of {all} locations are ours");
    assert!(demangled >= least, "{demangled} of {all} locations are demangled");
    let inlined = count(&|row| row.line.len() > 1);
    // Few are in a build without optimisation, and which of them are sampled is chance.
    assert!(inlined > 0, "none of {all} locations has inlined functions");
    let named = count(&|row| !row.line.is_empty());
    assert!(named * 10 > all * 9, "{named} of {all} locations have names");

    let executable = &profile.mapping[0];
    assert!(names.text(executable.filename).ends_with("cambium-under-test"));
    assert!(executable.has_functions && executable.has_filenames && executable.has_line_numbers);
    assert!(executable.has_inline_frames);
    for location in &profile.location {
        assert!(location.mapping_id > 0 && location.address > 0, "{location:?}");
    }
}

#[test]
fn cpu_profiles_name_the_running_line_and_its_callers() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let ask = |seconds| own_profile(&sandbox, "/debug/pprof/profile", &[("seconds", seconds)]);
    // Two at a time: each sees all of its own time.
    let (profile, other) = under_load(&sandbox, || {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| ask("3"));
            (ask("2"), other.join().expect("an answer"))
        })
    });
    for (profile, seconds) in [(&profile, 2), (&other, 3)] {
        check_named(profile, 10);
        assert_eq!(profile.duration_nanos, seconds * 1_000_000_000);
        assert_eq!(profile.period, 1_000_000_000 / 99);
        for sample in &profile.sample {
            assert_eq!(sample.value[1], sample.value[0] * profile.period);
        }
        // A thread's outermost functions are the standard library's: whole stacks were seen.
        let names = Names::of(profile);
        let of_threads = profile.function.iter().filter(|row| names.text(row.name).starts_with("std::"));
        assert!(of_threads.count() > 0);
    }
}

#[test]
fn heap_profiles_name_who_allocated() {
    let sandbox = Sandbox::running(BINARY, &[]);
    // One allocation of every 512 KiB is sampled: under load what is held grows until some are among it. Each of the
    // tries gives it a second.
    let profile = under_load(&sandbox, || {
        let mut tries = 0..30;
        loop {
            let profile = own_profile(&sandbox, "/debug/pprof/heap", &[]);
            if profile.sample.len() >= 3 || tries.next().is_none() {
                break profile;
            }
            own_profile(&sandbox, "/debug/pprof/profile", &[("seconds", "1")]);
        }
    });
    check_named(&profile, 1);
    let names = Names::of(&profile);
    let types: Vec<_> =
        profile.sample_type.iter().map(|row| (names.text(row.r#type), names.text(row.unit))).collect();
    assert_eq!(types, [("inuse_space", "bytes")]);
    assert!(profile.sample.iter().map(|sample| sample.value[0]).sum::<i64>() > 512 << 10);
}

#[test]
fn only_people_see_the_command_line() {
    let help = Command::new(BINARY).arg("--help").output().expect("it runs");
    let text = String::from_utf8(help.stdout).expect("text");
    assert!(help.status.success() && text.contains("--data-dir"), "{text}");
    assert!(!text.contains("resolve"), "{text}");
}
