//! Instants and ranges of time, in nanoseconds since the Unix epoch.

use chrono::{DateTime, SecondsFormat};

/// Nanoseconds in a second.
pub const SECOND_NS: i64 = 1_000_000_000;
/// Nanoseconds in a day of UTC.
pub const DAY_NS: i64 = 86_400 * SECOND_NS;

/// Width of a rollup bucket in every block.
pub const ROLLUP_BUCKET_NS: i64 = 600 * SECOND_NS;

/// Width of the wider buckets that blocks of the highest level have besides.
pub const COARSE_BUCKET_NS: i64 = 12 * ROLLUP_BUCKET_NS;

/// A half-open range: `start_ns` belongs to it, `end_ns` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First instant inside.
    pub start_ns: i64,
    /// First instant after.
    pub end_ns: i64,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start_ns: i64::MIN, end_ns: i64::MAX };

    /// The range `[start_ns, end_ns)`; empty where the end does not come after the start.
    pub fn new(start_ns: i64, end_ns: i64) -> Self {
        Self { start_ns, end_ns }
    }

    /// Whether the instant lies inside.
    #[inline]
    pub fn contains(&self, time_ns: i64) -> bool {
        self.start_ns <= time_ns && time_ns < self.end_ns
    }

    /// Whether an instant of the closed interval `[first_ns, last_ns]` lies inside.
    pub fn touches(&self, first_ns: i64, last_ns: i64) -> bool {
        first_ns < self.end_ns && self.start_ns <= last_ns
    }

    /// The rollup buckets that begin inside, as a range: what is asked of sums by bucket. One that begins with the last
    /// instant does not count, so that a range up to and with a full hour ends there.
    pub fn whole_buckets(&self) -> Self {
        let start_ns = bucket_end(self.start_ns);
        Self { start_ns, end_ns: bucket_end(self.end_ns.saturating_sub(1)).max(start_ns) }
    }

    /// The rollup buckets that it touches, as a range.
    pub fn touched_buckets(&self) -> Self {
        let start_ns = self.start_ns.checked_sub(self.start_ns.rem_euclid(ROLLUP_BUCKET_NS));
        Self { start_ns: start_ns.unwrap_or(i64::MIN), end_ns: bucket_end(self.end_ns) }
    }

    /// Whether the whole closed interval lies inside.
    pub fn covers(&self, first_ns: i64, last_ns: i64) -> bool {
        self.start_ns <= first_ns && last_ns < self.end_ns
    }
}

/// Start of the rollup bucket that holds this instant.
pub fn bucket_start(time_ns: i64) -> i64 {
    time_ns.div_euclid(ROLLUP_BUCKET_NS) * ROLLUP_BUCKET_NS
}

/// The first bucket's start that does not come before this instant.
fn bucket_end(time_ns: i64) -> i64 {
    time_ns.checked_add(ROLLUP_BUCKET_NS - 1).map_or(i64::MAX, bucket_start)
}

/// Start of the wider bucket that holds this instant.
pub fn coarse_bucket_start(time_ns: i64) -> i64 {
    time_ns.div_euclid(COARSE_BUCKET_NS) * COARSE_BUCKET_NS
}

/// An instant as RFC 3339, to the nanosecond where that is needed.
pub fn format(time_ns: i64) -> String {
    DateTime::from_timestamp_nanos(time_ns).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Why a text is not an instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither RFC 3339 nor seconds since 1970")]
pub struct TimeError {
    text: String,
}

/// Characters of a text that an error repeats.
const REPEATED_CHARS_MAX: usize = 64;

/// Digits of a second's fraction that fit nanoseconds.
const FRACTION_DIGITS: usize = 9;

/// An instant as people and Prometheus write it, as nanoseconds since the Unix epoch; further digits are cut off.
///
/// Errors: the text is no time or lies outside 1677 to 2262.
pub fn parse(text: &str) -> Result<i64, TimeError> {
    unix_seconds(text)
        .or_else(|| DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt())
        .ok_or_else(|| TimeError { text: text.chars().take(REPEATED_CHARS_MAX).collect() })
}

/// Decimal seconds, exact to the nanosecond, which a float is not.
fn unix_seconds(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let decimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !decimal(whole) || !decimal(fraction) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let padded = format!("{kept:0<FRACTION_DIGITS$}").parse::<i64>().ok()?;
    let nanos = whole.parse::<i64>().ok()?.checked_mul(SECOND_NS)?.checked_add(padded)?;
    Some(if digits.len() < text.len() { -nanos } else { nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_to_the_nanosecond() {
        let cases = [
            ("0", Some(0)),
            ("1767366245", Some(1_767_366_245 * SECOND_NS)),
            ("1767366245.5", Some(1_767_366_245_500_000_000)),
            ("1767366245.1234567899", Some(1_767_366_245_123_456_789)),
            ("-1.5", Some(-1_500_000_000)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(-SECOND_NS)),
            ("2026-01-02T15:04:05Z", Some(1_767_366_245 * SECOND_NS)),
            ("2026-01-02t15:04:05.25z", Some(1_767_366_245_250_000_000)),
            ("2026-01-02 17:04:05+02:00", Some(1_767_366_245 * SECOND_NS)),
            ("2026-01-02T09:34:05-05:30", Some(1_767_366_245 * SECOND_NS)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800 * SECOND_NS)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800 * SECOND_NS)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).ok(), expected, "{text:?}");
        }
        let refused = [
            "",
            "-",
            "+1",
            "now",
            "1e9",
            "1.2.3",
            "1,5",
            "1700000000.x",
            "99999999999999999999",
            "ä:ö",
            "9999-01-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T15:60:05Z",
            "2026-01-02T15:04Z",
            "2026-1-2T15:04:05Z",
            "2026-01-02T15:04:05",
            "2026-01-02T15:04:05.Z",
            "2026-01-02T15:04:05+99:00",
            "2026-01-02T15:04:05Zx",
        ];
        for text in refused {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ranges_are_half_open() {
        let range = TimeRange::new(10, 20);
        assert!(range.contains(10) && !range.contains(20));
        assert!(range.covers(10, 19) && !range.covers(10, 20));
        assert!(range.touches(0, 10) && range.touches(19, 99) && !range.touches(20, 30));
    }

    #[test]
    fn ranges_are_rounded_to_buckets() {
        const W: i64 = ROLLUP_BUCKET_NS;
        let cases = [
            ((0, W), (0, W), (0, W)),
            ((0, W + 1), (0, W), (0, 2 * W)),
            ((1, W), (W, W), (0, W)),
            ((1, 2 * W + 2), (W, 3 * W), (0, 3 * W)),
            ((-W - 1, -1), (-W, 0), (-2 * W, 0)),
            ((5, 6), (W, W), (0, W)),
        ];
        for (range, begun, touched) in cases {
            let range = TimeRange::new(range.0, range.1);
            assert_eq!(range.whole_buckets(), TimeRange::new(begun.0, begun.1), "{range:?}");
            assert_eq!(range.touched_buckets(), TimeRange::new(touched.0, touched.1), "{range:?}");
        }
        assert_eq!(TimeRange::ALL.whole_buckets().end_ns, i64::MAX);
        assert_eq!(TimeRange::ALL.touched_buckets(), TimeRange::ALL);
    }

    #[test]
    fn instants_are_written_as_they_are_read() {
        for text in ["2026-01-02T15:04:05Z", "1969-12-31T23:59:59.999999999Z"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn buckets_start_below_negative_times_too() {
        assert_eq!(bucket_start(-1), -ROLLUP_BUCKET_NS);
        assert_eq!(bucket_start(ROLLUP_BUCKET_NS), ROLLUP_BUCKET_NS);
    }
}
