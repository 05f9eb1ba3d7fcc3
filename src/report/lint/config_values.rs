//! Reads the values of an image's `config`.
//! Stage: report (pure). Input: [`ImageSpec`]. Output: texts and lists.

use serde_json::Value;

use crate::oci::ImageSpec;

/// Reads the config of an image.
pub struct ConfigValues<'s>(pub &'s ImageSpec);

impl ConfigValues<'_> {
    /// Returns a value, or none if the key is not there.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.config.as_map().get(key)
    }

    /// Returns the texts of a list, and nothing if the key is not there.
    pub fn list(&self, key: &str) -> Vec<&str> {
        let list = self.value(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).collect()
    }

    /// Returns a text, which is empty if the key is not there.
    pub fn text(&self, key: &str) -> &str {
        self.value(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the value of a variable of `Env`: the last one counts.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let variables = self.list("Env").into_iter().rev();
        let mut pairs = variables.filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}
