//! The real stacks that services are made from: those of committed profiles, or of a folder.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::w::stacks::Stacks;

/// Committed profiles of several languages.
const COMMITTED: [(&str, &[u8]); 6] = [
    ("go-cpu-1", include_bytes!("../../../services/simulation/golden/profiles/go-cpu-1.pb.gz")),
    ("java-cpu", include_bytes!("../../../services/simulation/golden/profiles/java-cpu.pb.gz")),
    ("go-cpu-pie-2", include_bytes!("../../../services/simulation/golden/profiles/go-cpu-pie-2.pb.gz")),
    ("cpp-cpu", include_bytes!("../../../services/simulation/golden/profiles/cpp-cpu.pb.gz")),
    ("rust-cpu", include_bytes!("../../../services/simulation/golden/profiles/rust-cpu.pb.gz")),
    ("go-cpu-2", include_bytes!("../../../services/simulation/golden/profiles/go-cpu-2.pb.gz")),
];

/// Fewer stacks than this make no service.
const STACKS_MIN: usize = 10;
/// Files of a folder that are read.
const FILES_MAX: usize = 64;

/// Stacks to make services from.
#[derive(Debug)]
pub struct Bases(Vec<Stacks>);

/// A file of a folder that no service is made from.
#[derive(Debug)]
pub struct Skipped {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl Bases {
    /// Those of the profiles that are committed.
    pub fn committed() -> Self {
        let stacks = COMMITTED.iter().map(|(name, body)| Stacks::decode(body).expect(name));
        Self(stacks.collect())
    }

    /// Those of a folder's `*.pb.gz`, `*.pb` and `*.pprof`, in order of their names; and which files were not taken.
    /// Errors: the folder cannot be read, has too many files or none that can be taken.
    pub fn of_folder(folder: &Path) -> anyhow::Result<(Self, Vec<Skipped>)> {
        let context = || folder.display().to_string();
        let entries = std::fs::read_dir(folder).with_context(context)?;
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>().with_context(context)?;
        paths.retain(|path| {
            let name = path.to_string_lossy();
            [".pb.gz", ".pb", ".pprof"].iter().any(|end| name.ends_with(end))
        });
        paths.sort();
        anyhow::ensure!(paths.len() <= FILES_MAX, "{} has more than {FILES_MAX} profiles", context());
        let (mut taken, mut skipped) = (Vec::new(), Vec::new());
        for path in paths {
            let read =
                std::fs::read(&path).map_err(anyhow::Error::from).and_then(|body| Stacks::decode(&body));
            match read {
                Ok(stacks) if stacks.stacks.len() >= STACKS_MIN => taken.push(stacks),
                Ok(stacks) => {
                    let reason = format!("{} stacks, fewer than {STACKS_MIN}", stacks.stacks.len());
                    skipped.push(Skipped { path, reason });
                }
                Err(error) => skipped.push(Skipped { path, reason: error.to_string() }),
            }
        }
        anyhow::ensure!(!taken.is_empty(), "{} has no profile to take stacks from", context());
        Ok((Self(taken), skipped))
    }

    /// What a service is made from.
    pub(super) fn of(&self, service: u64) -> &Stacks {
        &self.0[(service % self.0.len() as u64) as usize]
    }
}
