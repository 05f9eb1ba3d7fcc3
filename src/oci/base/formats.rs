//! Recognises the format of an image by its files.
//! Stage: oci. Input: [`Files`]. Output: [`ImageParts`], in one form for all formats.

use std::collections::BTreeSet;

use super::choice::choose;
use super::documents::{Configuration, Descriptor, DockerImage, ImageManifest, parse};
use super::error::Problem;
use super::files::Files;
use crate::digest::BlobDigest;
use crate::oci::platform::Platform;
use crate::oci::stored::BlobPlace;
use crate::oci::unpack;

/// The configuration and layers of an image, before any layer was read.
pub struct ImageParts {
    /// The configuration.
    pub configuration: Configuration,
    /// The layers from the bottom up.
    pub layers: Vec<LayerPart>,
}

/// A layer as the image's documents describe it.
pub struct LayerPart {
    /// The name of the layer's file.
    pub name: String,
    /// The descriptor in the manifest; none in a docker-archive.
    pub descriptor: Option<Descriptor>,
}

/// The largest depth of an index within an index.
const DEPTH: usize = 4;
const INDEX: &str = "index.json";
const MANIFEST: &str = "manifest.json";
const BY_MANIFEST: &str = "the image manifest";
const BY_INDEX: &str = "the index";

/// Finds the image for a platform, in any format.
///
/// # Errors
/// Fails with [`Problem::NotAnImage`], [`Problem::Platform`] or [`Problem::Ambiguous`] if there is
/// not exactly one such image, or with another [`Problem`] if a document is not valid.
pub fn parts(
    files: &Files,
    wanted: &Platform,
    reference: Option<&str>,
) -> Result<ImageParts, Problem> {
    // If there are both, the archive has two formats: prefer OCI's, which has digests to check.
    if let Some(bytes) = files.read(INDEX, unpack::MANIFEST)? {
        let mut index = ImageManifest::parse(INDEX, &bytes)?;
        if let Some(reference) = reference {
            keep_named(&mut index, reference)?;
        }
        return Blobs { files, names: &[|hex| format!("blobs/sha256/{hex}")] }
            .chosen(&index, wanted);
    }
    let Some(bytes) = files.read(MANIFEST, unpack::MANIFEST)? else {
        let reason = format!("there is neither `{INDEX}` nor `{MANIFEST}` in it");
        return Err(Problem::NotAnImage(reason));
    };
    if bytes.trim_ascii_start().starts_with(b"[") {
        return docker_archive(files, &bytes, wanted, reference);
    }
    if let Some(reference) = reference {
        let reference = reference.to_owned();
        return Err(Problem::NoReference { reference, there: Vec::new() });
    }
    // A directory that skopeo wrote, or a manifest beside its blobs.
    let blobs = Blobs {
        files,
        names: &[
            |hex| hex.to_owned(),
            |hex| format!("{hex}.manifest.json"),
            |hex| format!("blobs/{hex}"),
            |hex| format!("blobs/sha256/{hex}"),
        ],
    };
    let manifest = ImageManifest::parse(MANIFEST, &bytes)?;
    if manifest.manifests.is_some() {
        return blobs.chosen(&manifest, wanted);
    }
    let parts = blobs.parts(MANIFEST, &manifest)?;
    checked_platform(parts, wanted)
}

/// Reads a docker-archive (moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset
/// Format"): one `manifest.json` for all images, and layers of any name.
fn docker_archive(
    files: &Files,
    bytes: &[u8],
    wanted: &Platform,
    reference: Option<&str>,
) -> Result<ImageParts, Problem> {
    let mut images: Vec<DockerImage> = parse(MANIFEST, "docker-archive manifest", bytes)?;
    if let Some(reference) = reference {
        let names = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
        let there = images.iter().flat_map(names).collect();
        images.retain(|image| names(image).iter().any(|name| is_called(name, reference)));
        if images.is_empty() {
            return Err(Problem::NoReference { reference: reference.to_owned(), there });
        }
    }
    let configs: BTreeSet<_> = images.iter().map(|image| image.config.clone()).collect();
    if configs.len() > 1 {
        return Err(Problem::Ambiguous { count: configs.len(), platform: None });
    }
    let Some(image) = images.pop() else {
        return Err(Problem::NotAnImage(format!("`{MANIFEST}` lists no image")));
    };
    let bytes = files.read(&image.config, unpack::CONFIG)?;
    let bytes = bytes.ok_or_else(|| Problem::Missing(image.config.clone()))?;
    let configuration = Configuration::parse(&image.config, &bytes)?;
    let layers =
        image.layers.into_iter().map(|name| LayerPart { name, descriptor: None }).collect();
    checked_platform(ImageParts { configuration, layers }, wanted)
}

/// Removes from an index all entries that do not have the name.
fn keep_named(index: &mut ImageManifest, reference: &str) -> Result<(), Problem> {
    let manifests = index.manifests.get_or_insert_default();
    let there: BTreeSet<_> =
        manifests.iter().flat_map(Descriptor::names).map(str::to_owned).collect();
    manifests.retain(|descriptor| descriptor.names().any(|name| is_called(name, reference)));
    if manifests.is_empty() {
        let there = there.into_iter().collect();
        return Err(Problem::NoReference { reference: reference.to_owned(), there });
    }
    Ok(())
}

/// Returns whether `reference` means an image called `name`. The reference may leave out what
/// Docker adds to names: its registry and `latest`.
fn is_called(name: &str, reference: &str) -> bool {
    let whole = |text: &str| {
        let text = text.strip_prefix("docker.io/").unwrap_or(text);
        let text = text.strip_prefix("library/").unwrap_or(text);
        text.strip_suffix(":latest").unwrap_or(text).to_owned()
    };
    name == reference || whole(name) == whole(reference)
}

fn checked_platform(parts: ImageParts, wanted: &Platform) -> Result<ImageParts, Problem> {
    let found = &parts.configuration.platform;
    if found.is(wanted) {
        return Ok(parts);
    }
    Err(Problem::Platform { found: found.to_string(), wanted: wanted.clone() })
}

/// Files that are named by their digests.
struct Blobs<'a> {
    files: &'a Files<'a>,
    /// The names that a blob may have, from the digits of its digest.
    names: &'a [fn(&str) -> String],
}

impl Blobs<'_> {
    /// Returns the name and the place of a blob.
    fn find(&self, digest: &BlobDigest) -> Result<(String, BlobPlace), Problem> {
        let hex = digest.digest().hex();
        for name in self.names.iter().map(|name| name(&hex)) {
            if let Some(place) = self.files.find(&name)? {
                return Ok((name, place));
            }
        }
        Err(Problem::Missing(self.names[0](&hex)))
    }

    fn read(
        &self,
        descriptor: &Descriptor,
        by: &'static str,
        most: u64,
    ) -> Result<(String, Vec<u8>), Problem> {
        let (name, _) = self.find(&descriptor.digest)?;
        let bytes = self.files.read(&name, most)?.ok_or_else(|| Problem::Missing(name.clone()))?;
        descriptor.check(&name, &bytes, by)?;
        Ok((name, bytes))
    }

    /// Reads the image of an index for a platform.
    fn chosen(&self, index: &ImageManifest, wanted: &Platform) -> Result<ImageParts, Problem> {
        let (mut found, mut other) = (Vec::new(), None);
        self.candidates(index, 0, &mut found, &mut other)?;
        if let (true, Some(problem)) = (found.is_empty(), other) {
            return Err(problem);
        }
        let descriptor = choose(found, wanted, |descriptor| descriptor.digest)?;
        let (name, bytes) = self.read(&descriptor, BY_INDEX, unpack::MANIFEST)?;
        // The index may be wrong: the platform in the configuration counts.
        checked_platform(self.parts(&name, &ImageManifest::parse(&name, &bytes)?)?, wanted)
    }

    /// Finds every image of an index, with its platform. Skips entries that are not images, such as
    /// a signature or a list of packages; `other` keeps the description of the first of these.
    fn candidates(
        &self,
        index: &ImageManifest,
        depth: usize,
        found: &mut Vec<(Platform, Descriptor)>,
        other: &mut Option<Problem>,
    ) -> Result<(), Problem> {
        for descriptor in index.manifests.iter().flatten() {
            if descriptor.is_something_else() {
                let kind = descriptor.artifact_type.as_ref().unwrap_or(&descriptor.media_type);
                let reason = format!("what it lists is of the type `{kind}`");
                other.get_or_insert(Problem::NotAnImage(reason));
                continue;
            }
            if let Some(platform) = &descriptor.platform {
                found.push((platform.clone(), descriptor.clone()));
                continue;
            }
            let (name, bytes) = self.read(descriptor, BY_INDEX, unpack::MANIFEST)?;
            let manifest = ImageManifest::parse(&name, &bytes)?;
            if !manifest.may_be_image() {
                let about = || Problem::NotAnImage(format!("`{name}` is about another manifest"));
                other.get_or_insert_with(|| {
                    manifest.configuration(&name).err().unwrap_or_else(about)
                });
                continue;
            }
            if manifest.manifests.is_some() {
                if depth == DEPTH {
                    let reason = format!("it is the index of an index, {DEPTH} times over");
                    return Err(Problem::Document { name, what: "index", reason });
                }
                self.candidates(&manifest, depth + 1, found, other)?;
            } else {
                let platform = self.parts(&name, &manifest)?.configuration.platform;
                found.push((platform, descriptor.clone()));
            }
        }
        Ok(())
    }

    fn parts(&self, name: &str, manifest: &ImageManifest) -> Result<ImageParts, Problem> {
        let (config_name, bytes) =
            self.read(manifest.configuration(name)?, BY_MANIFEST, unpack::CONFIG)?;
        let configuration = Configuration::parse(&config_name, &bytes)?;
        let hex_name = |descriptor: &Descriptor| match self.find(&descriptor.digest) {
            Ok((name, _)) => Ok(name),
            // The error is reported with the layer's number when the layer is read.
            Err(Problem::Missing(name)) => Ok(name),
            Err(problem) => Err(problem),
        };
        let part = |descriptor: &Descriptor| {
            Ok(LayerPart { name: hex_name(descriptor)?, descriptor: Some(descriptor.clone()) })
        };
        let layers = manifest.layers.iter().map(part).collect::<Result<_, Problem>>()?;
        Ok(ImageParts { configuration, layers })
    }
}
