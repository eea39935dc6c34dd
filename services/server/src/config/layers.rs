//! Reads the layers of a configuration into one tree and says what does not fit where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cambium_model::limits::{Overrides, TenantLimits};
use cambium_model::tenant::TenantId;
use serde_json::{Map, Value};

use super::Config;

/// Prefix of the environment variables.
const ENV_PREFIX: &str = "CAMBIUM_";
/// How alike a known key must be to be offered instead of an unknown one.
const LIKENESS_MIN: f64 = 0.7;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("configuration file {}: {message}", .path.display())]
    Yaml {
        /// Which file.
        path: PathBuf,
        /// The parser's words, with the line.
        message: String,
    },
    /// A key that no setting has.
    #[error("unknown key {key:?}{}", .nearest.as_ref().map(|known| format!(", did you mean {known:?}?")).unwrap_or_default())]
    UnknownKey {
        /// The key, dotted.
        key: String,
        /// The most alike known key.
        nearest: Option<String>,
    },
    /// A variable in the file that the environment lacks.
    #[error("configuration file {}: variable ${{{name}}} is not set", .path.display())]
    Variable {
        /// Which file.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// A value that a setting does not take.
    #[error("{key}: {message}")]
    Value {
        /// The key, dotted.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

/// A setting: its key in the file and its default.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Dotted, as in `ingester.flush_interval`.
    pub key: String,
    /// What it is when nothing is said.
    pub default: Value,
}

impl Setting {
    /// The flag, without dashes: `ingester.flush-interval`.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variable: `CAMBIUM_INGESTER_FLUSH_INTERVAL`.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }
}

/// Every setting there is.
pub fn settings() -> Vec<Setting> {
    let mut found = Vec::new();
    leaves(&defaults(), String::new(), &mut found);
    found
}

/// Reads all layers. `flags` are pairs of dotted key and text.
pub fn load(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &[(String, String)],
) -> Result<Config, ConfigError> {
    let settings = settings();
    let mut tree = defaults();
    if let Some(path) = file {
        merge(&mut tree, read_yaml(path, environment)?, "", &settings)?;
    }
    for setting in &settings {
        if let Some(text) = environment.get(&setting.variable()) {
            set(&mut tree, setting, text)?;
        }
    }
    for (key, text) in flags {
        let setting =
            settings.iter().find(|setting| setting.key == *key).ok_or_else(|| unknown(key, &settings))?;
        set(&mut tree, setting, text)?;
    }
    let config: Config = parse(&tree)?;
    config.check()?;
    Ok(config)
}

/// Reads the file of limits by tenant: `overrides: {team-a: {series_max: 5}}`. What a tenant's entry leaves out is
/// taken from `defaults`.
pub(super) fn overrides(path: &Path, defaults: &TenantLimits) -> Result<Overrides, ConfigError> {
    let environment = std::env::vars().collect();
    let mut file = match read_yaml(path, &environment)? {
        Value::Object(file) => file,
        _ => Map::new(),
    };
    let mut base = Vec::new();
    let template = to_value(defaults);
    leaves(&template, String::new(), &mut base);
    let mut tenants = BTreeMap::new();
    let entries = file.remove("overrides").unwrap_or_default();
    if let Some((key, _)) = file.iter().next() {
        return Err(ConfigError::UnknownKey { key: key.clone(), nearest: Some("overrides".to_owned()) });
    }
    for (name, entry) in entries.as_object().into_iter().flatten() {
        let in_entry = |key: &str| format!("overrides.{name}.{key}");
        TenantId::new(name).map_err(|error| ConfigError::Value {
            key: format!("overrides.{name}"),
            message: error.to_string(),
        })?;
        let mut limits = template.clone();
        merge(&mut limits, entry.clone(), "", &base).map_err(|error| match error {
            ConfigError::UnknownKey { key, nearest } => {
                ConfigError::UnknownKey { key: in_entry(&key), nearest: nearest.map(|near| in_entry(&near)) }
            }
            other => other,
        })?;
        let parsed = serde_json::from_value(limits).map_err(|error| ConfigError::Value {
            key: format!("overrides.{name}"),
            message: error.to_string(),
        })?;
        tenants.insert(name.clone(), parsed);
    }
    Ok(Overrides { defaults: defaults.clone(), tenants })
}

fn defaults() -> Value {
    to_value(&Config::default())
}

fn to_value(settings: &impl serde::Serialize) -> Value {
    serde_json::to_value(settings).expect("settings are plain data with text keys")
}

fn leaves(value: &Value, key: String, found: &mut Vec<Setting>) {
    match value {
        Value::Object(children) => {
            for (name, child) in children {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                leaves(child, key, found);
            }
        }
        leaf => found.push(Setting { key, default: leaf.clone() }),
    }
}

fn read_yaml(path: &Path, environment: &BTreeMap<String, String>) -> Result<Value, ConfigError> {
    let file = |source| ConfigError::File { path: path.to_owned(), source };
    let text = expand(path, &std::fs::read_to_string(path).map_err(file)?, environment)?;
    let yaml = |message: String| ConfigError::Yaml { path: path.to_owned(), message };
    let value: Value = serde_norway::from_str(&text).map_err(|error| yaml(error.to_string()))?;
    match value {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(_) => Ok(value),
        _ => Err(yaml("the file must hold keys and values".to_owned())),
    }
}

/// Replaces `${NAME}` by the environment's value; `$$` stands for a dollar sign.
fn expand(path: &Path, text: &str, environment: &BTreeMap<String, String>) -> Result<String, ConfigError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("${").and_then(|text| text.split_once('}')) {
            let value = environment
                .get(name)
                .ok_or_else(|| ConfigError::Variable { path: path.to_owned(), name: name.to_owned() })?;
            expanded.push_str(value);
            rest = after;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn merge(tree: &mut Value, layer: Value, at: &str, settings: &[Setting]) -> Result<(), ConfigError> {
    match (tree, layer) {
        (Value::Object(known), Value::Object(given)) => {
            for (name, value) in given {
                let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                let child = known.get_mut(&name).ok_or_else(|| unknown(&key, settings))?;
                merge(child, value, &key, settings)?;
            }
            Ok(())
        }
        (Value::Object(_), Value::Null) => Ok(()),
        (Value::Object(_), _) => {
            Err(ConfigError::Value { key: at.to_owned(), message: "holds keys, not a value".to_owned() })
        }
        (leaf, value) => {
            *leaf = value;
            Ok(())
        }
    }
}

fn unknown(key: &str, settings: &[Setting]) -> ConfigError {
    let alike = settings.iter().map(|setting| (strsim::jaro_winkler(&setting.key, key), &setting.key));
    let nearest = alike.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    ConfigError::UnknownKey { key: key.to_owned(), nearest: nearest.map(|(_, known)| known.clone()) }
}

/// Sets a leaf from text, in the form its default has.
fn set(tree: &mut Value, setting: &Setting, text: &str) -> Result<(), ConfigError> {
    let wrong = |expected: &str| ConfigError::Value {
        key: setting.key.clone(),
        message: format!("{text:?} is not {expected}"),
    };
    let value = match &setting.default {
        Value::Bool(_) => Value::Bool(text.parse().map_err(|_| wrong("true or false"))?),
        Value::Number(_) => Value::Number(text.parse().map_err(|_| wrong("a number"))?),
        Value::Array(_) => text.split(',').filter(|part| !part.is_empty()).map(Value::from).collect(),
        _ => Value::from(text),
    };
    let mut leaf = tree;
    for name in setting.key.split('.') {
        leaf = leaf.get_mut(name).expect("settings are the leaves of this very tree");
    }
    *leaf = value;
    Ok(())
}

/// The typed configuration; an error names the key.
fn parse(tree: &Value) -> Result<Config, ConfigError> {
    if let Ok(config) = serde_json::from_value(tree.clone()) {
        return Ok(config);
    }
    // Which leaf is it? Put them into the defaults one by one; serde alone does not say.
    for setting in settings() {
        let leaf = setting.key.split('.').fold(tree, |value, name| &value[name]);
        let mut single = defaults();
        let place = setting.key.split('.').fold(&mut single, |value, name| &mut value[name]);
        *place = leaf.clone();
        if let Err(error) = serde_json::from_value::<Config>(single) {
            return Err(ConfigError::Value { key: setting.key, message: error.to_string() });
        }
    }
    Err(ConfigError::Value { key: "configuration".to_owned(), message: "does not fit".to_owned() })
}
