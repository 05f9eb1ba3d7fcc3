//! Reads and writes a base's tree in the form of `image.json`.
//! Stage: layer (pure).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Attributes, BaseNode, BaseTree};
use crate::image_path::ImagePath;

impl BaseTree {
    /// Returns the first name that JSON can't represent, if there is one.
    pub(in crate::layer) fn unwritable(&self) -> Option<String> {
        let utf8 = |name: &[u8]| std::str::from_utf8(name).is_ok();
        let odd = |(path, node): &(&ImagePath, &BaseNode)| {
            !utf8(path.as_bytes()) || matches!(node, BaseNode::Symlink(target) if !utf8(target))
        };
        let odd = self.nodes.iter().find(odd);
        odd.map(|(path, _)| path.as_bytes().escape_ascii().to_string())
    }
}

/// The form of `image.json`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BaseTreeJson {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    directories: BTreeMap<String, Attributes>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    links: BTreeMap<String, String>,
}

impl From<BaseTree> for BaseTreeJson {
    /// Converts a tree. Names that are not UTF-8 were refused before ([`BaseTree::unwritable`]).
    fn from(tree: BaseTree) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut directories, mut links) = (BTreeMap::new(), BTreeMap::new());
        for (path, node) in tree.nodes {
            match node {
                BaseNode::Directory(attributes) => {
                    directories.insert(text(path.as_bytes()), attributes);
                }
                BaseNode::Symlink(target) => {
                    links.insert(text(path.as_bytes()), text(&target));
                }
                // No layer writes these files.
                BaseNode::State => {}
            }
        }
        Self { directories, links }
    }
}

impl TryFrom<BaseTreeJson> for BaseTree {
    type Error = String;

    fn try_from(json: BaseTreeJson) -> Result<Self, String> {
        let directories = json
            .directories
            .into_iter()
            .map(|(name, attributes)| (name, BaseNode::Directory(attributes)));
        let links =
            json.links.into_iter().map(|(name, target)| (name, BaseNode::Symlink(target.into())));
        let mut nodes = BTreeMap::new();
        for (name, node) in directories.chain(links) {
            let path = ImagePath::parse(name.as_bytes()).map_err(|error| error.to_string())?;
            if nodes.insert(path, node).is_some() {
                return Err(format!("`{name}` is both a directory and a link"));
            }
        }
        Ok(Self { nodes })
    }
}

/// Reads and writes permission bits as people write them: four octal digits in a string.
pub mod octal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| de::Error::custom(format_args!("`{text}` is no octal mode")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STICKY, USUAL, link, tree};
    use super::super::{BaseEntry, BaseLayerBuilder};
    use super::*;

    #[test]
    fn json_has_it_all() {
        let tree = tree(&[&[("tmp", BaseEntry::Directory(STICKY)), link("bin", "usr/bin")]]);
        let json = serde_json::json!({
            "directories": {"tmp": {"mode": "1777", "uid": 0, "gid": 0}},
            "links": {"bin": "usr/bin"},
        });
        assert_eq!(serde_json::to_value(&tree).unwrap(), json);
        assert_eq!(serde_json::from_value::<BaseTree>(json).unwrap(), tree);
        for (why, json) in [
            ("absolute", serde_json::json!({"links": {"/bin": "usr/bin"}})),
            ("climbs", serde_json::json!({"links": {"a/../b": "usr/bin"}})),
            (
                "mode",
                serde_json::json!({"directories": {"a": {"mode": "999", "uid": 0, "gid": 0}}}),
            ),
            (
                "twice",
                serde_json::json!({"links": {"a": "b"}, "directories": {"a": {"mode": "0755", "uid": 0, "gid": 0}}}),
            ),
        ] {
            assert!(serde_json::from_value::<BaseTree>(json).is_err(), "{why}");
        }
    }

    #[test]
    fn names_that_json_lacks_are_found() {
        let mut layer = BaseLayerBuilder::default();
        layer.add(b"caf\xe9", BaseEntry::Directory(USUAL));
        let mut tree = BaseTree::default();
        tree.apply(&layer.finish());
        assert_eq!(tree.unwritable(), Some("caf\\xe9".to_owned()));
    }
}
