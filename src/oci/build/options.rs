//! What the author of an image asks for.
//! Stage: oci (pure). Input: the JSON that `nix/lib.nix` writes. Output: [`BuildOptions`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::super::architecture::Architecture;
use super::super::created::Created;
use crate::layer::{LayerBudget, Layering, LayeringHints, PermissionRule, StoreAttributes};
use crate::oci::compression::Compression;
use crate::oci::config::ContainerConfig;
use crate::store::{self, StorePath};

/// The arguments of `buildImage` that decide the image's bytes. Its name and tag
/// don't: an image can be renamed without being made again.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildOptions {
    /// How the container runs.
    #[serde(default)]
    pub config: ContainerConfig,
    /// The image to stand on, of any format that [`read_base`](crate::oci::base::read_base) takes.
    #[serde(default)]
    pub from_image: Option<PathBuf>,
    /// Store paths whose files are copied to `/`.
    #[serde(with = "store::full_paths", default)]
    pub copy_to_root: Vec<StorePath>,
    /// Layers that were built on their own, by `buildLayer`: they go below, and what they hold
    /// is not in the image twice.
    #[serde(with = "store::full_paths", default)]
    pub layers: Vec<StorePath>,
    /// Whether the layers of a `buildLayer` can be made again, so that they need not be kept.
    #[serde(default = "yes")]
    pub reproducible: bool,
    /// How layers are compressed for registries.
    #[serde(default)]
    pub compression: Compression,
    /// Modes and owners of some files, where not the usual.
    #[serde(default)]
    pub perms: Vec<PermissionRule>,
    /// What all that is in the image's store has, where `perms` don't say otherwise.
    #[serde(default)]
    pub store_attributes: StoreAttributes,
    /// Tars that go on top of all, as they are.
    #[serde(default)]
    pub tars: Vec<PathBuf>,
    /// What the layers' history says, where not the names of their contents.
    #[serde(default)]
    pub metadata: Metadata,
    /// Members of the closure that stay out of the image, such as the file that served to find it.
    #[serde(with = "store::full_paths", default)]
    pub exclude: BTreeSet<StorePath>,
    /// When the image was made, as far as anyone should know.
    #[serde(default)]
    pub created: Created,
    /// What the image's programs run on.
    #[serde(default)]
    pub architecture: Architecture,
    /// How many layers there may be, besides those of `layers` and of the base image.
    #[serde(default)]
    pub max_layers: LayerBudget,
    /// Whether the layers of the base image, and those on top, count for `max_layers` as well.
    #[serde(default)]
    pub max_layers_is_total: bool,
    /// How store paths are grouped.
    #[serde(default)]
    pub layering: Layering,
    /// What the author decides of that himself.
    #[serde(default)]
    pub layering_hints: LayeringHints,
    /// A file that says what other images are likely to have as well: what `stowage
    /// popularity` prints.
    #[serde(default)]
    pub popularity: Option<PathBuf>,
    /// A file with the plan that store paths keep to: what `stowage plan` prints, or the
    /// image spec of the last release.
    #[serde(default)]
    pub previous_plan: Option<PathBuf>,
    /// The image spec of an earlier build, whose digests are believed: layers that are made of
    /// the same are not made again. Its plan is kept to, if there is no other.
    #[serde(default)]
    pub previous_image: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

/// The free fields of a history entry (image-spec, config.md, "history").
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// What made the layer.
    pub created_by: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// What there is to say of it.
    pub comment: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BuildOptions, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_has_a_default() {
        let options = parse("{}").unwrap();
        assert_eq!(
            (options.created.to_string(), options.max_layers.get()),
            ("1970-01-01T00:00:01Z".to_owned(), 60)
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            (r#"{"maxLayer": 3}"#, "unknown field `maxLayer`"),
            (r#"{"maxLayers": 0}"#, "1 to 127 layers, not 0"),
            (
                r#"{"compression": "xz"}"#,
                "unknown variant `xz`, expected one of `none`, `gzip`, `zstd`",
            ),
            (r#"{"layering": "fastest"}"#, "`layering` must be `runs`"),
            (r#"{"layering": [["limit_layers"]]}"#, "is not a step of a layering pipeline"),
            (r#"{"layeringHints": {"first": []}}"#, "unknown field `first`"),
            (r#"{"created": "now"}"#, "`created` must be a date"),
            (r#"{"created": "2026-02-30T00:00:00Z"}"#, "`created` must be a date"),
            (r#"{"architecture": "x86_64"}"#, "`arch` must be one of Go's names"),
            (r#"{"copyToRoot": ["/etc"]}"#, "/etc"),
            (r#"{"config": {"Entrypoint": "sh"}}"#, "`config.Entrypoint`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn old_and_odd_dates_are_dates() {
        for good in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:01Z", "2026-02-28T23:59:59.5+01:00"]
        {
            assert!(parse(&format!(r#"{{"created": "{good}"}}"#)).is_ok(), "{good}");
        }
    }
}
