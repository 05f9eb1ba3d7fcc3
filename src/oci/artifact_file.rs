//! Reads the file of an image or of an index, whichever it is, and only once.
//! Stage: oci. Input: a path. Output: [`Artifact`].

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Error;
use super::architecture::Architecture;
use super::artifact::Artifact;
use super::index_spec::{INDEX_SPEC, IndexSpec};
use super::json_file;
use super::platform::Platform;
use super::recognise::{named, spec_file};
use super::spec::{self, ForLayers, ImageSpec, Outline};
use crate::digest::Digest;
use crate::store::Store;

/// The largest file that is read into memory as a whole, which is faster than to read it as a
/// stream.
const SMALL: u64 = 1 << 20;

/// The parts of an image spec that are read.
#[derive(Clone, Copy)]
enum ReadParts {
    /// All except the references: the store paths that each store path refers to.
    Outline,
    /// Only what layers are made of: no information about store paths.
    ForLayers,
}

/// A file with an image spec or an index spec, which is not parsed yet.
pub struct ArtifactFile {
    file: PathBuf,
    bytes: Bytes,
}

/// The bytes of a file: a large one is read as a stream.
enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

impl ArtifactFile {
    /// Opens a file with a spec. If the file is a script for `copy-to` and the like, opens the spec
    /// that the script names.
    ///
    /// # Errors
    /// Fails with [`Error::Read`] and [`Error::NotSpec`].
    pub fn open(store: &Store, file: &Path) -> Result<Self, Error> {
        let file = match spec_file(file)? {
            // This file was named by the user, so that its path is one of this machine, even if the
            // store has another root.
            Cow::Borrowed(file) => file.to_owned(),
            Cow::Owned(of_script) => store.locate(&of_script),
        };
        match Bytes::open(&file) {
            Ok(bytes) => Ok(Self { file, bytes }),
            Err(source) => Err(Error::Read { file, source }),
        }
    }

    /// Returns the digest of the file's bytes, if they are in memory.
    pub fn digest(&self) -> Option<Digest> {
        match &self.bytes {
            Bytes::File(_) => None,
            Bytes::Memory(bytes) => Some(Digest::of(bytes)),
        }
    }

    /// Parses the file for making documents and layers. The information about store paths, which
    /// these do not need, is left out.
    ///
    /// # Errors
    /// Fails with [`Error::Read`], [`Error::Json`], and those of [`IndexSpec::load`].
    pub fn parse_for_layers(&mut self, store: &Store) -> Result<Artifact, Error> {
        self.parse(store, ReadParts::ForLayers)
    }

    /// Parses the file, or of an index the file of the image for an architecture, with the references of
    /// store paths.
    ///
    /// # Errors
    /// Fails with [`Error::Read`], [`Error::Json`], [`Error::NoSuchPlatform`], and those of
    /// [`IndexSpec::load`].
    pub fn parse_whole(
        &mut self,
        store: &Store,
        architecture: &Architecture,
    ) -> Result<ImageSpec, Error> {
        if !self.is_index()? {
            return self.json(spec::WHAT);
        }
        let index = self.json::<IndexSpec>(INDEX_SPEC)?.checked(&self.file)?;
        let file = index.file_for(store, architecture)?;
        Self::open(store, &store.locate(file))?.json(spec::WHAT)
    }

    /// Reads the platform of an image spec, and nothing else.
    fn platform(&mut self) -> Result<Platform, Error> {
        /// The only field of an image spec that is read.
        #[derive(Deserialize)]
        struct WithPlatform {
            platform: Platform,
        }
        self.json(spec::WHAT).map(|WithPlatform { platform }| platform)
    }

    fn parse(&mut self, store: &Store, parts: ReadParts) -> Result<Artifact, Error> {
        if !self.is_index()? {
            return self.image_spec(parts).map(Artifact::from);
        }
        let spec = self.json::<IndexSpec>(INDEX_SPEC)?.checked(&self.file)?;
        spec.load_parts(store, parts)
    }

    fn image_spec(&mut self, parts: ReadParts) -> Result<ImageSpec, Error> {
        match parts {
            ReadParts::Outline => self.json(spec::WHAT).map(|Outline(spec)| spec),
            ReadParts::ForLayers => self.json(spec::WHAT).map(|ForLayers(spec)| spec),
        }
    }

    /// Returns whether the file has an index. Reads up to the first key that only one of the two
    /// formats has.
    fn is_index(&mut self) -> Result<bool, Error> {
        let mut found = None;
        let key = FormatKey(&mut found);
        match &mut self.bytes {
            Bytes::Memory(bytes) => {
                let _ = key.deserialize(&mut serde_json::Deserializer::from_slice(bytes));
            }
            Bytes::File(open) => {
                let reader = BufReader::new(&*open);
                let _ = key.deserialize(&mut serde_json::Deserializer::from_reader(reader));
                let rewound = open.rewind();
                rewound.map_err(|source| Error::Read { file: self.file.clone(), source })?;
            }
        }
        Ok(found == Some(true))
    }

    fn json<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, Error> {
        let read = match &mut self.bytes {
            Bytes::Memory(bytes) => json_file::read_bytes(bytes, &self.file, what),
            Bytes::File(open) => json_file::read_from(open, &self.file, what),
        };
        if what == spec::WHAT { read.map_err(named) } else { read }
    }
}

impl Artifact {
    /// Reads an image spec or an index spec: `file` itself, or the one that a script names.
    ///
    /// # Errors
    /// Fails with [`Error::Read`], [`Error::NotSpec`], [`Error::Json`], and those of
    /// [`IndexSpec::load`].
    pub fn read(store: &Store, file: &Path) -> Result<Self, Error> {
        ArtifactFile::open(store, file)?.parse(store, ReadParts::Outline)
    }
}

impl IndexSpec {
    /// Reads the images.
    ///
    /// # Errors
    /// Fails with [`Error::EmptyIndex`] if there are no images, with [`Error::SamePlatform`] if two
    /// are for one platform, or if an image spec can't be read.
    pub fn load(self, store: &Store) -> Result<Artifact, Error> {
        self.load_parts(store, ReadParts::Outline)
    }

    fn load_parts(self, store: &Store, parts: ReadParts) -> Result<Artifact, Error> {
        let image = |file: &Path| {
            let spec = ArtifactFile::open(store, &store.locate(file))?.image_spec(parts)?;
            Ok(Arc::new(spec))
        };
        let images = self.files().map(image).collect::<Result<Vec<_>, Error>>()?;
        self.check_platforms(images.iter().map(|image| image.platform()))?;
        let entries = self.images.into_iter().map(|entry| entry.annotations).collect();
        Ok(Artifact::of_index(images, entries, self.annotations))
    }

    /// Returns the file of the image for an architecture. Keeps nothing of the other images in
    /// memory.
    ///
    /// # Errors
    /// Fails with [`Error::NoSuchPlatform`] if no image is for the architecture, and with the errors
    /// of [`IndexSpec::load`].
    pub(super) fn file_for(
        &self,
        store: &Store,
        architecture: &Architecture,
    ) -> Result<&Path, Error> {
        let platform = |file| ArtifactFile::open(store, &store.locate(file))?.platform();
        let platforms = self.files().map(platform).collect::<Result<Vec<_>, Error>>()?;
        self.check_platforms(platforms.iter().cloned())?;
        let wanted = Platform::linux(architecture);
        let found = self.files().zip(&platforms).find(|(_, platform)| platform.is(&wanted));
        let (file, _) = found.ok_or_else(|| Error::no_such_platform(&wanted, platforms.iter()))?;
        Ok(file)
    }
}

impl Bytes {
    fn open(file: &Path) -> io::Result<Self> {
        let mut open = File::open(file)?;
        let mut bytes = Vec::new();
        let metadata = open.metadata()?;
        if !metadata.is_file() {
            open.read_to_end(&mut bytes)?;
            return Ok(Self::Memory(bytes));
        }
        if metadata.len() <= SMALL {
            open.by_ref().take(SMALL + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 <= SMALL {
                return Ok(Self::Memory(bytes));
            }
            // The file has grown since its size was read, and is now too large for memory.
            open.rewind()?;
        }
        Ok(Self::File(open))
    }
}

/// Reads an object up to the first key that only an index spec or only an image spec has, and ends
/// there with an error. The field then is true if the key is that of an index spec.
struct FormatKey<'f>(&'f mut Option<bool>);

impl<'de> DeserializeSeed<'de> for FormatKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FormatKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let is_index = key == "images";
            if is_index || ["platform", "layers", "storePaths"].contains(&&*key) {
                *self.0 = Some(is_index);
                return Err(de::Error::custom("the format is known"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
