//! Collects the images of a registry from files and directories, which may change.
//! Stage: registry. Input: paths. Output: [`Catalog`], again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Catalog, check_reference};
use crate::error::with_causes;
use crate::oci::{Artifact, Form};
use crate::registry::error::SetupError;
use crate::registry::fingerprint::{Fingerprint, check_regular};
use crate::store::Store;

/// The time for which an image that lost its tag is still found by its digest: a client that has
/// read its manifest goes on to ask for layers.
const KEPT: Duration = Duration::from_secs(600);
/// The largest number of images that are kept for that time.
const MOST_KEPT: usize = 64;
/// The tag of an image whose name has none.
const TAG: &str = "latest";
/// The number of digits of the hash in a store path.
const HASH: usize = 32;

type Reference = (String, String);

/// A place where images are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image spec with a name and a tag.
    Image(String, String, PathBuf),
    /// A directory of image specs, `REPOSITORY/TAG` each.
    Directory(PathBuf),
}

impl Source {
    /// Parses `NAME:TAG=FILE`, or the path of an image spec or of a directory.
    ///
    /// # Errors
    /// Fails if the argument does not yield a valid name.
    pub fn parse(argument: &str) -> Result<Self, SetupError> {
        let invalid = |source| SetupError::Name { argument: format!("`{argument}`"), source };
        // A path that looks like this can be written with `./` before it.
        let reference = argument.split_once('=').and_then(|(reference, file)| {
            let (name, tag) = reference.rsplit_once(':')?;
            (!reference.starts_with(['.', '/'])).then_some((name, tag, file))
        });
        if let Some((name, tag, file)) = reference {
            check_reference(name, tag).map_err(invalid)?;
            return Ok(Self::Image(name.to_owned(), tag.to_owned(), file.into()));
        }
        let path = Path::new(argument);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let name = name_of(path);
        check_reference(name, TAG).map_err(invalid)?;
        Ok(Self::Image(name.to_owned(), TAG.to_owned(), path.to_owned()))
    }
}

/// Returns the image's name, as its file's name has it.
fn name_of(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".json").unwrap_or(name);
    let name = name.strip_suffix("-image").unwrap_or(name);
    let is_hash = |text: &str| {
        text.len() == HASH && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    match name.split_once('-') {
        Some((hash, rest)) if is_hash(hash) => rest,
        _ => name,
    }
}

struct Entry {
    source: usize,
    file: PathBuf,
    fingerprint: Option<Fingerprint>,
    /// The last version that could be read.
    spec: Option<Arc<Artifact>>,
    problem: Option<String>,
}

/// Images and their sources.
pub struct Sources {
    /// The store that has the images of an index.
    store: Store,
    sources: Vec<Source>,
    entries: BTreeMap<Reference, Entry>,
    kept: Vec<(String, Arc<Artifact>, Instant)>,
    problems: BTreeSet<String>,
}

/// The changes that a reload found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// True if the catalog has changed.
    pub changed: bool,
    /// Problems that there were not before.
    pub problems: Vec<String>,
}

/// The result of one look at all sources.
#[derive(Default)]
struct Found {
    files: BTreeMap<Reference, (usize, PathBuf)>,
    problems: BTreeSet<String>,
    /// Directories that could not be read: the index of their source, and their repository.
    unreadable: Vec<(usize, String)>,
}

impl Sources {
    /// Reads all images for the first time. A problem with an image in a directory is reported
    /// later, by [`Sources::reload`]: it must not keep the others from being served.
    ///
    /// # Errors
    /// Fails if an image that was named, or a directory, can't be read.
    pub fn new(store: Store, sources: Vec<Source>) -> Result<Self, SetupError> {
        let mut named: BTreeMap<Reference, &Path> = BTreeMap::new();
        for source in &sources {
            match source {
                Source::Image(name, tag, file) => {
                    let reference = (name.clone(), tag.clone());
                    if let Some(first) = named.insert(reference, file) {
                        return Err(SetupError::Twice {
                            reference: format!("{name}:{tag}"),
                            first: first.to_owned(),
                            second: file.clone(),
                        });
                    }
                    check_regular(file)
                        .map_err(|source| SetupError::Read { path: file.clone(), source })?;
                    Artifact::read(&store, file)?;
                }
                Source::Directory(path) => {
                    let read = fs::read_dir(path).map(drop);
                    read.map_err(|source| SetupError::Read { path: path.clone(), source })?;
                }
            }
        }
        let (entries, kept, problems) = Default::default();
        Ok(Self { store, sources, entries, kept, problems })
    }

    /// Looks at all files, and reads those that changed; with `all`, reads all of them.
    pub fn reload(&mut self, all: bool) -> Reload {
        let mut found = self.look();
        let mut changed = false;
        let mut before = std::mem::take(&mut self.entries);
        // An image whose directory can't be read now may be back in a moment: keep it.
        let out_of_sight: Vec<_> = before
            .iter()
            .filter(|(reference, entry)| {
                found.is_out_of_sight(entry.source, &reference.0)
                    && !found.files.contains_key(reference)
            })
            .map(|(reference, entry)| (reference.clone(), (entry.source, entry.file.clone())))
            .collect();
        for (reference, place) in out_of_sight {
            found.files.insert(reference, place);
        }
        for (reference, (source, file)) in found.files {
            let fingerprint = Fingerprint::of(&file);
            let old = before.remove(&reference);
            let mut entry = match old {
                Some(old) if !all && old.fingerprint == fingerprint && old.file == file => old,
                old => {
                    let same = old.as_ref().is_some_and(|old| old.fingerprint == fingerprint);
                    let old_spec = old.and_then(|old| old.spec);
                    let (spec, problem) = read(&self.store, &reference, &file, old_spec.as_ref());
                    if spec.is_some() {
                        changed = true;
                        self.keep(&reference.0, old_spec.clone().filter(|_| !same));
                    }
                    let spec = spec.or(old_spec);
                    Entry { source, file, fingerprint, spec, problem }
                }
            };
            entry.source = source;
            found.problems.extend(entry.problem.clone());
            self.entries.insert(reference, entry);
        }
        for ((name, _), entry) in before {
            changed |= entry.spec.is_some();
            self.keep(&name, entry.spec);
        }
        let count = self.kept.len();
        self.kept.retain(|(_, _, since)| since.elapsed() < KEPT);
        changed |= self.kept.len() != count;
        let problems = found.problems.difference(&self.problems).cloned().collect();
        self.problems = found.problems;
        Reload { changed, problems }
    }

    fn keep(&mut self, name: &str, spec: Option<Arc<Artifact>>) {
        let Some(spec) = spec else { return };
        if self.kept.len() == MOST_KEPT {
            self.kept.remove(0);
        }
        self.kept.push((name.to_owned(), spec, Instant::now()));
    }

    /// Returns a catalog of every image that could be read.
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, spec, _) in &self.kept {
            catalog.add_untagged(name, spec, Form::AsStored).expect("its name was checked");
        }
        for ((name, tag), entry) in &self.entries {
            if let Some(spec) = &entry.spec {
                catalog.add(name, tag, spec, Form::AsStored).expect("its name was checked");
            }
        }
        catalog
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.entries.values().filter(|entry| entry.spec.is_some()).count()
    }

    fn look(&self) -> Found {
        let mut found = Found::default();
        for (index, source) in self.sources.iter().enumerate() {
            match source {
                Source::Image(name, tag, file) => {
                    found.add(index, (name.clone(), tag.clone()), file.clone());
                }
                Source::Directory(path) => {
                    found.look_in(index, path, "", &mut Vec::new());
                }
            }
        }
        found
    }
}

impl Found {
    fn add(&mut self, source: usize, reference: Reference, file: PathBuf) {
        match self.files.get(&reference) {
            // Another argument has the same name: the first one counts.
            Some((_, first)) => {
                let ((name, tag), file, first) = (reference, file.display(), first.display());
                let problem = format!("{file} is not served: {name}:{tag} is {first}");
                self.problems.insert(problem);
            }
            None => {
                self.files.insert(reference, (source, file));
            }
        }
    }

    fn is_out_of_sight(&self, source: usize, repository: &str) -> bool {
        self.unreadable.iter().any(|(unreadable, above)| {
            let below = repository.strip_prefix(&**above);
            *unreadable == source
                && (above.is_empty() || below.is_some_and(|b| b.is_empty() || b.starts_with('/')))
        })
    }

    /// Looks for images in a directory, which is `repository`, and in the directories below it.
    fn look_in(
        &mut self,
        source: usize,
        directory: &Path,
        repository: &str,
        above: &mut Vec<(u64, u64)>,
    ) {
        let entries = fs::metadata(directory).and_then(|metadata| {
            let this = (metadata.dev(), metadata.ino());
            let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
            Ok((this, entries))
        });
        let (this, mut entries) = match entries {
            Ok(found) => found,
            Err(error) => {
                self.problems.insert(format!("cannot read {}: {error}", directory.display()));
                self.unreadable.push((source, repository.to_owned()));
                return;
            }
        };
        if above.contains(&this) {
            self.problems.insert(format!("{} leads to itself", directory.display()));
            return;
        }
        above.push(this);
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            // No repository or tag begins with a dot, but unfinished and hidden files do.
            if name.starts_with('.') {
                continue;
            }
            let nested = if repository.is_empty() {
                name.to_string()
            } else {
                format!("{repository}/{name}")
            };
            if path.is_dir() {
                self.look_in(source, &path, &nested, above);
                continue;
            }
            match check_reference(repository, &name) {
                Ok(()) => self.add(source, (repository.to_owned(), name.into_owned()), path),
                Err(_) if repository.is_empty() => {
                    let problem = "is not served: it is not in a repository's directory";
                    self.problems.insert(format!("{} {problem}", path.display()));
                }
                Err(error) => {
                    self.problems.insert(format!("{} is not served: {error}", path.display()));
                }
            }
        }
        above.pop();
    }
}

/// Reads an image or index. Returns it, or a message that says what is wrong with it.
fn read(
    store: &Store,
    (name, tag): &Reference,
    file: &Path,
    old: Option<&Arc<Artifact>>,
) -> (Option<Arc<Artifact>>, Option<String>) {
    if let Err(error) = check_regular(file) {
        let problem = format!("cannot read {}: {error}", file.display());
        let end = if old.is_some() { "stays as it was" } else { "is not served" };
        return (None, Some(format!("{problem}: {name}:{tag} {end}")));
    }
    match Artifact::read(store, file) {
        Ok(spec) => (Some(Arc::new(spec)), None),
        Err(error) => {
            let error = with_causes(&error);
            let end = if old.is_some() { "stays as it was" } else { "is not served" };
            (None, Some(format!("{error}: {name}:{tag} {end}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Returns an image spec that differs from others by its time.
    fn spec(year: u32) -> String {
        serde_json::json!({
            "version": 1,
            "platform": {"architecture": "amd64", "os": "linux"},
            "created": format!("{year}-01-01T00:00:01Z"),
            "config": {},
            "history": [],
            "layers": [],
            "storePaths": [],
        })
        .to_string()
    }

    fn served(sources: &Sources) -> Vec<String> {
        let catalog = sources.catalog();
        let tags = |name: &str| {
            let tags: Vec<_> =
                catalog.repository(name).unwrap().tags().map(str::to_owned).collect();
            format!("{name}: {}", tags.join(" "))
        };
        catalog.names().map(tags).collect()
    }

    fn digest(sources: &Sources, name: &str, tag: &str) -> String {
        let catalog = sources.catalog();
        catalog.repository(name).unwrap().manifest(tag).unwrap().blob.digest.to_string()
    }

    #[test]
    fn arguments_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let image = |name: &str, tag: &str, file: &str| {
            Some(Source::Image(name.to_owned(), tag.to_owned(), file.into()))
        };
        let hash = "a".repeat(32);
        let path = directory.path().to_str().unwrap();
        for (argument, expected) in [
            ("a/b:v1=image.json", image("a/b", "v1", "image.json")),
            ("a:v1=b=c", image("a", "v1", "b=c")),
            ("x/hello.json", image("hello", "latest", "x/hello.json")),
            ("hello-image.json", image("hello", "latest", "hello-image.json")),
            ("./a:v=hello.json", None),
            ("./a:v/hello.json", image("hello", "latest", "./a:v/hello.json")),
            ("image.json", image("image", "latest", "image.json")),
            (
                &*format!("/nix/store/{hash}-hello-image.json"),
                image("hello", "latest", &format!("/nix/store/{hash}-hello-image.json")),
            ),
            (path, Some(Source::Directory(path.into()))),
            ("A:v1=image.json", None),
            ("a:.=image.json", None),
            ("Hello.json", None),
            ("", None),
        ] {
            assert_eq!(Source::parse(argument).ok(), expected, "{argument}");
        }
    }

    #[test]
    fn a_directory_is_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("images/a/b")).unwrap();
        fs::write(path("one"), spec(2001)).unwrap();
        fs::write(path("two"), spec(2002)).unwrap();
        fs::write(path("broken"), "{").unwrap();
        fs::write(path("images/lost"), "").unwrap();
        symlink(path("one"), path("images/a/v1")).unwrap();
        symlink(path("one"), path("images/a/b/v1")).unwrap();
        symlink(path("images"), path("images/a/loop")).unwrap();
        let mut sources =
            Sources::new(Store::default(), vec![Source::Directory(path("images"))]).unwrap();
        let first = sources.reload(false);
        assert!(first.changed);
        assert_eq!(first.problems.len(), 2, "{first:?}");
        assert_eq!(served(&sources), ["a: v1", "a/b: v1"]);
        assert_eq!(sources.reload(false), Reload::default());

        let link = |to: &str, name: &str| {
            let _ = fs::remove_file(path("link"));
            symlink(path(to), path("link")).unwrap();
            fs::rename(path("link"), path(name)).unwrap();
        };
        let one = digest(&sources, "a", "v1");
        link("two", "images/a/v1");
        assert_eq!(sources.reload(false), Reload { changed: true, problems: vec![] });
        let two = digest(&sources, "a", "v1");
        assert_ne!(one, two);
        // A client that has read the old manifest gets the rest of that image.
        assert_eq!(digest(&sources, "a", &one), one);

        link("broken", "images/a/v1");
        let broken = sources.reload(false);
        assert!(
            !broken.changed && broken.problems[0].contains("a:v1 stays as it was"),
            "{broken:?}"
        );
        assert_eq!(digest(&sources, "a", "v1"), two);
        assert_eq!(sources.reload(false), Reload::default());
        // A file that changes in place is noticed as well.
        fs::write(path("broken"), spec(2003)).unwrap();
        assert_eq!(sources.reload(false), Reload { changed: true, problems: vec![] });
        assert_ne!(digest(&sources, "a", "v1"), two);

        fs::remove_file(path("images/a/v1")).unwrap();
        assert!(sources.reload(false).changed);
        assert_eq!((served(&sources), sources.count()), (vec!["a/b: v1".to_owned()], 1));

        // While a directory is missing, its images are kept.
        fs::rename(path("images"), path("away")).unwrap();
        let away = sources.reload(false);
        assert!(!away.changed && !away.problems.is_empty(), "{away:?}");
        assert_eq!(served(&sources), ["a/b: v1"]);
        fs::rename(path("away"), path("images")).unwrap();
        sources.reload(false);
        assert_eq!(served(&sources), ["a/b: v1"]);
    }

    #[test]
    fn the_first_of_two_has_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("images/a")).unwrap();
        fs::write(path("one"), spec(2001)).unwrap();
        fs::write(path("images/a/v1"), spec(2002)).unwrap();
        let image = Source::Image("a".to_owned(), "v1".to_owned(), path("one"));
        let mut sources =
            Sources::new(Store::default(), vec![image.clone(), Source::Directory(path("images"))])
                .unwrap();
        let reload = sources.reload(false);
        assert!(reload.problems[0].contains("is not served: a:v1 is "), "{reload:?}");
        let both = Sources::new(Store::default(), vec![image.clone(), image]).err().unwrap();
        assert!(both.to_string().starts_with("a:v1 is two images: "), "{both}");
    }
}
