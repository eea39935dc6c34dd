//! What is profiled in a pod, and what its values are.

/// Sample types that a kind has at most.
pub const TYPES_MAX: usize = 4;

/// CPU time that one draw stands for, nanoseconds.
const CPU_PERIOD_NS: i64 = 10_000_000;
/// Bytes that one sampled allocation stands for.
const HEAP_PERIOD_BYTES: i64 = 512 << 10;
/// Delay of one contention of the shortest kind, nanoseconds.
const DELAY_NS: i64 = 12_500;

/// A kind of profile, with the sample types that Go gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// CPU time over the interval.
    Cpu,
    /// The four values of a heap profile, of an instant.
    Heap,
    /// Goroutines of an instant.
    Goroutine,
    /// Contention over the interval.
    Mutex,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Heap, Self::Goroutine, Self::Mutex];

    /// What it is called in scenarios.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Heap => "heap",
            Self::Goroutine => "goroutine",
            Self::Mutex => "mutex",
        }
    }

    /// The profile's name: the first part of its profile types, the label `__name__` where there is one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "process_cpu",
            Self::Heap => "memory",
            Self::Goroutine => "goroutine",
            Self::Mutex => "mutex",
        }
    }

    /// Type and unit of each value of a sample.
    pub fn sample_types(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Cpu => &[("samples", "count"), ("cpu", "nanoseconds")],
            Self::Heap => &[
                ("alloc_objects", "count"),
                ("alloc_space", "bytes"),
                ("inuse_objects", "count"),
                ("inuse_space", "bytes"),
            ],
            Self::Goroutine => &[("goroutine", "count")],
            Self::Mutex => &[("contentions", "count"), ("delay", "nanoseconds")],
        }
    }

    /// The profile type of one of the sample types, as queries name it.
    pub fn profile_type(self, sample_type: usize) -> String {
        let (ty, unit) = self.sample_types()[sample_type];
        let (period_type, period_unit) = self.period_type();
        let delta = if self.has_duration() { ":delta" } else { "" };
        format!("{}:{ty}:{unit}:{period_type}:{period_unit}{delta}", self.name())
    }

    pub(super) fn period_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Cpu => ("cpu", "nanoseconds"),
            Self::Heap => ("space", "bytes"),
            Self::Goroutine => ("goroutine", "count"),
            Self::Mutex => ("contentions", "count"),
        }
    }

    pub(super) fn period(self) -> i64 {
        match self {
            Self::Cpu => CPU_PERIOD_NS,
            Self::Heap => HEAP_PERIOD_BYTES,
            Self::Goroutine | Self::Mutex => 1,
        }
    }

    /// Whether values are of the interval before, not of an instant.
    pub fn has_duration(self) -> bool {
        match self {
            Self::Cpu | Self::Mutex => true,
            Self::Heap | Self::Goroutine => false,
        }
    }

    /// The values of a stack that was drawn so often.
    pub(super) fn values(self, count: i64, rank: u64) -> [i64; TYPES_MAX] {
        match self {
            Self::Cpu => [count, count * CPU_PERIOD_NS, 0, 0],
            Self::Heap => {
                let bytes = 16 << (rank % 12);
                [count * 5, count * 5 * bytes, count, count * bytes]
            }
            Self::Goroutine => [count, 0, 0, 0],
            Self::Mutex => [count, count * DELAY_NS * (1 + rank as i64 % 40), 0, 0],
        }
    }
}
