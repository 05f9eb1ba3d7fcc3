//! Checks the `config` of an image, which says how its container runs.
//! Stage: oci (pure). Input: JSON as people write it. Output: [`ContainerConfig`].

mod values;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::annotations::AnnotationError;
use crate::error::nearest_of;

/// A container's execution parameters, checked and in canonical spelling.
///
/// The keys are those of image-spec's config.md, "config", and those that Docker adds. Like
/// Docker's own reader (Go's `encoding/json`), any letter case is accepted, and null means absent.
/// Unlike there, an unknown key is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ContainerConfig(Map<String, Value>);

/// Says why a `config` can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The value is not an object.
    #[error("`config` must be an attribute set, not {0}")]
    NotAnObject(&'static str),
    /// The key is not known to any container runtime.
    #[error("`config` has an unknown key `{key}`{}", suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// The most similar known key.
        suggestion: Option<&'static str>,
    },
    /// A key of one of the values is not known to any container runtime.
    #[error("`config.{of}` has an unknown key `{key}`{}", suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    UnknownKeyWithin {
        /// The key whose value has the unknown key.
        of: &'static str,
        /// The key as it was written.
        key: String,
        /// The most similar known key.
        suggestion: Option<&'static str>,
    },
    /// A key of one of the values is there in two spellings.
    #[error("`config.{of}` has the key `{key}` twice, in different letter case")]
    RepeatedKeyWithin {
        /// The key whose value has the repeated key.
        of: &'static str,
        /// The key in canonical spelling.
        key: &'static str,
    },
    /// A value is one that Docker would refuse.
    #[error("`config.{key}` must be {expected}, not {found}")]
    WrongValue {
        /// The key, with the path to the part of the value.
        key: String,
        /// The expected value, with an example.
        expected: &'static str,
        /// The value that was found.
        found: String,
    },
    /// A name in an attribute set is one that Docker would refuse.
    #[error("`config.{key}` has `{member}`, which must be {expected}")]
    WrongMember {
        /// The key of the attribute set.
        key: String,
        /// The name in it.
        member: String,
        /// The expected name, with an example.
        expected: &'static str,
    },
    /// A label is refused.
    #[error("`config.Labels` {0}")]
    Label(AnnotationError),
    /// A key is there in two spellings.
    #[error("`config` has the key `{0}` twice, in different letter case")]
    RepeatedKey(&'static str),
    /// A value has the wrong type.
    #[error("`config.{key}` must be {expected}, not {found}")]
    WrongType {
        /// The key in canonical spelling.
        key: &'static str,
        /// The expected type, with an example.
        expected: &'static str,
        /// The type that was found.
        found: &'static str,
    },
}

#[derive(Clone, Copy)]
enum Shape {
    Text,
    /// A list of strings.
    List,
    /// An object whose values are empty objects: Go's `map[string]struct{}`.
    Set,
    /// An object whose values are strings.
    Texts,
    Number,
    Flag,
    Object,
}

use Shape::{Flag, List, Number, Object, Set, Text, Texts};

/// The known keys: those of image-spec, config.md, and of `Config` in moby's
/// `api/types/container/config.go`.
const KEYS: [(&str, Shape); 27] = [
    ("ArgsEscaped", Flag),
    ("AttachStderr", Flag),
    ("AttachStdin", Flag),
    ("AttachStdout", Flag),
    ("Cmd", List),
    ("CpuShares", Number),
    ("Domainname", Text),
    ("Entrypoint", List),
    ("Env", List),
    ("ExposedPorts", Set),
    ("Healthcheck", Object),
    ("Hostname", Text),
    ("Image", Text),
    ("Labels", Texts),
    ("MacAddress", Text),
    ("Memory", Number),
    ("MemorySwap", Number),
    ("NetworkDisabled", Flag),
    ("OnBuild", List),
    ("OpenStdin", Flag),
    ("Shell", List),
    ("StdinOnce", Flag),
    ("StopSignal", Text),
    ("StopTimeout", Number),
    ("Tty", Flag),
    ("User", Text),
    ("Volumes", Set),
];
const WORKING_DIR: (&str, Shape) = ("WorkingDir", Text);

fn keys() -> impl Iterator<Item = (&'static str, Shape)> {
    KEYS.into_iter().chain([WORKING_DIR])
}

impl Shape {
    fn expected(self) -> &'static str {
        match self {
            Text => "a string",
            List => "a list of strings, such as [ \"/bin/app\" \"--flag\" ]",
            Set => "an attribute set of empty sets, such as { \"80/tcp\" = { }; }",
            Texts => "an attribute set of strings, such as { key = \"value\"; }",
            Number => "a number",
            Flag => "true or false",
            Object => "an attribute set",
        }
    }

    fn accepts(self, value: &Value) -> bool {
        let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
        match self {
            Text => value.is_string(),
            List => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            Set => value.as_object().is_some_and(|set| set.values().all(empty)),
            Texts => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
            Number => value.is_i64() || value.is_u64(),
            Flag => value.is_boolean(),
            Object => value.is_object(),
        }
    }
}

impl ContainerConfig {
    /// Checks and normalises a `config`.
    ///
    /// # Errors
    /// Fails with [`ConfigError`], which names the key.
    pub fn new(value: Value) -> Result<Self, ConfigError> {
        let Self(mut config) = Self::normalise(value, |key, _| {
            let suggestion = nearest_of(keys().map(|(key, _)| key), &key);
            Err(ConfigError::UnknownKey { suggestion, key })
        })?;
        for (key, _) in keys() {
            if let Some(value) = config.get_mut(key) {
                values::check(key, value)?;
            }
        }
        Ok(Self(config))
    }

    /// Sets the user who runs the container.
    pub fn set_user(&mut self, user: String) {
        self.0.insert("User".to_owned(), Value::String(user));
    }

    /// Checks and normalises a `config` that other programs wrote: unknown keys may have a meaning
    /// for these, and are kept unchanged. So are values that Docker would refuse.
    ///
    /// # Errors
    /// Fails with [`ConfigError`], which names the key.
    pub fn of_any_keys(value: Value) -> Result<Self, ConfigError> {
        let mut unknown = Map::new();
        let Self(mut config) = Self::normalise(value, |key, value| {
            unknown.insert(key, value);
            Ok(())
        })?;
        config.extend(unknown);
        Ok(Self(config))
    }

    /// Deserialises with [`ContainerConfig::of_any_keys`], for serde.
    ///
    /// # Errors
    /// Returns the errors of [`ContainerConfig::of_any_keys`].
    pub fn deserialize_any_keys<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Self, D::Error> {
        Self::of_any_keys(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    fn normalise(
        value: Value,
        mut unknown: impl FnMut(String, Value) -> Result<(), ConfigError>,
    ) -> Result<Self, ConfigError> {
        let object = match value {
            Value::Null => Map::new(),
            Value::Object(object) => object,
            other => return Err(ConfigError::NotAnObject(kind_of(&other))),
        };
        let mut config = Map::new();
        for (written, mut value) in object {
            let Some((key, shape)) = keys().find(|(key, _)| key.eq_ignore_ascii_case(&written))
            else {
                unknown(written, value)?;
                continue;
            };
            if value.is_null() {
                continue;
            }
            if !shape.accepts(&value) {
                let found = match shape {
                    List | Texts | Set => kind_within(&value),
                    _ => kind_of(&value),
                };
                let expected = match key {
                    "Env" => "a list of variables, such as [ \"PATH=/bin\" ]",
                    _ => shape.expected(),
                };
                return Err(ConfigError::WrongType { key, expected, found });
            }
            if let (Set, Value::Object(set)) = (shape, &mut value) {
                set.values_mut().for_each(|member| *member = Value::Object(Map::new()));
            }
            if config.insert(key.to_owned(), value).is_some() {
                return Err(ConfigError::RepeatedKey(key));
            }
        }
        Ok(Self(config))
    }

    /// Wraps keys and values that were checked before.
    pub(super) fn from_checked(config: Map<String, Value>) -> Self {
        Self(config)
    }

    /// Returns the canonical JSON object.
    pub(super) fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// Returns the canonical JSON object, its keys sorted.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ContainerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an attribute set",
    }
}

/// Describes a value, and the first wrong item if it is a list or an object.
fn kind_within(value: &Value) -> &'static str {
    let odd = |value: &&Value| !value.is_string();
    match value {
        Value::Array(list) => match list.iter().find(odd) {
            Some(Value::Number(_)) => "a list with a number in it",
            Some(Value::Array(_)) => "a list with a list in it",
            Some(Value::Null) => "a list with null in it",
            Some(Value::Bool(_)) => "a list with a boolean in it",
            Some(_) => "a list with something else in it",
            None => "a list",
        },
        Value::Object(map) => match map.values().find(odd) {
            Some(Value::Number(_)) => "an attribute set with a number in it",
            Some(Value::Null) => "an attribute set with null in it",
            Some(Value::Bool(_)) => "an attribute set with a boolean in it",
            Some(_) => "an attribute set with something else in it",
            None => "an attribute set",
        },
        other => kind_of(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_letter_case_is_taken() {
        let config = ContainerConfig::new(json!({
            "entrypoint": ["/bin/sh"], "CMD": [], "workingDir": "/", "exposedPorts": {"80/tcp": null}, "User": null,
        }));
        let expected = json!({"Cmd": [], "Entrypoint": ["/bin/sh"], "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/"});
        assert_eq!(Value::Object(config.unwrap().0), expected);
    }

    #[test]
    fn nothing_is_a_config_too() {
        for nothing in [json!({}), Value::Null] {
            assert_eq!(ContainerConfig::new(nothing).unwrap(), ContainerConfig::default());
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (config, message) in [
            (json!([]), "`config` must be an attribute set, not a list"),
            (
                json!({"Entrypiont": []}),
                "`config` has an unknown key `Entrypiont`; did you mean `Entrypoint`?",
            ),
            (json!({"Workdir": "/"}), "`config` has an unknown key `Workdir`"),
            (
                json!({"cmd": [], "Cmd": []}),
                "`config` has the key `Cmd` twice, in different letter case",
            ),
            (
                json!({"Entrypoint": "/bin/app"}),
                "`config.Entrypoint` must be a list of strings, such as [ \"/bin/app\" \"--flag\" ], not a string",
            ),
            (
                json!({"Cmd": ["--port", 80]}),
                "`config.Cmd` must be a list of strings, such as [ \"/bin/app\" \"--flag\" ], not a list with a number in it",
            ),
            (
                json!({"ExposedPorts": ["80/tcp"]}),
                "`config.ExposedPorts` must be an attribute set of empty sets, such as { \"80/tcp\" = { }; }, not a list",
            ),
            (
                json!({"Labels": {"n": 1}}),
                "`config.Labels` must be an attribute set of strings, such as { key = \"value\"; }, not an attribute set with a number in it",
            ),
            (
                json!({"Env": {"A": "1"}}),
                "`config.Env` must be a list of variables, such as [ \"PATH=/bin\" ], not an attribute set",
            ),
            (json!({"User": 1000}), "`config.User` must be a string, not a number"),
        ] {
            assert_eq!(ContainerConfig::new(config).unwrap_err().to_string(), message);
        }
    }
}
