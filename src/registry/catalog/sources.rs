//! Collects the images of a registry from files and directories, which may change.
//! Stage: registry. Input: [`Source`]s. Output: [`Catalog`], again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::attached::Attached;
use super::look::{FoundFile, FoundFiles};
use super::prepared::PreparedArtifact;
use super::spec_files::{SpecContents, SpecFiles};
use super::watches::Watches;
use super::{Catalog, Source};
use crate::error::with_causes;
use crate::outgoing::{RepositoryName, TaggedName};
use crate::registry::error::SetupError;
use crate::registry::fingerprint::{Fingerprint, check_regular};
use crate::store::Store;

/// The time for which an image that lost its tag is still found by its digest: a client that has
/// read its manifest goes on to ask for layers.
const KEPT: Duration = Duration::from_secs(600);
/// The largest number of images that are kept for that time.
const MOST_KEPT: usize = 64;
/// The time between two looks where changes are not reported.
const LOOK: Duration = Duration::from_secs(1);
/// The bounds of that time where changes are reported. What no system reports, such as a file
/// system that is mounted over a directory, is noticed then.
const SELDOM: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// The time between the notice of a change and a look.
const SETTLED: Duration = Duration::from_millis(50);
/// The shortest time between two looks, as a multiple of what a look takes: at most a twentieth of
/// the time is spent with looks, and a four-hundredth if changes are reported.
const PAUSE: (u32, u32) = (20, 400);

struct Entry {
    source: usize,
    file: PathBuf,
    fingerprint: Option<Fingerprint>,
    /// True if the file may have changed once more without another fingerprint.
    is_fresh: bool,
    /// The last version that could be read.
    spec: Option<Arc<PreparedArtifact>>,
    problem: Option<String>,
    attached: Attached,
}

impl Entry {
    fn new(file: FoundFile, spec: Option<Arc<PreparedArtifact>>, problem: Option<String>) -> Self {
        let FoundFile { source, path: file, fingerprint, .. } = file;
        let now = SystemTime::now();
        let is_fresh = fingerprint.is_some_and(|fingerprint| fingerprint.is_fresh(now));
        let attached = Attached::default();
        Self { source, file, fingerprint, is_fresh, spec, problem, attached }
    }

    fn is_as_before(&self, file: &FoundFile) -> bool {
        file.is_unseen
            || !self.is_fresh && (self.fingerprint, &self.file) == (file.fingerprint, &file.path)
    }
}

/// Returns the contents of a file that was read, or says why there are none.
fn contents_of(file: &FoundFile, read: &SpecContents) -> Result<Arc<PreparedArtifact>, String> {
    match file.fingerprint.and_then(|fingerprint| read.get(&fingerprint)) {
        Some(Ok(spec)) => Ok(Arc::clone(spec)),
        Some(Err(error)) => Err(with_causes(error)),
        None => {
            let error = check_regular(&file.path).err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| "it changes all the time".to_owned());
            Err(format!("cannot read {}: {error}", file.path.display()))
        }
    }
}

fn hangs() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "its file system does not answer")
}

/// Images and their sources.
pub struct Sources {
    /// The store that has the images of an index.
    store: Store,
    sources: Vec<Source>,
    watches: Watches,
    files: SpecFiles,
    entries: BTreeMap<TaggedName, Entry>,
    kept: Vec<(RepositoryName, Arc<PreparedArtifact>, Instant)>,
    problems: BTreeSet<String>,
    /// The time that the last look worked.
    took: Duration,
}

/// The changes that a reload found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// True if the catalog has changed.
    pub changed: bool,
    /// Problems that there were not before.
    pub problems: Vec<String>,
}

impl Sources {
    /// Reads the images that were named, for the first time. A problem with an image in a directory
    /// is reported later, by [`Sources::reload`]: it must not keep the others from being served.
    ///
    /// # Errors
    /// Fails if an image that was named, or a directory, can't be read.
    pub fn new(store: Store, sources: Vec<Source>, watches: Watches) -> Result<Self, SetupError> {
        let mut named: BTreeMap<TaggedName, &Path> = BTreeMap::new();
        let mut files = SpecFiles::default();
        let mut entries = BTreeMap::new();
        for (index, source) in sources.iter().enumerate() {
            match source {
                Source::Image(name, file) => {
                    if let Some(first) = named.insert(name.clone(), file) {
                        return Err(SetupError::Twice {
                            name: name.clone(),
                            first: first.to_owned(),
                            second: file.clone(),
                        });
                    }
                    let reach = watches.reach();
                    let answers = if reach.answers(file) { Ok(()) } else { Err(hangs()) };
                    answers
                        .and_then(|()| check_regular(file))
                        .map_err(|source| SetupError::Read { path: file.clone(), source })?;
                    let found = FoundFile::at(index, file.clone());
                    let read = files.read(&store, found.to_be_read(), false);
                    let spec = read.into_values().next().transpose()?;
                    let entry = Entry::new(found, spec, None);
                    entries.insert(name.clone(), entry);
                }
                // The first look reports a directory that hangs.
                Source::Directory(path) if !watches.reach().answers(path) => {}
                Source::Directory(path) => {
                    let read = fs::read_dir(path).map(drop);
                    read.map_err(|source| SetupError::Read { path: path.clone(), source })?;
                }
            }
        }
        let (kept, problems, took) = Default::default();
        Ok(Self { store, sources, watches, files, entries, kept, problems, took })
    }

    /// Looks at all files, and reads those that changed; with `all`, reads all of them.
    pub fn reload(&mut self, all: bool) -> Reload {
        let begin = Instant::now();
        let mut watches = std::mem::replace(&mut self.watches, Watches::none());
        let mut round = watches.round();
        let mut found = FoundFiles::look(&self.sources, &mut round);
        // Waiting is no work: a path that does not answer must not delay the next look.
        self.took = begin.elapsed().saturating_sub(round.waited());
        let mut before = std::mem::take(&mut self.entries);
        // An image whose directory can't be read now may be back in a moment: keep it.
        for (reference, entry) in &before {
            if found.is_out_of_sight(entry.source, reference) {
                let (source, path) = (entry.source, entry.file.clone());
                let file = || FoundFile::unseen(source, path, entry.fingerprint);
                found.files.entry(reference.clone()).or_insert_with(file);
            }
        }
        let is_as_before = |(reference, file): &(&TaggedName, &FoundFile)| {
            before
                .get(*reference)
                .is_some_and(|old| (!all || file.is_unseen) && old.is_as_before(file))
        };
        let news = found.files.iter().filter(|found| !is_as_before(found));
        let to_be_read = news.flat_map(|(_, file)| file.to_be_read()).collect();
        let read = self.files.read(&self.store, to_be_read, all);
        let mut changed = false;
        for (name, file) in found.files {
            let mut old = before.remove(&name);
            let (list, is_unseen) = (file.attached.clone(), file.is_unseen);
            let attached = old.as_mut().map(|old| std::mem::take(&mut old.attached));
            let mut entry = match old {
                Some(old) if (!all || file.is_unseen) && old.is_as_before(&file) => {
                    Entry { source: file.source, ..old }
                }
                old => {
                    let had = old.as_ref().is_some_and(|old| old.spec.is_some());
                    let (spec, problem) = match contents_of(&file, &read) {
                        Ok(spec) => (Some(spec), None),
                        Err(problem) => {
                            let end = if had { "stays as it was" } else { "is not served" };
                            (None, Some(format!("{problem}: {name} {end}")))
                        }
                    };
                    let same = old.as_ref().is_some_and(|old| old.fingerprint == file.fingerprint);
                    let old = old.and_then(|old| old.spec);
                    let spec = match (spec, old) {
                        (Some(new), Some(old)) if !all && new.is_same(&old) => Some(old),
                        (Some(new), old) => {
                            changed = true;
                            self.keep(&name.repository, old.filter(|_| !same));
                            Some(new)
                        }
                        (None, old) => old,
                    };
                    Entry::new(file, spec, problem)
                }
            };
            let attached = attached.unwrap_or_default();
            let beside = attached.attachments.clone();
            entry.attached = match list {
                Some(list) => attached.again(&list, entry.spec.as_deref(), all, &mut round),
                None if is_unseen => attached,
                None => Attached::default(),
            };
            changed |= beside != entry.attached.attachments;
            found.problems.extend(entry.problem.clone());
            found.problems.extend(entry.attached.problem.clone());
            self.entries.insert(name, entry);
        }
        drop(round);
        self.watches = watches;
        for (name, entry) in before {
            changed |= entry.spec.is_some();
            self.keep(&name.repository, entry.spec);
        }
        let count = self.kept.len();
        self.kept.retain(|(_, _, since)| since.elapsed() < KEPT);
        changed |= self.kept.len() != count;
        let problems = found.problems.difference(&self.problems).cloned().collect();
        self.problems = found.problems;
        Reload { changed, problems }
    }

    /// Returns the time after which to look again.
    pub fn pause(&self) -> Duration {
        let is_fresh = |entry: &Entry| entry.is_fresh || entry.attached.is_fresh();
        let is_settled = || !self.entries.values().any(is_fresh);
        if self.watches.sees_all() && is_settled() {
            (self.took * PAUSE.1).clamp(SELDOM.0, SELDOM.1)
        } else {
            LOOK.max(self.took * PAUSE.0)
        }
    }

    /// Returns the time after which to look again when a change was noticed: others may follow.
    pub fn pause_after_notice(&self) -> Duration {
        SETTLED.max(self.took * PAUSE.0)
    }

    fn keep(&mut self, name: &RepositoryName, spec: Option<Arc<PreparedArtifact>>) {
        let Some(spec) = spec else { return };
        if self.kept.len() == MOST_KEPT {
            self.kept.remove(0);
        }
        self.kept.push((name.clone(), spec, Instant::now()));
    }

    /// Returns a catalog of every image that could be read.
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, spec, _) in &self.kept {
            catalog.add_prepared(name, None, spec);
        }
        for (TaggedName { repository, tag }, entry) in &self.entries {
            if let Some(spec) = &entry.spec {
                catalog.add_prepared(repository, Some(tag), spec);
                for attachment in &entry.attached.attachments {
                    catalog.attach(repository, attachment);
                }
            }
        }
        catalog
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.entries.values().filter(|entry| entry.spec.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::{Content, Reach};
    use super::*;
    use crate::outgoing::Tag;

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
        let tags = |name: &RepositoryName| {
            let tags: Vec<_> =
                catalog.repository(name).unwrap().tags().map(Tag::to_string).collect();
            format!("{name}: {}", tags.join(" "))
        };
        catalog.names().map(tags).collect()
    }

    fn digest(sources: &Sources, name: &str, tag: &str) -> String {
        let catalog = sources.catalog();
        catalog
            .repository(&name.parse().unwrap())
            .unwrap()
            .manifest(&tag.parse().unwrap())
            .unwrap()
            .blob
            .digest
            .to_string()
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
        let mut sources = Sources::new(
            Store::default(),
            vec![Source::Directory(path("images"))],
            Watches::none(),
        )
        .unwrap();
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
        let image = Source::Image(TaggedName::parse("a", "v1").unwrap(), path("one"));
        let mut sources = Sources::new(
            Store::default(),
            vec![image.clone(), Source::Directory(path("images"))],
            Watches::none(),
        )
        .unwrap();
        let reload = sources.reload(false);
        assert!(reload.problems[0].contains("is not served: a:v1 is "), "{reload:?}");
        let both = Sources::new(Store::default(), vec![image.clone(), image], Watches::none())
            .err()
            .unwrap();
        assert!(both.to_string().starts_with("a:v1 is two images: "), "{both}");
    }

    #[test]
    fn a_file_with_many_names_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for repository in ["a", "b"] {
            fs::create_dir_all(path("images").join(repository)).unwrap();
        }
        let script = format!("#!/bin/sh\n# spec: {}\nexec stowage\n", path("one").display());
        for (name, text) in
            [("one", spec(2001)), ("copy", spec(2001)), ("two", spec(2002)), ("script", script)]
        {
            fs::write(path(name), text).unwrap();
        }
        fs::hard_link(path("one"), path("images/a/hard")).unwrap();
        for number in 0..20 {
            symlink(path("one"), path(&format!("images/a/{number}"))).unwrap();
            symlink(path("copy"), path(&format!("images/b/{number}"))).unwrap();
        }
        symlink(path("script"), path("images/b/script")).unwrap();
        symlink(path("two"), path("images/b/two")).unwrap();
        let image = Source::Image(TaggedName::parse("c", "v1").unwrap(), path("one"));
        let sources = vec![image, Source::Directory(path("images"))];
        let mut sources = Sources::new(Store::default(), sources, Watches::none()).unwrap();
        let distinct = |sources: &Sources| {
            let specs =
                sources.entries.values().map(|entry| Arc::as_ptr(entry.spec.as_ref().unwrap()));
            specs.collect::<BTreeSet<_>>().len()
        };
        for all in [false, false, true] {
            sources.reload(all);
            assert_eq!((sources.count(), distinct(&sources)), (44, 2));
        }
        // The repository keeps the documents and the layers of each artifact.
        let catalog = sources.catalog();
        let repository = catalog.repository(&"b".parse().unwrap()).unwrap();
        assert_eq!(repository.artifacts.len(), 2);
        for artifact in &repository.artifacts {
            let config = artifact.blobs().next().unwrap();
            assert!(matches!(repository.blob(&config), Some(Content::Config(_))));
        }
        // Each broken file is named by its own path, also if another one is broken in the same way.
        for name in ["images/a/x", "images/b/x"] {
            fs::write(path(name), "{").unwrap();
        }
        let problems = sources.reload(false).problems;
        let named = ["images/a/x", "images/b/x"].map(|name| path(name).display().to_string());
        let ends = ["a:x is not served", "b:x is not served"];
        assert_eq!(problems.len(), 2, "{problems:?}");
        for ((problem, name), end) in problems.iter().zip(named).zip(ends) {
            assert!(problem.starts_with(&name) && problem.ends_with(end), "{problem}");
        }
    }

    #[test]
    fn a_change_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["images/a", "specs", "other"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("specs/one"), spec(2001)).unwrap();
        fs::write(path("other/one"), spec(2002)).unwrap();
        symlink("specs", path("current")).unwrap();
        symlink(path("current/one"), path("result")).unwrap();
        symlink("../../result", path("images/a/v1")).unwrap();
        symlink("images", path("link")).unwrap();
        fs::write(path("named"), spec(2003)).unwrap();
        let (sender, notices) = std::sync::mpsc::channel();
        let watches =
            Watches::start(&Store::default(), Reach::default(), move || sender.send(()).is_ok());
        let image = Source::Image(TaggedName::parse("b", "v1").unwrap(), path("named"));
        let given = vec![image, Source::Directory(path("link"))];
        let mut sources = Sources::new(Store::default(), given, watches).unwrap();
        sources.reload(false);
        // The time that makes two changes of a file differ.
        let settle = |sources: &mut Sources| {
            while sources.entries.values().any(|entry| entry.is_fresh) {
                sources.reload(false);
            }
        };
        settle(&mut sources);
        assert!(sources.watches.sees_all(), "the directory for temporary files is on a network");
        assert!(sources.pause() >= SELDOM.0);
        let replace = |target: &str, name: &str| {
            symlink(target, path("next")).unwrap();
            fs::rename(path("next"), path(name)).unwrap();
        };
        let write = |name: &str, year: u32| fs::write(path(name), spec(year)).unwrap();
        let changes: [(&str, &dyn Fn()); 13] = [
            ("a new file", &|| write("images/a/v2", 2004)),
            ("a file that is written", &|| write("images/a/v2", 2005)),
            ("a new directory", &|| {
                fs::create_dir(path("made")).unwrap();
                write("made/v1", 2006);
                fs::rename(path("made"), path("images/new")).unwrap();
            }),
            ("a file in it", &|| write("images/new/v2", 2007)),
            ("the target of a link", &|| write("specs/one", 2008)),
            ("a link on the way", &|| replace("other", "current")),
            ("the end of the way", &|| write("other/one", 2009)),
            ("the last link", &|| replace("specs/one", "result")),
            ("a tag", &|| replace("../../other/one", "images/a/v1")),
            ("a named file", &|| {
                write("next", 2010);
                fs::rename(path("next"), path("named")).unwrap();
            }),
            ("a file that goes", &|| fs::remove_file(path("images/new/v2")).unwrap()),
            ("another directory", &|| {
                fs::create_dir_all(path("release/b")).unwrap();
                write("release/b/v9", 2011);
                fs::hard_link(path("release/b/v9"), path("specs/v9")).unwrap();
                replace("release", "link");
            }),
            ("a file by its other name", &|| write("specs/v9", 2012)),
        ];
        for (what, change) in changes {
            while notices.try_recv().is_ok() {}
            change();
            notices.recv_timeout(Duration::from_secs(60)).expect(what);
            let mut changed = sources.reload(false).changed;
            // A change of several steps may be seen before it is done.
            while !changed {
                notices.recv_timeout(Duration::from_secs(60)).expect(what);
                changed = sources.reload(false).changed;
            }
            settle(&mut sources);
        }
    }
}
