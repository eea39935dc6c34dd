use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads a file and shows the error without the file's path.
fn error_of(text: &str) -> String {
    let file = file(text);
    let error = load(Some(file.path()), &environment(&[]), &[]).unwrap_err();
    error.to_string().replace(&file.path().display().to_string(), "FILE")
}

#[test]
fn later_layers_win() {
    let file = file("ingester:\n  flush_interval: 30s\n  flush_bytes: 1MiB\nlisten: ${ADDRESS}\n");
    let environment = environment(&[
        ("ADDRESS", "127.0.0.1:1"),
        ("CAMBIUM_INGESTER_FLUSH_INTERVAL", "40s"),
        ("CAMBIUM_INGESTER_FLUSH_BYTES", "2MiB"),
        ("UNRELATED", "x"),
    ]);
    let flags = [("ingester.flush_interval".to_owned(), "50s".to_owned())];
    let config = load(Some(file.path()), &environment, &flags).unwrap();
    assert_eq!(config.ingester.flush_interval.to_string(), "50s");
    assert_eq!(config.ingester.flush_bytes.to_string(), "2MiB");
    assert_eq!(config.listen.to_string(), "127.0.0.1:1");
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(load(Some(file("").path()), &environment(&[]), &[]).unwrap(), Config::default());
    assert_eq!(load(None, &environment(&[]), &[]).unwrap(), Config::default());
}

#[test]
fn errors_name_the_key() {
    for (text, expected) in [
        ("ingestr: {}", "unknown key \"ingestr\", did you mean \"target\"?"),
        (
            "ingester: {flush_intervall: 1s}",
            "unknown key \"ingester.flush_intervall\", did you mean \"ingester.flush_interval\"?",
        ),
        ("ingester: 5", "ingester: holds keys, not a value"),
        (
            "ingester: {flush_interval: soon}",
            "ingester.flush_interval: \"soon\" is not a duration such as 250ms, 60s or 1h",
        ),
        ("listen: here", "listen: invalid socket address syntax"),
        ("partitions: -1", "partitions: invalid value: integer `-1`, expected u32"),
        ("partitions: 0", "partitions: 0 is not between 1 and 1024"),
        ("blocks: {disk_cache_bytes: 1MiB}", "blocks.disk_cache_bytes: must be 0 or at least 33554432 bytes"),
        ("listen: ${NOWHERE}", "configuration file FILE: variable ${NOWHERE} is not set"),
        ("- a", "configuration file FILE: the file must hold keys and values"),
    ] {
        let shown = error_of(text);
        if text.starts_with("ingestr") {
            assert!(shown.starts_with("unknown key \"ingestr\""), "{shown}");
        } else {
            assert_eq!(shown, expected, "{text}");
        }
    }
    assert!(matches!(
        load(Some(Path::new("/nowhere.yaml")), &environment(&[]), &[]),
        Err(ConfigError::File { .. })
    ));
}

#[test]
fn an_open_door_without_a_lock_is_refused() {
    let flags = |auth: &str, insecure: &str| {
        [("listen", "0.0.0.0:4040"), ("auth", auth), ("allow_insecure", insecure)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    assert!(load(None, &environment(&[]), &flags("none", "false")).is_err());
    assert!(load(None, &environment(&[]), &flags("none", "true")).is_ok());
    assert!(load(None, &environment(&[]), &flags("header", "false")).is_ok());
}

#[test]
fn every_setting_is_a_flag_and_a_variable() {
    let settings = settings();
    let flush = settings.iter().find(|setting| setting.key == "ingester.flush_interval").unwrap();
    assert_eq!(flush.flag(), "ingester.flush-interval");
    assert_eq!(flush.variable(), "CAMBIUM_INGESTER_FLUSH_INTERVAL");
    assert!(settings.iter().any(|setting| setting.key == "limits.scope_labels"));
}

#[test]
fn overrides_start_from_the_defaults() {
    let file = file("overrides:\n  team-a:\n    series_max: 5\n");
    let config = Config { overrides_file: file.path().into(), ..Config::default() };
    let overrides = config.overrides().unwrap();
    let team = cambium_model::tenant::TenantId::new("team-a").unwrap();
    let other = cambium_model::tenant::TenantId::new("other").unwrap();
    assert_eq!(overrides.of(&team).series_max, 5);
    assert_eq!(overrides.of(&team).stack_depth_max, TenantLimits::default().stack_depth_max);
    assert_eq!(overrides.of(&other), &TenantLimits::default());
    let rules = r#"[{selector: '{ namespace = "ci" }', retention_secs: 604800}]"#;
    let ruled = self::file(&format!("overrides: {{team-a: {{retention_rules: {rules}}}}}"));
    let config = Config { overrides_file: ruled.path().into(), ..Config::default() };
    assert_eq!(config.overrides().unwrap().of(&team).retention_of(Some(r#"{namespace="ci"}"#)), 604_800,);
    let wrong = self::file("overrides: {team-a: {retention_rules: [{selector: '{a', retention_secs: 1}]}}");
    let config = Config { overrides_file: wrong.path().into(), ..Config::default() };
    let error = config.overrides().unwrap_err().to_string();
    assert!(error.starts_with("overrides.team-a: selector: expected"), "{error}");
    let bad = self::file("overrides: {team-a: {series_maxx: 5}}");
    let config = Config { overrides_file: bad.path().into(), ..Config::default() };
    assert_eq!(
        config.overrides().unwrap_err().to_string(),
        "unknown key \"overrides.team-a.series_maxx\", did you mean \"overrides.team-a.series_max\"?"
    );
}
