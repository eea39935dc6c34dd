//! Many small tenants: objects and requests are those of the partition, however many there are.

use anyhow::ensure;
use cambium_ingester::head::Head;
use cambium_loadtest::random::mix;
use cambium_model::labels::{Labels, SERVICE_NAME};
use cambium_model::limits::TenantLimits;
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::tenant::{Tenant, TenantId};
use cambium_model::time::SECOND_NS;
use serde_json::Value;

use crate::Bench;
use crate::life::{Life, MINUTE_NS, PUTS_PER_MINUTE_MAX, START_NS};
use crate::memory::one_sample;
use crate::questions::{decimal, get, url_encoded};
use crate::table::{Row, Unit};

const FEW: u64 = 50;
const MANY: u64 = 5_000;
/// Simulated time: the first two hours have become level 2 by then.
const MINUTES: i64 = 240;
/// Minutes between two profiles of a tenant; every minute has some.
const EVERY: i64 = 5;
/// Tenants whose sums are looked at.
const LOOKED_AT: [u64; 4] = [0, 1, 7, 49];

/// What a life of so many tenants came to.
struct Lived {
    puts: f64,
    objects_max: usize,
    objects_end: usize,
}

/// Lives with few and with many tenants.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let few = runtime.block_on(live(FEW))?;
    let many = runtime.block_on(live(MANY))?;
    let table = &mut bench.table;
    let name = format!("{MANY} tenants: objects put for each minute of a partition");
    table.add(
        Row::new(name, many.puts / MINUTES as f64, Unit::Decimal)
            .at_most(PUTS_PER_MINUTE_MAX)
            .note(format!("{} in {MINUTES} minutes; {} by {FEW} tenants", many.puts, few.puts)),
    );
    table.add(
        Row::new(format!("{MANY} tenants: objects at a time"), many.objects_max as f64, Unit::Count)
            .at_most(few.objects_max as f64)
            .note(format!(
                "the bar is that of {FEW} tenants; {} and {} at the end",
                many.objects_end, few.objects_end
            )),
    );
    Ok(())
}

async fn live(count: u64) -> anyhow::Result<Lived> {
    eprintln!("{MINUTES} minutes of {count} tenants");
    let mut life = Life::new().await?;
    let mut tenants = Vec::new();
    for number in 0..count {
        tenants.push(life.tenants.resolve_or_create(&TenantId::new(&format!("small-{number}"))?).await?);
    }
    let scope_labels = TenantLimits::default().scope_labels;
    let mut lived = Lived { puts: 0.0, objects_max: 0, objects_end: 0 };
    for minute in 0..MINUTES {
        let now = (0..count).filter(|number| pushes_at(*number, minute));
        let datasets = now.map(|number| {
            let mut head = Head::new(tenants[number as usize].clone());
            head.add(&profile(number, minute), &scope_labels);
            head.into_dataset()
        });
        life.pass(&datasets.collect::<Vec<_>>()).await?;
        lived.objects_end = life.objects().await?;
        lived.objects_max = lived.objects_max.max(lived.objects_end);
    }
    for number in LOOKED_AT.into_iter().chain([count - 1]) {
        check(&life, &tenants[number as usize], number).await?;
    }
    Ok(Lived { puts: life.puts(), ..lived })
}

fn pushes_at(number: u64, minute: i64) -> bool {
    (number as i64 + minute) % EVERY == 0
}

/// A profile of one sample, whose value tells whose it is and of when.
fn profile(number: u64, minute: i64) -> Profile {
    let labels = [(SERVICE_NAME, "api".to_owned()), ("pod", format!("api-{number}"))];
    Profile {
        id: ProfileId(u128::from(mix(number) ^ minute as u64).to_be_bytes()),
        labels: Labels::from_pairs(labels).expect("distinct names"),
        time_ns: START_NS + minute * MINUTE_NS,
        values: vec![value(number, minute)],
        ..one_sample(number)
    }
}

fn value(number: u64, minute: i64) -> i64 {
    1 + number as i64 * MINUTES + minute
}

/// The tenant has each of its profiles once.
async fn check(life: &Life, tenant: &Tenant, number: u64) -> anyhow::Result<()> {
    let query = url_encoded("process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta{}");
    let [start, end] = [START_NS - SECOND_NS, life.start_ns()].map(decimal);
    let uri = format!("/api/v1/query?query={query}&start={start}&end={end}&format=top");
    let answer: Value = serde_json::from_slice(&get(&life.router, &tenant.id, &uri).await?)?;
    let expected: i64 =
        (0..MINUTES).filter(|minute| pushes_at(number, *minute)).map(|minute| value(number, minute)).sum();
    ensure!(
        answer["data"]["total"] == expected,
        "tenant {number}: {} is not {expected}",
        answer["data"]["total"]
    );
    Ok(())
}
