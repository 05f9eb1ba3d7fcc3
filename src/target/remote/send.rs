//! Sends an image to `stowage receive` on another machine: the recipes of layers, and the pieces that
//! the other side asks for.
//! Stage: target. Input: [`Artifact`]. Output: an image in a target of the other machine.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitStatus;

use zstd::stream::write::Encoder;

use super::cut::{Cutter, Part};
use super::error::RemoteError;
use super::host::RemoteHost;
use super::ssh::{SessionEvent, SshOptions, SshSession, shown};
use super::wire::{
    self, AHEAD, Done, Offer, OfferedLayer, PieceSet, ReceiverFailure, ReceiverMessage, Section,
    VERSION, write_end, write_part,
};
use crate::digest::BlobDigest;
use crate::oci::{
    Architecture, Artifact, Compression, Form, Image, ImageSpec, LayerBlob, LayerSource, SpecLayer,
    StoredBlob,
};
use crate::outgoing::{
    self, Copied, Hashing, ImageLayer, LayerStep, Tally, Watch, write_checked_layer,
};
use crate::sink::Plain;
use crate::store::Store;

/// The level of plain Zstandard's layers.
const LEVEL: i32 = 3;
/// The form of the layers that are sent: as tars, and a base's as they are stored.
const FORM: Form = Form::AsStored;

/// Copies an image to a target of another machine. `arguments` are those of `stowage receive` there.
/// Takes the image for the other machine's architecture, if there are several.
///
/// # Errors
/// Fails with [`RemoteError`] if the other machine can't be reached or fails, or if a layer can't be
/// made.
pub fn copy_to_remote(
    store: &Store,
    artifact: &Artifact,
    host: &RemoteHost,
    arguments: &[String],
    options: &SshOptions,
    watch: &dyn Watch,
) -> Result<Copied, RemoteError> {
    let mut connection =
        SshSession::open(host, options, arguments, watch).map_err(RemoteError::NoSsh)?;
    let result = send(store, artifact, host, &mut connection, watch);
    explained(result, host, &mut connection)
}

/// Sends the image, and accounts for it.
fn send(
    store: &Store,
    artifact: &Artifact,
    host: &RemoteHost,
    connection: &mut SshSession,
    watch: &dyn Watch,
) -> Result<Copied, RemoteError> {
    let architecture = architecture(host, connection)?;
    let image = |source| RemoteError::Image { host: host.clone(), source: Box::new(source) };
    let spec = artifact.image_for(&architecture).map_err(image)?;
    let sent = sent(spec);
    wire::greet_receiver(&mut *connection).map_err(outgoing::Error::Write)?;
    let encoder = Encoder::new(&mut *connection, LEVEL).map_err(outgoing::Error::Write)?;
    let mut sender = Sender { store, spec: &sent, host, watch, encoder, wanted: BTreeSet::new() };
    let Done { manifest_digest, image_id, fell_back } = sender.send(&offer(spec, &sent))?;
    let wanted = sender.wanted;
    let status = connection.end().map_err(outgoing::Error::Write)?;
    if !status.success() {
        return Err(ended(host, status));
    }
    if image_id != *Image::new(spec).config.digest.digest() {
        return Err(RemoteError::OtherImage { host: host.clone() });
    }
    let mut tally = Tally { bytes_sent: connection.written(), ..Tally::default() };
    for index in 0..sent.layers.len() {
        let layer = ImageLayer { spec: &sent, index, form: FORM };
        if wanted.contains(&layer.blob().digest) {
            tally.layers_sent += 1;
        } else {
            tally.skipped(layer.blob().size);
            watch.layer(layer, LayerStep::Skipped);
        }
    }
    Ok(Copied { manifest_digest, image_id, tally, fell_back })
}

/// Waits for the greeting of the other side. Returns the architecture of its machine.
fn architecture(
    host: &RemoteHost,
    connection: &mut SshSession,
) -> Result<Architecture, RemoteError> {
    let greeting = match connection.listen().map_err(outgoing::Error::Write)? {
        SessionEvent::Greeting(greeting) => greeting,
        SessionEvent::End(first) => return Err(silent(host, connection, first)?),
        SessionEvent::Invalid(reason) => return Err(invalid(host, reason)),
        SessionEvent::Message(_) => {
            return Err(invalid(host, "a message comes before the greeting"));
        }
    };
    let (version, architecture) = greeting.split_once(' ').unwrap_or((&greeting, ""));
    if version != VERSION.to_string() {
        let (host, version) = (host.clone(), shown(version));
        return Err(RemoteError::Version { host, version });
    }
    architecture.parse().map_err(|reason: String| invalid(host, shown(&reason)))
}

/// Explains an end before the greeting.
fn silent(
    host: &RemoteHost,
    connection: &mut SshSession,
    first: Option<String>,
) -> Result<RemoteError, RemoteError> {
    let status = connection.end().map_err(outgoing::Error::Write)?;
    Ok(match first {
        Some(first) if status.success() => invalid(host, first),
        _ => ended(host, status),
    })
}

/// Replaces a broken pipe by its cause: what the other side said at its end, or the exit status.
fn explained<T>(
    result: Result<T, RemoteError>,
    host: &RemoteHost,
    connection: &mut SshSession,
) -> Result<T, RemoteError> {
    match result {
        Err(RemoteError::Outgoing(outgoing::Error::Write(error)))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            loop {
                match connection.listen().map_err(outgoing::Error::Write)? {
                    SessionEvent::Message(ReceiverMessage::Failed(failure)) => {
                        return Err(failed(host, failure));
                    }
                    SessionEvent::Invalid(reason) => return Err(invalid(host, reason)),
                    SessionEvent::End(first) => return Err(silent(host, connection, first)?),
                    SessionEvent::Message(_) | SessionEvent::Greeting(_) => {}
                }
            }
        }
        result => result,
    }
}

fn failed(host: &RemoteHost, ReceiverFailure { message, hint }: ReceiverFailure) -> RemoteError {
    let (message, hint) = (shown(&message), hint.map(|hint| shown(&hint)));
    RemoteError::Failed { host: host.clone(), message, hint }
}

fn invalid(host: &RemoteHost, reason: impl Into<String>) -> RemoteError {
    RemoteError::Invalid { host: host.clone(), reason: reason.into() }
}

fn ended(host: &RemoteHost, status: ExitStatus) -> RemoteError {
    let (host, code) = (host.clone(), status.code());
    RemoteError::Ended { host, status: status.to_string(), code }
}

/// Returns the image with its layers in the form in which they are sent: the other side compresses
/// them, if its target wants that.
fn sent(spec: &ImageSpec) -> ImageSpec {
    let mut spec = spec.clone();
    for layer in &mut spec.layers {
        (layer.compressed, layer.compressed_file) = (None, None);
    }
    spec
}

/// Describes an image to the other side, without the paths of this machine.
fn offer(spec: &ImageSpec, sent: &ImageSpec) -> Offer {
    let properties =
        |layer: &SpecLayer| OfferedLayer { checksum: layer.checksum, compressed: layer.compressed };
    let layers = spec.layers.iter().map(properties).collect();
    let mut spec = sent.clone();
    spec.sources.clear();
    for layer in &mut spec.layers {
        let LayerBlob { digest, size, media_type, toc } = layer.blob(FORM);
        let (file, archive) = (PathBuf::new(), Compression::None);
        let blob = StoredBlob { file, offset: 0, archive, digest, size, media_type, toc };
        (layer.source, layer.checksum) = (LayerSource::Stored(blob), None);
    }
    Offer { spec, layers }
}

/// A sender, after the greetings.
struct Sender<'a, 'c, 'w> {
    store: &'a Store,
    /// The image as it is sent.
    spec: &'a ImageSpec,
    host: &'a RemoteHost,
    watch: &'a dyn Watch,
    encoder: Encoder<'static, &'c mut SshSession<'w>>,
    /// The blobs that the other side has asked for.
    wanted: BTreeSet<BlobDigest>,
}

/// A layer whose recipe was sent.
struct Sent<'a> {
    layer: ImageLayer<'a>,
    /// The length of each part, and whether the part is a piece.
    parts: Vec<(u32, bool)>,
    pieces: usize,
}

impl<'a> Sender<'a, '_, '_> {
    /// Answers the other side until the image is in its place.
    fn send(&mut self, offer: &Offer) -> Result<Done, RemoteError> {
        offer.write(&mut self.encoder).map_err(outgoing::Error::Write)?;
        loop {
            match self.listen()? {
                ReceiverMessage::Wants(layers) => self.layers(&layers)?,
                ReceiverMessage::Done(done) => return Ok(done),
                ReceiverMessage::Failed(failure) => return Err(failed(self.host, failure)),
                ReceiverMessage::Lacks(_) => {
                    return Err(self.invalid("it asks for pieces of no layer"));
                }
            }
        }
    }

    fn invalid(&self, reason: &str) -> RemoteError {
        invalid(self.host, reason)
    }

    /// Waits for an answer, after the other side has all that was written.
    fn listen(&mut self) -> Result<ReceiverMessage, RemoteError> {
        let said = match self.encoder.get_ref().heard() {
            Some(said) => said,
            None => {
                self.encoder.flush().map_err(outgoing::Error::Write)?;
                self.encoder.get_ref().listen().map_err(outgoing::Error::Write)?
            }
        };
        match said {
            SessionEvent::Message(answer) => Ok(answer),
            SessionEvent::Invalid(reason) => Err(self.invalid(&reason)),
            SessionEvent::Greeting(_) => Err(self.invalid("it greets twice")),
            SessionEvent::End(_) => {
                let status = self.encoder.get_mut().end().map_err(outgoing::Error::Write)?;
                Err(ended(self.host, status))
            }
        }
    }

    fn layers(&mut self, wanted: &[u32]) -> Result<(), RemoteError> {
        let spec = self.spec;
        let mut layers = Vec::new();
        for number in wanted {
            let index = *number as usize;
            let layer = ImageLayer { spec, index, form: FORM };
            // No layer is sent twice: the other side can't make this one work for ever.
            if index >= spec.layers.len() || !self.wanted.insert(layer.blob().digest) {
                return Err(self.invalid("it asks for a layer that there is not, or twice"));
            }
            layers.push(layer);
        }
        self.watch.expect_more(layers.iter().map(|layer| layer.blob().size).sum());
        let mut begun = VecDeque::new();
        for layer in layers {
            if begun.len() == AHEAD {
                self.pieces(begun.pop_front().expect("there are some"))?;
            }
            begun.push_back(self.recipe(layer)?);
        }
        begun.into_iter().try_for_each(|layer| self.pieces(layer))
    }

    /// Sends the recipe of a layer, which is made for it and checked.
    fn recipe(&mut self, layer: ImageLayer<'a>) -> Result<Sent<'a>, RemoteError> {
        let Self { encoder, watch, .. } = self;
        watch.layer(layer, LayerStep::Begun);
        let (mut parts, mut pieces) = (Vec::new(), 0);
        let number = u32::try_from(layer.index).expect("layers are few");
        Section::Recipe(number).write(encoder).map_err(outgoing::Error::Write)?;
        let mut cutter = Cutter::new(|part| {
            let (bytes, is_piece) = match part {
                Part::Literal(bytes) => (bytes, false),
                Part::Piece(bytes) => (bytes, true),
            };
            pieces += usize::from(is_piece);
            parts.push((u32::try_from(bytes.len()).expect("parts are short"), is_piece));
            write_part(encoder, part)?;
            advance(*watch, layer, if is_piece { 0 } else { bytes.len() as u64 })
        });
        write_checked_layer(self.store, layer, Hashing::Within, Plain(&mut cutter))?;
        cutter.finish().map_err(outgoing::Error::Write)?;
        write_end(encoder).map_err(outgoing::Error::Write)?;
        Ok(Sent { layer, parts, pieces })
    }

    /// Sends the pieces of a layer that the other side lacks.
    fn pieces(&mut self, sent: Sent) -> Result<(), RemoteError> {
        let Sent { layer, parts, pieces } = sent;
        let lacks = match self.listen()? {
            ReceiverMessage::Lacks(lacks) if lacks.is_of(pieces) => lacks,
            ReceiverMessage::Failed(failure) => return Err(failed(self.host, failure)),
            _ => return Err(self.invalid("it does not say which pieces it lacks")),
        };
        let Self { encoder, watch, store, .. } = self;
        let number = u32::try_from(layer.index).expect("layers are few");
        Section::Pieces(number).write(encoder).map_err(outgoing::Error::Write)?;
        if lacks.is_empty() {
            let there = parts.iter().filter(|part| part.1).map(|part| u64::from(part.0)).sum();
            advance(*watch, layer, there).map_err(outgoing::Error::Write)?;
        } else {
            let parts =
                Parts { parts: parts.iter(), lacks, piece: 0, left: 0, kind: Kind::Literal };
            let chosen = Chosen { out: encoder, parts, layer, watch: *watch };
            write_checked_layer(store, layer, Hashing::Within, Plain(chosen))?;
        }
        watch.layer(layer, LayerStep::Sent);
        Ok(())
    }
}

fn advance(watch: &dyn Watch, layer: ImageLayer, bytes: u64) -> io::Result<()> {
    watch.layer(layer, LayerStep::Advanced(bytes));
    watch.advance(bytes)
}

/// The parts of a layer, and the position in them.
struct Parts<'p> {
    parts: std::slice::Iter<'p, (u32, bool)>,
    lacks: PieceSet,
    /// The number of pieces that were begun.
    piece: usize,
    /// The number of bytes that are left of this part.
    left: usize,
    kind: Kind,
}

/// The kind of a part, when pieces are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Literal,
    Lacking,
    There,
}

impl Parts<'_> {
    /// Returns how many of the next bytes are of one part, and its kind; none at the end.
    fn next(&mut self, most: usize) -> Option<(usize, Kind)> {
        while self.left == 0 {
            let (length, is_piece) = *self.parts.next()?;
            self.left = length as usize;
            self.kind = match is_piece {
                false => Kind::Literal,
                true if self.lacks.has(self.piece) => Kind::Lacking,
                true => Kind::There,
            };
            self.piece += usize::from(is_piece);
        }
        let taken = most.min(self.left);
        self.left -= taken;
        Some((taken, self.kind))
    }
}

/// Passes on the bytes of a layer's pieces that the other side lacks.
struct Chosen<'a, 'p, W> {
    out: W,
    parts: Parts<'p>,
    layer: ImageLayer<'a>,
    watch: &'a dyn Watch,
}

impl<W: Write> Write for Chosen<'_, '_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // A layer that has become longer is reported by its maker.
            let Some((taken, kind)) = self.parts.next(rest.len()) else { break };
            let (part, more) = rest.split_at(taken);
            rest = more;
            if kind == Kind::Lacking {
                self.out.write_all(part)?;
            }
            if kind != Kind::Literal {
                advance(self.watch, self.layer, taken as u64)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
