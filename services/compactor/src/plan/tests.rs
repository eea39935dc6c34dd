use std::fmt::Write;

use cambium_model::block::{LogId, LogRange, Offset, Partition, SectionKind, SectionMeta};
use cambium_model::limits::TenantLimits;
use cambium_model::tenant::{Tenant, TenantId};

use super::*;

const MINUTE_NS: i64 = 60 * SECOND_NS;
/// Midnight.
const START_NS: i64 = 1_800_000_000 / 86_400 * DAY_NS;

fn tenant(number: u32) -> Tenant {
    Tenant { id: TenantId::new(&format!("t{number}")).unwrap(), number: TenantNumber(number) }
}

fn dataset(number: u32, first_ns: i64, last_ns: i64) -> DatasetMeta {
    DatasetMeta {
        tenant: tenant(number),
        first_ns,
        last_ns,
        series: 1,
        profiles: 1,
        samples: 1,
        types: Vec::new(),
        scopes: Vec::new(),
        labels: Vec::new(),
        sections: vec![SectionMeta { kind: SectionKind::Samples, offset: 0, length: 1, rows: 1, crc32c: 0 }],
        deletions_done: 0,
        covers: Vec::new(),
        profiles_left_out: 0,
        retention_selector: None,
    }
}

fn block(level: u8, size_bytes: u64, name: &str, datasets: Vec<DatasetMeta>) -> BlockMeta {
    let log = LogId { partition: Partition(0), log: 0 };
    BlockMeta {
        path: format!("l{level}/{name}"),
        level,
        size_bytes,
        toc_crc32c: 0,
        log_ranges: vec![LogRange { log, first: Offset(0), next: Offset(1) }],
        epoch: 0,
        datasets,
        sources: Vec::new(),
        part: 0,
        parts: 1,
    }
}

/// A store of entries that is flushed to and compacted, minute by minute.
struct World {
    limits: Overrides,
    flush_bytes: u64,
    /// Tenants with blocks of their own; the others share.
    large: Vec<u32>,
    log: Vec<Arc<BlockMeta>>,
    merged: BTreeMap<(Option<TenantNumber>, u32), Vec<Arc<BlockMeta>>>,
    made: usize,
    timeline: String,
}

impl World {
    fn new(limits: TenantLimits, large: &[u32]) -> Self {
        Self {
            limits: Overrides { defaults: limits, tenants: Default::default() },
            flush_bytes: 1 << 20,
            large: large.to_vec(),
            log: Vec::new(),
            merged: BTreeMap::new(),
            made: 0,
            timeline: String::new(),
        }
    }

    /// A flush at each of these minutes, of profiles of the minute before.
    fn flush(&mut self, minute: i64, tenants: &[u32]) {
        let last_ns = START_NS + minute * MINUTE_NS - 1;
        let datasets = tenants.iter().map(|number| dataset(*number, last_ns - MINUTE_NS, last_ns)).collect();
        self.made += 1;
        self.log.push(Arc::new(block(0, self.flush_bytes, &format!("flushed-{}", self.made), datasets)));
    }

    fn view(&self) -> Everything {
        let log = LogId { partition: Partition(0), log: 0 };
        let logs = vec![LogBlocks { log, next: Offset(9), open: None, blocks: self.log.clone() }];
        let owned = |((tenant, day), blocks): (&(Option<TenantNumber>, u32), &Vec<Arc<BlockMeta>>)| {
            OwnedBlocks { tenant: *tenant, day: *day, blocks: blocks.clone() }
        };
        Everything { logs, merged: self.merged.iter().map(owned).collect(), ..Everything::default() }
    }

    /// Does everything that is due.
    fn compact(&mut self, minute: i64) {
        loop {
            let jobs = plan(START_NS + minute * MINUTE_NS, &self.limits, &self.view());
            if jobs.is_empty() {
                return;
            }
            for job in jobs {
                self.apply(minute, &job);
            }
        }
    }

    fn apply(&mut self, minute: i64, job: &Job) {
        let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
        job.inputs.iter().for_each(|input| *counts.entry(input.level).or_default() += 1);
        let from: Vec<String> =
            counts.iter().map(|(level, count)| format!("{count} of level {level}")).collect();
        let to = match job.work {
            Work::Merge { level } => format!("level {level}"),
            Work::Remove => "nothing".to_owned(),
        };
        let (day, hour, minute) = (minute / 1_440, minute / 60 % 24, minute % 60);
        writeln!(self.timeline, "{day}d {hour:02}:{minute:02}  {}: {} -> {to}", job.name, from.join(", "))
            .unwrap();
        let is_input = |block: &Arc<BlockMeta>| job.inputs.contains(block);
        self.log.retain(|block| !is_input(block));
        self.merged.values_mut().for_each(|blocks| blocks.retain(|block| !is_input(block)));
        let Work::Merge { level } = job.work else { return };
        let mut owners: BTreeMap<Option<TenantNumber>, BTreeMap<u32, DatasetMeta>> = BTreeMap::new();
        for held in job.inputs.iter().flat_map(|block| &block.datasets) {
            let number = held.tenant.number;
            let owner = self.large.contains(&number.0).then_some(number);
            let own = owners.entry(owner).or_default().entry(number.0).or_insert_with(|| held.clone());
            own.first_ns = own.first_ns.min(held.first_ns);
            own.last_ns = own.last_ns.max(held.last_ns);
        }
        let now_ns = START_NS + (day * 1_440 + hour * 60 + minute) * MINUTE_NS;
        for dataset in owners.values_mut().flat_map(BTreeMap::values_mut) {
            if level == TOP_LEVEL && should_downsample(now_ns, &self.limits, dataset) {
                dataset.sections.clear();
            }
        }
        let bytes: u64 = job.inputs.iter().map(|block| block.size_bytes).sum();
        for (owner, datasets) in owners {
            self.made += 1;
            let made = block(level, bytes, &format!("made-{}", self.made), datasets.into_values().collect());
            let day = (last_ns(&made) / DAY_NS) as u32;
            self.merged.entry((owner, day)).or_default().push(Arc::new(made));
        }
    }
}

fn hour() -> TenantLimits {
    TenantLimits { reject_older_than_secs: 3_600, ..TenantLimits::default() }
}

#[test]
fn a_day_of_one_tenant() {
    let mut world = World::new(hour(), &[1]);
    for minute in 1..=27 * 60 {
        if minute <= 24 * 60 && minute % 5 == 0 {
            world.flush(minute, &[1]);
        }
        world.compact(minute);
    }
    let lines: Vec<&str> = world.timeline.lines().collect();
    let of_level = |level: &str| lines.iter().filter(|line| line.ends_with(level)).count();
    assert_eq!((of_level("level 1"), of_level("level 2"), of_level("level 3")), (144, 12, 1));
    assert_eq!(
        lines[..3],
        [
            "0d 00:12  log/0000-00000000: 2 of level 0 -> level 1",
            "0d 00:22  log/0000-00000000: 2 of level 0 -> level 1",
            "0d 00:32  log/0000-00000000: 2 of level 0 -> level 1",
        ]
    );
    let later: Vec<&str> = lines.into_iter().filter(|line| !line.ends_with("level 1")).collect();
    assert_eq!(
        later[..2],
        ["0d 03:02  tenant/1: 12 of level 1 -> level 2", "0d 05:02  tenant/1: 12 of level 1 -> level 2",]
    );
    assert_eq!(later.last(), Some(&"1d 02:02  tenant/1: 12 of level 2 -> level 3"));
    assert!(world.log.is_empty());
}

#[test]
fn small_tenants_share_and_a_large_one_does_not() {
    let mut world = World::new(hour(), &[2]);
    for minute in 1..=130 {
        if minute <= 20 {
            world.flush(minute, &[1, 2, 3]);
        }
        world.compact(minute);
    }
    world.compact(60 * 30);
    assert_eq!(
        world.timeline,
        "\
0d 00:11  log/0000-00000000: 10 of level 0 -> level 1
0d 00:22  log/0000-00000000: 10 of level 0 -> level 1
0d 02:02  shared: 2 of level 1 -> level 2
0d 02:02  tenant/2: 2 of level 1 -> level 2
1d 06:00  shared: 1 of level 2 -> level 3
1d 06:00  tenant/2: 1 of level 2 -> level 3
"
    );
}

#[test]
fn what_is_late_is_merged_by_itself_and_again_at_the_top() {
    let mut world = World::new(hour(), &[1]);
    world.flush(5, &[1]);
    world.compact(30);
    world.compact(60 * 30);
    world.flush(6, &[1]);
    world.compact(60 * 31);
    assert_eq!(
        world.timeline,
        "\
0d 00:30  log/0000-00000000: 1 of level 0 -> level 1
1d 06:00  tenant/1: 1 of level 1 -> level 3
1d 07:00  log/0000-00000000: 1 of level 0 -> level 1
1d 07:00  tenant/1: 1 of level 1, 1 of level 3 -> level 3
"
    );
    assert_eq!(world.merged.values().flatten().count(), 1);
}

#[test]
fn many_or_large_flushes_do_not_wait_for_the_end_of_their_window() {
    let mut world = World::new(hour(), &[1]);
    for _ in 0..45 {
        world.flush(1, &[1]);
    }
    world.compact(2);
    assert_eq!(
        world.timeline,
        "\
0d 00:02  log/0000-00000000: 20 of level 0 -> level 1
0d 00:02  log/0000-00000000: 20 of level 0 -> level 1
"
    );
    assert_eq!(world.log.len(), 5);
    let mut world = World::new(hour(), &[1]);
    world.flush_bytes = 3 << 30;
    world.flush(1, &[1]);
    world.flush(1, &[1]);
    world.compact(2);
    assert_eq!(world.timeline, "0d 00:02  log/0000-00000000: 1 of level 0 -> level 1\n");
}

#[test]
fn ids_are_kept_while_a_push_may_be_retried() {
    let week = TenantLimits { reject_older_than_secs: 7 * 86_400, ..TenantLimits::default() };
    let mut world = World::new(week, &[1]);
    for minute in [5, 15, 25] {
        world.flush(minute, &[1]);
    }
    for day in 0..9 {
        world.compact(60 + 1_440 * day);
    }
    assert_eq!(
        world.timeline,
        "\
0d 01:00  log/0000-00000000: 1 of level 0 -> level 1
0d 01:00  log/0000-00000000: 1 of level 0 -> level 1
0d 01:00  log/0000-00000000: 1 of level 0 -> level 1
7d 01:00  tenant/1: 3 of level 1 -> level 3
"
    );
}

#[test]
fn samples_are_dropped_once_when_they_are_old_enough() {
    let days = |count: u64| TenantLimits { downsample_after_secs: count * 86_400, ..hour() };
    let mut world = World::new(days(0), &[1]);
    world.limits.tenants = [("t1".to_owned(), days(3)), ("t2".to_owned(), days(5))].into();
    world.flush(5, &[1, 2, 3]);
    for day in 0..9 {
        world.compact(60 + 1_440 * day);
    }
    // What comes late is merged with what is there, and keeps no samples either.
    world.flush(15, &[1]);
    world.compact(60 + 1_440 * 9);
    world.compact(60 + 1_440 * 10);
    assert_eq!(
        world.timeline,
        "\
0d 01:00  log/0000-00000000: 1 of level 0 -> level 1
2d 01:00  shared: 1 of level 1 -> level 3
2d 01:00  tenant/1: 1 of level 1 -> level 3
3d 01:00  tenant/1: 1 of level 3 -> level 3
5d 01:00  shared: 1 of level 3 -> level 3
9d 01:00  log/0000-00000000: 1 of level 0 -> level 1
9d 01:00  tenant/1: 1 of level 1, 1 of level 3 -> level 3
"
    );
}

#[test]
fn what_nobody_wants_any_more_goes() {
    let mut limits = hour();
    limits.retention_secs = 2 * 86_400;
    let mut world = World::new(limits.clone(), &[1]);
    let for_ever = TenantLimits { retention_secs: 0, ..limits.clone() };
    let longer = TenantLimits { retention_secs: 4 * 86_400, ..limits };
    world.limits.tenants = [("t3".to_owned(), longer), ("t4".to_owned(), for_ever)].into();
    world.flush(5, &[1, 2]);
    world.compact(30);
    world.flush(35, &[2, 3]);
    world.compact(50);
    world.flush(55, &[2, 4]);
    for day in 1..9 {
        world.compact(60 + 1_440 * day);
    }
    let removals: Vec<&str> = world.timeline.lines().filter(|line| line.ends_with("nothing")).collect();
    assert_eq!(removals, ["2d 01:00  tenant/1: 1 of level 1 -> nothing"]);
    assert_eq!(world.merged.values().flatten().count(), 1, "what is shared stays for those who want it");
}

#[test]
fn nothing_is_due_where_nothing_is() {
    assert_eq!(plan(START_NS, &Overrides::default(), &Everything::default()), []);
    let log = LogBlocks {
        log: LogId { partition: Partition(0), log: 0 },
        next: Offset(0),
        open: None,
        blocks: Vec::new(),
    };
    let catalogue = Everything { logs: vec![log], ..Everything::default() };
    assert_eq!(plan(START_NS, &Overrides::default(), &catalogue), []);
}
