//! Why a profile is refused: what is wrong, in which field of which message.

use std::fmt;

/// What the sender should do about an [`Error`]. Roles map it to their own kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The profile is malformed: fix it.
    Malformed,
    /// The profile is well formed but passes a limit: change it.
    OverLimit,
    /// The profile has too many bytes: send less.
    TooLarge,
}

/// A place in a profile, written as pprof's own field names and positions: `sample[17].location_id[3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A field of the profile itself.
    Field(&'static str),
    /// A field of a message in a field: `period_type.unit`.
    Nested(&'static str, &'static str),
    /// A message of a repeated field.
    Row(&'static str, usize),
    /// A field of such a message.
    RowField(&'static str, usize, &'static str),
    /// An element of a repeated field of such a message.
    Element(&'static str, usize, &'static str, usize),
    /// A field of such an element.
    ElementField(&'static str, usize, &'static str, usize, &'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => f.write_str(field),
            Self::Nested(message, field) => write!(f, "{message}.{field}"),
            Self::Row(table, row) => write!(f, "{table}[{row}]"),
            Self::RowField(table, row, field) => write!(f, "{table}[{row}].{field}"),
            Self::Element(table, row, list, at) => write!(f, "{table}[{row}].{list}[{at}]"),
            Self::ElementField(table, row, list, at, field) => {
                write!(f, "{table}[{row}].{list}[{at}].{field}")
            }
        }
    }
}

/// Why a profile is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No bytes at all.
    #[error("the profile is empty")]
    Empty,
    /// Decompression passed its bound and was stopped.
    #[error("the profile has more than {bytes_max} bytes uncompressed (profile_bytes_max)")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// A gzip stream that does not decompress or whose checksum is wrong.
    #[error("gzip member {member} is damaged")]
    Gzip {
        /// Which of the concatenated streams, from 0.
        member: usize,
    },
    /// Bytes after a gzip stream that start no other.
    #[error("{bytes} bytes after the gzip stream are not gzip")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A zstd stream that does not decompress.
    #[error("the zstd stream is damaged: {reason}")]
    Zstd {
        /// What the decompressor says.
        reason: String,
    },
    /// A number that is cut off or does not fit 64 bits.
    #[error("the profile is cut or garbled at byte {at}")]
    Cut {
        /// Position in the uncompressed bytes.
        at: usize,
    },
    /// A field longer than what holds it.
    #[error("a field at byte {at} claims {length} bytes, {left} are left")]
    Length {
        /// Position in the uncompressed bytes.
        at: usize,
        /// The claim.
        length: u64,
        /// Bytes behind it.
        left: usize,
    },
    /// A field that is not encoded as pprof encodes it.
    #[error("{place}: field {field} has wire type {wire_type} at byte {at}")]
    WireType {
        /// The message.
        place: Place,
        /// The field's number.
        field: u32,
        /// The encoding.
        wire_type: u32,
        /// Position in the uncompressed bytes.
        at: usize,
    },
    /// No strings at all.
    #[error("string_table is missing")]
    StringTableMissing,
    /// The first string has a meaning in pprof: none.
    #[error("string_table[0] is not empty")]
    StringTableStart,
    /// A string that does not exist.
    #[error("{place}: string index {index} out of range, the table has {strings}")]
    StringIndex {
        /// Where it is referred to.
        place: Place,
        /// Its position.
        index: i64,
        /// Strings there are.
        strings: usize,
    },
    /// A string that is needed and is not text.
    #[error("{place}: string_table[{index}] is not UTF-8")]
    Text {
        /// Where it is referred to.
        place: Place,
        /// Its position.
        index: usize,
    },
    /// An id that means "none".
    #[error("{place}: id 0 is reserved")]
    IdZero {
        /// The message.
        place: Place,
    },
    /// Two messages of one id.
    #[error("{table}[{row}]: id {id} is already {table}[{first}]")]
    IdDuplicate {
        /// What they are.
        table: &'static str,
        /// Position of the later one.
        row: usize,
        /// The id.
        id: u64,
        /// Position of the earlier one.
        first: usize,
    },
    /// An id that no message has.
    #[error("{place}: {id} names no {table}")]
    Dangling {
        /// Where it is referred to.
        place: Place,
        /// The id.
        id: u64,
        /// What it should name.
        table: &'static str,
    },
    /// A sample that does not fit the sample types.
    #[error("sample[{sample}]: {values} values, the profile has {types} sample types")]
    Values {
        /// The sample.
        sample: usize,
        /// What it has.
        values: usize,
        /// What it should have.
        types: usize,
    },
    /// Nothing says what the values mean.
    #[error("sample_type is missing")]
    SampleTypeMissing,
    /// Two sample types that cannot be told apart.
    #[error("sample_type[{index}] repeats sample_type[{first}]")]
    SampleTypeRepeated {
        /// The later one.
        index: usize,
        /// The earlier one.
        first: usize,
    },
    /// A part of a profile type that would make its text ambiguous.
    #[error("{place}: {text:?} cannot be part of a profile type: it must not be empty or hold a colon")]
    TypePart {
        /// Where it comes from.
        place: Place,
        /// The part.
        text: String,
    },
    /// A time or a period below zero.
    #[error("{field} is {value}, it must not be negative")]
    Negative {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// `drop_frames` or `keep_frames` that does not compile.
    #[error("{field} is no regular expression: {reason}")]
    Pattern {
        /// Which of them.
        field: &'static str,
        /// What the compiler says.
        reason: String,
    },
    /// Equal samples whose values do not add up in 64 bits.
    #[error("sample[{sample}].value[{value}]: the sum with equal samples passes 64 bits")]
    Overflow {
        /// The sample that was added last.
        sample: usize,
        /// Which of its values.
        value: usize,
    },
    /// Values of a type that do not add up in 64 bits.
    #[error("value[{value}]: the sum over all samples passes 64 bits")]
    TotalOverflow {
        /// Which of a sample's values.
        value: usize,
    },
    /// More of something than allowed.
    #[error("{place}: {count} {}, at most {max} are allowed ({})", bound.noun(), bound.name())]
    Limit {
        /// Where.
        place: Place,
        /// How many there are; where counting stopped at the bound, the first count past it.
        count: usize,
        /// The most there may be.
        max: usize,
        /// Which bound.
        bound: Bound,
    },
}

/// What a profile can have too many of: bounded by the tenant's limits or by constants of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Sample messages.
    Samples,
    /// Frames of a stack.
    Frames,
    /// Labels of a sample.
    Labels,
    /// Bytes of a string.
    SymbolBytes,
    /// Sample types.
    SampleTypes,
    /// Messages of one other kind.
    Rows,
    /// Nodes of the stacks' tree.
    Nodes,
}

impl Bound {
    fn noun(self) -> &'static str {
        match self {
            Self::Samples | Self::SampleTypes | Self::Rows => "messages",
            Self::Frames => "frames",
            Self::Labels => "labels",
            Self::SymbolBytes => "bytes",
            Self::Nodes => "distinct call paths",
        }
    }

    /// The tenant limit or the constant.
    fn name(self) -> &'static str {
        match self {
            Self::Samples => "profile_samples_max",
            Self::Frames => "stack_depth_max",
            Self::Labels => "sample_labels_max",
            Self::SymbolBytes => "symbol_bytes_max",
            Self::SampleTypes => "SAMPLE_TYPES_MAX",
            Self::Rows => "ROWS_MAX",
            Self::Nodes => "NODES_MAX",
        }
    }
}

impl Error {
    /// What the sender should do.
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLarge { .. } => Fault::TooLarge,
            Self::Limit { .. } => Fault::OverLimit,
            Self::Empty
            | Self::Gzip { .. }
            | Self::Trailing { .. }
            | Self::Zstd { .. }
            | Self::Cut { .. }
            | Self::Length { .. }
            | Self::WireType { .. }
            | Self::StringTableMissing
            | Self::StringTableStart
            | Self::StringIndex { .. }
            | Self::Text { .. }
            | Self::IdZero { .. }
            | Self::IdDuplicate { .. }
            | Self::Dangling { .. }
            | Self::Values { .. }
            | Self::SampleTypeMissing
            | Self::SampleTypeRepeated { .. }
            | Self::TypePart { .. }
            | Self::Negative { .. }
            | Self::Pattern { .. }
            | Self::Overflow { .. }
            | Self::TotalOverflow { .. } => Fault::Malformed,
        }
    }
}
