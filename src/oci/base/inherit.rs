//! Computes what an image inherits from its base: the config and the history.
//! Stage: oci (pure). Input: the base's configuration as JSON, and ours. Output: both in one.

use oci_spec::image::{History, HistoryBuilder};
use serde_json::{Map, Value};

use crate::oci::config::{ConfigError, ContainerConfig};

/// Merges the `config` of an image with the `config` of its base (image-spec, config.md, "config").
///
/// Environment variables are merged by name, the base's first and in their order. Labels, ports and
/// volumes are united; the image's own labels replace the base's. For all other keys, also unknown
/// ones, the image's own value counts, or else the base's. If the image has an entrypoint, the
/// base's `Cmd` is dropped, since it was meant for another program: this is Docker's rule for
/// `ENTRYPOINT`.
///
/// # Errors
/// Fails with [`ConfigError`] if a known key of the base has a value of another shape, or two
/// spellings.
pub fn inherit(base: &Value, ours: &ContainerConfig) -> Result<ContainerConfig, ConfigError> {
    let mut merged = ContainerConfig::of_any_keys(base.clone())?.into_map();
    let ours = ours.as_map();
    if ours.contains_key("Entrypoint") {
        merged.remove("Cmd");
    }
    for (key, value) in ours {
        let value = match (&key[..], merged.remove(key), value) {
            ("Env", Some(Value::Array(base)), Value::Array(ours)) => {
                Value::Array(merge_environment(base.iter().chain(ours)))
            }
            (
                "Labels" | "ExposedPorts" | "Volumes",
                Some(Value::Object(base)),
                Value::Object(ours),
            ) => Value::Object(united(base, ours)),
            (_, _, value) => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    Ok(ContainerConfig::from_checked(merged))
}

/// Returns one entry for each name: the last value, in the first one's place, as Docker does.
fn merge_environment<'v>(entries: impl Iterator<Item = &'v Value>) -> Vec<Value> {
    let name = |entry: &Value| {
        entry.as_str().and_then(|entry| entry.split('=').next()).unwrap_or_default().to_owned()
    };
    let mut merged: Vec<(String, &Value)> = Vec::new();
    for entry in entries {
        let name = name(entry);
        match merged.iter_mut().find(|(other, _)| *other == name) {
            Some((_, value)) => *value = entry,
            None => merged.push((name, entry)),
        }
    }
    merged.into_iter().map(|(_, entry)| entry.clone()).collect()
}

fn united(mut base: Map<String, Value>, ours: &Map<String, Value>) -> Map<String, Value> {
    base.extend(ours.clone());
    base
}

/// Returns the base's history, from the bottom up, for its `layers` layers.
///
/// Entries without a layer (`empty_layer`) are kept unchanged. If the other entries do not match
/// the layers in number, they can't be assigned to the layers, and builders refuse an image whose
/// history and layers disagree: then there is one new entry for each layer.
pub fn inherit_history(configuration: &Value, layers: usize) -> Vec<History> {
    let history = configuration.get("history").cloned().unwrap_or_default();
    let history: Vec<History> = serde_json::from_value(history).unwrap_or_default();
    let filled = history.iter().filter(|entry| !entry.empty_layer().unwrap_or(false)).count();
    if filled == layers {
        return history;
    }
    let created = configuration.get("created").and_then(Value::as_str);
    let entry = |number: usize| {
        let mut entry =
            HistoryBuilder::default().created_by(format!("base image: layer {number} of {layers}"));
        if let Some(created) = created {
            entry = entry.created(created);
        }
        entry.build().expect("history has no required field")
    };
    (1..=layers).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inherited(base: Value, ours: Value) -> Value {
        let ours = ContainerConfig::new(ours).unwrap();
        Value::Object(inherit(&base, &ours).unwrap().into_map())
    }

    #[test]
    fn each_key_has_its_rule() {
        for (rule, base, ours, expected) in [
            ("no config in the base", json!(null), json!({"Cmd": ["a"]}), json!({"Cmd": ["a"]})),
            ("null is absent", json!({"Cmd": null, "Env": null}), json!({}), json!({})),
            (
                "kept unless set",
                json!({"User": "1000", "WorkingDir": "/srv", "StopSignal": "SIGINT"}),
                json!({"User": "0"}),
                json!({"User": "0", "WorkingDir": "/srv", "StopSignal": "SIGINT"}),
            ),
            (
                "environment by name, the base's order",
                json!({"Env": ["PATH=/bin", "A=1", "B=1"]}),
                json!({"Env": ["C=2", "A=2", "PATH=/nix/bin"]}),
                json!({"Env": ["PATH=/nix/bin", "A=2", "B=1", "C=2"]}),
            ),
            (
                "names repeated in the base, values with `=`, names without",
                json!({"Env": ["A=1", "A=2", "X=a=b", "N"]}),
                json!({"Env": ["X=c=d"]}),
                json!({"Env": ["A=2", "X=c=d", "N"]}),
            ),
            (
                "a name is not the beginning of another",
                json!({"Env": ["PATH=/bin"]}),
                json!({"Env": ["PATHS=x"]}),
                json!({"Env": ["PATH=/bin", "PATHS=x"]}),
            ),
            (
                "sets are united",
                json!({"Labels": {"a": "1", "b": "1"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}}),
                json!({"Labels": {"b": "2", "c": "2"}, "ExposedPorts": {"443/tcp": {}}, "Volumes": {"/w": {}}}),
                json!({"Labels": {"a": "1", "b": "2", "c": "2"}, "ExposedPorts": {"443/tcp": {}, "80/tcp": {}}, "Volumes": {"/v": {}, "/w": {}}}),
            ),
            (
                "an entrypoint takes the arguments away",
                json!({"Entrypoint": ["/a"], "Cmd": ["b"]}),
                json!({"Entrypoint": ["/c"]}),
                json!({"Entrypoint": ["/c"]}),
            ),
            (
                "an empty entrypoint too",
                json!({"Entrypoint": ["/a"], "Cmd": ["b"]}),
                json!({"Entrypoint": []}),
                json!({"Entrypoint": []}),
            ),
            (
                "unless there are new ones",
                json!({"Entrypoint": ["/a"], "Cmd": ["b"]}),
                json!({"Entrypoint": ["/c"], "Cmd": ["d"]}),
                json!({"Entrypoint": ["/c"], "Cmd": ["d"]}),
            ),
            (
                "arguments alone leave the entrypoint",
                json!({"Entrypoint": ["/a"], "Cmd": ["b"]}),
                json!({"Cmd": ["d"]}),
                json!({"Entrypoint": ["/a"], "Cmd": ["d"]}),
            ),
            (
                "one key in any letter case, unknown ones as they are",
                json!({"cmd": ["b"], "VolumeDriver": null, "x-Site": {"n": 1}}),
                json!({"Cmd": ["d"]}),
                json!({"Cmd": ["d"], "VolumeDriver": null, "x-Site": {"n": 1}}),
            ),
        ] {
            assert_eq!(inherited(base, ours), expected, "{rule}");
        }
    }

    #[test]
    fn the_order_of_the_environment_is_kept() {
        let merged =
            inherited(json!({"Env": ["B=1", "A=1"]}), json!({"Env": ["D=2", "C=2", "A=2"]}));
        assert_eq!(merged["Env"], json!(["B=1", "A=2", "D=2", "C=2"]));
    }

    #[test]
    fn a_base_that_no_engine_would_run_is_refused() {
        for (base, message) in [
            (json!([]), "`config` must be an attribute set, not a list"),
            (
                json!({"Env": "A=1"}),
                "`config.Env` must be a list of variables, such as [ \"PATH=/bin\" ], not a string",
            ),
        ] {
            let error = inherit(&base, &ContainerConfig::default()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn history_that_matches_is_kept() {
        let history = json!([
            {"created": "2024-01-01T00:00:00Z", "created_by": "ADD rootfs"},
            {"created_by": "CMD", "empty_layer": true},
            {"created_by": "RUN", "comment": "buildkit", "author": "a"},
        ]);
        let kept = inherit_history(&json!({ "history": history }), 2);
        assert_eq!(serde_json::to_value(kept).unwrap(), history);
    }

    #[test]
    fn history_that_does_not_is_made_up() {
        let made_up = json!([
            {"created": "2024-01-01T00:00:00Z", "created_by": "base image: layer 1 of 2"},
            {"created": "2024-01-01T00:00:00Z", "created_by": "base image: layer 2 of 2"},
        ]);
        for (why, history) in [
            ("null", json!(null)),
            ("none", json!([])),
            ("too few", json!([{"created_by": "RUN"}, {"created_by": "CMD", "empty_layer": true}])),
            ("too many", json!([{}, {}, {}])),
            ("no history", json!("RUN")),
        ] {
            let configuration = json!({"created": "2024-01-01T00:00:00Z", "history": history});
            let found = serde_json::to_value(inherit_history(&configuration, 2)).unwrap();
            assert_eq!(found, made_up, "{why}");
        }
        assert_eq!(inherit_history(&json!({}), 1)[0].created(), &None);
        assert!(inherit_history(&json!({}), 0).is_empty());
    }
}
