//! Recognises a file that a user gives as an image.
//! Stage: oci. Opens files. Input: a path. Output: [`GivenFile`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use super::Error;
use super::build::LAYER_SET_FILE;
use super::compression::Compression;
use super::json_file;
use crate::regular_file;
use crate::store::Store;

/// The number of bytes that are read of a script. The scripts that stowage writes are shorter.
const SCRIPT: u64 = 64 << 10;
/// The line by which a script names its image spec (`nix/script.nix`).
const SPEC_LINE: &str = "# spec: ";
/// The words before an image's name in the command of a script.
const NAME_AFTER: [&str; 2] = ["--default-repo-tag ", "oci-archive:/dev/stdout:"];

/// The kind of a file that a user gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenFile {
    /// An image spec.
    Image(PathBuf),
    /// An index spec.
    Index(PathBuf),
    /// The layers that `buildLayer` made, without an image.
    Layers,
    /// A script of another program.
    Script,
    /// Something else, such as an archive.
    Other,
}

/// The image that a script of `buildImage` and similar functions writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageScript {
    /// The image spec or index spec.
    pub spec: PathBuf,
    /// The name that the script gives the image.
    pub name: Option<String>,
}

impl ImageScript {
    /// Parses the text of a script; none if it is somebody else's.
    pub fn parse(text: &str) -> Option<Self> {
        let spec = text.lines().find_map(|line| line.strip_prefix(SPEC_LINE))?;
        let name = NAME_AFTER.iter().find_map(|before| {
            let (_, rest) = text.split_once(before)?;
            Some(rest.split_whitespace().next()?.to_owned())
        });
        Some(Self { spec: spec.trim().into(), name })
    }

    /// Reads a file. Returns `None` if the file is not a script, and `Some(None)` if it is a script
    /// of another program.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub fn read(file: &Path) -> io::Result<Option<Option<Self>>> {
        // A pipe can only be read once: leave it to the caller.
        if !fs::metadata(file)?.is_file() {
            return Ok(None);
        }
        let mut open = regular_file::open(file)?;
        let mut start = [0; 2];
        match open.read_exact(&mut start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        if start != *b"#!" {
            return Ok(None);
        }
        let mut text = Vec::new();
        open.take(SCRIPT).read_to_end(&mut text)?;
        Ok(Some(Self::parse(&String::from_utf8_lossy(&text))))
    }
}

/// Returns the image spec or index spec that a user gives: the file itself, or the one that a
/// script names. A pipe is taken for a spec.
///
/// # Errors
/// Fails with [`Error::Read`], and [`Error::NotSpec`] for scripts of others, archives and
/// directories.
pub fn spec_file(file: &Path) -> Result<Cow<'_, Path>, Error> {
    let read_error = |source| Error::Read { file: file.to_owned(), source };
    let not_spec = |found| Err(Error::NotSpec { file: file.to_owned(), found });
    if file.is_dir() {
        return not_spec(if is_layer_set(file) { "what `buildLayer` made" } else { "a directory" });
    }
    match ImageScript::read(file).map_err(read_error)? {
        Some(Some(script)) => return Ok(script.spec.into()),
        Some(None) => return not_spec("a script"),
        None => {}
    }
    if file.is_file() {
        let mut start = Vec::new();
        let open = File::open(file).map_err(read_error)?;
        open.take(512).read_to_end(&mut start).map_err(read_error)?;
        if !Compression::of(&start).is_none() || start.get(257..262) == Some(b"ustar") {
            return not_spec("an archive");
        }
    }
    Ok(file.into())
}

/// The words for an index spec in [`Error::NotSpec`].
pub(super) const INDEX: &str = "an index of several images";

/// Says what the file of [`Error::Json`] is, if it is a JSON document of another kind or none at all. Other
/// errors stay as they are.
pub fn named(error: Error) -> Error {
    let Error::Json { file, .. } = &error else { return error };
    match other_document(file) {
        Some(found) => Error::NotSpec { file: file.clone(), found },
        None => error,
    }
}

/// Recognises a file that is no image spec by the keys of its JSON.
fn other_document(file: &Path) -> Option<&'static str> {
    // A pipe can only be read once, and to open a FIFO again would wait for another writer.
    let open = regular_file::open(file).ok()?;
    if open.metadata().ok()?.len() == 0 {
        return Some("an empty file");
    }
    let keys: Result<BTreeMap<String, IgnoredAny>, _> = json_file::read_from(open, file, "");
    let has = |key: &str| keys.as_ref().is_ok_and(|keys| keys.contains_key(key));
    match keys {
        Err(Error::Json { source, .. }) if source.is_syntax() => Some("no JSON"),
        Ok(_) if has("images") => Some(INDEX),
        Ok(_) if has("storePaths") => None,
        Ok(_) if has("manifests") => Some("the index of an OCI layout or of a registry"),
        Ok(_) if has("rootfs") => Some("the configuration of an image"),
        Ok(_) if has("schemaVersion") => Some("the manifest of an image"),
        _ => None,
    }
}

/// Returns whether `buildLayer` made a directory.
fn is_layer_set(directory: &Path) -> bool {
    directory.join(LAYER_SET_FILE).is_file()
}

/// Recognises a file or directory by its contents.
///
/// # Errors
/// Fails if the file can't be read.
pub fn recognise(store: &Store, path: &Path) -> io::Result<GivenFile> {
    let physical = store.locate(path);
    if physical.is_dir() {
        return Ok(if is_layer_set(&physical) { GivenFile::Layers } else { GivenFile::Other });
    }
    let spec = match ImageScript::read(&physical)? {
        Some(Some(script)) => script.spec,
        Some(None) => return Ok(GivenFile::Script),
        None => path.to_owned(),
    };
    let physical = store.locate(&spec);
    if !fs::metadata(&physical)?.is_file() {
        return Ok(GivenFile::Other);
    }
    let open = regular_file::open(&physical)?;
    let keys: Result<BTreeMap<String, IgnoredAny>, _> = json_file::read_from(open, &physical, "");
    Ok(match keys {
        Ok(keys) if keys.contains_key("images") => GivenFile::Index(spec),
        Ok(keys) if keys.contains_key("storePaths") => GivenFile::Image(spec),
        _ => GivenFile::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::ImageSpec;

    #[test]
    fn scripts_name_a_spec_and_an_image() {
        for (text, spec, name) in [
            (
                "#!/bin/sh\n# spec: /nix/store/x-image.json\nexec /nix/store/y/bin/stowage stream /nix/store/x-image.json --default-repo-tag team/hello:v1 \"$@\"\n",
                Some("/nix/store/x-image.json"),
                Some("team/hello:v1"),
            ),
            (
                "#!/bin/sh\n# spec: /s\nexec stowage copy --quiet /s oci-archive:/dev/stdout:a:b \"$@\"\n",
                Some("/s"),
                Some("a:b"),
            ),
            ("#!/bin/sh\n# spec: /s\n", Some("/s"), None),
            ("#!/bin/sh\nexec cat /image.tar\n", None, None),
        ] {
            let script = ImageScript::parse(text);
            assert_eq!(script.as_ref().map(|script| &*script.spec), spec.map(Path::new), "{text}");
            assert_eq!(script.and_then(|script| script.name).as_deref(), name, "{text}");
        }
    }

    /// Checks that a FIFO is not opened again after its contents were found to be no image spec.
    #[test]
    fn a_fifo_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| std::fs::write(&fifo, "x").unwrap());
            assert!(matches!(ImageSpec::read(&fifo), Err(Error::Json { .. })));
        });
    }

    #[test]
    fn files_are_recognised_by_what_is_in_them() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        std::fs::create_dir(at("layers")).unwrap();
        std::fs::create_dir(at("layout")).unwrap();
        write("layers/layers.json", "{}");
        write("image.json", r#"{"version": 1, "layers": [], "storePaths": []}"#);
        write("index.json", r#" {"version": 1, "images": []}"#);
        write("script", &format!("#!/bin/sh\n# spec: {}\n", at("index.json").display()));
        write("other-script", "#!/bin/sh\ntrue\n");
        write("manifest.json", r#"{"layers": []}"#);
        write("empty", "");
        write("x", "x");
        for (name, given) in [
            ("layers", GivenFile::Layers),
            ("layout", GivenFile::Other),
            ("image.json", GivenFile::Image(at("image.json"))),
            ("index.json", GivenFile::Index(at("index.json"))),
            ("script", GivenFile::Index(at("index.json"))),
            ("other-script", GivenFile::Script),
            ("manifest.json", GivenFile::Other),
            ("empty", GivenFile::Other),
            ("x", GivenFile::Other),
        ] {
            assert_eq!(recognise(&Store::default(), &at(name)).unwrap(), given, "{name}");
        }
        assert!(recognise(&Store::default(), &at("nowhere")).is_err());
        write("configuration", r#"{"rootfs": {}}"#);
        write("layout-index", r#"{"schemaVersion": 2, "manifests": []}"#);
        write("manifest", r#"{"schemaVersion": 2, "layers": []}"#);
        write("damaged", r#"{"version": 1, "storePaths": [1]}"#);
        for (name, expected) in [
            ("empty", Some("an empty file")),
            ("x", Some("no JSON")),
            ("index.json", Some(INDEX)),
            ("layout-index", Some("the index of an OCI layout or of a registry")),
            ("manifest", Some("the manifest of an image")),
            ("configuration", Some("the configuration of an image")),
            ("damaged", None),
        ] {
            let found = match ImageSpec::read(&at(name)) {
                Err(Error::NotSpec { found, .. }) => Some(found),
                Err(Error::Json { .. }) => None,
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(found, expected, "{name}");
        }
        let mut gzip = vec![0x1f, 0x8b, 8, 0];
        gzip.resize(600, 0);
        std::fs::write(at("archive"), gzip).unwrap();
        for (name, found) in [
            ("image.json", Ok("image.json")),
            ("script", Ok("index.json")),
            ("x", Ok("x")),
            ("other-script", Err("a script")),
            ("layout", Err("a directory")),
            ("layers", Err("what `buildLayer` made")),
            ("archive", Err("an archive")),
        ] {
            let file = at(name);
            match (spec_file(&file), found) {
                (Ok(file), Ok(found)) => assert_eq!(file, at(found), "{name}"),
                (Err(Error::NotSpec { found, .. }), Err(expected)) => assert_eq!(found, expected),
                (other, _) => panic!("{name}: {other:?}"),
            }
        }
    }
}
