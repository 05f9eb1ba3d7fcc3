//! Runs this program as a derivation's builder, without a shell and jq in between.
//!
//! With `__structuredAttrs`, Nix writes the derivation's attributes to `.attrs.json` in the build
//! directory (Nix manual, "Advanced attributes"): the references graph, the options as `image`, and
//! the paths of the outputs.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Failure;
use super::arguments::bytes;
use super::commands::{build_spec, with_warnings, write_file};
use crate::closure::ReferencesJson;
use crate::layer::{DATABASE, DATABASE_DIR, Popularity, SCHEMA_FILE, SCHEMA_VERSION};
use crate::oci::unpack::UnpackLimits;
use crate::oci::{self, BuildOptions, NixState, SystemEntry, SystemFiles, SystemOptions};
use crate::store::{self, Store, StorePath};

/// The derivation's attributes: the closure, which is most of the file, the paths of the outputs, and
/// all others.
#[derive(Deserialize)]
struct Attributes {
    /// The graph of `exportReferencesGraph.closure`.
    closure: ReferencesJson,
    #[serde(rename = "unpackLimits")]
    limits: Option<GivenLimits>,
    outputs: Outputs,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The limits for unpacking a base image, as arguments of functions give them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GivenLimits {
    max_unpacked: Option<String>,
    max_ratio: Option<String>,
}

impl GivenLimits {
    /// Returns the limits, with those of `default` in place of missing ones.
    fn or(self, default: UnpackLimits) -> Result<UnpackLimits, String> {
        let Self { max_unpacked, max_ratio } = self;
        let wrong = |error| format!("`unpackLimits`: {error}");
        Ok(UnpackLimits {
            total: max_unpacked.map_or(Ok(default.total), |it| bytes(&it).map_err(wrong))?,
            ratio: max_ratio.map_or(Ok(default.ratio), |it| bytes(&it).map_err(wrong))?,
        })
    }
}

/// The output that the derivation makes.
enum What {
    /// An image spec.
    Image(BuildOptions),
    /// A directory with `layers.json`.
    Layer(BuildOptions),
    /// A directory with `nix/var/nix`, to be copied to an image's root.
    NixDatabase(BuildOptions),
    /// A directory with declared accounts and files, to be copied to an image's root.
    SystemFiles(SystemOptions),
    /// A file with the number of packages that need each package.
    Popularity(Packages),
}

/// The packages of a set that images can ask for.
#[derive(Deserialize)]
struct Packages {
    #[serde(with = "store::full_paths")]
    packages: BTreeSet<StorePath>,
}

#[derive(Deserialize)]
struct Outputs {
    out: PathBuf,
    /// The directory for compressed layers, if the derivation keeps them.
    #[serde(default)]
    layers: Option<PathBuf>,
}

impl What {
    /// Finds the attribute that says what the derivation makes; the others are Nix's own.
    fn of(attributes: &mut Map<String, Value>) -> Result<Option<Self>, Failure> {
        let mut what = None;
        for (attribute, value) in attributes {
            match &**attribute {
                "image" => what = Some(Self::Image(options(value.take(), "image")?)),
                "layer" => what = Some(Self::Layer(options(value.take(), "layer")?)),
                "nixDatabase" => {
                    what = Some(Self::NixDatabase(options(value.take(), "Nix database")?));
                }
                "systemFiles" => {
                    what = Some(Self::SystemFiles(options(value.take(), "image")?));
                }
                "popularity" => {
                    what = Some(Self::Popularity(options(value.take(), "popularity")?));
                }
                _ => {}
            }
        }
        Ok(what)
    }
}

/// Parses options. The error names the option, which is the part that the author of the Nix code
/// knows.
fn options<T: DeserializeOwned>(value: Value, of: &'static str) -> Result<T, Failure> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let option = Some(error.path().to_string()).filter(|path| path != ".");
        Failure::Option { of, option, reason: in_words_of_nix(&error.into_inner().to_string()) }
    })
}

/// Names the expected type as authors of Nix code know it.
fn in_words_of_nix(reason: &str) -> String {
    let Some((found, expected)) = reason.rsplit_once(", expected ") else {
        return reason.to_owned();
    };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "a JSON number" => "a number",
        "a sequence" => "a list",
        "a map" => "a set",
        text if text.starts_with("struct ") => "a set",
        "a string" if found.starts_with("invalid type: integer") => "a string in quotes",
        text => text,
    };
    format!("{found}, expected {expected}")
}

/// Builds what the derivation describes. `limits` are those of the command line, which the derivation's
/// own precede.
pub fn build(store: &Store, limits: UnpackLimits) -> Result<(), Failure> {
    let file = attributes_file();
    let failure = |reason: String| Failure::Derivation { file: file.clone(), reason };
    let open = fs::File::open(&file).map_err(|error| failure(error.to_string()))?;
    let Attributes { closure, limits: given, outputs, mut others } =
        serde_json::from_reader(BufReader::new(open))
            .map_err(|error| failure(error.to_string()))?;
    given.map_or(Ok(limits), |given| given.or(limits)).map_err(failure)?.choose();
    let Outputs { out: output, layers } = outputs;
    resolve_now(&mut others, OffsetDateTime::now_utc());
    let what =
        What::of(&mut others)?.ok_or_else(|| failure("it says nothing of an image".to_owned()))?;
    let closure = closure.into_closure()?;
    // Nix gives builders a terminal, and stores what they write to it as the log: show no bar.
    let bar = ProgressBar::hidden();
    match what {
        What::Image(options) => {
            let options = BuildOptions { keep_compressed: layers, ..options };
            let spec = build_spec(store, closure, options, &bar)?;
            write_file(&output, 0o444, |out| spec.write_json(out))
        }
        What::Layer(options) => {
            let reproducible = options.reproducible;
            let layers = with_warnings(oci::build_layer_set(store, closure, options, |_| ())?);
            fs::create_dir(&output)
                .map_err(|source| Failure::Output { file: output.clone(), source })?;
            let layers = if reproducible { layers } else { layers.keep_in(store, &output)? };
            write_file(&output.join(oci::LAYER_SET_FILE), 0o444, |out| layers.write_json(out))
        }
        What::NixDatabase(options) => {
            let state = with_warnings(oci::nix_state(store, closure, &options)?);
            let failure = |source| Failure::Output { file: output.clone(), source };
            write_nix_state(&state, &output).map_err(failure)
        }
        What::SystemFiles(options) => {
            let made = with_warnings(oci::system_files(store, &options)?);
            let failure = |source| Failure::Output { file: output.clone(), source };
            write_system_files(store, &made, &output).map_err(failure)
        }
        What::Popularity(Packages { packages }) => {
            let popularity = Popularity::of(&closure, &packages);
            write_file(&output, 0o444, |out| oci::write_json(&popularity, out))
        }
    }
}

/// Replaces the date `"now"`, which dockerTools allows, by the time of the build.
fn resolve_now(attributes: &mut Map<String, Value>, now: OffsetDateTime) {
    let now = now.replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok());
    let Some(image) = attributes.get_mut("image") else { return };
    for place in ["/created", "/storeAttributes/mtime"] {
        if let (Some(value), Some(now)) = (image.pointer_mut(place), &now)
            && value == "now"
        {
            *value = now.as_str().into();
        }
    }
}

/// Writes the files that a Nix in the image needs: its database with every store path, and a
/// garbage collector's root for each path that no other refers to.
fn write_nix_state(made: &NixState, output: &Path) -> io::Result<()> {
    let state = output.join("nix/var/nix");
    let database = output.join(DATABASE_DIR.trim_start_matches('/'));
    let roots = state.join("gcroots/docker");
    // Make the store directory too: `perms` for this path set its owner.
    let store = output.join("nix/store");
    let needed = ["profiles", "temproots"].map(|name| state.join(name));
    for directory in needed.iter().chain([&database, &roots, &store]) {
        fs::create_dir_all(directory)?;
    }
    fs::write(database.join(DATABASE), &made.database)?;
    fs::write(database.join(SCHEMA_FILE), SCHEMA_VERSION)?;
    for name in &made.emptied {
        fs::write(database.join(name), "")?;
    }
    for path in &made.roots {
        symlink(Store::default().print(path), roots.join(path.base_path()))?;
    }
    Ok(())
}

/// Writes the declared files, and the record of their modes and owners.
fn write_system_files(store: &Store, made: &SystemFiles, output: &Path) -> io::Result<()> {
    fs::create_dir(output)?;
    for (name, entry) in &made.entries {
        let file = output.join(name);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        match entry {
            SystemEntry::Directory => fs::create_dir_all(&file)?,
            SystemEntry::Bytes(bytes) => fs::write(&file, bytes)?,
            SystemEntry::Copy(source) => drop(fs::copy(store.locate(source), &file)?),
            SystemEntry::Link(target) => symlink(target, &file)?,
        }
    }
    let record = output.join(oci::RECORD);
    fs::create_dir_all(record.parent().unwrap_or(output))?;
    oci::write_json(&made.record, fs::File::create(record)?)
}

/// Returns the file with the derivation's attributes. With Nix 2.8 the variable names a file
/// outside of the sandbox; the build directory, in which a builder starts, has the file in every
/// version.
fn attributes_file() -> PathBuf {
    env::var_os("NIX_ATTRS_JSON_FILE")
        .map(PathBuf::from)
        .filter(|file| file.exists())
        .unwrap_or_else(|| Path::new(".attrs.json").to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attributes(json: Value) -> Map<String, Value> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_derivation_has_limits_of_its_own() {
        let default = UnpackLimits::default();
        for (given, expected) in [
            (json!({}), Some((UnpackLimits::TOTAL, UnpackLimits::RATIO))),
            (json!({"maxUnpacked": "1G"}), Some((1 << 30, UnpackLimits::RATIO))),
            (json!({"maxUnpacked": "7", "maxRatio": "1000"}), Some((7, 1000))),
            (json!({"maxUnpacked": "much"}), None),
            (json!({"maxRatio": ""}), None),
        ] {
            let parsed: GivenLimits = serde_json::from_value(given.clone()).unwrap();
            let found = parsed.or(default).ok().map(|limits| (limits.total, limits.ratio));
            assert_eq!(found, expected, "{given}");
        }
    }

    #[test]
    fn an_option_that_is_wrong_is_named() {
        for (given, expected) in [
            (
                json!({"image": {"perms": [{"path": "/nix/store/x", "mode": 755}]}}),
                "`perms[0].mode` of the image: invalid type: integer `755`, expected a string",
            ),
            (
                json!({"layer": {"maxLayers": "3"}}),
                "`maxLayers` of the layer: invalid type: string \"3\", expected a number",
            ),
            (
                json!({"image": {"layers": {}}}),
                "`layers` of the image: invalid type: map, expected a list",
            ),
            (json!({"image": {"maxLayer": 3}}), "`maxLayer` of the image: unknown field"),
            (json!({"image": "text"}), "options of the image: invalid"),
        ] {
            let Err(error) = What::of(&mut attributes(given.clone())) else {
                panic!("{given} is taken");
            };
            assert!(error.to_string().starts_with(expected), "{given}: {error}");
        }
    }

    #[test]
    fn now_is_the_time_of_the_build() {
        let now = OffsetDateTime::from_unix_timestamp(1_772_236_800).unwrap();
        let mut attributes_now = attributes(json!({
            "name": "now",
            "image": {"created": "now", "storeAttributes": {"mtime": "now"}, "architecture": "now"},
        }));
        resolve_now(&mut attributes_now, now);
        let date = "2026-02-28T00:00:00Z";
        assert_eq!(
            Value::Object(attributes_now),
            json!({
                "name": "now",
                "image": {"created": date, "storeAttributes": {"mtime": date}, "architecture": "now"},
            })
        );
        let mut other = attributes(json!({"image": {"created": "1970-01-01T00:00:01Z"}}));
        resolve_now(&mut other, now);
        assert_eq!(other["image"]["created"], "1970-01-01T00:00:01Z");
    }
}
