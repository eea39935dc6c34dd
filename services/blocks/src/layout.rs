//! Where blocks lie in the object store. Nothing else builds their paths.
//!
//! ```text
//! v1/l0/{partition}/{hour of the last profile}/{log}-{first offset}-{epoch}.blk
//! v1/l0/0007/2026112223/00000002-0000000000001a40-5.blk
//!
//! v1/l{level}/{tenant, 0 for several}/{hour of the last profile}/{fence}-{part}.blk
//! v1/l1/00000003/2026112223/00000000000001f2-0.blk
//! ```
//!
//! Laws: a path follows from the frozen cut alone, so a retried flush meets its own object; two logs of a partition
//! and two epochs of a log never share one. A fence is given once, so whoever repeats a merge never meets what a zombie
//! may still be writing.

use cambium_model::block::{LogId, LogRange, Offset, Partition};
use cambium_model::tenant::TenantNumber;
use cambium_model::time::SECOND_NS;

/// Everything that is a block lies below this folder.
pub const BLOCKS_PREFIX: &str = "v1";

/// The path of an object that is put to try a store out, and deleted at once; no block is ever below this folder. `now_ns` in
/// nanoseconds since the Unix epoch.
pub fn probe_path(now_ns: i64, process: u32) -> String {
    format!("probes/{now_ns:016x}-{process:08x}")
}

/// The path of the block that holds this range, written under this epoch, whose latest profile is of `last_ns`
/// (nanoseconds since the Unix epoch).
pub fn block_path(level: u8, range: &LogRange, epoch: u64, last_ns: i64) -> String {
    let log = range.log;
    format!(
        "{BLOCKS_PREFIX}/l{level}/{:04x}/{}/{:08x}-{:016x}-{epoch}.blk",
        log.partition.0,
        hour(last_ns),
        log.log,
        range.first.0,
    )
}

/// The folder of a partition's blocks of level 0.
pub fn flushed_folder(partition: Partition) -> String {
    format!("{BLOCKS_PREFIX}/l0/{:04x}", partition.0)
}

/// Where a record of a log is kept that does not decode.
pub fn set_aside_path(log: LogId, offset: Offset) -> String {
    format!("set-aside/{:04x}/{:08x}-{:016x}", log.partition.0, log.log, offset.0)
}

/// The log and the first offset that the path of a block of level 0 names; `None` for another path.
pub fn flushed_place(path: &str) -> Option<(LogId, Offset)> {
    let (folder, name) = path.strip_prefix(BLOCKS_PREFIX)?.strip_prefix("/l0/")?.rsplit_once('/')?;
    let (partition, _) = folder.split_once('/')?;
    let (log, rest) = name.split_once('-')?;
    let (first, _) = rest.split_once('-')?;
    let partition = Partition(u32::from_str_radix(partition, 16).ok()?);
    let log = LogId { partition, log: u32::from_str_radix(log, 16).ok()? };
    Some((log, Offset(u64::from_str_radix(first, 16).ok()?)))
}

/// The path of a merged block: of this tenant or, where there is none, of several; `part` of those that were written under
/// this fence.
pub fn merged_path(level: u8, tenant: Option<TenantNumber>, fence: u64, part: u32, last_ns: i64) -> String {
    let tenant = tenant.map_or(0, |tenant| tenant.0);
    format!("{BLOCKS_PREFIX}/l{level}/{tenant:08x}/{}/{fence:016x}-{part}.blk", hour(last_ns))
}

/// `yyyymmddHH` in UTC.
fn hour(time_ns: i64) -> String {
    let hours = time_ns.div_euclid(3_600 * SECOND_NS);
    let (year, month, day) = civil_date(hours.div_euclid(24));
    format!("{year:04}{month:02}{day:02}{:02}", hours.rem_euclid(24))
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar. Years are counted from March,
/// so that the leap day is a year's last.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097; // 400 years
    const DAYS_TO_EPOCH: i64 = 719_468; // from 0000-03-01 to 1970-01-01
    let shifted = days + DAYS_TO_EPOCH;
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_the_log_the_offset_and_the_epoch() {
        let log = LogId { partition: Partition(7), log: 2 };
        let range = LogRange { log, first: Offset(0x1a40), next: Offset(0x1a50) };
        let path = block_path(0, &range, 5, 1_795_390_199 * SECOND_NS);
        assert_eq!(path, "v1/l0/0007/2026112223/00000002-0000000000001a40-5.blk");
        assert_eq!(flushed_place(&path), Some((log, Offset(0x1a40))));
        assert!(path.starts_with(&flushed_folder(Partition(7))));
        let merged = merged_path(1, None, 1, 0, 0);
        assert_eq!(flushed_place(&merged), None);
    }

    #[test]
    fn paths_of_merged_blocks_name_the_tenant_and_the_fence() {
        let (tenant, last_ns) = (TenantNumber(3), 1_795_390_199 * SECOND_NS);
        let path = merged_path(1, Some(tenant), 0x1f2, 4, last_ns);
        assert_eq!(path, "v1/l1/00000003/2026112223/00000000000001f2-4.blk");
        assert!(merged_path(2, None, 1, 0, last_ns).starts_with("v1/l2/00000000/"));
    }

    #[test]
    fn hours_are_of_the_gregorian_calendar() {
        for (seconds, expected) in [
            (0, "1970010100"),
            (-1, "1969123123"),
            (951_782_400, "2000022900"),
            (951_868_800, "2000030100"),
            (4_107_542_399, "2100022823"),
            (4_107_542_400, "2100030100"),
        ] {
            assert_eq!(hour(seconds * SECOND_NS), expected);
        }
    }
}
