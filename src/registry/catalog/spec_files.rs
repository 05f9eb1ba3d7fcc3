//! Reads the files of image specs, each once, on several threads.
//! Stage: registry. Input: paths with the states of their files. Output: [`PreparedArtifact`]s.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use super::prepared::PreparedArtifact;
use crate::digest::Digest;
use crate::oci::{ArtifactFile, Error, Form};
use crate::registry::fingerprint::Fingerprint;
use crate::registry::parallel::in_parallel;
use crate::store::Store;

/// The contents of each file, or an error that says why they can't be used.
pub type SpecContents = BTreeMap<Fingerprint, Result<Arc<PreparedArtifact>, Error>>;

/// Remembers the files that were read, as long as a catalog has their contents.
#[derive(Default)]
pub struct SpecFiles {
    by_file: BTreeMap<Fingerprint, Weak<PreparedArtifact>>,
    /// Images by the bytes of their specs, so that copies of a file are one image. Indexes are not
    /// here: the bytes of an index do not say what the files have that it names.
    by_bytes: BTreeMap<Digest, Weak<PreparedArtifact>>,
}

/// Specs that threads are parsing, by the digest of their bytes. The cell has none if the spec
/// can't be parsed.
type Parsing = BTreeMap<Digest, Arc<OnceLock<Option<Arc<PreparedArtifact>>>>>;

impl SpecFiles {
    /// Returns the contents of each file. Reads each file that was not read before; with `again`,
    /// reads all of them.
    pub fn read(
        &mut self,
        store: &Store,
        files: BTreeMap<Fingerprint, PathBuf>,
        again: bool,
    ) -> SpecContents {
        if again {
            (self.by_file, self.by_bytes) = Default::default();
        }
        self.by_file.retain(|_, known| known.strong_count() > 0);
        self.by_bytes.retain(|_, known| known.strong_count() > 0);
        let mut contents = BTreeMap::new();
        let mut unknown = Vec::new();
        for (fingerprint, path) in files {
            match self.by_file.get(&fingerprint).and_then(Weak::upgrade) {
                Some(known) => drop(contents.insert(fingerprint, Ok(known))),
                None => unknown.push((fingerprint, path)),
            }
        }
        let parsing: Mutex<Parsing> = Mutex::default();
        let read = |(fingerprint, path): &(Fingerprint, PathBuf)| {
            Ok::<_, ()>((*fingerprint, self.contents(store, path, &parsing)))
        };
        // Separate threads from those that make layers: if a file system hangs, clients still get
        // answers.
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let read = in_parallel(threads, &unknown, read).unwrap_or_default();
        for (digest, parsed) in parsing.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Some(Some(artifact)) = parsed.get()
                && !artifact.is_index()
            {
                self.by_bytes.insert(digest, Arc::downgrade(artifact));
            }
        }
        let now = SystemTime::now();
        for (fingerprint, read) in read {
            if let Ok(artifact) = &read
                && !fingerprint.is_fresh(now)
            {
                self.by_file.insert(fingerprint, Arc::downgrade(artifact));
            }
            contents.insert(fingerprint, read);
        }
        contents
    }

    fn contents(
        &self,
        store: &Store,
        path: &Path,
        parsing: &Mutex<Parsing>,
    ) -> Result<Arc<PreparedArtifact>, Error> {
        let mut file = ArtifactFile::open(store, path)?;
        let digest = file.digest();
        let mut parse = || {
            let artifact = file.parse_for_layers(store)?;
            Ok(Arc::new(PreparedArtifact::new(artifact, Form::AsStored).compact().of_file(path)))
        };
        let Some(digest) = digest else { return parse() };
        if let Some(known) = self.by_bytes.get(&digest).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let cell = {
            let mut parsing = parsing.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(parsing.entry(digest).or_default())
        };
        let mut failed = None;
        let parsed = cell.get_or_init(|| parse().map_err(|error| failed = Some(error)).ok());
        match (parsed, failed) {
            (Some(artifact), _) => Ok(Arc::clone(artifact)),
            (None, Some(failed)) => Err(failed),
            // Another thread could not parse the same bytes. They are parsed again for an error
            // that names this file.
            (None, None) => parse(),
        }
    }
}
