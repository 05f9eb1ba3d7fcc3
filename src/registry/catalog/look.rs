//! Looks at the sources of a server: which files there are, and whether they have changed.
//! Stage: registry. Input: [`Source`]s. Output: [`FoundFiles`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::attached::{ENDING, list_of};
use super::source::Source;
use super::watches::Round;
use crate::outgoing::{ParseTaggedNameError, TaggedName};
use crate::registry::fingerprint::Fingerprint;

/// The result of one look at all sources.
#[derive(Default)]
pub struct FoundFiles {
    /// The file of each name and tag.
    pub files: BTreeMap<TaggedName, FoundFile>,
    /// Messages about files that can't be served, for the log.
    pub problems: BTreeSet<String>,
    /// Directories and files that could not be read: the index of the source, and the repository that
    /// the directory stands for, or the repository and tag of the file.
    unreadable: Vec<(usize, String)>,
}

/// A file that a source has.
pub struct FoundFile {
    /// The index of the source that has the file.
    pub source: usize,
    /// The path of the file.
    pub path: PathBuf,
    /// The path of the list of documents that are served beside the image, if there is one.
    pub attached: Option<PathBuf>,
    /// The size, times and inode of the file; none if it is no regular file, or can't be read.
    pub fingerprint: Option<Fingerprint>,
    /// True if the file can't be looked at now: what was read of it before stays.
    pub is_unseen: bool,
}

impl FoundFile {
    /// Returns a file that can't be looked at now, with its state of before.
    pub fn unseen(source: usize, path: PathBuf, fingerprint: Option<Fingerprint>) -> Self {
        Self { source, path, attached: None, fingerprint, is_unseen: true }
    }

    /// Reads the state of a file.
    pub fn at(source: usize, path: PathBuf) -> Self {
        let metadata = fs::metadata(&path).ok();
        Self::with(source, path, metadata.as_ref())
    }

    /// Returns the path of the file by its state, or nothing if the file can't be read.
    pub fn to_be_read(&self) -> BTreeMap<Fingerprint, PathBuf> {
        self.fingerprint.map(|fingerprint| (fingerprint, self.path.clone())).into_iter().collect()
    }

    fn with(source: usize, path: PathBuf, metadata: Option<&Metadata>) -> Self {
        let fingerprint = metadata.filter(|it| it.is_file()).map(Fingerprint::new);
        Self { source, path, attached: None, fingerprint, is_unseen: false }
    }
}

impl FoundFiles {
    /// Looks at all sources. Watches every directory and file that could change the result.
    pub fn look(sources: &[Source], round: &mut Round) -> Self {
        let mut found = Self::default();
        for (index, source) in sources.iter().enumerate() {
            match source {
                Source::Image(name, file) => {
                    let list = list_of(file);
                    if let Some(path) = round.hanging(vec![file.clone(), list.clone()]).first() {
                        found.hang(index, path, path_of(name));
                        continue;
                    }
                    round.watch_file(file);
                    round.watch_file(&list);
                    let attached = list.symlink_metadata().is_ok().then_some(list);
                    let file = FoundFile { attached, ..FoundFile::at(index, file.clone()) };
                    found.add(name.clone(), file);
                }
                Source::Directory(path) => {
                    if round.hangs(path) {
                        found.hang(index, path, String::new());
                        continue;
                    }
                    round.watch_path(path);
                    found.look_in(index, path, "", &mut Vec::new(), round);
                }
            }
        }
        found
    }

    fn add(&mut self, name: TaggedName, file: FoundFile) {
        match self.files.get(&name) {
            // Another argument has the same name: the first one counts.
            Some(first) => {
                let (file, first) = (file.path.display(), first.path.display());
                let problem = format!("{file} is not served: {name} is {first}");
                self.problems.insert(problem);
            }
            None => {
                self.files.insert(name, file);
            }
        }
    }

    /// Notes a path that does not answer, by its name in the registry.
    fn hang(&mut self, source: usize, path: &Path, name: String) {
        let problem =
            format!("{} does not answer: what was read of it before stays", path.display());
        self.problems.insert(problem);
        self.unreadable.push((source, name));
    }

    /// Returns whether a file, or a directory above it, could not be read.
    pub fn is_out_of_sight(&self, source: usize, name: &TaggedName) -> bool {
        let name = path_of(name);
        self.unreadable.iter().any(|(unreadable, above)| {
            let below = name.strip_prefix(&**above);
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
        round: &mut Round,
    ) {
        // The watch begins before the directory is read, so that no change after the reading is
        // missed.
        round.watch_directory(directory);
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
        entries.sort_by_key(DirEntry::file_name);
        let mut lists = Vec::new();
        // These may be on other file systems.
        let elsewhere = |entry: &&DirEntry| {
            entry.file_type().is_ok_and(|kind| kind.is_symlink() || kind.is_dir())
        };
        let hanging = round.hanging(entries.iter().filter(elsewhere).map(DirEntry::path).collect());
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
            if hanging.contains(&path) {
                self.hang(source, &path, nested);
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                round.watch_file(&path);
            }
            if let Some(tag) = name.strip_suffix(ENDING) {
                lists.push((TaggedName::parse(repository, tag), path));
                continue;
            }
            let metadata = fs::metadata(&path).ok();
            if metadata.as_ref().is_some_and(Metadata::is_dir) {
                self.look_in(source, &path, &nested, above, round);
                continue;
            }
            if let Some(metadata) = &metadata {
                round.watch_names(&path, metadata);
            }
            match TaggedName::parse(repository, &name) {
                Ok(name) => self.add(name, FoundFile::with(source, path, metadata.as_ref())),
                Err(error) => {
                    let path = path.display();
                    self.problems.insert(match repository.is_empty() {
                        true => {
                            format!("{path} is not served: it is not in a repository's directory")
                        }
                        false => format!("{path} is not served: {error}"),
                    });
                }
            }
        }
        self.attach_lists(lists);
        above.pop();
    }

    /// Attaches the lists of documents to the images with their names, which were found before.
    fn attach_lists(&mut self, lists: Vec<(Result<TaggedName, ParseTaggedNameError>, PathBuf)>) {
        for (name, list) in lists {
            let file = name.ok().and_then(|name| self.files.get_mut(&name));
            match file.filter(|file| list == list_of(&file.path)) {
                Some(file) => file.attached = Some(list),
                None => {
                    let problem = "is not served: it is beside no image that is";
                    self.problems.insert(format!("{} {problem}", list.display()));
                }
            }
        }
    }
}

/// Returns the path of an image's file in a directory of images, `REPOSITORY/TAG`.
fn path_of(TaggedName { repository, tag }: &TaggedName) -> String {
    format!("{repository}/{tag}")
}
