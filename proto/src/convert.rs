//! Model types to stored messages and back. What comes back is checked; the error names the field.

pub mod block;

pub mod symbols;

/// Why a stored message is not a value of the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number that its type in the model cannot hold.
    #[error("{field} is {value}, at most {max} is possible")]
    Range {
        /// Path of the field.
        field: &'static str,
        /// What is stored.
        value: u64,
        /// The largest possible value.
        max: u64,
    },
    /// A tenant's name that no tenant can have.
    #[error("{field} is no tenant name")]
    Tenant {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with the name.
        #[source]
        source: cambium_model::tenant::TenantIdError,
    },
    /// A section of a kind that this version does not know.
    #[error("{field} is {value}, which is no kind of section")]
    SectionKind {
        /// Path of the field.
        field: &'static str,
        /// What is stored.
        value: u32,
    },
    /// A range that ends before it begins.
    #[error("{field} ends at {end}, before its begin at {begin}")]
    Backwards {
        /// Path of the range.
        field: &'static str,
        /// Where it begins.
        begin: i128,
        /// Where it ends.
        end: i128,
    },
}
