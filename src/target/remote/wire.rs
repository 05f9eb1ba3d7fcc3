//! Reads and writes the messages between the two sides, each with a limit on its length.
//! Stage: target. Input and output: bytes.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::cut::{MOST_PART, MOST_PIECES, Part};
use crate::digest::{BlobDigest, Checksum, Digest};
use crate::oci::{Architecture, ImageSpec, LayerBlob};

/// The version of the protocol. Each side refuses all others.
pub const VERSION: u32 = 1;
/// The beginning of the sender's first line; the version follows.
const SENDER: &str = "stowage send ";
/// The beginning of the receiver's first line; the version and the architecture follow.
pub const RECEIVER: &str = "stowage receive ";
/// The largest length of a greeting.
const MOST_GREETING: usize = 200;
/// The largest image spec, as JSON.
const MOST_OFFER: usize = 32 << 20;
/// The largest message of the receiver.
const MOST_MESSAGE: usize = 1 << 20;
/// The number of recipes that the sender sends before it waits for an answer to the first one.
pub const AHEAD: usize = 16;

/// The image as the sender describes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Offer {
    /// The image. Each layer is a stored blob, with the digest of the bytes that are sent.
    pub spec: ImageSpec,
    /// The properties of the layers that a stored blob does not have.
    pub layers: Vec<OfferedLayer>,
}

/// The properties of a layer beside its blob.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OfferedLayer {
    /// The checksum of the uncompressed tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// The compressed blob, if the image's author wants compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed: Option<LayerBlob>,
}

/// A message of the receiver.
#[derive(Debug)]
pub enum ReceiverMessage {
    /// The layers that the receiver lacks, by their indexes.
    Wants(Vec<u32>),
    /// The pieces of a layer that the receiver lacks.
    Lacks(PieceSet),
    /// The image is in its place.
    Done(Done),
    /// The receiver failed.
    Failed(ReceiverFailure),
}

/// The result of a copy.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// The digest of the manifest that was written.
    pub manifest_digest: BlobDigest,
    /// The digest of the image's configuration.
    pub image_id: Digest,
    /// True if the daemon lacked a layer that it was expected to have.
    pub fell_back: bool,
}

/// The failure of a receiver.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverFailure {
    /// The error, with its causes.
    pub message: String,
    /// The advice that goes with it.
    #[serde(default)]
    pub hint: Option<String>,
}

/// A set of a layer's pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceSet {
    bits: Vec<u8>,
    /// The number of pieces that were added, in the set or not.
    count: usize,
}

impl PieceSet {
    /// Adds the next piece, or leaves it out.
    pub fn push(&mut self, is_in: bool) {
        if self.count.is_multiple_of(8) {
            self.bits.push(0);
        }
        self.bits[self.count / 8] |= u8::from(is_in) << (self.count % 8);
        self.count += 1;
    }

    /// Returns whether the set has a piece. It has none beyond its end.
    pub fn has(&self, index: usize) -> bool {
        self.bits.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// Returns whether the set has no piece.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|byte| *byte == 0)
    }

    /// Returns whether the set was made for `count` pieces.
    pub fn is_of(&self, count: usize) -> bool {
        self.bits.len() == count.div_ceil(8) && (count..self.bits.len() * 8).all(|at| !self.has(at))
    }
}

/// Returns an error about bytes that the protocol does not allow.
fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Writes the sender's greeting.
///
/// # Errors
/// Returns the errors of `out`.
pub fn greet_receiver(mut out: impl Write) -> io::Result<()> {
    writeln!(out, "{SENDER}{VERSION}")?;
    out.flush()
}

/// Writes the receiver's greeting.
///
/// # Errors
/// Returns the errors of `out`.
pub fn greet_sender(mut out: impl Write, architecture: &Architecture) -> io::Result<()> {
    writeln!(out, "{RECEIVER}{VERSION} {architecture}")?;
    out.flush()
}

/// Reads the sender's greeting, and checks its version.
///
/// # Errors
/// Fails with [`io::ErrorKind::InvalidData`] if it is no greeting, or one of another version.
pub fn read_sender(from: &mut impl Read) -> io::Result<()> {
    let line = line(from)?;
    let version = line.strip_prefix(SENDER).ok_or_else(|| {
        invalid("no image is sent: `stowage copy` on another machine runs this command")
    })?;
    if version == VERSION.to_string() {
        return Ok(());
    }
    Err(invalid(format!(
        "the sender has version {version} of the protocol, and this program {VERSION}: install the same version of stowage on both machines"
    )))
}

/// Reads a line, without its end.
///
/// # Errors
/// Fails with [`io::ErrorKind::UnexpectedEof`] before a line's end, and with
/// [`io::ErrorKind::InvalidData`] if the line is longer than a greeting, or no text.
fn line(from: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    // Bytes behind the line are those of another reader.
    loop {
        let [byte] = array(from)?;
        match byte {
            b'\n' => break,
            _ if line.len() == MOST_GREETING => return Err(invalid("a line is too long")),
            _ => line.push(byte),
        }
    }
    let line = String::from_utf8(line).map_err(|_| invalid("a line is no text"))?;
    Ok(line.trim_end_matches('\r').to_owned())
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(from: &mut impl Read) -> io::Result<u32> {
    array(from).map(u32::from_le_bytes)
}

/// Reads a length, and then as many bytes. Reserves no memory before they arrive.
fn bytes(from: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let length = number(from)?;
    if length as usize > most {
        return Err(invalid(format!("{length} bytes, where {most} are the most")));
    }
    let mut bytes = Vec::new();
    from.take(length.into()).read_to_end(&mut bytes)?;
    if bytes.len() == length as usize {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn write_bytes(out: &mut impl Write, bytes: &[u8], most: usize) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= most);
    let length = length
        .ok_or_else(|| invalid(format!("{} bytes, where {most} are the most", bytes.len())))?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

impl Offer {
    /// Writes the offer.
    ///
    /// # Errors
    /// Fails if the offer is too large, or with the error of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write_bytes(out, &serde_json::to_vec(self)?, MOST_OFFER)
    }

    /// Reads an offer.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::InvalidData`] if it is not valid, or with the error of `from`.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let json = bytes(from, MOST_OFFER)?;
        serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))
    }
}

impl ReceiverMessage {
    /// Writes the message.
    ///
    /// # Errors
    /// Fails if the message is too large, or with the error of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (kind, bytes) = match self {
            Self::Wants(layers) => (b'W', layers.iter().flat_map(|at| at.to_le_bytes()).collect()),
            Self::Lacks(pieces) => (b'L', pieces.bits.clone()),
            Self::Done(done) => (b'D', serde_json::to_vec(done)?),
            Self::Failed(failed) => (b'F', serde_json::to_vec(failed)?),
        };
        out.write_all(&[kind])?;
        write_bytes(out, &bytes, MOST_MESSAGE)?;
        out.flush()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::InvalidData`] if it is not valid, or with the error of `from`.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let [kind] = array(from)?;
        let bytes = bytes(from, MOST_MESSAGE)?;
        let of_json = |error: serde_json::Error| invalid(error.to_string());
        match kind {
            b'W' => {
                let (numbers, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(invalid("half a number"));
                }
                Ok(Self::Wants(numbers.iter().map(|it| u32::from_le_bytes(*it)).collect()))
            }
            b'L' => Ok(Self::Lacks(PieceSet { count: bytes.len() * 8, bits: bytes })),
            b'D' => serde_json::from_slice(&bytes).map(Self::Done).map_err(of_json),
            b'F' => serde_json::from_slice(&bytes).map(Self::Failed).map_err(of_json),
            other => Err(invalid(format!("no message begins with the byte {other}"))),
        }
    }
}

/// The beginning of what the sender sends of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The recipe of the layer with this index follows.
    Recipe(u32),
    /// The pieces follow that the receiver lacks of the layer with this index.
    Pieces(u32),
}

impl Section {
    /// Writes the beginning.
    ///
    /// # Errors
    /// Returns the errors of `out`.
    pub fn write(self, out: &mut impl Write) -> io::Result<()> {
        let (kind, layer) = match self {
            Self::Recipe(layer) => (b'R', layer),
            Self::Pieces(layer) => (b'P', layer),
        };
        out.write_all(&[kind])?;
        out.write_all(&layer.to_le_bytes())
    }

    /// Reads the beginning.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::InvalidData`] if it is not valid, or with the error of `from`.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let [kind] = array(from)?;
        match kind {
            b'R' => number(from).map(Self::Recipe),
            b'P' => number(from).map(Self::Pieces),
            other => Err(invalid(format!("nothing of a layer begins with the byte {other}"))),
        }
    }
}

/// A step of a recipe.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The layer's next bytes.
    Literal(Vec<u8>),
    /// The layer's next bytes are a piece.
    Piece(PieceId),
    /// The layer is complete.
    End,
}

/// A piece: its digest and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceId {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The number of bytes, which is not zero.
    pub length: u32,
}

/// Writes a part of a layer as a step of its recipe.
///
/// # Errors
/// Returns the errors of `out`.
pub fn write_part(out: &mut impl Write, part: Part) -> io::Result<()> {
    match part {
        Part::Literal(bytes) => {
            out.write_all(&[1])?;
            write_bytes(out, bytes, MOST_PART)
        }
        Part::Piece(bytes) => {
            let length = u32::try_from(bytes.len()).expect("pieces are short");
            out.write_all(&[2])?;
            out.write_all(&length.to_le_bytes())?;
            out.write_all(&Digest::of(bytes).bytes())
        }
    }
}

/// Writes the end of a recipe.
///
/// # Errors
/// Returns the errors of `out`.
pub fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0])
}

/// Reads the steps of a recipe.
#[derive(Default)]
pub struct Recipe {
    pieces: usize,
}

impl Recipe {
    /// Reads the next step.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::InvalidData`] if it is not valid, or with the error of `from`.
    pub fn next(&mut self, from: &mut impl Read) -> io::Result<Step> {
        let [kind] = array(from)?;
        match kind {
            0 => Ok(Step::End),
            1 => bytes(from, MOST_PART).map(Step::Literal),
            2 => {
                let (length, digest) = (number(from)?, Digest::from_bytes(array(from)?));
                self.pieces += 1;
                if self.pieces > MOST_PIECES {
                    return Err(invalid(format!("a layer has more than {MOST_PIECES} pieces")));
                }
                if length == 0 || length as usize > MOST_PART {
                    return Err(invalid(format!("a piece has {length} bytes")));
                }
                Ok(Step::Piece(PieceId { digest, length }))
            }
            other => Err(invalid(format!("no step begins with the byte {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_those_of_the_pieces() {
        for count in [0, 1, 7, 8, 9, 100] {
            let mut set = PieceSet::default();
            (0..count).for_each(|at| set.push(at % 3 == 0));
            assert!(set.is_of(count));
            assert!((0..count + 20).all(|at| set.has(at) == (at < count && at % 3 == 0)));
            assert_eq!(set.is_empty(), count == 0);
            assert!(!set.is_of(count + 8), "{count}");
            let mut written = Vec::new();
            ReceiverMessage::Lacks(set.clone()).write(&mut written).unwrap();
            let ReceiverMessage::Lacks(read) = ReceiverMessage::read(&mut &written[..]).unwrap()
            else {
                panic!()
            };
            assert!(read.is_of(count) && read.bits == set.bits);
        }
        // A piece that there is not.
        assert!(!PieceSet { bits: vec![0b1000], count: 8 }.is_of(3));
    }

    #[test]
    fn steps_are_read_as_written() {
        let mut written = Vec::new();
        write_part(&mut written, Part::Literal(b"a")).unwrap();
        write_part(&mut written, Part::Piece(b"bc")).unwrap();
        write_end(&mut written).unwrap();
        let (mut from, mut recipe) = (&written[..], Recipe::default());
        let id = PieceId { digest: Digest::of(b"bc"), length: 2 };
        for step in [Step::Literal(b"a".to_vec()), Step::Piece(id), Step::End] {
            assert_eq!(recipe.next(&mut from).unwrap(), step);
        }
        for cut in 0..written.len() {
            let (mut from, mut recipe) = (&written[..cut], Recipe::default());
            let error = std::iter::repeat_with(|| recipe.next(&mut from)).find_map(Result::err);
            assert_eq!(error.unwrap().kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
    }

    /// Checks that no length of the other side is believed, and no memory reserved for it.
    #[test]
    fn what_is_not_valid_is_refused() {
        let huge = [0xff; 4];
        let piece = |length: u32| [&[2][..], &length.to_le_bytes(), &[0; 32]].concat();
        let mut recipe = Recipe::default();
        for bytes in [[&[1][..], &huge].concat(), piece(0), piece(u32::MAX), vec![3]] {
            let error = recipe.next(&mut &bytes[..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        let piece = piece(1);
        let mut pieces = Recipe::default();
        assert!((0..MOST_PIECES).all(|_| pieces.next(&mut &piece[..]).is_ok()));
        assert!(pieces.next(&mut &piece[..]).is_err());
        for bytes in [
            [b"W", &huge[..]].concat(),
            b"W\x03\0\0\0abc".to_vec(),
            b"D\x02\0\0\0{}".to_vec(),
            b"F\x01\0\0\0{".to_vec(),
            b"?\0\0\0\0".to_vec(),
        ] {
            let error = ReceiverMessage::read(&mut &bytes[..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        assert!(Section::read(&mut &b"X\0\0\0\0"[..]).is_err());
        assert!(Offer::read(&mut &huge[..]).is_err());
        assert!(Offer::read(&mut &b"\x02\0\0\0{}"[..]).is_err());
        let long = "a".repeat(MOST_GREETING + 1);
        for greeting in ["ssh\n", "stowage send 2\n", "stowage send\n", &long, "\u{e9}"] {
            assert!(read_sender(&mut greeting.as_bytes()).is_err(), "{greeting}");
        }
        assert!(read_sender(&mut &b"\xff\n"[..]).is_err());
        read_sender(&mut &b"stowage send 1\r\n"[..]).unwrap();
    }
}
