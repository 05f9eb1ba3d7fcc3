//! Store paths and the places of their files.
//! Vocabulary: names no stage.

mod path;
mod shared;

use std::fmt;
use std::path::{Path, PathBuf};

pub use path::{ParseStorePathError, StorePath};
pub use shared::{sharing, sharing_known};

/// The store directory of every store from which images are made.
const DIR: &str = "/nix/store";

/// A Nix store: its *store directory*, which paths and images name, and the place of that directory
/// on this machine, which may be below another root (Nix manual, "local store", `root`).
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    case_hack: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self::below("/")
    }
}

impl Store {
    /// Returns the store `/nix/store` whose files are below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), case_hack: cfg!(target_os = "macos") }
    }

    /// Returns this store with or without the suffixes that Nix appends to names on file systems of
    /// macOS.
    pub fn with_case_hack(self, case_hack: bool) -> Self {
        Self { case_hack, ..self }
    }

    /// Returns whether file names in this store that differ only in case have a suffix, which they
    /// have nowhere else (nix.conf, `use-case-hack`).
    pub fn case_hack(&self) -> bool {
        self.case_hack
    }

    /// Returns the store directory as store paths name it.
    pub fn dir(&self) -> &'static str {
        DIR
    }

    /// Parses `/nix/store/<hash>-<name>`. A path below a store path is an error.
    pub fn parse(&self, text: &str) -> Result<StorePath, ParseStorePathError> {
        StorePath::parse_in(self.dir(), text)
    }

    /// Returns the part of a whole path below the store directory. The part may not be a valid name
    /// of a store path.
    pub(crate) fn base_of<'t>(&self, text: &'t str) -> Option<&'t str> {
        text.strip_prefix(self.dir())?.strip_prefix('/')
    }

    /// Returns the whole path as Nix prints it.
    pub fn print(&self, path: &StorePath) -> String {
        self.display(path).to_string()
    }

    /// Returns the whole path to be formatted, without a string of its own.
    pub fn display<'p>(&self, path: &'p StorePath) -> impl fmt::Display + use<'p> {
        WholePath(self.dir(), path)
    }

    /// Returns the store directory's place on this machine.
    pub fn physical_dir(&self) -> PathBuf {
        self.root.join(self.dir().trim_start_matches('/'))
    }

    /// Returns the store path's place on this machine.
    pub fn physical(&self, path: &StorePath) -> PathBuf {
        self.physical_dir().join(path.base_path())
    }

    /// Returns the place on this machine of a file that is named by its whole path: below the root
    /// if it is in the store directory, else unchanged.
    pub fn locate(&self, file: &Path) -> PathBuf {
        match file.strip_prefix(self.dir()) {
            Ok(below) => self.physical_dir().join(below),
            Err(_) => file.to_owned(),
        }
    }

    /// Returns the whole path by which Nix knows a file of the store: the inverse of
    /// [`Store::locate`].
    pub fn logical(&self, file: &Path) -> PathBuf {
        match file.strip_prefix(self.physical_dir()) {
            Ok(below) => Path::new(self.dir()).join(below),
            Err(_) => file.to_owned(),
        }
    }
}

/// Prints a store directory and a path in it.
struct WholePath<'p>(&'static str, &'p StorePath);

impl fmt::Display for WholePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// Reads and writes a store path as JSON: the whole path, `/nix/store/<hash>-<name>`.
///
/// For `#[serde(with = "store::full_path")]`.
pub mod full_path {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::{Store, StorePath};

    /// Writes the whole path.
    pub fn serialize<S: Serializer>(path: &StorePath, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Store::default().display(path))
    }

    /// Reads the whole path.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StorePath, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::shared::parse(&text).map_err(de::Error::custom)
    }
}

/// Reads and writes store paths as a JSON array of whole paths.
///
/// For `#[serde(with = "store::full_paths")]`.
pub mod full_paths {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeSeq};

    use super::StorePath;

    #[derive(Deserialize)]
    struct Owned(#[serde(with = "super::full_path")] StorePath);

    #[derive(Serialize)]
    struct Borrowed<'p>(#[serde(with = "super::full_path")] &'p StorePath);

    /// Writes the paths in the order given.
    pub fn serialize<'p, S: Serializer>(
        paths: impl IntoIterator<Item = &'p StorePath>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        for path in paths {
            sequence.serialize_element(&Borrowed(path))?;
        }
        sequence.end()
    }

    /// Reads the paths in the order given.
    pub fn deserialize<'de, D: Deserializer<'de>, C: FromIterator<StorePath>>(
        deserializer: D,
    ) -> Result<C, D::Error> {
        let mut paths = Vec::<Owned>::deserialize(deserializer)?;
        // `collect` may reuse this vector's memory, which can be larger than needed.
        paths.shrink_to_fit();
        Ok(paths.into_iter().map(|path| path.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "/nix/store/1b9p07z77phvv2hf6gm9f28syp39f1ag-hello-2.12";

    #[test]
    fn prints_what_it_parses() {
        let store = Store::default();
        assert_eq!(store.print(&store.parse(HELLO).unwrap()), HELLO);
    }

    #[test]
    fn refuses_what_is_no_store_path() {
        for (why, text) in [
            ("the store directory", "/nix/store"),
            ("a path below a store path", &format!("{HELLO}/bin/hello")),
            ("another store directory", &HELLO.replace("/nix", "/gnu")),
            ("relative", &HELLO[1..]),
            ("short hash", "/nix/store/1b9p07z77phvv2hf6gm9f28syp39f1-hello"),
            ("a letter that base-32 lacks", &HELLO.replace("1b9p", "1e9p")),
            ("no name", "/nix/store/1b9p07z77phvv2hf6gm9f28syp39f1ag-"),
        ] {
            assert!(Store::default().parse(text).is_err(), "{why}: {text}");
        }
    }

    #[test]
    fn finds_files_below_another_root() {
        let store = Store::below("/tmp/root");
        let path = store.parse(HELLO).unwrap();
        let physical = store.physical(&path);
        assert_eq!(physical, Path::new("/tmp/root").join(&HELLO[1..]));
        assert_eq!(store.locate(&Path::new(HELLO).join("bin")), physical.join("bin"));
        assert_eq!(store.locate(Path::new("/tmp/elsewhere")), Path::new("/tmp/elsewhere"));
    }

    /// Checks that store paths sort as their printed form does: the order is part of the output.
    #[test]
    fn sorts_as_printed() {
        let store = Store::default();
        let mut texts = [
            HELLO,
            "/nix/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-a",
            "/nix/store/0000000000000000000000000000000z-b",
            "/nix/store/0000000000000000000000000000000z-a",
            "/nix/store/z0000000000000000000000000000000-a",
        ];
        let mut paths: Vec<_> = texts.iter().map(|text| store.parse(text).unwrap()).collect();
        texts.sort();
        paths.sort();
        assert_eq!(paths.iter().map(|path| store.print(path)).collect::<Vec<_>>(), texts);
    }
}
