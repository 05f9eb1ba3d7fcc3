//! Receives an image: asks the sender for the pieces that are missing here, rebuilds layers, and
//! lets a target take the image.
//! Stage: target. Input: the sender's bytes. Output: an image in a target.

use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use zstd::stream::read::Decoder;

use super::error::ReceiveError;
use super::kept::{KeptLayers, NewBlob};
use super::wire::{
    self, AHEAD, Done, Offer, OfferedLayer, PieceId, PieceSet, ReceiverFailure, ReceiverMessage,
    Recipe, Section, Step,
};
use crate::digest::{Digest, DigestReader};
use crate::error::{Hint, with_causes};
use crate::oci::unpack::UnpackLimits;
use crate::oci::{Architecture, Compression, ImageSpec, LayerSource, SpecLayer, StoredBlob};
use crate::outgoing::{Copied, Watch};
use crate::sink::PIECE;
use crate::store::Store;

/// The logarithm of the largest window of the stream: the decoder takes as much memory. Senders have 2 MiB.
const WINDOW: u32 = 23;

/// The connection to the sender.
pub struct Connected<R, W> {
    /// The bytes of the sender.
    pub from: R,
    /// The bytes to the sender.
    pub to: W,
}

/// The end of a connection to a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveOutcome {
    /// The image is in its target.
    Copied,
    /// The image could not be received, and the sender was told the reason.
    Told,
}

/// Receives an image. Keeps its layers in a directory, up to a number of bytes.
///
/// `known` returns the number of layers, from the bottom up, that the target has, so that they need not
/// be sent. `copy` copies the image to the target; its layers are in files.
///
/// # Errors
/// Fails with [`ReceiveError`], or with the error of `copy`, if the sender can't be told the reason.
pub fn receive<E: From<ReceiveError> + Hint>(
    sender: Connected<impl BufRead, impl Write>,
    store: &Store,
    kept: (&Path, u64),
    watch: &dyn Watch,
    known: impl FnOnce(&ImageSpec) -> Result<usize, E>,
    copy: impl Fn(&ImageSpec) -> Result<Copied, E>,
) -> Result<ReceiveOutcome, E> {
    let Connected { from, mut to } = sender;
    watch.hold();
    let architecture = Architecture::of_this_machine();
    wire::greet_sender(&mut to, &architecture).map_err(ReceiveError::Answer)?;
    let outcome = receive_image(Connected { from, to: &mut to }, store, kept, watch, known, copy);
    let (answer, outcome) = match outcome {
        Ok(Copied { manifest_digest, image_id, fell_back, .. }) => (
            ReceiverMessage::Done(Done { manifest_digest, image_id, fell_back }),
            Ok(ReceiveOutcome::Copied),
        ),
        Err(error) => {
            let failed = ReceiverFailure { message: with_causes(&error), hint: error.hint() };
            (ReceiverMessage::Failed(failed), Err(error))
        }
    };
    match (answer.write(&mut to), outcome) {
        (Ok(()), Err(_)) => Ok(ReceiveOutcome::Told),
        (Err(error), Ok(_)) => Err(ReceiveError::Answer(error).into()),
        (_, outcome) => outcome,
    }
}

/// Receives an image, after the greeting.
fn receive_image<E: From<ReceiveError>>(
    sender: Connected<impl BufRead, impl Write>,
    store: &Store,
    (directory, most): (&Path, u64),
    watch: &dyn Watch,
    known: impl FnOnce(&ImageSpec) -> Result<usize, E>,
    copy: impl Fn(&ImageSpec) -> Result<Copied, E>,
) -> Result<Copied, E> {
    let Connected { mut from, to } = sender;
    wire::read_sender(&mut from).map_err(ReceiveError::from)?;
    let mut kept = KeptLayers::open(directory, most).map_err(ReceiveError::from)?;
    let mut decoder = Decoder::with_buffer(from).map_err(ReceiveError::from)?;
    decoder.window_log_max(WINDOW).map_err(ReceiveError::from)?;
    let mut sender = Connected { from: BufReader::with_capacity(PIECE, decoder), to };
    let mut spec = image(Offer::read(&mut sender.from).map_err(ReceiveError::from)?)?;
    let known = known(&spec)?.min(spec.layers.len());
    let mut fetch = |spec: &mut ImageSpec, from| {
        Fetch { sender: &mut sender, store, kept: &mut kept, watch }.layers(spec, from)
    };
    fetch(&mut spec, known)?;
    match copy(&spec) {
        // The target may lack a layer that it was expected to have.
        Err(_) if known > 0 => {
            fetch(&mut spec, 0)?;
            Ok(Copied { fell_back: true, ..copy(&spec)? })
        }
        copied => copied,
    }
}

/// Checks an offer. Returns the image, of which each layer is a stored blob without a file: no path
/// that the sender names is ever opened.
fn image(offer: Offer) -> Result<ImageSpec, ReceiveError> {
    let invalid = |reason: &str| Err(ReceiveError::Invalid(reason.to_owned()));
    let Offer { mut spec, layers } = offer;
    if layers.len() != spec.layers.len() {
        return invalid("it describes other layers than the image has");
    }
    let limits = UnpackLimits::chosen();
    for (layer, OfferedLayer { checksum, compressed }) in spec.layers.iter_mut().zip(layers) {
        let LayerSource::Stored(StoredBlob { digest, size, media_type, toc, .. }) = layer.source
        else {
            return invalid("a layer is not offered as a blob");
        };
        let is_tar = media_type.compression.is_none();
        if is_tar && (digest, size) != (layer.diff_id.as_uncompressed_blob(), layer.size) {
            return invalid("a layer that is not compressed has another digest than its tar");
        }
        if !is_tar && compressed.is_some() {
            return invalid("a layer is compressed twice");
        }
        let (file, archive) = Default::default();
        let blob = StoredBlob { file, offset: 0, archive, digest, size, media_type, toc };
        *layer = SpecLayer {
            diff_id: layer.diff_id,
            size: layer.size,
            checksum: checksum.filter(|_| is_tar),
            source: LayerSource::Stored(blob),
            compressed,
            compressed_file: None,
        };
    }
    let total = spec.layers.iter().flat_map(SpecLayer::sizes).try_fold(0, u64::checked_add);
    if total.is_none_or(|total| total > limits.total) {
        return invalid(&format!(
            "the image has more than {} bytes (`--max-unpacked`)",
            limits.total
        ));
    }
    spec.sources.clear();
    Ok(spec)
}

/// Fetches the layers of an image that are not kept.
struct Fetch<'a, R, W> {
    sender: &'a mut Connected<R, W>,
    store: &'a Store,
    kept: &'a mut KeptLayers,
    watch: &'a dyn Watch,
}

/// A layer whose recipe has arrived.
struct Pending {
    index: usize,
    blob: NewBlob,
    /// The pieces that are missing, with their offsets.
    gaps: Vec<(u64, PieceId)>,
}

impl<R: Read, W: Write> Fetch<'_, R, W> {
    /// Fetches the layers from a number on, and gives each its file.
    fn layers(&mut self, spec: &mut ImageSpec, first: usize) -> Result<(), ReceiveError> {
        let mut lacking = Vec::new();
        let mut seen = BTreeSet::new();
        for index in first..spec.layers.len() {
            self.advance()?;
            let blob = stored(&spec.layers[index]);
            let (digest, size) = (blob.digest, blob.size);
            if !blob.file.as_os_str().is_empty() || seen.contains(&digest) {
                continue;
            }
            match self.kept.blob(&digest, size) {
                Some(file) => self.complete(spec, index, file)?,
                None => {
                    seen.insert(digest);
                    lacking.push(index);
                }
            }
        }
        self.lacking(spec, &lacking)?;
        // A blob may be that of several layers.
        for index in first..spec.layers.len() {
            let blob = stored(&spec.layers[index]);
            if blob.file.as_os_str().is_empty() {
                let file = self.kept.path(&blob.digest);
                self.complete(spec, index, file)?;
            }
        }
        Ok(())
    }

    fn lacking(&mut self, spec: &mut ImageSpec, lacking: &[usize]) -> Result<(), ReceiveError> {
        if lacking.is_empty() {
            return Ok(());
        }
        let numbers = lacking.iter().map(|index| u32::try_from(*index).expect("layers are few"));
        self.answer(&ReceiverMessage::Wants(numbers.collect()))?;
        let mut to_begin = lacking.iter().copied();
        let mut pending = VecDeque::new();
        let mut left = lacking.len();
        while left > 0 {
            self.advance()?;
            match Section::read(&mut self.sender.from)? {
                Section::Recipe(number) => {
                    let index = to_begin.next().filter(|index| *index == number as usize);
                    let index = index.filter(|_| pending.len() <= AHEAD);
                    let index = index.ok_or_else(|| out_of_turn(number))?;
                    let (begun, lacks) = self.recipe(spec, index)?;
                    self.answer(&ReceiverMessage::Lacks(lacks))?;
                    pending.push_back(begun);
                }
                Section::Pieces(number) => {
                    let first: Option<Pending> = pending.pop_front();
                    let first = first.filter(|it| it.index == number as usize);
                    let layer = first.ok_or_else(|| out_of_turn(number))?;
                    self.pieces(spec, layer)?;
                    left -= 1;
                }
            }
        }
        Ok(())
    }

    /// Reads a recipe. Returns the layer as far as it can be made from what is kept, and the pieces that
    /// are missing.
    fn recipe(
        &mut self,
        spec: &ImageSpec,
        index: usize,
    ) -> Result<(Pending, PieceSet), ReceiveError> {
        let expected = stored(&spec.layers[index]);
        let mut blob = self.kept.begin(&expected.digest)?;
        let (mut gaps, mut lacks) = (Vec::new(), PieceSet::default());
        let mut recipe = Recipe::default();
        let mut bytes = Vec::new();
        loop {
            match recipe.next(&mut self.sender.from)? {
                Step::End if blob.size() == expected.size => break,
                Step::End => return Err(size(index, expected)),
                Step::Literal(bytes) => {
                    self.advance()?;
                    if blob.size() + bytes.len() as u64 > expected.size {
                        return Err(size(index, expected));
                    }
                    blob.append(&bytes)?;
                }
                Step::Piece(piece) => {
                    self.advance()?;
                    if blob.size() + u64::from(piece.length) > expected.size {
                        return Err(size(index, expected));
                    }
                    let offset = blob.piece(&piece);
                    let is_there = self.kept.read(&piece, &mut bytes);
                    if is_there {
                        blob.append(&bytes)?;
                    } else {
                        blob.skip(piece.length);
                        gaps.push((offset, piece));
                    }
                    lacks.push(!is_there);
                }
            }
        }
        Ok((Pending { index, blob, gaps }, lacks))
    }

    /// Reads the missing pieces of a layer, and keeps it.
    fn pieces(&mut self, spec: &mut ImageSpec, layer: Pending) -> Result<(), ReceiveError> {
        let Pending { index, blob, gaps } = layer;
        let (number, count) = (index + 1, spec.layers.len());
        let mut bytes = Vec::new();
        for (offset, PieceId { digest, length }) in gaps {
            self.advance()?;
            bytes.resize(length as usize, 0);
            self.sender.from.read_exact(&mut bytes)?;
            if Digest::of(&bytes) != digest {
                return Err(ReceiveError::Piece { number, count });
            }
            blob.fill(offset, &bytes)?;
        }
        let digest = stored(&spec.layers[index]).digest;
        let kept = self.kept.keep(blob, &digest)?;
        let file = kept.ok_or(ReceiveError::Blob { number, count, digest })?;
        self.complete(spec, index, file)
    }

    /// Notes the file of a layer, and checks the tar in it if the layer is compressed.
    fn complete(
        &self,
        spec: &mut ImageSpec,
        index: usize,
        file: PathBuf,
    ) -> Result<(), ReceiveError> {
        let (number, count) = (index + 1, spec.layers.len());
        let layer = &mut spec.layers[index];
        let (diff_id, size) = (layer.diff_id, layer.size);
        let LayerSource::Stored(blob) = &mut layer.source else {
            unreachable!("each layer is a blob")
        };
        blob.file = file;
        if blob.media_type.compression == Compression::None {
            return Ok(());
        }
        let tar = blob.open_uncompressed(self.store);
        let found = tar.and_then(|tar| DigestReader::new(tar.take(size + 1)).finish());
        match found {
            Ok(found) if found == (*diff_id.digest(), size) => Ok(()),
            _ => Err(ReceiveError::DiffId { number, count, diff_id }),
        }
    }

    fn answer(&mut self, answer: &ReceiverMessage) -> Result<(), ReceiveError> {
        answer.write(&mut self.sender.to).map_err(ReceiveError::Answer)
    }

    /// Ends the copy if a signal asks for that.
    fn advance(&self) -> Result<(), ReceiveError> {
        self.watch.advance(0).map_err(ReceiveError::Read)
    }
}

fn stored(layer: &SpecLayer) -> &StoredBlob {
    layer.stored().expect("each layer is a blob")
}

fn out_of_turn(layer: u32) -> ReceiveError {
    ReceiveError::Invalid(format!("layer {layer} comes out of turn"))
}

fn size(index: usize, expected: &StoredBlob) -> ReceiveError {
    let number = index + 1;
    ReceiveError::Invalid(format!("layer {number} does not have {} bytes", expected.size))
}
