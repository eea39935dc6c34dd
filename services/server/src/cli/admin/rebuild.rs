//! `cambium admin rebuild-catalogue`.

use anyhow::Context;
use cambium_compactor::plan::is_expired;
use cambium_compactor::rebuild::cover::{Candidates, Choice, choose};
use cambium_compactor::rebuild::{Contents, read_bucket, rebuilt};
use cambium_model::block::DatasetMeta;
use cambium_model::time::{DAY_NS, SECOND_NS};
use clap::Args;

use super::super::print;
use crate::Config;
use crate::offline::{Absent, Offline};

/// Gaps that are listed one by one.
const GAPS_SHOWN_MAX: usize = 20;

#[derive(Args, Debug)]
pub(in crate::cli) struct RebuildArgs {
    /// Replace the catalogue that is there.
    #[arg(long)]
    replace: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Rebuild what there is even where something is lost.
    #[arg(long)]
    allow_loss: bool,
}

pub(super) async fn run(config: &Config, args: &RebuildArgs) -> anyhow::Result<()> {
    let offline = Offline::open(config, if args.dry_run { Absent::Pretend } else { Absent::Create }).await?;
    let entries = offline.catalogue.entries().await?;
    let held = offline.catalogue.partition_count().await?;
    let partitions = held.unwrap_or(config.partitions);
    let contents = read_bucket(offline.store.as_ref()).await?;
    let choice = chosen(&offline, &contents).await?;
    let rebuilt = rebuilt(&contents, &choice, &offline.log_firsts(partitions).await?)?;
    report(&contents, &choice);
    print(&format!(
        "{} tenants, {} logs, {partitions} partitions{}",
        rebuilt.tenants.len(),
        rebuilt.logs.len(),
        if held.is_none() { " (as configured: the store does not say)" } else { "" }
    ));
    anyhow::ensure!(
        rebuilt.partitions_min <= partitions,
        "blocks are of {} partitions: set --partitions to what the store was created with",
        rebuilt.partitions_min
    );
    if entries > 0 && !args.replace {
        anyhow::ensure!(args.dry_run, "the catalogue has {entries} entries: say --replace to replace them");
        print(&format!("the catalogue has {entries} entries, which --replace would replace"));
    }
    anyhow::ensure!(
        choice.lost.is_empty() || args.allow_loss,
        "{} losses, see above: say --allow-loss to rebuild what there is",
        choice.lost.len()
    );
    if args.dry_run {
        print("nothing was written");
        return Ok(());
    }
    offline.catalogue.rebuild(&rebuilt, partitions, offline.clock.now_ns()).await.context("rebuild")?;
    print(
        "rebuilt. Tokens, deletions, deleted tenants and names of locations come from a backup: names that it does not \
         have are shown as addresses or as unknown until they are pushed again",
    );
    Ok(())
}

/// Which blocks count, by what their tenants want.
async fn chosen(offline: &Offline, contents: &Contents) -> anyhow::Result<Choice> {
    let retired = offline.catalogue.all().await?.retired;
    let (now_ns, limits) = (offline.clock.now_ns(), &offline.limits);
    let is_wanted = |dataset: &DatasetMeta| {
        !is_expired(now_ns, limits, dataset) && !retired.contains_key(&dataset.tenant.number)
    };
    // A part of a merge may have been removed as soon as the least patient of all tenants does not want it any more.
    let all = limits.tenants.values().chain([&limits.defaults]);
    let kept = all.flat_map(|limits| {
        let rules = limits.retention_rules.rules().iter().map(|rule| rule.retention_secs);
        rules.chain([limits.retention_secs])
    });
    let shortest = kept.filter(|secs| *secs > 0).min();
    let complete_from_ns = shortest.map_or(i64::MIN, |secs| {
        let kept_ns = i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(SECOND_NS);
        now_ns.saturating_sub(kept_ns).saturating_add(2 * DAY_NS)
    });
    let (blocks, damaged) = (contents.blocks.as_slice(), contents.damaged.as_slice());
    Ok(choose(&Candidates { blocks, damaged, is_wanted: &is_wanted, complete_from_ns }))
}

fn report(contents: &Contents, choice: &Choice) {
    let sum = |field: fn(&DatasetMeta) -> u64| -> u64 {
        choice.kept.iter().flat_map(|block| &block.datasets).map(field).sum()
    };
    print(&format!(
        "{} objects: {} count, {} are superseded, {} are too old or of deleted tenants, {} are damaged",
        contents.blocks.len() + contents.damaged.len(),
        choice.kept.len(),
        choice.superseded.len(),
        choice.unwanted.len(),
        contents.damaged.len()
    ));
    print(&format!(
        "{} profiles, {} samples",
        sum(|dataset| dataset.profiles),
        sum(|dataset| dataset.samples)
    ));
    for gap in choice.gaps.iter().take(GAPS_SHOWN_MAX) {
        let (log, first, next) = (gap.log, gap.first.0, gap.next.0);
        print(&format!("log {log} from {first} to before {next}: in no block, by retries or by age"));
    }
    if choice.gaps.len() > GAPS_SHOWN_MAX {
        print(&format!("and {} more such gaps", choice.gaps.len() - GAPS_SHOWN_MAX));
    }
    if !choice.is_proven {
        print("the search for the best choice was given up: another one may hold more");
    }
    choice.lost.iter().for_each(|lost| print(&format!("lost: {lost}")));
}
