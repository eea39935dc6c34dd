//! From a gzipped pprof to the head, step by step as the distributor and the ingester do it.

use std::time::Duration;

use cambium_ingester::head::Head;
use cambium_model::limits::TenantLimits;
use cambium_model::profile::Profile;
use cambium_proto::pprof::{Decoder, Decompressor, Limits, Push, push_id};
use cambium_proto::record;

use crate::Bench;
use crate::ceiling::Ceiling;
use crate::cpu::{RUNS, process_time};
use crate::fleet::{Fleet, START_NS, pushes, tenant};
use crate::table::{Row, Unit};

/// Profiles sent.
const PROFILES: usize = 2_000;
const INGEST_MIN: f64 = 0.6e6;
const STEPS: [&str; 4] = ["gunzip", "decode pprof", "record there and back", "head"];

/// Samples taken in per second.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let fleet = bench.w()?;
    let series_of: Vec<u64> = pushes(&fleet.workload).take(PROFILES).map(|(series, _)| series).collect();
    let bodies: Vec<Vec<u8>> = pushes(&fleet.workload)
        .take(PROFILES)
        .map(|(series, round)| fleet.workload.pprof_gz(series, round, START_NS))
        .collect();
    let mut best = ([Duration::MAX; STEPS.len()], Duration::MAX);
    let mut samples = 0;
    for _ in 0..RUNS {
        let (counted, steps) = take_in(&fleet, &series_of, &bodies)?;
        samples = counted;
        let total = steps.iter().sum();
        if total < best.1 {
            best = (steps, total);
        }
    }
    let bytes: usize = bodies.iter().map(Vec::len).sum();
    let seconds = best.1.as_secs_f64();
    let rate = |seconds: f64| samples as f64 / seconds;
    bench.table.add(
        Row::new("W: .pprof.gz to head, samples per core", rate(seconds), Unit::PerSecond)
            .at_least(INGEST_MIN)
            .scaled(&bench.ceilings()?, Ceiling::Gunzip)
            .note(format!(
                "{:.0} µs and {:.1} kB of gzip a profile, {:.0} samples",
                seconds * 1e6 / PROFILES as f64,
                bytes as f64 / PROFILES as f64 / 1e3,
                samples as f64 / PROFILES as f64,
            )),
    );
    for (step, spent) in STEPS.iter().zip(best.0) {
        let share = spent.as_secs_f64() / seconds;
        let row = Row::new(format!("W: of it {step}, alone"), rate(spent.as_secs_f64()), Unit::PerSecond);
        bench.table.add(row.note(format!("{:.0} % of the time", share * 100.0)));
    }
    Ok(())
}

/// Every body through all steps: samples, and the time of each step.
fn take_in(
    fleet: &Fleet,
    series_of: &[u64],
    bodies: &[Vec<u8>],
) -> anyhow::Result<(usize, [Duration; STEPS.len()])> {
    let tenant_limits = TenantLimits::default();
    let limits = Limits::from(&tenant_limits);
    let tenant = tenant();
    let (mut decompressor, mut decoder) = (Decompressor::new(), Decoder::new());
    let mut head = Head::new(tenant.clone());
    let mut spent = [Duration::ZERO; STEPS.len()];
    let mut samples = 0;
    for (series, body) in series_of.iter().zip(bodies) {
        let labels = fleet.workload.labels(*series);
        let start = process_time();
        let raw = decompressor.decompress(body, limits.bytes_max)?;
        let unzipped = process_time();
        let id = push_id(body, &labels, Some("process_cpu"), 0, tenant.number);
        let push = Push { id, labels, name: Some("process_cpu"), addresses_relative: false };
        let decoded = decoder.decode(raw, &limits, push)?;
        samples += decoded.samples;
        let parsed = process_time();
        let record = record::encode(&tenant, std::slice::from_ref(&decoded.profile));
        let (_, profiles): (_, Vec<Profile>) = record::decode(&record)?;
        let logged = process_time();
        profiles.iter().for_each(|profile| head.add(profile, &tenant_limits.scope_labels));
        let added = process_time();
        for (sum, step) in
            spent.iter_mut().zip([unzipped - start, parsed - unzipped, logged - parsed, added - logged])
        {
            *sum += step;
        }
    }
    Ok((samples, spent))
}
