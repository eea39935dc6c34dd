//! `make bench`: measures workloads W, H and W1 and prints one table of figures, bars and ceilings.
//!
//! ```text
//!   W, H (in this process) ──► ingest, encode, scan, merge, labels, memory     CPU time, best of 5
//!   W1, W (over HTTP)      ──► the real `cambium`, a process of its own        its CPU time, memory and disk
//!   ceilings (same run)    ──► what a bar is on this machine
//! ```
//!
//! `bench` runs everything but the month and the tenants; `bench ingest scan` only those parts. Ends with an error where a bar is missed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Context;
use cambium_loadtest::w;
// The product's allocator, with its settings.
use cambium_server as _;

use ceiling::Ceilings;
use fleet::Fleet;
use table::Table;

mod ceiling;
mod compact;
mod completion;
mod cpu;

mod encode;
mod fleet;
mod ingest;
mod labels;
mod life;
mod memory;
mod merge;
mod month;
mod questions;
mod scan;
mod server;
mod table;
mod tenants;

/// Real profiles, beside the work tree where they are at all.
const PPROF_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/pprof");

/// A part of the benchmark, by its name on the command line.
type Part = (&'static str, fn(&mut Bench) -> anyhow::Result<()>);

const PARTS: [Part; 14] = [
    ("ceilings", ceiling::run),
    ("size", encode::sizes),
    ("encode", encode::run),
    ("ingest", ingest::run),
    ("scan", scan::run),
    ("merge", merge::run),
    ("compact", compact::run),
    ("labels", labels::run),
    ("completion", completion::run),
    ("memory", memory::run),
    ("w1", server::w1),
    ("http", server::http),
    (TENANTS, tenants::run),
    (MONTH, month::run),
];

/// These take as long as all others together, and run only when they are named.
const TENANTS: &str = "tenants";
const MONTH: &str = "month";

/// What the parts share.
struct Bench {
    folder: PathBuf,
    runtime: tokio::runtime::Runtime,
    table: Table,
    w: OnceCell<Rc<Fleet>>,
    ceilings: OnceCell<Ceilings>,
}

impl Bench {
    /// Workload W, as a head and as a block.
    fn w(&self) -> anyhow::Result<Rc<Fleet>> {
        if let Some(built) = self.w.get() {
            return Ok(Rc::clone(built));
        }
        eprintln!("building workload W");
        let built = Rc::new(Fleet::build(w::W, &self.folder)?);
        Ok(Rc::clone(self.w.get_or_init(|| built)))
    }

    /// The ceilings of this machine, measured once.
    fn ceilings(&self) -> anyhow::Result<Ceilings> {
        if let Some(measured) = self.ceilings.get() {
            return Ok(*measured);
        }
        let fleet = self.w()?;
        eprintln!("measuring ceilings");
        let measured = Ceilings::measure(&fleet)?;
        Ok(*self.ceilings.get_or_init(|| measured))
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let [name, folder] = wanted.as_slice()
        && name == compact::CHILD
    {
        compact::child(Path::new(folder))?;
        return Ok(ExitCode::SUCCESS);
    }
    let known: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!("there is no part {unknown:?}; there are {}", known.join(", "));
    }
    let mut bench = Bench {
        folder: Path::new(PPROF_FOLDER).to_owned(),
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        table: Table::default(),
        w: OnceCell::new(),
        ceilings: OnceCell::new(),
    };
    for (name, run) in PARTS {
        if (wanted.is_empty() && ![TENANTS, MONTH].contains(&name)) || wanted.iter().any(|part| part == name)
        {
            run(&mut bench).context(name)?;
        }
    }
    println!("{}", bench.table);
    Ok(if bench.table.all_hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
