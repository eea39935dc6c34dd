//! Names for locations, as the metastore keeps them under a [`LocationId`](crate::stacktrace::LocationId).

use std::sync::Arc;

use crate::stacktrace::BuildRef;

/// A named code: what a line belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// The name people read.
    pub name: Arc<str>,
    /// The linker's name; equal to `name` where the language does not mangle.
    pub system_name: Arc<str>,
    /// Source file; may be empty.
    pub file: Arc<str>,
    /// First line of the function; 0 where unknown.
    pub start_line: i64,
}

/// One frame of a location: inlined functions make several, the innermost first (pprof's order).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line {
    /// The code.
    pub function: Function,
    /// Source line; 0 where unknown.
    pub line: i64,
    /// Source column; 0 where unknown.
    pub column: i64,
}

/// The loaded object a location lies in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Path of the object; may be empty.
    pub file: Arc<str>,
    /// Its build id; may be empty.
    pub build_id: Arc<str>,
}

impl Mapping {
    /// The reference that native location ids carry for this object.
    pub fn build_ref(&self) -> BuildRef {
        BuildRef::new(&self.build_id, &self.file)
    }
}

/// Everything known about one location.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The object; empty strings where the sender named none.
    pub mapping: Mapping,
    /// Address in the object's file (its mapping's start subtracted, its offset added).
    pub address: u64,
    /// Innermost inlined function first; empty while only the address is known.
    pub lines: Vec<Line>,
}
