//! Who a request belongs to: the name that users know and the number that keys and paths carry.

use std::fmt;
use std::sync::Arc;

/// The tenant of a server that runs without authentication.
pub const ANONYMOUS: &str = "anonymous";

/// Longest tenant name, in bytes (Mimir's bound).
pub const TENANT_ID_LENGTH_MAX: usize = 150;

/// A tenant's name, as in `X-Scope-OrgID`: 1 to 150 characters of `[0-9A-Za-z!_.*'()-]`, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Why a text is not a tenant name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantIdError {
    /// No characters.
    #[error("tenant id is empty")]
    Empty,
    /// More than [`TENANT_ID_LENGTH_MAX`] bytes.
    #[error("tenant id has {0} characters, at most {TENANT_ID_LENGTH_MAX} are allowed")]
    TooLong(usize),
    /// A character outside the allowed set.
    #[error("tenant id contains {0:?}, allowed are letters, digits and !_.*'()-")]
    Character(char),
    /// `.` or `..`, which would be folders.
    #[error("tenant id must not be '.' or '..'")]
    Dots,
}

impl TenantId {
    /// Checks `name` and takes it as a tenant's name.
    pub fn new(name: &str) -> Result<Self, TenantIdError> {
        if name.is_empty() {
            return Err(TenantIdError::Empty);
        }
        if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "!_.*'()-".contains(*c))) {
            return Err(TenantIdError::Character(bad));
        }
        if name.len() > TENANT_ID_LENGTH_MAX {
            return Err(TenantIdError::TooLong(name.len()));
        }
        if name == "." || name == ".." {
            return Err(TenantIdError::Dots);
        }
        Ok(Self(name.into()))
    }

    /// The tenant of requests when authentication is off.
    pub fn anonymous() -> Self {
        Self(ANONYMOUS.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number the metastore gave a tenant at its first write: prefix of keys and paths, never used again after
/// the tenant is deleted. 0 is no tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantNumber(pub u32);

impl fmt::Display for TenantNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A tenant as every layer below the door sees it: its name and its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// What users call it.
    pub id: TenantId,
    /// What keys and paths carry.
    pub number: TenantNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_header_rules() {
        let long = "a".repeat(151);
        let cases = [
            ("team-a", Ok(())),
            ("a.b*c'(d)!_", Ok(())),
            ("", Err(TenantIdError::Empty)),
            (".", Err(TenantIdError::Dots)),
            ("..", Err(TenantIdError::Dots)),
            ("a/b", Err(TenantIdError::Character('/'))),
            ("a|b", Err(TenantIdError::Character('|'))),
            ("ü", Err(TenantIdError::Character('ü'))),
            (&long, Err(TenantIdError::TooLong(151))),
        ];
        for (text, expected) in cases {
            assert_eq!(TenantId::new(text).map(|_| ()), expected, "{text:?}");
        }
    }
}
