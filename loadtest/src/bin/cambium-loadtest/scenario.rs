//! Scenario files: what kind of fleet, how it sends, what is read beside it. TOML; unknown keys are refused by name.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use cambium_loadtest::fleet::{Kind, Shape};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use crate::pace::Arrival;

/// Most services, and pods of one: names have room for more, verification and memory have not.
const SERVICES_MAX: u64 = 10_000;
const PODS_MAX: u64 = 10_000;
/// Most draws of a profile and stacks of a service.
const DRAWS_MAX: u64 = 100_000;
const STACKS_MAX: usize = 100_000;
/// Most operations of one kind in flight.
const IN_FLIGHT_MAX: usize = 10_000;
/// Most operations of one kind in a second.
const RATE_MAX: f64 = 100_000.0;
/// Most attempts at one push after the first.
const RETRIES_MAX: u32 = 100;

/// A whole scenario.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it stands for, for the report.
    #[serde(default)]
    pub about: String,
    /// All of the stream follows from it.
    #[serde(default = "seed_default")]
    pub seed: u64,
    /// How long pushes and reads begin.
    pub duration: Span,
    /// Who sends.
    pub fleet: FleetPart,
    /// How it is sent.
    #[serde(default)]
    pub load: LoadPart,
    /// What is read meanwhile.
    #[serde(default)]
    pub reads: ReadsPart,
    /// How often answers are compared with what was sent.
    #[serde(default)]
    pub verify: VerifyPart,
}

/// Who sends.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FleetPart {
    /// Services, each with a binary of its own.
    pub services: u64,
    /// Pods of a service at one time.
    pub pods: u64,
    /// What is profiled in each pod: `cpu`, `heap`, `goroutine`, `mutex`.
    pub kinds: Vec<KindWord>,
    /// Time between two profiles of one kind of a pod. With the numbers above it makes the rate.
    pub interval: Span,
    /// Draws of a profile, from and to; a stack that is drawn several times is one sample.
    #[serde(default = "draws_default")]
    pub draws: [u64; 2],
    /// Stacks of the smallest and of the largest service.
    #[serde(default = "stacks_default")]
    pub stacks: [usize; 2],
    /// Time between two versions of a service; no deploys if left out.
    #[serde(default)]
    pub deploy_every: Span,
    /// How long a new version takes to replace the old one.
    #[serde(default)]
    pub rolling: Span,
    /// How long a pod lives that no deploy replaces; for ever if left out.
    #[serde(default)]
    pub pod_lifetime: Span,
    /// Labels whose values no two pods share.
    #[serde(default)]
    pub unique_labels: Vec<String>,
}

/// How it is sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadPart {
    /// `poisson` or `constant`.
    pub arrival: Arrival,
    /// Pushes in flight; while there are as many, further ones are late.
    pub in_flight_max: usize,
    /// Wait for the answer of one attempt.
    pub timeout: Span,
    /// Attempts after the first.
    pub retries_max: u32,
}

/// What is read meanwhile: operations of each kind in a second.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadsPart {
    /// Flame graph of one service over an unaligned range.
    pub flamegraph: f64,
    /// Values over time of one service, by version.
    pub query_range: f64,
    /// Flame graph of everything.
    pub merge_all: f64,
    /// Names of labels.
    pub labels: f64,
    /// Values of the label `pod`.
    pub label_values: f64,
    /// Longest range; it ends now or a little earlier.
    pub range_max: Span,
    /// Reads of one kind in flight.
    pub in_flight_max: usize,
}

/// How often answers are compared with what was sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyPart {
    /// Time between two checks under load.
    pub every: Span,
    /// Checks of random ranges at the end, besides those of whole services.
    pub checks_at_end: u32,
}

impl Default for LoadPart {
    fn default() -> Self {
        let timeout = Span(Duration::from_secs(30));
        Self { arrival: Arrival::Poisson, in_flight_max: 256, timeout, retries_max: 5 }
    }
}

impl Default for ReadsPart {
    fn default() -> Self {
        Self {
            flamegraph: 0.0,
            query_range: 0.0,
            merge_all: 0.0,
            labels: 0.0,
            label_values: 0.0,
            range_max: Span(Duration::from_secs(900)),
            in_flight_max: 16,
        }
    }
}

impl Default for VerifyPart {
    fn default() -> Self {
        Self { every: Span(Duration::from_secs(5)), checks_at_end: 50 }
    }
}

fn seed_default() -> u64 {
    42
}

fn draws_default() -> [u64; 2] {
    [150, 900]
}

fn stacks_default() -> [usize; 2] {
    [300, 3_000]
}

impl Scenario {
    /// Reads a file. Errors name the file and the key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads the text of a file. Errors name the key.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> anyhow::Result<()> {
        let Self { fleet, load, reads, verify, .. } = self;
        ensure!(!self.duration.0.is_zero(), "duration: must be more than 0");
        within("fleet.services", fleet.services, SERVICES_MAX)?;
        within("fleet.pods", fleet.pods, PODS_MAX)?;
        ensure!(!fleet.kinds.is_empty(), "fleet.kinds: must name one at least");
        let repeated = fleet.kinds.iter().enumerate().find(|(at, kind)| fleet.kinds[..*at].contains(kind));
        ensure!(repeated.is_none(), "fleet.kinds: names one twice");
        ensure!(!fleet.interval.0.is_zero(), "fleet.interval: must be more than 0");
        let [least, most] = fleet.draws;
        within("fleet.draws", least, DRAWS_MAX)?;
        within("fleet.draws", most, DRAWS_MAX)?;
        ensure!(least <= most, "fleet.draws: must not fall");
        let [least, most] = fleet.stacks;
        within("fleet.stacks", least, STACKS_MAX)?;
        within("fleet.stacks", most, STACKS_MAX)?;
        ensure!(least <= most, "fleet.stacks: must not fall");
        ensure!(
            fleet.deploy_every.0.is_zero() || fleet.rolling.0 < fleet.deploy_every.0,
            "fleet.rolling: must be less than fleet.deploy_every"
        );
        for (at, name) in fleet.unique_labels.iter().enumerate() {
            let taken = Shape::LABELS.contains(&name.as_str()) || fleet.unique_labels[..at].contains(name);
            ensure!(!taken, "fleet.unique_labels: {name} is there already");
            let valid = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && name.starts_with(|first: char| first.is_ascii_alphabetic());
            ensure!(valid, "fleet.unique_labels: {name:?} is no label name");
        }
        within("load.in_flight_max", load.in_flight_max, IN_FLIGHT_MAX)?;
        ensure!(!load.timeout.0.is_zero(), "load.timeout: must be more than 0");
        ensure!(load.retries_max <= RETRIES_MAX, "load.retries_max: must be at most {RETRIES_MAX}");
        for (key, rate) in reads.rates() {
            ensure!((0.0..=RATE_MAX).contains(&rate), "reads.{key}: must be 0 to {RATE_MAX} in a second");
        }
        ensure!(!reads.range_max.0.is_zero(), "reads.range_max: must be more than 0");
        within("reads.in_flight_max", reads.in_flight_max, IN_FLIGHT_MAX)?;
        ensure!(!verify.every.0.is_zero(), "verify.every: must be more than 0");
        Ok(())
    }

    /// The fleet, when each of its pods sends so often.
    pub fn shape(&self, interval: Duration) -> Shape {
        let fleet = &self.fleet;
        Shape {
            seed: self.seed,
            cluster: format!("loadtest-{}", self.seed),
            services: fleet.services,
            pods: fleet.pods,
            kinds: fleet.kinds.iter().map(|kind| kind.0).collect(),
            interval_ns: nanos(interval),
            draws: fleet.draws,
            stacks: fleet.stacks,
            deploy_every_ns: nanos(fleet.deploy_every.0),
            rolling_ns: nanos(fleet.rolling.0),
            pod_lifetime_ns: nanos(fleet.pod_lifetime.0),
            unique_labels: fleet.unique_labels.clone(),
        }
    }

    /// Series of one tenant at one time.
    pub fn series(&self) -> u64 {
        self.fleet.services * self.fleet.pods * self.fleet.kinds.len() as u64
    }
}

impl ReadsPart {
    /// Each kind's key and its operations in a second.
    pub fn rates(&self) -> [(&'static str, f64); 5] {
        [
            ("flamegraph", self.flamegraph),
            ("query_range", self.query_range),
            ("merge_all", self.merge_all),
            ("labels", self.labels),
            ("label_values", self.label_values),
        ]
    }
}

fn within<T: PartialOrd + From<u8> + std::fmt::Display>(key: &str, value: T, max: T) -> anyhow::Result<()> {
    ensure!(value >= T::from(1) && value <= max, "{key}: must be 1 to {max}, not {value}");
    Ok(())
}

/// A duration in nanoseconds; the longest there is if it is longer.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A duration as text: a whole number and a unit, `250ms`, `90s`, `5m` or `2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(pub Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a duration such as 250ms, 90s, 5m or 2h");
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = text[..digits].parse().map_err(|_| refused())?;
        let unit_ms = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(refused()),
        };
        Ok(Self(Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(refused)?)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ms", self.0.as_millis()))
    }
}

/// A kind of profile, by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindWord(pub Kind);

impl<'de> Deserialize<'de> for KindWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = Kind::ALL.into_iter().find(|kind| kind.word() == word);
        let words = Kind::ALL.map(Kind::word).join(", ");
        found.map(Self).ok_or_else(|| D::Error::custom(format!("kind {word:?} is not one of {words}")))
    }
}

impl Serialize for KindWord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str =
        "duration = \"2m\"\n[fleet]\nservices = 2\npods = 3\nkinds = [\"cpu\"]\ninterval = \"10s\"\n";

    #[test]
    fn what_is_left_out_has_defaults() {
        let scenario = Scenario::parse(LEAST).unwrap();
        assert_eq!((scenario.seed, scenario.series(), scenario.load.in_flight_max), (42, 6, 256));
        assert_eq!(scenario.duration.0, Duration::from_secs(120));
        assert_eq!(scenario.shape(Duration::from_secs(10)).deploy_every_ns, 0);
    }

    #[test]
    fn mistakes_are_refused_by_key() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let message = format!("{:#}", Scenario::parse(text).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
        check("duration = \"2m\"", "missing field `fleet`");
        check(&format!("durations = \"2m\"\n{LEAST}"), "unknown field `durations`");
        check(&format!("{LEAST}podz = 3\n"), "unknown field `podz`");
        check(&format!("{LEAST}[load]\narrivals = \"poisson\"\n"), "unknown field `arrivals`");
        check(&format!("{LEAST}[load]\narrival = \"bursts\"\n"), "unknown variant `bursts`");
        check(&format!("{LEAST}[reads]\nsql = 1.0\n"), "unknown field `sql`");
        check(&format!("{LEAST}[verify]\nnever = true\n"), "unknown field `never`");
        check(&LEAST.replace("2m", "2 minutes"), "\"2 minutes\" is not a duration");
        check(&LEAST.replace("\"cpu\"", "\"cpus\""), "kind \"cpus\" is not one of cpu, heap");
        check(&LEAST.replace("\"cpu\"", "\"cpu\", \"cpu\""), "fleet.kinds: names one twice");
        check(&LEAST.replace("pods = 3", "pods = 0"), "fleet.pods: must be 1 to");
        check(&format!("{LEAST}draws = [9, 3]\n"), "fleet.draws: must not fall");
        check(&format!("{LEAST}unique_labels = [\"pod\"]\n"), "fleet.unique_labels: pod is there already");
        check(&format!("{LEAST}deploy_every = \"1m\"\nrolling = \"2m\"\n"), "fleet.rolling: must be less");
        check(&format!("{LEAST}[reads]\nlabels = -1.0\n"), "reads.labels: must be 0 to");
    }

    #[test]
    fn scenarios_of_the_repository_are_right() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Scenario::read(&entry.unwrap().path()).unwrap();
            count += 1;
        }
        assert!(count >= 4);
    }
}
