//! Workload W1: 200 series × 60 rounds of Go CPU profiles, about 150 samples each; the stream that peers were
//! measured with.
//!
//! Series `s` uses base `s mod 4`. Of a base with `n` stacks, stack `i` is kept when `x mod n < 150` with
//! `x = at(42, s, r, i)`; its values are `[c, c × period]` with `c = 1 + (x >> 32) mod 20`; one in eight gets a leaf
//! frame of its service in front.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context;
use cambium_proto::wire::perftools::{Function, Line, Location, Profile, Sample};
use prost::Message;

use crate::random::at;

/// Series of the stream.
pub const SERIES: u64 = 200;
/// Rounds, 10 s apart.
pub const ROUNDS: u64 = 60;
/// Time between two rounds and duration of each profile, nanoseconds.
pub const INTERVAL_NS: i64 = 10_000_000_000;
/// Sum of cpu/nanoseconds over the whole stream.
pub const TOTAL_NS: i64 = 188_725_620_000_000;
/// The same for the pod `svc-07-pod-0007`.
pub const POD_7_NS: i64 = 955_110_000_000;
/// The same for that pod at round 30 alone.
pub const POD_7_ROUND_30_NS: i64 = 15_470_000_000;
/// Sample messages in the stream.
pub const SAMPLES: u64 = 1_798_564;

const SEED: u64 = 42;
const PERIOD_NS: i64 = 10_000_000;
/// Files with the base profiles, in order.
const BASES: [&str; 4] = [
    "go-compile-gotypes.cpu.pprof",
    "go-compile-nethttp.cpu.pprof",
    "parca-ingest.cpu.pprof",
    "parca-query.cpu.pprof",
];

/// The generator.
#[derive(Debug)]
pub struct W1 {
    bases: Vec<Profile>,
}

impl W1 {
    /// Reads the four base profiles from a folder.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let read = |name: &&str| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            Ok(Profile::decode(gunzip(&bytes)?.as_slice())?)
        };
        Ok(Self { bases: BASES.iter().map(read).collect::<anyhow::Result<_>>()? })
    }

    /// The labels of a series, in the selector's form, without `__name__` (which is `process_cpu`).
    pub fn labels(series: u64) -> String {
        let service = series % 20;
        format!(
            r#"{{cluster="c1",container="cont-{}",namespace="ns-{:02}",node="node-{:02}",service_name="svc-{service:02}",pod="svc-{service:02}-pod-{series:04}"}}"#,
            series % 4,
            series % 10,
            series % 25,
        )
    }

    /// The profile of a series and a round, as raw pprof. `start_ns` is the time of round 0.
    pub fn profile(&self, series: u64, round: u64, start_ns: i64) -> Profile {
        let base = &self.bases[(series % 4) as usize];
        let stacks = base.sample.len() as u64;
        let mut thinned = Thinned::new(base, series % 20);
        for (index, sample) in (0..).zip(&base.sample) {
            let x = at(SEED, series, round, index);
            if x % stacks < 150 {
                thinned.add(sample, x);
            }
        }
        thinned.finish(start_ns + INTERVAL_NS * round as i64)
    }

    /// The same, compressed as agents do: gzip at the fastest level.
    pub fn pprof_gz(&self, series: u64, round: u64, start_ns: i64) -> Vec<u8> {
        gzip(&self.profile(series, round, start_ns).encode_to_vec())
    }
}

/// A base profile with some of its stacks, renumbered.
struct Thinned<'a> {
    base: &'a Profile,
    service: u64,
    strings: HashMap<String, i64>,
    functions: HashMap<u64, u64>,
    locations: HashMap<u64, u64>,
    tasks: HashMap<u64, u64>,
    profile: Profile,
}

impl<'a> Thinned<'a> {
    fn new(base: &'a Profile, service: u64) -> Self {
        let mut new = Self {
            base,
            service,
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            tasks: HashMap::new(),
            profile: Profile::default(),
        };
        new.string("");
        for value_type in base.sample_type.iter().copied().chain(base.period_type) {
            let mut renamed = value_type;
            renamed.r#type = new.text(value_type.r#type);
            renamed.unit = new.text(value_type.unit);
            new.profile.sample_type.push(renamed);
        }
        new.profile.period_type = new.profile.sample_type.pop();
        for mapping in &base.mapping {
            let mut renamed = *mapping;
            renamed.filename = new.text(mapping.filename);
            renamed.build_id = new.text(mapping.build_id);
            new.profile.mapping.push(renamed);
        }
        new
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&known) = self.strings.get(text) {
            return known;
        }
        let new = self.strings.len() as i64;
        self.strings.insert(text.to_owned(), new);
        self.profile.string_table.push(text.to_owned());
        new
    }

    /// A string of the base, in our table.
    fn text(&mut self, index: i64) -> i64 {
        let base = self.base;
        self.string(&base.string_table[index as usize])
    }

    fn add(&mut self, sample: &Sample, x: u64) {
        let mut stack = Vec::with_capacity(sample.location_id.len() + 1);
        if (x >> 16).is_multiple_of(8) {
            stack.push(self.task((x >> 20) % 32));
        }
        for id in &sample.location_id {
            stack.push(self.location(*id));
        }
        let count = 1 + ((x >> 32) % 20) as i64;
        self.profile.sample.push(Sample {
            location_id: stack,
            value: vec![count, count * PERIOD_NS],
            label: Vec::new(),
        });
    }

    fn location(&mut self, id: u64) -> u64 {
        if let Some(&known) = self.locations.get(&id) {
            return known;
        }
        let base = self.base;
        let old = base.location.iter().find(|location| location.id == id).expect("base profiles are valid");
        let mut new = old.clone();
        for line in &mut new.line {
            line.function_id = self.function(line.function_id);
        }
        new.id = self.profile.location.len() as u64 + 1;
        self.locations.insert(id, new.id);
        self.profile.location.push(new);
        self.profile.location.len() as u64
    }

    fn function(&mut self, id: u64) -> u64 {
        if let Some(&known) = self.functions.get(&id) {
            return known;
        }
        let base = self.base;
        let mut new =
            *base.function.iter().find(|function| function.id == id).expect("base profiles are valid");
        new.name = self.text(new.name);
        new.system_name = self.text(new.system_name);
        new.filename = self.text(new.filename);
        new.id = self.profile.function.len() as u64 + 1;
        self.functions.insert(id, new.id);
        self.profile.function.push(new);
        new.id
    }

    /// The leaf frame `app/svcSS.(*Worker).taskKK`.
    fn task(&mut self, number: u64) -> u64 {
        if let Some(&known) = self.tasks.get(&number) {
            return known;
        }
        let service = self.service;
        let name = self.string(&format!("app/svc{service:02}.(*Worker).task{number:02}"));
        let file = self.string(&format!("/src/app/svc{service:02}/worker.go"));
        let line = 10 + number as i64;
        let function = self.profile.function.len() as u64 + 1;
        self.profile.function.push(Function {
            id: function,
            name,
            system_name: name,
            filename: file,
            start_line: 0,
        });
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location {
            id,
            mapping_id: self.profile.mapping.first().map_or(0, |mapping| mapping.id),
            address: 0x40_0000 + 0x1000 * service + 0x10 * number,
            line: vec![Line { function_id: function, line, column: 0 }],
            is_folded: false,
        });
        self.tasks.insert(number, id);
        id
    }

    fn finish(mut self, time_ns: i64) -> Profile {
        self.profile.time_nanos = time_ns;
        self.profile.duration_nanos = INTERVAL_NS;
        self.profile.period = PERIOD_NS;
        self.profile
    }
}

/// gzip at the fastest level.
pub fn gzip(raw: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
    let mut out = vec![0; compressor.gzip_compress_bound(raw.len())];
    let length = compressor.gzip_compress(raw, &mut out).expect("the bound is enough room");
    out.truncate(length);
    out
}

fn gunzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(cambium_proto::pprof::Decompressor::new().decompress(bytes, 1 << 30)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream's control sums, where the base profiles are at hand.
    #[test]
    fn the_stream_has_the_sums_that_peers_were_checked_with() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pprof");
        let Ok(w1) = W1::load(&folder) else {
            eprintln!("SKIPPED: no base profiles in {}", folder.display());
            return;
        };
        let (mut samples, mut total) = (0, 0);
        let (mut pod, mut pod_round) = (0, 0);
        // Every fifth round keeps a debug build short; the sums below are of all of them for pod 7.
        for round in 0..ROUNDS {
            let profile = w1.profile(7, round, 0);
            let sum: i64 = profile.sample.iter().map(|sample| sample.value[1]).sum();
            pod += sum;
            if round == 30 {
                pod_round = sum;
            }
        }
        for series in 0..SERIES {
            for round in [0, 59] {
                let profile = w1.profile(series, round, 0);
                samples += profile.sample.len() as u64;
                total += profile.sample.iter().map(|sample| sample.value[1]).sum::<i64>();
            }
        }
        assert_eq!((pod, pod_round), (POD_7_NS, POD_7_ROUND_30_NS));
        // 400 of 12,000 profiles: the averages are those of the stream.
        assert!((samples as i64 - SAMPLES as i64 / 30).abs() < 1_000, "{samples}");
        assert!((total - TOTAL_NS / 30).abs() < TOTAL_NS / 30 / 50, "{total}");
    }
}
