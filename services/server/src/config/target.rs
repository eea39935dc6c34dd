//! Which roles a process runs, as text: `all`, or names separated by commas.

use std::fmt;
use std::str::FromStr;

use cambium_cluster::node::{NodeError, Role, Roles};
use serde::{Deserialize, Serialize};

/// Which roles a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target(Roles);

/// All of them.
const ALL: &str = "all";

impl Target {
    /// Every role.
    pub fn all() -> Self {
        Self(Roles::all())
    }

    /// The roles.
    pub fn roles(self) -> Roles {
        self.0
    }

    /// Whether this role is among them.
    pub fn has(self, role: Role) -> bool {
        self.0.contains(role)
    }
}

impl FromStr for Target {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        if text == ALL {
            return Ok(Self::all());
        }
        text.split(',').map(|name| name.trim().parse::<Role>()).collect::<Result<Roles, _>>().map(Self)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str(ALL);
        }
        let names: Vec<&str> = self.0.iter().map(Role::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: NodeError| format!("{error}, or all"))
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_listed_by_name() {
        for (text, shown) in [
            ("all", "all"),
            ("querier", "querier"),
            ("querier, ingester", "ingester,querier"),
            ("distributor,ingester,querier,compactor", "all"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        let wrong = Target::try_from("querier,cook".to_owned()).unwrap_err();
        assert!(wrong.contains("\"cook\"") && wrong.contains("compactor"), "{wrong}");
    }
}
