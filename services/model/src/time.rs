//! Ranges of time, in nanoseconds since the Unix epoch.

/// Nanoseconds in a second.
pub const SECOND_NS: i64 = 1_000_000_000;

/// Width of a rollup bucket in every block.
pub const ROLLUP_BUCKET_NS: i64 = 600 * SECOND_NS;

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

    /// Whether the whole closed interval lies inside.
    pub fn covers(&self, first_ns: i64, last_ns: i64) -> bool {
        self.start_ns <= first_ns && last_ns < self.end_ns
    }
}

/// Start of the rollup bucket that holds this instant.
pub fn bucket_start(time_ns: i64) -> i64 {
    time_ns.div_euclid(ROLLUP_BUCKET_NS) * ROLLUP_BUCKET_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open() {
        let range = TimeRange::new(10, 20);
        assert!(range.contains(10) && !range.contains(20));
        assert!(range.covers(10, 19) && !range.covers(10, 20));
        assert!(range.touches(0, 10) && range.touches(19, 99) && !range.touches(20, 30));
    }

    #[test]
    fn buckets_start_below_negative_times_too() {
        assert_eq!(bucket_start(-1), -ROLLUP_BUCKET_NS);
        assert_eq!(bucket_start(ROLLUP_BUCKET_NS), ROLLUP_BUCKET_NS);
    }
}
