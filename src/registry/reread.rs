//! Reads files again when they change: certificates and users.
//! Stage: registry. Input: paths. Output: the parsed contents.

use std::path::PathBuf;

use super::error::SetupError;
use super::fingerprint::Fingerprint;

/// Files, and a function that parses them.
pub struct Reread<T> {
    files: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> Result<T, SetupError>,
    fingerprints: Vec<Option<Fingerprint>>,
}

impl<T> Reread<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Returns the errors of `read`.
    pub fn new(
        files: Vec<PathBuf>,
        read: fn(&[PathBuf]) -> Result<T, SetupError>,
    ) -> Result<(Self, T), SetupError> {
        let mut this = Self { files, read, fingerprints: Vec::new() };
        this.fingerprints = this.look();
        let found = this.read_all()?;
        Ok((this, found))
    }

    /// Reads the files if they have changed, or in any case if `all` is true. Returns an error once
    /// for each change.
    pub fn again(&mut self, all: bool) -> Option<Result<T, SetupError>> {
        // Look before reading: a change during the reading is noticed the next time.
        let fingerprints = self.look();
        if !all && fingerprints == self.fingerprints {
            return None;
        }
        self.fingerprints = fingerprints;
        Some(self.read_all())
    }

    fn read_all(&self) -> Result<T, SetupError> {
        (self.read)(&self.files)
    }

    fn look(&self) -> Vec<Option<Fingerprint>> {
        self.files.iter().map(|file| Fingerprint::of(file)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn changes_are_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let read = |files: &[PathBuf]| {
            let texts = files.iter().map(|path| {
                let text = fs::read_to_string(path);
                text.map_err(|source| SetupError::Read { path: path.clone(), source })
            });
            texts.collect::<Result<String, _>>()
        };
        fs::write(path("one"), "1").unwrap();
        symlink(path("one"), path("link")).unwrap();
        let files = vec![path("one"), path("link")];
        let (mut reread, first) = Reread::new(files.clone(), read).unwrap();
        assert_eq!(first, "11");
        assert!(reread.again(false).is_none());
        assert_eq!(reread.again(true).unwrap().unwrap(), "11");
        fs::write(path("two"), "22").unwrap();
        symlink(path("two"), path("next")).unwrap();
        fs::rename(path("next"), path("link")).unwrap();
        assert_eq!(reread.again(false).unwrap().unwrap(), "122");
        fs::remove_file(path("one")).unwrap();
        assert!(reread.again(false).unwrap().is_err());
        assert!(reread.again(false).is_none());
        assert!(reread.again(true).unwrap().is_err());
        assert!(Reread::new(files, read).is_err());
    }
}
