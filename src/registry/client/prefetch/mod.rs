//! Finds out the arguments that Nix's `pullImage` needs for an image in a registry.
//! Stage: registry. Input: an image's name. Output: [`Prefetched`].
//!
//! The hash is that of the directory which `skopeo copy … dir:` writes (`dir.rs`), as a NAR. A NAR
//! has its files in the order of their names: blobs are hashed in that order as they arrive, and
//! nothing is stored. For dockerTools' `pullImage` the hash is that of an archive which only skopeo
//! can write.

mod docker_archive;
mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use serde::Serialize;

use docker_archive::docker_archive_digest;
pub use error::PrefetchError;

use super::error::ClientError;
use super::no_answer::NoAnswer;
use super::repository::{Access, Client, ClientOptions, MANIFESTS, Presence};
use super::retry;
use crate::digest::{BlobDigest, Digest, DigestWriter};
use crate::error::with_causes;
use crate::foreign::PublicUrl;
use crate::layer::DirectoryNar;
use crate::oci::dir_format::{MANIFEST, VERSION, VERSION_TEXT};
use crate::oci::{ForeignConfig, ForeignDescriptor, ForeignDocument, Platform};
use crate::outgoing::{self, Reference, Tag, TagOrDigest, Watch};

/// The number of bytes that are read at a time.
const BUFFER: usize = 256 << 10;
/// The size of the largest blob that is read, larger than any blob that registries take.
const LARGEST_BLOB: u64 = 1 << 40;
/// The size of the longest configuration that is read.
const LONGEST_CONFIG: u64 = 8 << 20;

/// The `pullImage` function that the arguments are for: the hash is that of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PulledAs {
    /// stowage's function, whose result is a directory.
    Dir,
    /// dockerTools' function, whose result is a docker-archive with the image's name and tag in it.
    DockerArchive,
}

/// A request for the arguments of `pullImage` for an image.
pub struct Prefetch<'a> {
    /// The image's name, with a digest or without.
    pub reference: &'a Reference,
    /// The platform of the image; none for all images of an index. An image that is not in an index
    /// may be for another platform unless `strict`.
    pub platform: Option<&'a Platform>,
    /// True if a single image must be for that platform too.
    pub strict: bool,
    /// The function that the arguments are for.
    pub pulled_as: PulledAs,
    /// The image's name after it is pulled, if it is to change.
    pub final_image_name: Option<&'a str>,
    /// The image's tag after it is pulled, if it is to change.
    pub final_image_tag: Option<&'a str>,
    /// The options of the client.
    pub options: &'a ClientOptions,
}

/// The arguments of `pullImage` for an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prefetched {
    /// The image's name, with its registry.
    pub image_name: String,
    /// The digest of the image's manifest.
    pub image_digest: BlobDigest,
    /// The hash of the pulled image, in the form of Nix expressions: `sha256-` and base 64.
    pub hash: String,
    /// The image's name after it is pulled.
    pub final_image_name: String,
    /// The image's tag after it is pulled.
    pub final_image_tag: String,
    /// True if the image can only be pulled without a verified certificate.
    #[serde(skip)]
    pub insecure: bool,
    /// The operating system that the image is for.
    pub os: String,
    /// The architecture that the image is for.
    pub arch: String,
}

/// Reads the image's manifest from the first place that has it, which may be a mirror.
fn find<'w>(
    wanted: &Prefetch,
    watch: &'w dyn Watch,
) -> Result<(Client<'w>, Manifest), PrefetchError> {
    let Prefetch { reference, options, .. } = wanted;
    let sources = options.registries.sources(reference).map_err(ClientError::from)?;
    // The places that failed. The last place is the registry itself.
    let mut mirrors = Vec::new();
    for source in &sources {
        let read = || {
            let options = options.at(reference, source);
            let client = Client::connect(&source.reference, Access::Pull, &options, watch)?;
            let image = source.reference.name();
            let puller = Puller { client: &client, watch, image: &image };
            // If there is a digest, it decides, and not the tag.
            let name =
                reference.digest().map_or_else(|| reference.tag_or_digest(), TagOrDigest::from);
            let manifest = puller.manifest(&name)?;
            Ok((client, manifest))
        };
        match read() {
            // If the command was ended, the mirror is not at fault: try no other place.
            Err(
                error @ (PrefetchError::Outgoing(_)
                | PrefetchError::Registry(ClientError::Outgoing(_))),
            ) => return Err(error),
            Err(error) if mirrors.len() + 1 < sources.len() => {
                mirrors.push(format!("{}: {}", source.reference.registry(), with_causes(&error)));
            }
            Err(last) if !mirrors.is_empty() => {
                return Err(PrefetchError::AfterMirrors { mirrors, last: Box::new(last) });
            }
            end => return end,
        }
    }
    Err(PrefetchError::NoImage(reference.to_string()))
}

/// Finds out the arguments for an image; for an index, those of one image or of all.
///
/// # Errors
/// Fails with [`PrefetchError`] if the image can't be read.
pub fn prefetch(wanted: &Prefetch, watch: &dyn Watch) -> Result<Vec<Prefetched>, PrefetchError> {
    let reference = wanted.reference;
    let image_name = reference.name();
    let tag = reference.tag().cloned().unwrap_or_else(Tag::latest).to_string();
    let (client, found) = find(wanted, watch)?;
    let puller = Puller { client: &client, watch, image: &image_name };
    let images = match found.document.manifests() {
        Some(entries) => puller.of_index(entries, wanted)?,
        None => vec![(found, None)],
    };
    let blobs = images.iter().map(|(manifest, _)| puller.blobs(manifest));
    let blobs = blobs.collect::<Result<Vec<_>, _>>()?;
    let sizes = blobs.iter().flat_map(BTreeMap::values);
    // The sizes are from manifests of other programs, and their sum may be too large for a `u64`.
    watch.expect(sizes.fold(0, |total, size| total.saturating_add(*size)));
    let final_image_name = wanted.final_image_name.unwrap_or(&image_name);
    let final_image_tag = wanted.final_image_tag.unwrap_or(&tag);
    let prefetched = images.into_iter().zip(blobs).map(|((manifest, platform), blobs)| {
        let config = manifest.config();
        // The platform in the index's entry counts; if there is none, the one in the configuration.
        let (hash, said) = match wanted.pulled_as {
            PulledAs::Dir => puller.hash(&manifest, &blobs, config)?,
            PulledAs::DockerArchive => {
                let image = format!("{image_name}@{}", manifest.digest);
                let reference = format!("{final_image_name}:{final_image_tag}");
                let digest = docker_archive_digest(&image, &reference, wanted.options, watch)?;
                (digest.to_sri(), puller.platform(&blobs, config)?)
            }
        };
        let platform = platform.or(said);
        if let Some(wanted) = wanted.platform.filter(|_| wanted.strict)
            && !platform.as_ref().is_some_and(|platform| platform.is(wanted))
        {
            let there = platform.map_or("one for none".to_owned(), |there| there.to_string());
            return Err(puller.no_platform(wanted, there));
        }
        let platform = platform.or_else(|| wanted.platform.cloned());
        let Platform { os, architecture: arch, .. } = platform.unwrap_or_default();
        Ok(Prefetched {
            image_name: image_name.clone(),
            image_digest: manifest.digest,
            hash,
            final_image_name: final_image_name.to_owned(),
            final_image_tag: final_image_tag.to_owned(),
            insecure: !client.is_verified(),
            os,
            arch,
        })
    });
    prefetched.collect()
}

/// The result of pulling an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// The digest of the manifest is a known one, and the registry has all blobs: nothing was
    /// written.
    Known,
    /// The image was written to the directory.
    Directory,
}

/// Pulls an image to a directory in the format of skopeo's `dir:`, unless the digest of its
/// manifest is in `known`.
///
/// # Errors
/// Fails with [`PrefetchError`].
pub fn pull(
    reference: &Reference,
    platform: &Platform,
    known: &BTreeSet<BlobDigest>,
    directory: &Path,
    options: &ClientOptions,
    watch: &dyn Watch,
) -> Result<Pulled, PrefetchError> {
    let wanted = Prefetch {
        reference,
        platform: Some(platform),
        strict: false,
        pulled_as: PulledAs::Dir,
        final_image_name: None,
        final_image_tag: None,
        options,
    };
    let image = reference.name();
    let (client, found) = find(&wanted, watch)?;
    let puller = Puller { client: &client, watch, image: &image };
    let manifest = match found.document.manifests() {
        Some(entries) => {
            let images = puller.of_index(entries, &wanted)?;
            images.into_iter().map(|(manifest, _)| manifest).next()
        }
        None => Some(found),
    };
    let manifest = manifest.ok_or_else(|| PrefetchError::NoImage(reference.to_string()))?;
    let blobs = puller.blobs(&manifest)?;
    if known.contains(&manifest.digest) {
        for (digest, &size) in &blobs {
            if client.has_blob(digest, size)? == Presence::Missing {
                return Err(PrefetchError::NoImage(format!("blob {digest} in {image}")));
            }
        }
        return Ok(Pulled::Known);
    }
    watch.expect(blobs.values().sum());
    watch.hold();
    let write = |name: &str, write: &dyn Fn(&mut dyn Write) -> Result<(), PrefetchError>| {
        let path = directory.join(name);
        let failed = |source| outgoing::Error::File { path: path.clone(), source };
        let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
        write(&mut file)?;
        file.flush().map_err(failed)?;
        Ok::<_, PrefetchError>(())
    };
    for (digest, &size) in &blobs {
        write(&digest.digest().hex(), &|out| puller.blob(digest, size, out))?;
    }
    let all =
        |out: &mut dyn Write, bytes: &[u8]| out.write_all(bytes).map_err(outgoing::Error::Write);
    write(MANIFEST, &|out| Ok(all(out, &manifest.bytes)?))?;
    write(VERSION, &|out| Ok(all(out, VERSION_TEXT)?))?;
    Ok(Pulled::Directory)
}

/// Reads the platform in an image's configuration, if it names one.
fn platform_of(config: &[u8]) -> Option<Platform> {
    ForeignConfig::parse(config).ok()?.platform()
}

/// A manifest with the bytes that the registry has.
struct Manifest {
    digest: BlobDigest,
    bytes: Vec<u8>,
    document: ForeignDocument,
}

impl Manifest {
    fn config(&self) -> Option<BlobDigest> {
        self.document.config()?.digest().ok()
    }
}

struct Puller<'a> {
    client: &'a Client<'a>,
    watch: &'a dyn Watch,
    image: &'a str,
}

impl Puller<'_> {
    fn manifest(&self, name: &TagOrDigest) -> Result<Manifest, PrefetchError> {
        let image = match name {
            TagOrDigest::Tag(tag) => format!("{}:{tag}", self.image),
            TagOrDigest::Digest(digest) => format!("{}@{digest}", self.image),
        };
        let bytes = self.client.get(&format!("manifests/{name}"), MANIFESTS)?;
        let bytes = bytes.ok_or_else(|| PrefetchError::NoImage(image.clone()))?;
        let digest = BlobDigest::new(Digest::of(&bytes));
        if let TagOrDigest::Digest(expected) = name
            && *expected != digest
        {
            let (expected, found) = (expected.to_string(), digest.to_string());
            let what = format!("the manifest of {}", self.image);
            return Err(PrefetchError::Changed { what, expected, found });
        }
        let document = ForeignDocument::parse(&bytes)
            .map_err(|reason| PrefetchError::Manifest { image, reason })?;
        Ok(Manifest { digest, bytes, document })
    }

    /// Returns the images of an index that are asked for.
    fn of_index(
        &self,
        entries: Vec<ForeignDescriptor>,
        wanted: &Prefetch,
    ) -> Result<Vec<(Manifest, Option<Platform>)>, PrefetchError> {
        let platforms = entries.into_iter().map(|entry| (entry, entry.platform()));
        let known = |platform: &Option<Platform>| platform.as_ref().is_none_or(Platform::is_known);
        let mut images: Vec<_> = platforms.filter(|(_, platform)| known(platform)).collect();
        if let Some(wanted) = wanted.platform {
            let there = images.iter().filter_map(|(_, p)| Some(p.as_ref()?.to_string()));
            let there = there.collect::<Vec<_>>().join(", ");
            images.retain(|(_, platform)| platform.as_ref().is_some_and(|it| it.is(wanted)));
            // `pullImageFromManifest` chooses the same entry.
            images.sort_by_key(|(_, platform)| platform.as_ref()?.variant.clone());
            images.truncate(1);
            if images.is_empty() {
                return Err(self.no_platform(wanted, there));
            }
        }
        let images = images.into_iter().map(|(entry, platform)| {
            let digest = entry.digest().map_err(|error| self.malformed(error.to_string()))?;
            Ok((self.manifest(&digest.into())?, platform))
        });
        images.collect()
    }

    fn no_platform(&self, wanted: &Platform, there: String) -> PrefetchError {
        let (image, wanted) = (self.image.to_owned(), wanted.clone());
        PrefetchError::NoPlatform { image, wanted, there }
    }

    fn malformed(&self, reason: String) -> PrefetchError {
        PrefetchError::Manifest { image: self.image.to_owned(), reason }
    }

    /// Returns the blobs that a manifest names, with their sizes. The map has each blob once,
    /// though an image may name a layer twice.
    fn blobs(&self, manifest: &Manifest) -> Result<BTreeMap<BlobDigest, u64>, PrefetchError> {
        let document = &manifest.document;
        let (Some(config), Some(layers)) = (document.config(), document.layers()) else {
            let reason = "not the manifest of an image, with `config` and `layers`: docker's first schema \
                          is to be pushed anew";
            return Err(self.malformed(reason.to_owned()));
        };
        let blobs = layers.into_iter().chain([config]).map(|blob| {
            let digest = blob.digest().map_err(|error| self.malformed(error.to_string()))?;
            let size = blob.size();
            let size = size.ok_or_else(|| self.malformed(format!("{digest} has no size")))?;
            if size > LARGEST_BLOB {
                let reason = format!("{digest} is said to have {size} bytes, over 1 TiB");
                return Err(self.malformed(reason));
            }
            Ok((digest, size))
        });
        blobs.collect()
    }

    /// Returns the hash of an image's directory, and the platform that its configuration names.
    fn hash(
        &self,
        manifest: &Manifest,
        blobs: &BTreeMap<BlobDigest, u64>,
        config: Option<BlobDigest>,
    ) -> Result<(String, Option<Platform>), PrefetchError> {
        let mut nar = DirectoryNar::new().map_err(outgoing::Error::Write)?;
        let mut platform = None;
        for (digest, &size) in blobs {
            nar.begin(&digest.digest().hex(), size).map_err(outgoing::Error::Write)?;
            if config == Some(*digest) && size <= LONGEST_CONFIG {
                let text = self.config(digest, size)?;
                nar.write_all(&text).map_err(outgoing::Error::Write)?;
                platform = platform_of(&text);
            } else {
                self.blob(digest, size, &mut nar)?;
            }
            nar.end().map_err(outgoing::Error::Write)?;
        }
        for (name, bytes) in [(MANIFEST, &*manifest.bytes), (VERSION, VERSION_TEXT)] {
            let mut add = || {
                nar.begin(name, bytes.len() as u64)?;
                nar.write_all(bytes)?;
                nar.end()
            };
            add().map_err(outgoing::Error::Write)?;
        }
        Ok((nar.finish().map_err(outgoing::Error::Write)?.to_sri(), platform))
    }

    /// Returns the platform that an image's configuration names.
    fn platform(
        &self,
        blobs: &BTreeMap<BlobDigest, u64>,
        config: Option<BlobDigest>,
    ) -> Result<Option<Platform>, PrefetchError> {
        let config = config.and_then(|digest| Some((digest, *blobs.get(&digest)?)));
        let Some((digest, size)) = config.filter(|(_, size)| *size <= LONGEST_CONFIG) else {
            return Ok(None);
        };
        Ok(platform_of(&self.config(&digest, size)?))
    }

    fn config(&self, digest: &BlobDigest, size: u64) -> Result<Vec<u8>, PrefetchError> {
        let mut text = Vec::new();
        self.blob(digest, size, &mut text)?;
        Ok(text)
    }

    /// Reads a blob, checks it and passes it on. Resumes where the connection breaks.
    fn blob(
        &self,
        digest: &BlobDigest,
        size: u64,
        out: &mut dyn Write,
    ) -> Result<(), PrefetchError> {
        let changed = |expected: String, found: String| {
            let what = format!("blob {digest} of {}", self.image);
            PrefetchError::Changed { what, expected, found }
        };
        let mut checked = DigestWriter::new(out);
        let mut buffer = vec![0; BUFFER];
        let (mut had, mut attempt) = (0, 0);
        loop {
            let Some((mut begins, mut reader)) = self.client.open(digest, had)? else {
                let image = format!("blob {digest} in {}", self.image);
                return Err(PrefetchError::NoImage(image));
            };
            let before = had;
            let broken = loop {
                let read = match reader.read(&mut buffer) {
                    Ok(0) if had < size => break "the connection broke".to_owned(),
                    Ok(read) => read,
                    Err(error) => break error.to_string(),
                };
                if read == 0 {
                    let found = BlobDigest::new(checked.finish().0);
                    if found != *digest {
                        return Err(changed(digest.to_string(), found.to_string()));
                    }
                    self.client.blob_moved();
                    return Ok(());
                }
                // A registry that does not support ranges begins at the first byte again.
                let known = had.saturating_sub(begins).min(read as u64);
                begins += read as u64;
                let new = &buffer[known as usize..read];
                if begins > size {
                    return Err(changed(format!("{size} bytes"), "more".to_owned()));
                }
                checked.write_all(new).map_err(outgoing::Error::Write)?;
                had += new.len() as u64;
                self.watch.advance(new.len() as u64).map_err(outgoing::Error::Write)?;
            };
            attempt = if had > before { 0 } else { attempt + 1 };
            let url = self.client.url(&format!("blobs/{digest}"));
            if attempt == retry::ATTEMPTS {
                let (url, reason) = (PublicUrl::of(&url), NoAnswer::Broken(broken));
                return Err(ClientError::Unreachable { url, reason }.into());
            }
            self.client.pause(attempt, &PublicUrl::of(&url), &broken)?;
        }
    }
}
