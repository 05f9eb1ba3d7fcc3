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

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rayon::prelude::*;
use thiserror::Error;

use super::loopback::{Loopback, LoopbackError};
use crate::digest::DiffId;
use crate::error::Hint;
use crate::oci::unpack::TarReader;
use crate::oci::{Form, Image, ImageSpec, ManifestFormat, SpecLayer};
use crate::outgoing::{
    self, CheckedBy, Copied, Hashing, ImageLayer, ImageReference, LayerStep, Tally, Watch, Watched,
    run_program, write_hashed_layer,
};
use crate::sink::Spliced;
use crate::store::Store;
use crate::system;
use crate::target::archive::{Archive, Written, write_archive};
use crate::target::image_layout::blob_path;

/// Says why a Docker daemon did not take an image.
#[derive(Debug, Error)]
pub enum DockerError {
    /// A layer could not be made.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The registry from which the daemon pulls could not be opened.
    #[error(transparent)]
    Loopback(#[from] LoopbackError),
    /// The `docker` program could not be run.
    #[error("cannot run `docker`")]
    NoDocker(#[source] io::Error),
    /// A `docker` command failed.
    #[error("`docker {command}` failed: {output}")]
    Failed {
        /// The command's arguments.
        command: String,
        /// The text that it printed.
        output: String,
    },
    /// Docker reported success, but has another image under the name.
    #[error("Docker loaded {reference}, but it is not the image that was sent")]
    LoadedWrong {
        /// The image's name.
        reference: String,
    },
}

impl Hint for DockerError {
    fn hint(&self) -> Option<String> {
        match self {
            DockerError::Outgoing(error) => error.hint(),
            DockerError::NoDocker(_) => Some(
                "the Docker client must be on PATH; without it, load the image's stream: `./result | podman load`"
                    .to_owned(),
            ),
            DockerError::Failed { output, .. } => hint_for(output).map(str::to_owned),
            DockerError::LoadedWrong { .. } | DockerError::Loopback(_) => None,
        }
    }
}

/// Returns the known remedy for what the `docker` client printed, if there is one.
fn hint_for(output: &str) -> Option<&'static str> {
    /// Known failures and their remedies. The order matters: clients up to 28 say "connect to the
    /// Docker daemon" also when permission is refused.
    const HINTS: [(&str, &str); 5] = [
        (
            "permission denied while trying to connect",
            "this user may not talk to the daemon: add the user to the group `docker` and log in again, run a rootless daemon, or set DOCKER_HOST",
        ),
        (
            "docker system dial-stdio",
            "the daemon is reached by ssh: `ssh HOST docker version` must work without a question, and that user must be in the group `docker` there",
        ),
        (
            "context not found",
            "`docker context ls` lists the contexts; DOCKER_CONTEXT or `docker context use` names one",
        ),
        (
            "onnect to the Docker daemon",
            "is the daemon running? DOCKER_HOST or `docker context` says which one is asked",
        ),
        (
            "no space left on device",
            "the daemon's disk is full: `docker system prune` removes what nothing uses, on the daemon's machine",
        ),
    ];
    HINTS.iter().find(|(text, _)| output.contains(text)).map(|(_, hint)| *hint)
}

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

/// The kind of a daemon's image store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ImageStore {
    /// Docker's own store: files of a storage driver, by the chain IDs of unpacked layers.
    Classic,
    /// containerd's store: blobs as they arrived, by their digests. The default since Docker 29.
    Containerd,
    /// Any other store: `docker` is podman's replacement, which does not report a storage driver.
    Other,
}

impl ImageStore {
    /// Returns the form of layers that a store of this kind loads.
    fn form(self) -> Form {
        match self {
            // The store later pushes what it has loaded: compressed, if the image says so.
            Self::Containerd => Form::AsStored,
            Self::Classic | Self::Other => Archive::FORM,
        }
    }
}

/// Asks the daemon for the kind of its image store.
fn image_store() -> Result<ImageStore, DockerError> {
    /// The format that prints the status of the storage driver as JSON.
    const DRIVER: &str = "{{json .DriverStatus}}";
    /// The text in the status if images are in containerd's store.
    const SNAPSHOTTER: &str = "io.containerd.snapshotter";
    let output = run(&["info", "--format", DRIVER])?;
    if !output.status.success() {
        // Without a daemon, old clients fail on the format. This command reports the cause in plain
        // words, and succeeds with podman.
        docker(&["image", "ls", "--quiet"])?;
        return Ok(ImageStore::Other);
    }
    let is_containerd = String::from_utf8_lossy(&output.stdout).contains(SNAPSHOTTER);
    Ok(if is_containerd { ImageStore::Containerd } else { ImageStore::Classic })
}

/// Returns the diff IDs of all layers, from the bottom up.
fn diff_ids(spec: &ImageSpec) -> Vec<DiffId> {
    spec.layers.iter().map(|layer| layer.diff_id).collect()
}

/// Lets a daemon with containerd's store pull the image from a registry on a loopback port. The
/// daemon asks for the blobs that it lacks by their digests, and compares them, so that no other
/// check is needed. Layers arrive as they are sent to registries, compressed if the image says so.
///
/// Returns `None` if the image has to be loaded instead: the daemon did not reach the registry,
/// since it is on another machine or in a network of its own; or it lacks a blob afterwards.
fn pull(
    store: &Store,
    spec: &ImageSpec,
    reference: &ImageReference,
    watch: &dyn Watch,
) -> Result<Option<Copied>, DockerError> {
    watch.hold();
    let loopback = Loopback::open(store, spec.clone().into(), Form::AsStored)?;
    let (pulled, name) = (loopback.reference(), reference.to_string());
    let output = run_program(&mut command(&["pull", "--quiet", &pulled]), watch);
    let output = output.map_err(DockerError::NoDocker)?;
    // If a layer could not be made, that is the cause of the daemon's failure.
    loopback.check()?;
    if !output.status.success() {
        if !loopback.was_asked() {
            return Ok(None);
        }
        let output = said(&String::from_utf8_lossy(&output.stderr));
        return Err(DockerError::Failed { command: format!("pull {pulled}"), output });
    }
    let tagged = docker(&["tag", &pulled, &name]);
    // The name on the loopback port is of no use later: remove it, even if tagging failed.
    docker(&["image", "rm", &pulled])?;
    tagged?;
    let copied = loopback.account(loopback.manifest_digest());
    // The daemon does not pull a layer whose files it has, unpacked from other bytes: the image
    // then runs, but can't be pushed or saved.
    if copied.tally.layers_skipped > 0 && !has_blobs(spec, &name) {
        return Ok(None);
    }
    Ok(Some(copied))
}

/// Returns whether the daemon has the blob of each layer: reads the archive that it saves of the
/// image.
fn has_blobs(spec: &ImageSpec, name: &str) -> bool {
    let blobs = spec.layers.iter().map(|layer| blob_path(&layer.blob(Form::AsStored).digest));
    let saved = command(&["save", name]).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut saved) = saved else { return false };
    let has_all = has_files(saved.stdout.take().expect("it was asked for"), blobs.collect());
    saved.wait().is_ok_and(|status| status.success()) && has_all
}

/// Returns whether an archive has all of some files. Reads it to its end, also beyond the block after
/// which no member follows: a program that can't write its last block fails.
fn has_files(archive: impl Read, mut files: BTreeSet<String>) -> bool {
    let mut archive = TarReader::new(archive);
    while let Ok(Some(member)) = archive.next_member() {
        files.remove(&*String::from_utf8_lossy(member.path()));
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).is_ok() && files.is_empty()
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

/// The image that is wanted in the daemon.
struct Wanted<'w> {
    documents: &'w Image,
    /// The diff IDs of the layers, from the bottom up.
    layers: Vec<DiffId>,
}

impl Wanted<'_> {
    /// Returns whether an image of the daemon is this one.
    fn is(&self, (id, layers): (&str, &[DiffId])) -> bool {
        // The classic store names an image by its configuration, and containerd's by its manifest;
        // podman leaves out the algorithm.
        let Image { config, manifest, .. } = self.documents;
        let id = id.trim_start_matches("sha256:");
        let is_named = [config.digest, manifest.digest].iter().any(|it| it.digest().hex() == id);
        is_named && self.layers == layers
    }
}

/// The parts of an image that the daemon has.
#[derive(Default)]
struct Known {
    /// The number of the wanted layers, from the bottom up, that are the lowest layers of some image
    /// in the daemon.
    layers: usize,
    /// The ID of the wanted image, if the daemon has all of it.
    image: Option<String>,
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

/// Asks the daemon which parts of an image it has.
fn known(wanted: &Wanted) -> Result<Known, DockerError> {
    /// The number of IDs in one command: their 71 bytes each are far from the limit on a command's
    /// arguments.
    const IDS_AT_ONCE: usize = 200;
    let ids = docker(&["image", "ls", "--all", "--quiet", "--no-trunc"])?;
    let ids: BTreeSet<&str> = ids.lines().collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let mut known = Known::default();
    for ids in ids.chunks(IDS_AT_ONCE) {
        let mut arguments = vec!["image", "inspect", "--format", ID_AND_LAYERS];
        arguments.extend(ids);
        // If an image has been removed meanwhile, the command prints the others and fails.
        let output = run(&arguments)?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((id, layers)) = id_and_layers(line) else { continue };
            known.layers = known.layers.max(common_prefix(&layers, &wanted.layers));
            if wanted.is((id, &layers)) {
                known.image = Some(id.to_owned());
            }
        }
    }
    Ok(known)
}

/// The format by which `docker image inspect` prints, on one line, an image's ID, a space, and the
/// diff IDs as a JSON array.
const ID_AND_LAYERS: &str = "{{.ID}} {{json .RootFS.Layers}}";

/// Parses a line that was printed in this format.
fn id_and_layers(line: &str) -> Option<(&str, Vec<DiffId>)> {
    let (id, layers) = line.trim().split_once(' ')?;
    // An image without layers has `null` here.
    let layers = serde_json::from_str::<Option<Vec<DiffId>>>(layers).ok()?;
    Some((id, layers.unwrap_or_default()))
}

/// Returns the number of layers, from the bottom up, that two images share.
fn common_prefix(a: &[DiffId], b: &[DiffId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Returns whether the daemon has the image under that name, with its layers.
fn has_image(reference: &ImageReference, wanted: &Wanted) -> Result<bool, DockerError> {
    let output = run(&["image", "inspect", "--format", ID_AND_LAYERS, &reference.to_string()])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = id_and_layers(&text).is_some_and(|(id, layers)| wanted.is((id, &layers)));
    Ok(output.status.success() && found)
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

/// Runs `docker`, and fails if the command fails.
fn docker(arguments: &[&str]) -> Result<String, DockerError> {
    let output = run(arguments)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let output = said(&String::from_utf8_lossy(&output.stderr));
    Err(DockerError::Failed { command: arguments.join(" "), output })
}

fn run(arguments: &[&str]) -> Result<Output, DockerError> {
    command(arguments).stdin(Stdio::null()).output().map_err(DockerError::NoDocker)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Joins the lines that a program printed.
fn said(output: &str) -> String {
    let lines: Vec<_> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it printed nothing".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn diff_id(text: char) -> DiffId {
        DiffId::new(Digest::of(text.to_string().as_bytes()))
    }

    #[test]
    fn only_the_lowest_layers_in_common_count() {
        let image = |ids: &str| ids.chars().map(diff_id).collect::<Vec<_>>();
        for (there, wanted, common) in [
            ("", "ab", 0),
            ("ab", "ab", 2),
            ("abc", "ab", 2),
            ("ab", "abc", 2),
            ("xbc", "abc", 0),
            ("axc", "abc", 1),
        ] {
            assert_eq!(common_prefix(&image(there), &image(wanted)), common, "{there} {wanted}");
        }
    }

    /// Checks that an archive is read to its end, if its blocks arrive one by one.
    #[test]
    fn an_archive_is_read_to_its_end() {
        struct Blocks<'b>(&'b [u8]);
        impl Read for Blocks<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = buffer.len().min(512);
                self.0.read(&mut buffer[..length])
            }
        }
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        archive.append_data(&mut header, "blobs/a", &b"abc"[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        for (files, expected) in [(&["blobs/a"][..], true), (&["blobs/a", "blobs/b"], false)] {
            let mut blocks = Blocks(&archive);
            let files = files.iter().map(|file| (*file).to_owned()).collect();
            assert_eq!(has_files(&mut blocks, files), expected);
            assert_eq!(blocks.0, b"");
        }
    }

    #[test]
    fn an_image_without_layers_has_none() {
        let [a, b] = ['a', 'b'].map(diff_id);
        let both = format!(r#"1 ["{a}","{b}"]"#);
        for (line, expected) in [
            ("sha256:1 null\n", Some(("sha256:1", vec![]))),
            ("sha256:1 []", Some(("sha256:1", vec![]))),
            (&*both, Some(("1", vec![a, b]))),
            (r#"1 ["sha256:a"]"#, None),
            ("", None),
            ("sha256:1", None),
            ("Error: no such image", None),
        ] {
            assert_eq!(id_and_layers(line), expected, "{line}");
        }
    }

    /// Checks the messages of clients 20.10, 26.1, 28.2 and 28.5.
    #[test]
    fn causes_have_ways_out() {
        for (output, hint) in [
            (
                "permission denied while trying to connect to the Docker daemon socket at unix:///run/d/docker.sock: Get \"http://%2Frun/v1.50/info\": dial unix /run/d/docker.sock: connect: permission denied",
                "the group `docker`",
            ),
            (
                "permission denied while trying to connect to the docker API at unix:///a",
                "rootless",
            ),
            (
                "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?",
                "is the daemon running?",
            ),
            (
                "error during connect: Head \"http://docker.example.com/_ping\": command [ssh -T -l nobody -- 127.0.0.1 docker system dial-stdio] has exited with exit status 255: stderr=ssh: connect to host 127.0.0.1 port 22: Connection refused",
                "by ssh",
            ),
            (
                "Failed to initialize: unable to resolve docker endpoint: context \"missing\": context not found: open /c/meta.json: no such file or directory",
                "docker context ls",
            ),
            ("write /var/lib/docker/x: no space left on device", "disk is full"),
        ] {
            assert!(hint_for(output).unwrap_or_default().contains(hint), "{output}");
        }
        assert_eq!(hint_for("open /layer.tar: no such file or directory"), None);
    }
}
