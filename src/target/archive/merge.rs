//! Merges several archives into one, for a single `docker load`.
//! Stage: target. Input: docker-archives, and scripts that stream one. Output: a tar.
//!
//! Blobs and layers are copied as they come, each name once. The documents that name them are read,
//! joined and written last: `manifest.json` and `repositories` (moby, image/spec/v1.2.md), and the
//! index of an OCI image layout if each archive is one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tar::{EntryType, Header};

use super::docker::{Archive, write_archive};
use super::file::write_archive_file;
use super::writer::{ArchiveWriter, BodyError};
use crate::digest::{Digest, DigestReader};
use crate::oci::unpack::{self, Budget, Member, TarError, TarReader};
use crate::oci::{Compression, GivenFile, IMAGE_INDEX, ImageScript, ImageSpec, recognise};
use crate::outgoing::{self, CheckedBy, ImageReference, Unwatched, Watch};
use crate::sink::Plain;
use crate::store::Store;
use crate::target::error::ArchiveError;
use crate::target::image_layout::{INDEX, OCI_LAYOUT, oci_layout};

const MANIFEST: &str = "manifest.json";
const REPOSITORIES: &str = "repositories";
const BUFFER: usize = 256 << 10;
/// The annotation by which containerd finds an image's name.
const NAME: &str = "io.containerd.image.name";

/// Writes the images of all archives, and of all scripts that `buildImage` made, to a file that
/// does not exist yet, or to a pipe or device. If two images have the same name, the later one
/// keeps it.
///
/// # Errors
/// Fails with [`ArchiveError`], which names the archive that is at fault, if an archive can't be
/// read or the result can't be written.
pub fn merge_archives(
    store: &Store,
    archives: &[PathBuf],
    path: &Path,
    watch: &dyn Watch,
) -> Result<(), ArchiveError> {
    watch.expect(
        archives.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum(),
    );
    write_archive_file(path, watch, |out| {
        let mut merge = Merge {
            tar: ArchiveWriter::new(out),
            seen: BTreeMap::new(),
            documents: Documents::default(),
            budget: Budget::default(),
        };
        for archive in archives {
            merge.add(store, archive)?;
        }
        merge.end(archives)
    })
}

struct Merge<W> {
    tar: ArchiveWriter<W>,
    /// The members that were written, with their digests; a directory has none.
    seen: BTreeMap<String, Option<Digest>>,
    documents: Documents,
    /// The memory for the names of members.
    budget: Budget,
}

/// An image in `manifest.json`, or a manifest in an index, with all of its fields.
type Object = Map<String, Value>;

/// The contents of `repositories`: the tags of each repository, and their image IDs.
type Repositories = BTreeMap<String, BTreeMap<String, Value>>;

/// The part of an image layout's index that is joined with others.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Object>,
}

/// The documents that name the images, joined from all archives.
#[derive(Default)]
struct Documents {
    images: Vec<Object>,
    repositories: Repositories,
    index: Vec<Object>,
    /// The number of archives that are OCI image layouts.
    layouts: usize,
}

impl<W: Write> Merge<W> {
    fn add(&mut self, store: &Store, archive: &Path) -> Result<(), ArchiveError> {
        let unreadable = |reason: &str| ArchiveError::Unreadable {
            path: archive.to_owned(),
            reason: reason.to_owned(),
        };
        let read =
            |source| ArchiveError::from(outgoing::Error::Read { path: archive.to_owned(), source });
        match recognise(store, archive).map_err(read)? {
            GivenFile::Image(spec) => {
                let script = ImageScript::read(&store.locate(archive)).map_err(read)?.flatten();
                let name = script.and_then(|script| script.name);
                self.add_image(store, archive, &store.locate(&spec), name.as_deref())
            }
            GivenFile::Index(_) => Err(unreadable("it is an index: name one of its images")),
            GivenFile::Layers => Err(unreadable("it is what `buildLayer` made")),
            GivenFile::Script => Err(unreadable("it is a script: its output may be one")),
            GivenFile::Other if archive.is_dir() => Err(unreadable(
                "it is a directory: what `pullImage` made can be merged as `buildImage { name = …; fromImage = …; }`",
            )),
            GivenFile::Other => self.add_archive(archive, File::open(archive).map_err(read)?),
        }
    }

    /// Adds an image of stowage, in the form in which it is streamed.
    fn add_image(
        &mut self,
        store: &Store,
        given: &Path,
        spec: &Path,
        name: Option<&str>,
    ) -> Result<(), ArchiveError> {
        let spec = ImageSpec::read_outline(spec)?;
        let name = name.map(str::parse::<ImageReference>).transpose().map_err(|error| {
            ArchiveError::Unreadable { path: given.to_owned(), reason: error.to_string() }
        })?;
        let references = name.as_slice();
        let read =
            |source| ArchiveError::from(outgoing::Error::Read { path: given.to_owned(), source });
        let (reader, writer) = io::pipe().map_err(read)?;
        std::thread::scope(|scope| {
            let streamed = scope.spawn(move || {
                let checked_by = CheckedBy::Sender;
                let archive = Archive {
                    store,
                    spec: &spec,
                    references,
                    form: Archive::FORM,
                    skip: 0,
                    checked_by,
                    watch: &Unwatched,
                };
                write_archive(&archive, Plain(BufWriter::with_capacity(BUFFER, writer)))
            });
            let added = self.add_archive(given, reader);
            let streamed = streamed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match streamed {
                // If the stream failed, the reader's error is only a consequence.
                Err(error) if !matches!(error, outgoing::Error::Write(_)) => Err(error.into()),
                _ => added,
            }
        })
    }

    fn add_archive(&mut self, archive: &Path, open: impl Read + Send) -> Result<(), ArchiveError> {
        let unreadable =
            |reason: String| ArchiveError::Unreadable { path: archive.to_owned(), reason };
        let read =
            |source| ArchiveError::from(outgoing::Error::Read { path: archive.to_owned(), source });
        let mut reader = BufReader::with_capacity(BUFFER, open);
        let compression = Compression::of(reader.fill_buf().map_err(read)?);
        let mut tar = TarReader::new(compression.reader(reader).map_err(read)?);
        let bad = |error: TarError| match error {
            TarError::Read(source) => read(source),
            error => unreadable(error.to_string()),
        };
        let mut has_manifest = false;
        while let Some(mut entry) = tar.next_member().map_err(bad)? {
            entry.check().map_err(bad)?;
            let name = entry.path().to_vec();
            let name = String::from_utf8(name).map_err(|error| unreadable(error.to_string()))?;
            let name = name.trim_start_matches("./").to_owned();
            self.budget
                .take(128 + name.len() as u64)
                .map_err(|error| unreadable(error.to_string()))?;
            let problem = |problem| match problem {
                Problem::Read(source) => read(source),
                Problem::Odd(reason) => unreadable(format!("{name} {reason}")),
                Problem::Json(reason) => unreadable(format!("{name}: {reason}")),
                Problem::Write(error) => error.into(),
            };
            match &*name {
                "" | OCI_LAYOUT => {}
                MANIFEST => {
                    has_manifest = true;
                    self.documents.add_images(document(entry).map_err(problem)?);
                }
                REPOSITORIES => {
                    self.documents.add_repositories(document(entry).map_err(problem)?);
                }
                INDEX => {
                    self.documents.layouts += 1;
                    self.documents.add_index(document(entry).map_err(problem)?);
                }
                _ => self.member(&name, &mut entry).map_err(problem)?,
            }
        }
        if has_manifest { Ok(()) } else { Err(unreadable(format!("there is no {MANIFEST}"))) }
    }

    fn member(&mut self, name: &str, entry: &mut Member<impl Read>) -> Result<(), Problem> {
        let kind = entry.kind();
        let fits = |header: &mut Header| header.set_path(name).is_ok();
        if !fits(&mut Header::new_gnu()) {
            return Err(Problem::Odd("has a longer name than any file of an image".to_owned()));
        }
        let size = entry.size();
        let before = self.seen.get(name).copied();
        let digest = match kind {
            EntryType::Directory => {
                if before.is_none() {
                    self.tar.directory(name).map_err(Problem::Write)?;
                }
                None
            }
            // The images of nixpkgs have links for layers that they hold twice.
            EntryType::Symlink => {
                let target = String::from_utf8_lossy(entry.target()).into_owned();
                if Header::new_gnu().set_link_name(&target).is_err() {
                    return Err(Problem::Odd(
                        "links to a longer name than any file of an image has".to_owned(),
                    ));
                }
                if before.is_none() {
                    self.tar.link(name, &target).map_err(Problem::Write)?;
                }
                Some(Digest::of(target.as_bytes()))
            }
            kind if kind.is_file() => {
                let mut body = DigestReader::new(entry);
                if before.is_none() {
                    self.tar.member(name, size, &mut body)?;
                }
                Some(body.finish().map_err(Problem::Read)?.0)
            }
            other => return Err(Problem::Odd(format!("is a {other:?}, which no image has there"))),
        };
        if before.is_some_and(|before| before != digest) {
            return Err(Problem::Odd("is another file in another of the archives".to_owned()));
        }
        self.seen.insert(name.to_owned(), digest);
        Ok(())
    }

    fn end(mut self, archives: &[PathBuf]) -> Result<(), ArchiveError> {
        let Documents { images, repositories, index, layouts } = self.documents;
        let bytes = |value: &Value| serde_json::to_vec(value).expect("a value is JSON");
        // With an index, containerd would look for the images of the index only.
        if layouts == archives.len() {
            let index = json!({
                "schemaVersion": 2,
                "mediaType": IMAGE_INDEX,
                "manifests": index,
            });
            self.tar.file(INDEX, &bytes(&index))?;
        }
        self.tar.file(MANIFEST, &bytes(&json!(images)))?;
        if !repositories.is_empty() {
            self.tar.file(REPOSITORIES, &bytes(&json!(repositories)))?;
        }
        if layouts == archives.len() {
            self.tar.file(OCI_LAYOUT, &oci_layout())?;
        }
        self.tar.end()?;
        Ok(())
    }
}

/// Says why a member can't be used.
enum Problem {
    /// The archive can't be read.
    Read(io::Error),
    /// The member is not valid.
    Odd(String),
    /// The document is not valid.
    Json(String),
    /// The result can't be written.
    Write(outgoing::Error),
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Read(error) => Self::Read(error),
            BodyError::Write(error) => Self::Write(error),
        }
    }
}

/// Reads a member that names images.
fn document<T: DeserializeOwned>(entry: impl Read) -> Result<T, Problem> {
    let mut bytes = Vec::new();
    entry.take(unpack::MANIFEST + 1).read_to_end(&mut bytes).map_err(Problem::Read)?;
    if bytes.len() as u64 > unpack::MANIFEST {
        return Err(Problem::Json(format!("it has more than {} bytes", unpack::MANIFEST)));
    }
    unpack::parse_json(&bytes).map_err(Problem::Json)
}

impl Documents {
    fn add_images(&mut self, images: Vec<Object>) {
        for mut image in images {
            let tags = tags_of(&mut image).clone();
            for other in &mut self.images {
                tags_of(other).retain(|name| !tags.contains(name));
            }
            let is_same = |other: &&mut Object| {
                ["Config", "Layers"].iter().all(|key| other.get(*key) == image.get(*key))
            };
            match self.images.iter_mut().find(is_same) {
                Some(other) => tags_of(other).extend(tags),
                None => self.images.push(image),
            }
        }
    }

    fn add_repositories(&mut self, repositories: Repositories) {
        for (name, tags) in repositories {
            self.repositories.entry(name).or_default().extend(tags);
        }
    }

    fn add_index(&mut self, index: Index) {
        for manifest in index.manifests {
            let name = name_of(&manifest);
            let is_replaced =
                |other: &Object| *other == manifest || name.is_some() && name_of(other) == name;
            self.index.retain(|other| !is_replaced(other));
            self.index.push(manifest);
        }
    }
}

/// Returns the names of an image in `manifest.json`. An image without names may have `null` there.
fn tags_of(image: &mut Object) -> &mut Vec<Value> {
    let tags = image.entry("RepoTags").or_insert(Value::Null);
    if !tags.is_array() {
        *tags = json!([]);
    }
    tags.as_array_mut().expect("it is one now")
}

/// Returns the name of an image in an index.
fn name_of(manifest: &Object) -> Option<&Value> {
    manifest.get("annotations")?.get(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T: DeserializeOwned>(document: Value) -> T {
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn the_later_image_has_the_name() {
        let image = |config: &str, tags: &[&str]| {
            of(json!([{"Config": config, "Layers": [config], "RepoTags": tags}]))
        };
        let mut documents = Documents::default();
        for images in [
            image("1", &["a:1", "a:2"]),
            image("2", &["a:2"]),
            image("3", &[]),
            image("1", &["b:1"]),
        ] {
            documents.add_images(images);
        }
        let names: Vec<_> =
            documents.images.iter().map(|image| (&image["Config"], &image["RepoTags"])).collect();
        assert_eq!(
            names,
            [
                (&json!("1"), &json!(["a:1", "b:1"])),
                (&json!("2"), &json!(["a:2"])),
                (&json!("3"), &json!([])),
            ]
        );
    }

    #[test]
    fn an_index_has_a_name_once() {
        let named = |digest: &str, name: &str| {
            of(json!({"manifests": [{"digest": digest, "annotations": {NAME: name}}]}))
        };
        let mut documents = Documents::default();
        for index in [
            named("1", "a"),
            named("2", "b"),
            named("3", "a"),
            of(json!({"manifests": [{"digest": "4"}]})),
        ] {
            documents.add_index(index);
        }
        let digests: Vec<_> =
            documents.index.iter().map(|manifest| manifest["digest"].as_str().unwrap()).collect();
        assert_eq!(digests, ["2", "3", "4"]);
    }

    #[test]
    fn repositories_are_united() {
        let mut documents = Documents::default();
        documents.add_repositories(of(json!({"a": {"1": "x"}, "b": {"1": "y"}})));
        documents.add_repositories(of(json!({"a": {"1": "z", "2": "w"}})));
        assert_eq!(
            json!(documents.repositories),
            json!({"a": {"1": "z", "2": "w"}, "b": {"1": "y"}})
        );
    }
}
