//! Folders of profiles with Go's answers about them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cambium_proto::pprof::Decompressor;

use super::case::Case;
use super::original::Original;

/// Some profiles and Go's answers about each of them and about their merges.
#[derive(Debug)]
pub struct Corpus {
    profiles: PathBuf,
    answers: PathBuf,
}

impl Corpus {
    /// The profiles of this repository, whose answers lie beside them.
    pub fn committed() -> Self {
        Self { profiles: golden().join("profiles"), answers: golden().join("answers") }
    }

    /// The profiles in `shared/pprof` beside the repository, answered by Go here and now; or why there are none.
    ///
    /// # Panics
    /// When Go fails in CI.
    pub fn shared() -> Result<Self, String> {
        let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pprof");
        if !profiles.is_dir() {
            return Err(format!("there is no {}", profiles.display()));
        }
        if !Command::new("go").arg("version").output().is_ok_and(|output| output.status.success()) {
            return Err("Go is not installed".to_owned());
        }
        let answers = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden-shared");
        match regenerate(&profiles, &answers) {
            Err(reason) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{reason}"),
            Err(reason) => Err(reason),
            Ok(()) => Ok(Self { profiles, answers }),
        }
    }

    /// Every profile, then every merge of profiles that are there, in the order of their names.
    pub fn cases(&self) -> Vec<Case> {
        let mut files = profile_names(&self.profiles);
        files.sort_unstable();
        let read = |file: &str| Original::read(&self.profiles.join(file));
        let case = |name: &str, profiles| Case::new(name, profiles, self.answers.join(name));
        let mut cases: Vec<Case> = files
            .iter()
            .map(|file| case(file.strip_suffix(".pb.gz").unwrap_or(file), vec![read(file)]))
            .collect();
        for (name, group) in merges() {
            if group.iter().all(|file| files.contains(file)) {
                cases.push(case(&name, group.iter().map(|file| read(file)).collect()));
            }
        }
        assert!(!cases.is_empty(), "no profiles in {}", self.profiles.display());
        cases
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The groups of `merges.txt`: a name, and the files.
fn merges() -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(golden().join("merges.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let group = |line: &str| {
        let (name, files) = line.split_once(':').unwrap_or_else(|| panic!("merges.txt: {line:?}"));
        (name.to_owned(), files.split_whitespace().map(str::to_owned).collect())
    };
    lines.map(group).collect()
}

fn profile_names(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".pb.gz") || name.ends_with(".pprof")).collect()
}

/// Has Go answer, unless it already has with the same profiles and the same script: that takes a while.
fn regenerate(profiles: &Path, answers: &Path) -> Result<(), String> {
    let stamp_file = answers.with_extension("stamp");
    let stamp = stamp(profiles);
    if std::fs::read_to_string(&stamp_file).is_ok_and(|made_of| made_of == stamp) {
        return Ok(());
    }
    let script = golden().join("regenerate.sh");
    let mut command = Command::new(&script);
    command.arg("--for").arg(profiles).arg("--out").arg(answers);
    let output = command.output().map_err(|error| format!("{}: {error}", script.display()))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed with {}: {messages}", script.display(), output.status));
    }
    std::fs::write(&stamp_file, stamp).unwrap();
    Ok(())
}

/// What answers depend on.
fn stamp(profiles: &Path) -> String {
    let mut stamp = String::new();
    for file in ["regenerate.sh", "merges.txt", "oracle/main.go", "oracle/go.mod"] {
        stamp += &std::fs::read_to_string(golden().join(file)).unwrap();
    }
    let mut names = profile_names(profiles);
    names.sort_unstable();
    for name in names {
        let metadata = profiles.join(&name).metadata().unwrap();
        // Writing to a String cannot fail.
        let _ = writeln!(stamp, "{name} {} {:?}", metadata.len(), metadata.modified().unwrap());
    }
    stamp
}

/// What a gzipped file holds.
pub fn unzipped(bytes: &[u8]) -> Vec<u8> {
    const BYTES_MAX: usize = 256 << 20;
    Decompressor::new().decompress(bytes, BYTES_MAX).unwrap().to_vec()
}
