//! Watches directories and files for changes, if the system can report them.
//! Stage: registry. Input: paths. Output: a notice after each change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::reach::Reach;
use super::reports::{Interest, Reports};
use crate::image_path::MOST_LINKS;
use crate::store::Store;

/// Watches every directory and file that could change the images of a server, and avoids those that
/// do not answer.
pub struct Watches {
    reach: Reach,
    /// The store directory. Its files never change, so that none is watched.
    store: PathBuf,
    reports: Option<Reports>,
    /// False if something of the last round can't be watched.
    sees_all: bool,
}

impl Watches {
    /// Starts to watch. Calls `notice` on another thread, after each change, until it returns
    /// false. If the system can't report changes, says so in the log, and watches nothing.
    pub fn start(store: &Store, reach: Reach, notice: impl Fn() -> bool + Send + 'static) -> Self {
        let reports = Reports::start(notice).inspect_err(|error| warn(error)).ok();
        Self { reach, store: store.physical_dir(), reports, sees_all: false }
    }

    /// Makes watches that never report anything.
    pub fn none() -> Self {
        Self { reach: Reach::default(), store: PathBuf::new(), reports: None, sees_all: false }
    }

    /// Returns what finds out whether paths answer.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Begins a round, which names again every path to be watched. Other paths are then no longer
    /// watched.
    pub fn round(&mut self) -> Round<'_> {
        self.sees_all = self.reports.is_some();
        if let Some(reports) = &mut self.reports {
            reports.begin();
        }
        Round { watches: self, directories: BTreeMap::new(), waited: Duration::ZERO }
    }

    /// Returns whether the system reports every change of the paths of the last round.
    pub fn sees_all(&self) -> bool {
        self.sees_all && self.reports.as_ref().is_some_and(Reports::are_there)
    }
}

fn warn(error: &str) {
    tracing::warn!("{error}: looking for changes every second instead");
}

/// One round: collects the paths to be watched.
pub struct Round<'w> {
    watches: &'w mut Watches,
    /// The directories that were resolved in this round, each with its path without links.
    directories: BTreeMap<PathBuf, PathBuf>,
    /// The time spent on paths that do not answer.
    waited: Duration,
}

impl Round<'_> {
    /// Returns the time that was spent on paths that do not answer.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns the paths that do not answer, which can't be watched.
    pub fn hanging(&mut self, paths: Vec<PathBuf>) -> BTreeSet<PathBuf> {
        let begin = Instant::now();
        let hanging = self.watches.reach.hanging(paths);
        if !hanging.is_empty() {
            self.watches.sees_all = false;
            self.waited += begin.elapsed();
        }
        hanging
    }

    /// Returns whether a path does not answer.
    pub fn hangs(&mut self, path: &Path) -> bool {
        !self.hanging(vec![path.to_owned()]).is_empty()
    }

    /// Watches all files of a directory, except those whose name begins with a dot.
    pub fn watch_directory(&mut self, directory: &Path) {
        self.watch(directory, Interest::Files);
    }

    /// Watches a file, and all directories and links on the way to it.
    pub fn watch_file(&mut self, file: &Path) {
        self.follow(file, true);
    }

    /// Watches all directories and links on the way to a path.
    pub fn watch_path(&mut self, path: &Path) {
        self.follow(path, false);
    }

    /// Watches the contents of a file that has several hard links: it may be changed by another
    /// name, which the watch of its directory does not report.
    pub fn watch_names(&mut self, file: &Path, metadata: &Metadata) {
        if metadata.is_file() && metadata.nlink() > 1 && !self.is_in_store(file) {
            self.watch(file, Interest::Contents);
        }
    }

    fn follow(&mut self, path: &Path, is_file: bool) {
        if self.watches.reports.is_none() {
            return;
        }
        let absolute = std::path::absolute(path);
        let followed = absolute.ok().and_then(|path| self.resolve(&path, is_file, 0));
        if followed.is_none() {
            self.watches.sees_all = false;
        }
    }

    /// Resolves the links of an absolute path, and watches every directory and link on the way.
    /// Returns `None` if there are too many links.
    fn resolve(&mut self, path: &Path, is_file: bool, links: usize) -> Option<PathBuf> {
        let Some(above) = path.parent() else { return Some(path.to_owned()) };
        let above = self.directory(above, links)?;
        let Some(name) = path.file_name() else {
            // The last component is `..`.
            return Some(above.parent().unwrap_or(&above).to_owned());
        };
        if !self.is_in_store(&above) {
            let interest = if is_file { Interest::File(name) } else { Interest::Name(name) };
            self.watch(&above, interest);
        }
        let path = above.join(name);
        match fs::read_link(&path) {
            Ok(_) if links == MOST_LINKS => None,
            Ok(target) => self.resolve(&above.join(target), is_file, links + 1),
            Err(_) => Some(path),
        }
    }

    fn directory(&mut self, path: &Path, links: usize) -> Option<PathBuf> {
        if let Some(known) = self.directories.get(path) {
            return Some(known.clone());
        }
        let resolved = self.resolve(path, false, links)?;
        self.directories.insert(path.to_owned(), resolved.clone());
        Some(resolved)
    }

    fn is_in_store(&self, path: &Path) -> bool {
        path.starts_with(&self.watches.store)
    }

    fn watch(&mut self, path: &Path, interest: Interest) {
        let Watches { reports, sees_all, .. } = &mut *self.watches;
        let Some(watching) = reports else { return };
        match watching.watch(path, interest) {
            Ok(reported) => *sees_all &= reported,
            Err(error) => {
                warn(&error);
                (*reports, *sees_all) = (None, false);
            }
        }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if let Some(reports) = &mut self.watches.reports {
            reports.end();
        }
    }
}
