//! Finds out which paths lead to a file system that hangs, without waiting for it.
//! Stage: registry. Input: paths. Output: those that do not answer.
//!
//! A call to a file system that hangs, such as NFS without its server, may never return. Each path is
//! therefore tried on a thread of its own first. A thread that hangs is left alone, and its path is
//! not tried again until it returns.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest time to wait for one path.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest number of threads that may hang at the same time. Beyond it, other paths are not
/// tried when one of them does not answer.
const MOST: usize = 16;

/// Tries paths, and remembers those that do not answer.
#[derive(Clone)]
pub struct Reach {
    /// Makes the calls that a look at a path makes.
    touch: fn(&Path),
    patience: Duration,
    hanging: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Default for Reach {
    fn default() -> Self {
        Self { touch, patience: PATIENCE, hanging: Arc::default() }
    }
}

/// Asks for the metadata of a path, and for the first name in it if it is a directory.
fn touch(path: &Path) {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        let _ = fs::read_dir(path).map(|mut entries| entries.next().is_some());
    }
}

impl Reach {
    /// Returns whether a path answers, also if there is no file.
    pub fn answers(&self, path: &Path) -> bool {
        self.hanging(vec![path.to_owned()]).is_empty()
    }

    /// Returns the paths that do not answer.
    pub fn hanging(&self, paths: Vec<PathBuf>) -> BTreeSet<PathBuf> {
        let known = self.known().clone();
        let (hanging, mut left): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| known.contains(path));
        let mut hanging = BTreeSet::from_iter(hanging);
        while !left.is_empty() {
            let Some(stuck) = self.try_all(&left) else { break };
            let after = left.split_off(stuck);
            if self.known().len() >= MOST {
                hanging.extend(after);
                break;
            }
            hanging.insert(after[0].clone());
            left = after[1..].to_vec();
        }
        hanging
    }

    /// Tries paths in order. Returns the index of the first one that does not answer.
    fn try_all(&self, paths: &[PathBuf]) -> Option<usize> {
        let (answers, answered) = channel();
        let (touch, hanging, tried) = (self.touch, Arc::clone(&self.hanging), paths.to_vec());
        let started = std::thread::Builder::new().name("reach".to_owned()).spawn(move || {
            for path in &tried {
                touch(path);
                // The lock makes sure that the path was noted before it is removed again.
                let mut hanging = hanging.lock().unwrap_or_else(PoisonError::into_inner);
                if answers.send(()).is_err() {
                    hanging.remove(path);
                    return;
                }
            }
        });
        if started.is_err() {
            // There are no more threads. The caller tries the paths itself.
            return None;
        }
        for (index, path) in paths.iter().enumerate() {
            match answered.recv_timeout(self.patience) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let mut hanging = self.known();
                    if answered.try_recv().is_ok() {
                        continue;
                    }
                    hanging.insert(path.clone());
                    drop(answered);
                    return Some(index);
                }
            }
        }
        None
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use super::*;

    /// A file system that hangs as long as a test holds its lock.
    static SYSTEM: RwLock<()> = RwLock::new(());

    fn hang(path: &Path) {
        if path.starts_with("hangs") {
            drop(SYSTEM.read());
        }
    }

    #[test]
    fn paths_that_hang_are_tried_until_they_answer() {
        let patience = Duration::from_millis(500);
        let reach = Reach { touch: hang, patience, hanging: Arc::default() };
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let all = ["a", "hangs/1", "b", "hangs/2", "c"];
        let hanging = BTreeSet::from(["hangs/1".into(), "hangs/2".into()]);
        let system = SYSTEM.write().unwrap();
        assert_eq!(reach.hanging(paths(&all)), hanging);
        // The paths are known now, and cost nothing.
        let patient = Reach { patience: Duration::from_secs(3600), ..reach.clone() };
        assert_eq!(patient.hanging(paths(&all)), hanging);
        assert!(patient.answers(Path::new("a")) && !patient.answers(Path::new("hangs/1")));
        drop(system);
        while !reach.known().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(patient.hanging(paths(&all)), BTreeSet::new());

        // There is a largest number of threads that hang.
        let system = SYSTEM.write().unwrap();
        let many: Vec<_> =
            (0..100).map(|number| PathBuf::from(format!("hangs/{number}"))).collect();
        let impatient = Reach { patience: Duration::from_millis(1), ..reach.clone() };
        assert_eq!(impatient.hanging(many.clone()).len(), 100);
        assert_eq!(reach.known().len(), MOST);
        drop(system);
        while !reach.known().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(patient.hanging(many), BTreeSet::new());
    }

    #[test]
    fn what_is_there_answers() {
        let directory = tempfile::tempdir().unwrap();
        let reach = Reach::default();
        for path in [directory.path(), &directory.path().join("missing"), Path::new("/dev/null")] {
            assert!(reach.answers(path), "{}", path.display());
        }
    }
}
