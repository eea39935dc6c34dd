//! Figures beside their bars.

use std::fmt;

use crate::ceiling::{Ceiling, Ceilings};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// Something per second of CPU.
    PerSecond,
    /// Bytes per second of CPU.
    BytesPerSecond,
    /// Seconds of CPU.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes for each of something.
    BytesEach,
    /// Part of a whole.
    Fraction,
    /// Things.
    Count,
    /// Things for each of others.
    Decimal,
}

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    figure: f64,
    unit: Unit,
    bar: Option<Bar>,
    /// What the bar moves with, and how far it is from the study's on this machine.
    scale: Option<(Ceiling, f64)>,
    note: String,
}

/// All lines so far.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Row {
    /// A figure that no bar is set for.
    pub fn new(name: impl Into<String>, figure: f64, unit: Unit) -> Self {
        Self { name: name.into(), figure, unit, bar: None, scale: None, note: String::new() }
    }

    /// The least that the figure may be.
    pub fn at_least(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtLeast(bar)), ..self }
    }

    /// The most that the figure may be.
    pub fn at_most(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtMost(bar)), ..self }
    }

    /// The bar was set on the study's machine and moves with this ceiling.
    pub fn scaled(self, ceilings: &Ceilings, ceiling: Ceiling) -> Self {
        Self { scale: Some((ceiling, ceilings.ratio(ceiling))), ..self }
    }

    /// What else there is to say.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// The bar on this machine: a faster one must do more and take less time.
    fn bar_here(&self) -> Option<Bar> {
        let ratio = self.scale.map_or(1.0, |(_, ratio)| ratio);
        Some(match self.bar? {
            Bar::AtLeast(bar) => Bar::AtLeast(bar * ratio),
            Bar::AtMost(bar) => Bar::AtMost(bar / ratio),
        })
    }

    /// Whether the bar holds; nothing where there is none.
    fn holds(&self) -> Option<bool> {
        Some(match self.bar_here()? {
            Bar::AtLeast(bar) => self.figure >= bar,
            Bar::AtMost(bar) => self.figure <= bar,
        })
    }
}

impl Table {
    /// Adds a line and shows it at once.
    pub fn add(&mut self, row: Row) {
        eprintln!("  {}: {}", row.name, Shown(row.figure, row.unit));
        self.rows.push(row);
    }

    /// Whether no bar is missed.
    pub fn all_hold(&self) -> bool {
        self.rows.iter().all(|row| row.holds() != Some(false))
    }
}

/// Markdown.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | figure | bar | bar here | ceiling | holds | note |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let shown = |bar: Option<Bar>| match bar {
                Some(Bar::AtLeast(bar)) => format!("≥ {}", Shown(bar, row.unit)),
                Some(Bar::AtMost(bar)) => format!("≤ {}", Shown(bar, row.unit)),
                None => String::new(),
            };
            let ceiling =
                row.scale.map_or(String::new(), |(ceiling, ratio)| format!("{ceiling} × {ratio:.2}"));
            let holds = match row.holds() {
                Some(true) => "yes",
                Some(false) => "**NO**",
                None => "",
            };
            writeln!(
                f,
                "| {} | {} | {} | {} | {ceiling} | {holds} | {} |",
                row.name,
                Shown(row.figure, row.unit),
                shown(row.bar),
                shown(row.bar_here().filter(|_| row.scale.is_some())),
                row.note
            )?;
        }
        Ok(())
    }
}

/// A figure as people read it.
struct Shown(f64, Unit);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(figure, unit) = *self;
        match unit {
            Unit::PerSecond => scaled(f, figure, "/s"),
            Unit::BytesPerSecond => scaled(f, figure, "B/s"),
            Unit::Seconds if figure < 1.0 => write!(f, "{:.2} ms", figure * 1e3),
            Unit::Seconds => write!(f, "{figure:.2} s"),
            Unit::Bytes => scaled(f, figure, "B"),
            Unit::BytesEach if figure < 100.0 => write!(f, "{figure:.2} B"),
            Unit::BytesEach => write!(f, "{figure:.0} B"),
            Unit::Fraction => write!(f, "{:.0} %", figure * 100.0),
            Unit::Count => write!(f, "{figure:.0}"),
            Unit::Decimal => write!(f, "{figure:.2}"),
        }
    }
}

fn scaled(f: &mut fmt::Formatter<'_>, figure: f64, unit: &str) -> fmt::Result {
    let (divisor, prefix) = match figure {
        _ if figure >= 1e9 => (1e9, "G"),
        _ if figure >= 1e6 => (1e6, "M"),
        _ if figure >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    write!(f, "{:.2} {prefix}{unit}", figure / divisor)
}
