//! Reads a base image, and checks its bytes against its digests.
//! Stage: oci. Opens files. Input: a path. Output: [`BaseImage`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rayon::prelude::*;

use super::documents::Descriptor;
use super::error::{Error, ImageRole, Problem};
use super::files::Files;
use super::formats::{ImageParts, LayerPart, parts};
use super::image::{BaseImage, LayerTree, check_trees};
use super::inherit::inherit_history;
use super::name::BaseName;
use super::own::own_image;
use super::scan::{Scan, scan};
use crate::digest::DiffId;
use crate::layer::LayerBudget;
use crate::oci::architecture::Architecture;
use crate::oci::chunked::TocPlace;
use crate::oci::compression::Compression;
use crate::oci::media_type::LayerMediaType;
use crate::oci::platform::Platform;
use crate::oci::spec_layer::{LayerSource, SpecLayer};
use crate::oci::stored::{BlobPlace, StoredBlob};
use crate::oci::unpack::Budget;
use crate::store::Store;

/// Reads a base image of any format completely, and checks every digest, in parallel. The layers of
/// an image that stowage built are known, and are not read.
///
/// `path` is a docker-archive or an OCI archive, which may be compressed as a whole, or a
/// directory: an OCI layout, one that `skopeo copy … dir:` wrote, or a `manifest.json` beside its
/// blobs. A transport may stand before it, and the name of one of its images after it
/// ([`BaseName`]).
///
/// # Errors
/// Fails with [`Error`], which names the file and the layer, if the image is not valid.
pub fn read_base(
    store: &Store,
    path: &Path,
    architecture: &Architecture,
) -> Result<BaseImage, Error> {
    let error = |layer, problem| Error {
        role: ImageRole::Base,
        file: path.to_owned(),
        layer,
        problem: Box::new(problem),
    };
    let wanted = Platform::linux(architecture);
    let BaseName { path: location, reference, .. } = BaseName::parse(path);
    if reference.is_none() {
        let own = own_image(store, &location, &wanted).map_err(|problem| error(None, problem))?;
        if let Some(own) = own {
            return Ok(own);
        }
    }
    let files = Files::open(store, &location).map_err(|problem| error(None, problem))?;
    let ImageParts { configuration, layers } =
        parts(&files, &wanted, reference.as_deref()).map_err(|problem| error(None, problem))?;
    let count = layers.len();
    if count > usize::from(LayerBudget::MAX) {
        return Err(error(None, Problem::TooManyLayers(count)));
    }
    let diff_ids = configuration.diff_ids;
    if diff_ids.len() != count {
        let found = format!("{count} layers");
        let expected = format!("{} diff IDs", diff_ids.len());
        let what = "the manifest".to_owned();
        let problem = Problem::Mismatch { what, expected, found, by: "the configuration" };
        return Err(error(None, problem));
    }
    let layer_error = |index: usize| move |problem| error(Some((index + 1, count)), problem);
    let mut places = Vec::new();
    for (index, part) in layers.iter().enumerate() {
        places.push(place(&files, part).map_err(layer_error(index))?);
    }
    let mut scans = scan_all(store, &places);

    let (mut read, mut trees) = (Vec::new(), Vec::new());
    for (index, ((part, place), diff_id)) in layers.iter().zip(places).zip(diff_ids).enumerate() {
        // An image may have a layer twice.
        let Some(Ok(scanned)) = scans.get(&place) else {
            return Err(layer_error(index)(failure(&mut scans, &place)));
        };
        let blob = checked(scanned, part, place, diff_id).map_err(layer_error(index))?;
        read.push(SpecLayer {
            diff_id,
            size: scanned.uncompressed_size,
            checksum: None,
            source: LayerSource::Stored(blob),
            compressed: None,
            compressed_file: None,
        });
        trees.push(LayerTree { tree: scanned.tree.clone(), of_store_paths: false });
    }
    check_trees(&trees).map_err(|(layer, problem)| layer_error(layer)(problem))?;
    let history = inherit_history(&configuration.document, count);
    BaseImage::new(configuration.document, history, read, Vec::new(), trees)
        .map_err(|problem| error(None, problem))
}

/// Returns the place of a layer's bytes. Fails if their media type is not supported.
fn place(files: &Files, part: &LayerPart) -> Result<BlobPlace, Problem> {
    if let Some(Descriptor { media_type, .. }) = &part.descriptor {
        media_type.parse::<LayerMediaType>()?;
    }
    let place = files.find(&part.name)?.ok_or_else(|| Problem::Missing(part.name.clone()))?;
    // The image spec, which is JSON, has to name the file.
    if place.file.to_str().is_none() {
        return Err(Problem::OddName(place.file));
    }
    Ok(place)
}

type Scans = BTreeMap<BlobPlace, Result<Scan, Problem>>;

/// Reads every place once: in parallel, except for places in a compressed archive, which are read
/// in order.
fn scan_all(store: &Store, places: &[BlobPlace]) -> Scans {
    let unique: BTreeMap<&BlobPlace, ()> = places.iter().map(|place| (place, ())).collect();
    let unique: Vec<&BlobPlace> = unique.into_keys().collect();
    let budget = &Budget::default();
    if unique.iter().any(|place| !place.archive.is_none()) {
        return scan_in_turn(store, &unique, budget);
    }
    unique.into_par_iter().map(|place| (place.clone(), scan_at(store, place, budget))).collect()
}

/// Reads the places of one archive, sorted by their offsets, so that the archive is decompressed
/// once.
fn scan_in_turn(store: &Store, places: &[&BlobPlace], budget: &Budget) -> Scans {
    let mut scans = Scans::new();
    for place in places {
        let scanned = scan_at(store, place, budget);
        let failed = scanned.is_err();
        scans.insert((*place).clone(), scanned);
        // The others would fail as well, each after decompressing the archive from the start.
        if failed {
            break;
        }
    }
    scans
}

fn scan_at(store: &Store, place: &BlobPlace, budget: &Budget) -> Result<Scan, Problem> {
    scan(place.open(store).map_err(|source| read_error(place, source))?, budget)
}

/// Returns the reason why a place was not read.
fn failure(scans: &mut Scans, place: &BlobPlace) -> Problem {
    match scans.remove(place) {
        Some(Err(problem)) => problem,
        _ => read_error(place, io::Error::other("another layer in it can't be read")),
    }
}

fn read_error(place: &BlobPlace, source: io::Error) -> Problem {
    Problem::Read { file: place.file.clone(), source }
}

/// Checks that the bytes are those that the image's documents describe.
fn checked(
    scanned: &Scan,
    part: &LayerPart,
    place: BlobPlace,
    diff_id: DiffId,
) -> Result<StoredBlob, Problem> {
    let mismatch = |what: &str, expected: String, found: String, by| {
        Err(Problem::Mismatch { what: what.to_owned(), expected, found, by })
    };
    let manifest = "the image manifest";
    let declared = match &part.descriptor {
        Some(Descriptor { size, .. }) if *size != scanned.size => {
            let (expected, found) = (format!("{size} bytes"), format!("{} bytes", scanned.size));
            return mismatch("the blob", expected, found, manifest);
        }
        Some(Descriptor { digest, .. }) if *digest != scanned.digest => {
            let (expected, found) = (digest.to_string(), scanned.digest.to_string());
            return mismatch("the blob", expected, found, manifest);
        }
        Some(Descriptor { media_type, .. }) => media_type.parse()?,
        None => LayerMediaType::oci(scanned.compression),
    };
    if scanned.diff_id != diff_id {
        let (expected, found) = (diff_id.to_string(), scanned.diff_id.to_string());
        return mismatch("the uncompressed layer", expected, found, "the image configuration");
    }
    // skopeo names a layer `…tar.gzip` even if it copied it uncompressed from a docker-archive.
    let media_type = LayerMediaType { compression: scanned.compression, ..declared };
    let annotations = part.descriptor.as_ref().and_then(|it| it.annotations.as_ref());
    let toc = annotations.and_then(|annotations| {
        TocPlace::of_annotations(|key| annotations.get(key).map(String::as_str))
    });
    // A table that is not there is the base's mistake, and no reason for another one.
    let is_chunked = media_type.compression == Compression::Zstd;
    let toc = toc.filter(|toc| is_chunked && toc.is_within(scanned.size));
    let BlobPlace { file, offset, archive, size } = place;
    Ok(StoredBlob { file, offset, archive, digest: scanned.digest, size, media_type, toc })
}
