//! The options of a build, which the author of an image chooses.
//! Stage: oci (pure). Input: the JSON that `nix/lib.nix` writes. Output: [`BuildOptions`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::super::annotations::{self, Annotations};
use super::super::architecture::Architecture;
use super::super::created::Created;
use crate::layer::{
    DirectoryLinks, LayerBudget, Layering, LayeringHints, MergedFiles, PermissionRule,
    StoreAttributes,
};
use crate::oci::config::ContainerConfig;
use crate::oci::layer_compression::LayerCompression;
use crate::store::{self, StorePath};

/// The arguments of `buildImage` that decide the image's bytes. Name and tag are not among them: an
/// image can be renamed without being made again.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildOptions {
    /// The way in which the container runs.
    #[serde(default)]
    pub config: ContainerConfig,
    /// The annotations of the image's OCI manifest.
    #[serde(default, deserialize_with = "annotations::given")]
    pub annotations: Annotations,
    /// The base image, in any format that [`read_base`](crate::oci::base::read_base) reads.
    #[serde(default)]
    pub from_image: Option<PathBuf>,
    /// Store paths whose files are copied to `/`.
    #[serde(with = "store::full_paths", default)]
    pub copy_to_root: Vec<StorePath>,
    /// The one of them that has the declared accounts, directories and files (`system/`).
    #[serde(default)]
    pub system_files: Option<SystemPath>,
    /// The files of it that have those of others in them, by its record.
    #[serde(skip)]
    pub merged_files: Option<MergedFiles>,
    /// The way to add a link of `copy_to_root` where the base image has a directory.
    #[serde(default)]
    pub directory_links: DirectoryLinks,
    /// Layers that were built on their own by `buildLayer`. They go below the image's own layers,
    /// which leave out the paths that these hold.
    #[serde(with = "store::full_paths", default)]
    pub layers: Vec<StorePath>,
    /// True if the layers of a `buildLayer` can be made again, so that they need not be kept.
    #[serde(default = "yes")]
    pub reproducible: bool,
    /// The compression of layers for registries.
    #[serde(default)]
    pub compression: LayerCompression,
    /// The directory in which compressed layers are kept for pushes, as in the store; none to keep
    /// their digests alone. It is an output of the derivation.
    #[serde(skip)]
    pub keep_compressed: Option<PathBuf>,
    /// The modes and owners of files that differ from the defaults.
    #[serde(default)]
    pub perms: Vec<PermissionRule>,
    /// Attributes of all files in the image's store, unless `perms` sets others.
    #[serde(default)]
    pub store_attributes: StoreAttributes,
    /// Tars that are the topmost layers, unchanged.
    #[serde(default)]
    pub tars: Vec<PathBuf>,
    /// The text of the layers' history, in place of the names of their contents.
    #[serde(default)]
    pub metadata: Metadata,
    /// Members of the closure that are left out, such as the file by which the closure was found.
    #[serde(with = "store::full_paths", default)]
    pub exclude: BTreeSet<StorePath>,
    /// The image's creation time.
    #[serde(default)]
    pub created: Created,
    /// The architecture of the image's programs.
    #[serde(default)]
    pub architecture: Architecture,
    /// The largest number of layers, without those of `layers` and of the base image.
    #[serde(default)]
    pub max_layers: LayerBudget,
    /// True if the layers of the base image, and those on top, count for `max_layers` as well.
    #[serde(default)]
    pub max_layers_is_total: bool,
    /// The way to group store paths.
    #[serde(default)]
    pub layering: Layering,
    /// The author's own decisions about the grouping.
    #[serde(default)]
    pub layering_hints: LayeringHints,
    /// A file with the popularity of packages in other images, as printed by `stowage popularity`.
    #[serde(default)]
    pub popularity: Option<PathBuf>,
    /// A file with a plan whose layers are kept: as printed by `stowage plan`, or the image spec of
    /// the last release.
    #[serde(default)]
    pub previous_plan: Option<PathBuf>,
    /// The image spec of an earlier build, whose digests are trusted: layers with the same contents
    /// are not made again. Its plan is kept, if there is no `previous_plan`.
    #[serde(default)]
    pub previous_image: Option<PathBuf>,
}

/// A store path, as JSON writes it: `/nix/store/<hash>-<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SystemPath(#[serde(with = "store::full_path")] pub StorePath);

fn yes() -> bool {
    true
}

/// The optional fields of a history entry (image-spec, config.md, "history").
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// The command that made the layer.
    pub created_by: Option<String>,
    /// The author of the layer.
    pub author: Option<String>,
    /// A comment on the layer.
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
                "unknown variant `xz`, expected one of `none`, `gzip`, `zstd`, `zstd:chunked`",
            ),
            (r#"{"layering": "fastest"}"#, "`layering` must be `runs`"),
            (r#"{"layering": [["limit_layers"]]}"#, "is not a step of a layering pipeline"),
            (r#"{"layeringHints": {"first": []}}"#, "unknown field `first`"),
            (r#"{"created": "now"}"#, "`created` must be a date"),
            (r#"{"created": "2026-02-30T00:00:00Z"}"#, "`created` must be a date"),
            (r#"{"architecture": "x86_64"}"#, "`arch` must be one of Go's names"),
            (r#"{"copyToRoot": ["/etc"]}"#, "/etc"),
            (r#"{"annotations": {"a": null}}"#, "expected a string"),
            (r#"{"annotations": {"": "a"}}"#, "`annotations` has a key of no letters"),
            (
                r#"{"annotations": {"a": "\u0000"}}"#,
                "`annotations` has the key `a`, with a control",
            ),
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
