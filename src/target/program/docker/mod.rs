//! Copies an image into a Docker daemon, and sends the layers that it lacks.
//! Stage: target. Input: [`ImageSpec`]. Output: an image in the daemon.
//!
//! All requests go through the `docker` client, so that contexts, `DOCKER_HOST` and ssh work as
//! they do for its user.
//!
//! A daemon keys a layer by its *chain*: the layer and all layers below it (image-spec, config.md,
//! "Layer ChainID"). `docker load` looks a chain up before it opens the layer's tar (moby,
//! `image/tarexport/load.go`), so the tar of a layer whose chain is known may be left out. The
//! known chains are the prefixes of the layers of every image.

mod client;
mod image_store;
mod known;
mod pull;

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use rayon::prelude::*;

pub use client::DockerError;
use client::{command, run, said};
use image_store::{ImageStore, image_store};
use known::{Known, Wanted, has_image, known};
use pull::pull;

use crate::digest::DiffId;
use crate::oci::{Form, Image, ImageSpec, ManifestFormat, SpecLayer};
use crate::outgoing::{
    self, CheckedBy, Copied, Hashing, ImageLayer, ImageReference, LayerStep, Tally, Watch, Watched,
    run_program, write_hashed_layer,
};
use crate::sink::Spliced;
use crate::store::Store;
use crate::system;
use crate::target::archive::{Archive, Written, write_archive};

/// Loads an image into the daemon that `docker` talks to.
///
/// # Errors
/// Fails with [`DockerError::NoDocker`] if the client can't be run, with [`DockerError::Failed`],
/// which has what the client printed, with [`DockerError::LoadedWrong`], or if the image can't be
/// streamed.
pub fn copy_to_docker_daemon(
    store: &Store,
    spec: &ImageSpec,
    reference: &ImageReference,
    watch: &dyn Watch,
) -> Result<Copied, DockerError> {
    let image_store = image_store()?;
    if image_store == ImageStore::Containerd
        && let Some(copied) = pull(store, spec, reference, watch)?
    {
        return Ok(copied);
    }
    let form = image_store.form();
    let documents = Image::in_form(spec, form, ManifestFormat::Oci);
    let wanted = Wanted { documents: &documents, layers: diff_ids(spec) };
    let known = match image_store {
        ImageStore::Classic => known(&wanted)?,
        // An image with a layer's diff ID does not prove that containerd has the bytes that this
        // archive would leave out: containerd keeps blobs as they came, compressed or not.
        ImageStore::Containerd | ImageStore::Other => Known::default(),
    };
    if let Some(id) = &known.image
        && run(&["image", "tag", id, &reference.to_string()])?.status.success()
    {
        return Ok(already_there(spec, form, documents, watch));
    }
    let known = known.layers;
    let references = std::slice::from_ref(reference);
    // The daemon computes the digest of each layer that it unpacks.
    let checked_by = CheckedBy::Receiver;
    let attempt = |skip| {
        let written = load(&Archive { store, spec, form, references, skip, checked_by, watch })?;
        if has_image(reference, &wanted)? {
            return Ok(written);
        }
        Err(DockerError::LoadedWrong { reference: reference.to_string() })
    };
    let (written, skip) = match attempt(known) {
        Ok(written) => (written, known),
        // The daemon lacks a layer that it was expected to have: an image was removed meanwhile, or
        // the daemon's store keys layers in another way.
        Err(DockerError::LoadedWrong { .. } | DockerError::Failed { .. }) if known > 0 => {
            (attempt(0).map_err(|error| refused(store, spec, form, error))?, 0)
        }
        Err(error) => return Err(refused(store, spec, form, error)),
    };
    let tally = Tally {
        layers_sent: written.layers,
        layers_skipped: skip,
        bytes_sent: written.bytes,
        bytes_skipped: bytes(&spec.layers[..skip]),
        ..Tally::default()
    };
    Ok(Copied { fell_back: skip < known, ..Copied::new(&documents.into(), tally) })
}

/// Accounts for an image that the daemon had, perhaps under another name.
fn already_there(spec: &ImageSpec, form: Form, documents: Image, watch: &dyn Watch) -> Copied {
    watch.expect(0);
    for index in 0..spec.layers.len() {
        watch.layer(ImageLayer { spec, index, form }, LayerStep::Skipped);
    }
    let tally = Tally {
        layers_skipped: spec.layers.len(),
        bytes_skipped: bytes(&spec.layers),
        ..Tally::default()
    };
    Copied::new(&documents.into(), tally)
}

/// Returns the diff IDs of all layers, from the bottom up.
fn diff_ids(spec: &ImageSpec) -> Vec<DiffId> {
    spec.layers.iter().map(|layer| layer.diff_id).collect()
}

/// Makes the daemon write an image to a file.
///
/// # Errors
/// Fails with [`DockerError::NoDocker`] or [`DockerError::Failed`].
pub fn save_from_docker_daemon(
    reference: &ImageReference,
    file: &Path,
    watch: &dyn Watch,
) -> Result<(), DockerError> {
    let reference = reference.to_string();
    let mut save = command(&["save", "--output"]);
    save.arg(file).arg(&reference);
    let output = run_program(&mut save, watch).map_err(DockerError::NoDocker)?;
    if output.status.success() {
        return Ok(());
    }
    let output = said(&String::from_utf8_lossy(&output.stderr));
    Err(DockerError::Failed { command: format!("save {reference}"), output })
}

/// Explains a failed load. If a layer differs from what was recorded, the error names the layer;
/// otherwise it is the daemon's own error.
fn refused(store: &Store, spec: &ImageSpec, form: Form, error: DockerError) -> DockerError {
    if !matches!(error, DockerError::Failed { .. }) {
        return error;
    }
    let check = |index| {
        let layer = ImageLayer { spec, index, form };
        write_hashed_layer(store, layer, Hashing::Within, io::sink()).err()
    };
    (0..spec.layers.len()).into_par_iter().find_map_first(check).map_or(error, Into::into)
}

/// Returns the number of bytes of layers in the form in which they are sent.
fn bytes(layers: &[SpecLayer]) -> u64 {
    layers.iter().map(|layer| layer.blob(Archive::FORM).size).sum()
}

/// Returns the number of an image's layers, from the bottom up, whose bytes the daemon needs not be sent.
///
/// # Errors
/// Fails with [`DockerError::NoDocker`] or [`DockerError::Failed`].
pub fn layers_in_docker_daemon(spec: &ImageSpec) -> Result<usize, DockerError> {
    let image_store = image_store()?;
    if image_store != ImageStore::Classic {
        return Ok(0);
    }
    let documents = Image::in_form(spec, image_store.form(), ManifestFormat::Oci);
    let known = known(&Wanted { documents: &documents, layers: diff_ids(spec) })?;
    Ok(if known.image.is_some() { spec.layers.len() } else { known.layers })
}

/// Streams an archive into `docker load`.
fn load(archive: &Archive) -> Result<Written, DockerError> {
    const COMMAND: [&str; 2] = ["load", "--quiet"];
    let mut child =
        command(&COMMAND).stdin(Stdio::piped()).spawn().map_err(DockerError::NoDocker)?;
    let pipe = child.stdin.take().expect("it was asked for");
    system::widen_pipe(&pipe);
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (result, output) = std::thread::scope(|scope| {
        // Read while writing: a client that prints much must not wait for this program.
        let said = scope.spawn(move || (read_all(&mut stdout), read_all(&mut stderr)));
        let out = Spliced::new(OwnedFd::from(pipe).into());
        let mut pipe = Watched { out, watch: archive.watch };
        let result = write_archive(archive, &mut pipe);
        if result.is_err() {
            // Kill the client, so that it can't take the incomplete archive for a whole one.
            let _ = child.kill();
        }
        drop(pipe);
        (result, said.join().unwrap_or_default())
    });
    let status = child.wait().map_err(DockerError::NoDocker)?;
    let (stdout, stderr) = output;
    match result {
        // If the client has stopped reading, its own message is more useful than the broken pipe.
        Err(outgoing::Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(error.into()),
        Ok(written) if status.success() => return Ok(written),
        Ok(_) => {}
    }
    let output = if stderr.trim().is_empty() { stdout } else { stderr };
    Err(DockerError::Failed { command: COMMAND.join(" "), output: said(&output) })
}

fn read_all(from: &mut Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // After an error, the bytes before it are all there is to show.
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
