//! Lists the packages of an image, in the formats that scanners and auditors read.
//! Stage: report (pure). Input: [`ImageSpec`] and [`Facts`]. Output: a software bill of materials
//! (SBOM).
//!
//! Equal images and facts give equal bytes: an SBOM has no current time and no random identifiers.

mod base;
mod cyclonedx;
mod facts;
mod licence;
mod package_url;
mod spdx;
mod version;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::closure::NarHash;
use crate::digest::{BlobDigest, Digest};
use crate::oci::{Image, ImageSpec, LayerSource, SourceInfo};
use crate::outgoing::{ImageReference, Reference, RepositoryName};
use crate::store::StorePath;

pub use base::{BaseList, BaseListError};
pub use cyclonedx::cyclonedx;
pub use facts::{Facts, FactsError};
pub use spdx::spdx;

use facts::PackageFacts;
use version::Version;

/// The default supplier of packages.
pub const SUPPLIER: &str = "nixpkgs";

/// The contents of an SBOM, for any format.
#[derive(Debug)]
pub struct Inventory<'a> {
    image: ImagePart,
    supplier: &'a str,
    components: Vec<Component<'a>>,
    foreign: Vec<ForeignLayer>,
    /// The SBOMs of the image's base image.
    bases: &'a [BaseList],
}

/// The image itself.
#[derive(Debug)]
struct ImagePart {
    name: String,
    /// The name in a registry, without the tag, if the image has a name with a registry.
    repository: Option<String>,
    tag: Option<String>,
    manifest: BlobDigest,
    architecture: String,
    /// The time in UTC, `YYYY-MM-DDThh:mm:ssZ`.
    created: String,
}

/// A store path of the image.
#[derive(Debug)]
struct Component<'a> {
    path: &'a StorePath,
    nar_hash: NarHash,
    /// The indices of the components to which this one refers.
    references: Vec<usize>,
    name: String,
    /// The version, if it is known.
    version: Option<String>,
    output: Option<String>,
    facts: &'a PackageFacts,
}

/// A layer that was not made from store paths: a layer of a base image, or the files that commands
/// made.
#[derive(Debug)]
struct ForeignLayer {
    /// The number of the layer, from 1 at the bottom.
    number: usize,
    digest: BlobDigest,
    /// The name of the file that has the bytes of the layer.
    file: String,
}

impl<'a> Inventory<'a> {
    /// Lists the contents of an image. `name` is the name of the image, `supplier` is the
    /// supplier of packages that have none in `facts`, and `bases` are SBOMs of the image's base image.
    pub fn new(
        spec: &'a ImageSpec,
        name: Option<&ImageReference>,
        supplier: &'a str,
        facts: &'a Facts,
        bases: &'a [BaseList],
    ) -> Self {
        let places: BTreeMap<_, _> =
            spec.sources.iter().zip(0..).map(|(info, at)| (&info.path, at)).collect();
        let component = |info: &'a SourceInfo| {
            let SourceInfo { path, nar_hash, references, .. } = info;
            let facts = facts.of(path);
            let guessed = Version::of(path.name());
            let name = facts.pname.clone().unwrap_or_else(|| guessed.name.to_owned());
            let version = facts.version.clone().or(guessed.version.map(str::to_owned));
            let output = facts.output.clone().or(guessed.output.map(str::to_owned));
            let output = output.filter(|output| output != "out");
            let others = references.iter().filter(|reference| *reference != path);
            let references = others.filter_map(|reference| places.get(reference).copied());
            let references = references.collect();
            Component { path, nar_hash: *nar_hash, references, name, version, output, facts }
        };
        let foreign = spec.layers.iter().zip(1..).filter_map(|(layer, number)| {
            let LayerSource::Stored(blob) = &layer.source else { return None };
            let file = blob.file.display().to_string();
            Some(ForeignLayer { number, digest: blob.digest, file })
        });
        let image = ImagePart {
            name: name.map_or("image", |name| repository(name).last_component()).to_owned(),
            // A name without a registry may be in any registry.
            repository: name
                .map(ImageReference::reference)
                .filter(|reference| reference.short_name().is_none())
                .map(Reference::name),
            tag: name.map(|name| name.tag().to_owned()),
            manifest: Image::new(spec).manifest.digest,
            architecture: spec.architecture.to_string(),
            created: spec.created.in_utc(),
        };
        Self {
            image,
            supplier,
            components: spec.sources.iter().map(component).collect(),
            foreign: foreign.collect(),
            bases,
        }
    }
}

fn repository(name: &ImageReference) -> &RepositoryName {
    name.reference().repository()
}

impl Component<'_> {
    /// Returns the version, or the hash of the store path if the version is not known.
    fn version(&self) -> &str {
        self.version.as_deref().unwrap_or_else(|| self.path.hash_part())
    }
}

/// Returns the digest of a document without its identifier, from which the identifier is made.
/// Documents about the same image with other facts have other identifiers.
fn identity(document: &impl Serialize) -> Digest {
    Digest::of(&serde_json::to_vec(document).expect("an SBOM is JSON"))
}

/// Returns the program's name and version.
fn tool() -> (&'static str, &'static str) {
    ("stowage", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec() -> ImageSpec {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let path = |digit: &str, name: &str| format!("/nix/store/{}-{name}", digit.repeat(32));
        let hash = "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
        let (glibc, hello) = (path("0", "glibc-2.40-66-bin"), path("1", "hello+x-2.12"));
        serde_json::from_value(json!({
            "version": 1,
            "platform": {"architecture": "amd64", "os": "linux"},
            "created": "2024-05-06T07:08:09.5+02:00",
            "config": {},
            "history": [{}, {}],
            "layers": [
                {
                    "diffId": digest("2"),
                    "size": 10,
                    "blob": {
                        "file": "/nix/store/00000000000000000000000000000000-base.tar",
                        "digest": digest("2"),
                        "size": 10,
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    },
                },
                {
                    "diffId": digest("3"),
                    "size": 10,
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "contents": {"storePaths": [glibc, hello]},
                },
            ],
            "storePaths": [
                {"path": glibc, "narHash": hash, "narSize": 1, "references": []},
                {"path": hello, "narHash": hash, "narSize": 1, "references": [glibc, hello]},
                {"path": path("2", "app.json"), "narHash": hash, "narSize": 1, "references": []},
            ],
        }))
        .unwrap()
    }

    fn facts() -> Facts {
        Facts::parse(
            json!({
                "/nix/store/11111111111111111111111111111111-hello+x-2.12": {
                    "pname": "hello",
                    "version": "2.12",
                    "licenses": [{"spdx": "GPL-3.0-or-later"}, {"name": "Own Licence", "url": "https://example.org/l"}],
                    "cpe": "cpe:2.3:a:gnu:hello:2.12:*:*:*:*:*:*:*",
                    "purls": ["pkg:github/example/hello@2.12", "no purl"],
                    "urls": ["mirror://gnu/hello.tar.gz", "https://example.org/hello.tar.gz"],
                    "homepage": "https://example.org/hello",
                    "description": "Greets",
                },
            })
            .to_string()
            .as_bytes(),
        )
        .unwrap()
    }

    fn documents(name: Option<&str>, facts: &Facts) -> [Value; 2] {
        documents_on(name, facts, &[])
    }

    fn documents_on(name: Option<&str>, facts: &Facts, bases: &[BaseList]) -> [Value; 2] {
        let spec = spec();
        let name = name.map(|name| name.parse().unwrap());
        let inventory = Inventory::new(&spec, name.as_ref(), SUPPLIER, facts, bases);
        [serde_json::to_value(spdx(&inventory)), serde_json::to_value(cyclonedx(&inventory))]
            .map(Result::unwrap)
    }

    #[test]
    fn every_store_path_is_there_once_with_all_that_is_known() {
        let [spdx, cyclonedx] = documents(Some("registry.example/team/app:v1"), &facts());
        let packages = spdx["packages"].as_array().unwrap();
        assert_eq!(packages.len(), 1 + 1 + 3);
        let hello = packages.iter().find(|package| package["name"] == "hello").unwrap();
        assert_eq!(hello["versionInfo"], "2.12");
        assert_eq!(hello["downloadLocation"], "https://example.org/hello.tar.gz");
        let licence = "GPL-3.0-or-later AND LicenseRef-Own-Licence";
        assert_eq!(hello["licenseDeclared"], licence);
        assert_eq!(spdx["hasExtractedLicensingInfos"][0]["licenseId"], "LicenseRef-Own-Licence");
        let references = hello["externalRefs"].as_array().unwrap();
        let locators: Vec<_> =
            references.iter().map(|reference| &reference["referenceLocator"]).collect();
        assert_eq!(
            locators,
            [
                "pkg:nix/hello@2.12?outputhash=11111111111111111111111111111111",
                "pkg:github/example/hello@2.12",
                "cpe:2.3:a:gnu:hello:2.12:*:*:*:*:*:*:*",
            ]
        );
        let related = |kind: &str| {
            let all = spdx["relationships"].as_array().unwrap().iter();
            all.filter(|relation| relation["relationshipType"] == kind).count()
        };
        assert_eq!(["DESCRIBES", "CONTAINS", "DEPENDS_ON"].map(related), [1, 4, 1]);

        let components = cyclonedx["components"].as_array().unwrap();
        assert_eq!(components.len(), 4);
        let hello = components.iter().find(|component| component["name"] == "hello").unwrap();
        assert_eq!(hello["licenses"], json!([{"expression": licence}]));
        assert_eq!(hello["pedigree"]["ancestors"][0]["purl"], "pkg:github/example/hello@2.12");
        assert_eq!(
            hello["hashes"][0]["content"],
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let depends = cyclonedx["dependencies"].as_array().unwrap();
        let of_hello = depends.iter().find(|entry| entry["ref"] == hello["bom-ref"]).unwrap();
        assert_eq!(
            of_hello["dependsOn"],
            json!(["00000000000000000000000000000000-glibc-2.40-66-bin"])
        );
        assert_eq!(cyclonedx["metadata"]["timestamp"], "2024-05-06T05:08:09Z");
        assert_eq!(cyclonedx["metadata"]["component"]["name"], "app");
        assert_eq!(cyclonedx["metadata"]["component"]["version"], "v1");
    }

    #[test]
    fn names_say_what_evaluation_does_not() {
        let [spdx, cyclonedx] = documents(None, &Facts::default());
        let of = |name: &str| {
            let packages = spdx["packages"].as_array().unwrap();
            packages.iter().find(|package| package["name"] == name).unwrap().clone()
        };
        let purl = |package: &Value| package["externalRefs"][0]["referenceLocator"].clone();
        assert_eq!(
            purl(&of("glibc")),
            "pkg:nix/glibc@2.40-66?output=bin&outputhash=00000000000000000000000000000000"
        );
        assert_eq!(
            purl(&of("hello+x")),
            "pkg:nix/hello%2Bx@2.12?outputhash=11111111111111111111111111111111"
        );
        // A store path without a version has its hash instead.
        assert_eq!(of("app.json")["versionInfo"], "2".repeat(32));
        assert_eq!(of("glibc")["licenseDeclared"], "NOASSERTION");
        assert!(cyclonedx["components"][0].get("licenses").is_none());
    }

    #[test]
    fn lists_of_the_base_are_referred_to() {
        let spdx_base =
            r#"{"spdxVersion":"SPDX-2.3","documentNamespace":"https://example.org/base"}"#;
        let uuid = "3e671687-395b-41f5-a30f-a58921a69b79";
        let cdx_base = format!(r#"{{"bomFormat":"CycloneDX","serialNumber":"urn:uuid:{uuid}"}}"#);
        let bases = [spdx_base, &cdx_base].map(|base| BaseList::parse(base.as_bytes()).unwrap());
        let [spdx, cyclonedx] = documents_on(None, &Facts::default(), &bases);
        let digest = Digest::of(spdx_base.as_bytes()).hex();
        let expected = json!([{
            "externalDocumentId": "DocumentRef-base-1",
            "spdxDocument": "https://example.org/base",
            "checksum": {"algorithm": "SHA256", "checksumValue": digest},
        }]);
        assert_eq!(spdx["externalDocumentRefs"], expected);
        let relation = json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "DESCENDANT_OF",
            "relatedSpdxElement": "DocumentRef-base-1:SPDXRef-DOCUMENT",
        });
        assert!(spdx["relationships"].as_array().unwrap().contains(&relation));
        let urn = format!("urn:cdx:{uuid}/1");
        let references = spdx["packages"][0]["externalRefs"].as_array().unwrap();
        assert!(references.iter().any(|it| it["referenceLocator"] == urn), "{references:?}");
        let references = &cyclonedx["metadata"]["component"]["externalReferences"];
        assert_eq!(references[0]["url"], "https://example.org/base");
        assert_eq!(references[0]["hashes"][0]["content"], digest);
        assert_eq!((&references[1]["type"], &references[1]["url"]), (&json!("bom"), &json!(urn)));
    }

    #[test]
    fn documents_are_told_apart_by_all_that_is_in_them() {
        let ids = |name: Option<&str>, facts: &Facts| {
            let [spdx, cyclonedx] = documents(name, facts);
            (spdx["documentNamespace"].to_string(), cyclonedx["serialNumber"].to_string())
        };
        let none = Facts::default();
        let one = ids(None, &none);
        assert_eq!(one, ids(None, &none));
        for other in [ids(None, &facts()), ids(Some("app:v1"), &none)] {
            assert_ne!(one.0, other.0);
            assert_ne!(one.1, other.1);
        }
    }
}
