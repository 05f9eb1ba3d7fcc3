//! Receives the reports of Linux' inotify (inotify(7)). Other systems have none here.
//! Stage: registry. Input: paths. Output: a notice after each change.

use std::ffi::OsStr;

/// The changes of a watched path that matter.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))] // nothing is watched there
pub enum Interest<'n> {
    /// Changes of any file in the directory, unless its name begins with a dot.
    Files,
    /// Changes of one file in the directory. The file may be written, replaced or removed.
    File(&'n OsStr),
    /// Changes of one name in the directory. The name may be given to another file, or be removed.
    Name(&'n OsStr),
    /// Changes of the file's bytes.
    Contents,
}

#[cfg(target_os = "linux")]
pub use linux::Reports;
#[cfg(not(target_os = "linux"))]
pub use other::Reports;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread;

    use nix::errno::Errno;
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
    use nix::sys::statfs::{FsType, statfs};

    use super::Interest;

    /// The file systems that only this machine can change, by their numbers in `linux/magic.h` or,
    /// if they are not in it, in their own source. Files of other file systems may be changed by
    /// another machine, and inotify does not report this.
    const REPORTING: [FsType; 14] = [
        FsType(0xef53),      // ext2, ext3, ext4
        FsType(0x5846_5342), // XFS
        FsType(0x9123_683e), // Btrfs
        FsType(0x0102_1994), // tmpfs
        FsType(0x8584_58f6), // ramfs
        FsType(0x794c_7630), // overlayfs
        FsType(0xf2f5_2010), // F2FS
        FsType(0x2fc1_2fc1), // ZFS
        FsType(0xca45_1a4e), // bcachefs
        FsType(0x7371_7368), // SquashFS
        FsType(0xe0f5_e1e2), // EROFS
        FsType(0x5265_4973), // ReiserFS
        FsType(0x3153_464a), // JFS
        FsType(0x4d44),      // FAT
    ];
    /// The flag that adds interests to a watch instead of replacing them.
    const ADD: AddWatchFlags = AddWatchFlags::from_bits_retain(nix::libc::IN_MASK_ADD);

    /// An instance of inotify, and the thread that reads it.
    pub struct Reports(Arc<Shared>);

    struct Shared {
        inotify: Inotify,
        watched: Mutex<Watched>,
        /// True after a notice, until the next round begins: there is one notice for each round.
        noticed: AtomicBool,
        ended: AtomicBool,
    }

    #[derive(Default)]
    struct Watched {
        round: u64,
        watches: BTreeMap<WatchDescriptor, Watch>,
    }

    struct Watch {
        round: u64,
        /// True if inotify reports all changes on the file system of this path.
        reports: bool,
        /// True if all files in the directory are of interest.
        all: bool,
        names: BTreeSet<OsString>,
    }

    impl Interest<'_> {
        fn mask(self) -> AddWatchFlags {
            use AddWatchFlags as F;
            let own = F::IN_ATTRIB | F::IN_DELETE_SELF | F::IN_MOVE_SELF;
            let names = F::IN_ONLYDIR | F::IN_CREATE | F::IN_DELETE | F::IN_MOVE;
            let written = F::IN_MODIFY | F::IN_CLOSE_WRITE;
            match self {
                Self::Files | Self::File(_) => own | names | written,
                Self::Name(_) => own | names,
                Self::Contents => own | written,
            }
        }
    }

    impl Reports {
        /// Starts a thread that reads reports and calls `notice` after a change.
        pub fn start(notice: impl Fn() -> bool + Send + 'static) -> Result<Self, String> {
            let failed = |error: &dyn std::fmt::Display| {
                format!("cannot watch for changes (`fs.inotify.max_user_instances`): {error}")
            };
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC).map_err(|error| failed(&error))?;
            let shared = Arc::new(Shared {
                inotify,
                watched: Mutex::default(),
                noticed: AtomicBool::new(false),
                ended: AtomicBool::new(false),
            });
            let reader = Arc::clone(&shared);
            let thread = thread::Builder::new().name("changes".to_owned());
            thread.spawn(move || reader.read(notice)).map_err(|error| failed(&error))?;
            Ok(Self(shared))
        }

        /// Returns whether the thread still reads reports.
        pub fn are_there(&self) -> bool {
            !self.0.ended.load(Ordering::Acquire)
        }

        /// Begins a round, after which the next change causes a notice again.
        pub fn begin(&mut self) {
            self.watched().round += 1;
            self.0.noticed.store(false, Ordering::Release);
        }

        /// Watches a path as part of this round. Returns whether all changes are reported: those by
        /// other machines may not be.
        ///
        /// # Errors
        /// Fails with a message if nothing more can be watched.
        pub fn watch(&mut self, path: &Path, interest: Interest) -> Result<bool, String> {
            // Locked first, so that the thread finds the watch when it reads the first report of
            // it.
            let mut watched = self.watched();
            let descriptor = match self.0.inotify.add_watch(path, interest.mask() | ADD) {
                Ok(descriptor) => descriptor,
                Err(error @ (Errno::ENOSPC | Errno::ENOMEM)) => {
                    let path = path.display();
                    let limit = "`fs.inotify.max_user_watches`";
                    return Err(format!("cannot watch {path} for changes ({limit}): {error}"));
                }
                // There is no such file. The directory above is watched too, and reports when the
                // file appears.
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(true),
                Err(_) => return Ok(false),
            };
            let round = watched.round;
            let watch = watched.watches.entry(descriptor).or_insert_with(|| {
                let kind = statfs(path).map(|found| found.filesystem_type());
                let reports = kind.is_ok_and(|kind| REPORTING.contains(&kind));
                let (all, names) = Default::default();
                Watch { round, reports, all, names }
            });
            if watch.round != round {
                (watch.round, watch.all) = (round, false);
                watch.names.clear();
            }
            match interest {
                Interest::Files | Interest::Contents => watch.all = true,
                Interest::File(name) | Interest::Name(name) => {
                    watch.names.insert(name.to_owned());
                }
            }
            Ok(watch.reports)
        }

        /// Ends a round: stops watching the paths that were not part of it.
        pub fn end(&mut self) {
            let mut watched = self.watched();
            let Watched { round, watches } = &mut *watched;
            watches.retain(|descriptor, watch| {
                let stays = watch.round == *round;
                if !stays {
                    // This fails if the directory was removed, and the watch with it.
                    let _ = self.0.inotify.rm_watch(*descriptor);
                }
                stays
            });
        }

        fn watched(&self) -> std::sync::MutexGuard<'_, Watched> {
            self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Drop for Reports {
        fn drop(&mut self) {
            self.0.ended.store(true, Ordering::Release);
            // The system reports that the watches are gone. This wakes the thread, which then ends.
            let watched = std::mem::take(&mut self.watched().watches);
            for descriptor in watched.into_keys() {
                let _ = self.0.inotify.rm_watch(descriptor);
            }
            if let Ok(last) = self.0.inotify.add_watch("/", AddWatchFlags::IN_DELETE_SELF) {
                let _ = self.0.inotify.rm_watch(last);
            }
        }
    }

    impl Shared {
        fn read(&self, notice: impl Fn() -> bool) {
            loop {
                let events = match self.inotify.read_events() {
                    Ok(events) => events,
                    Err(Errno::EINTR) => continue,
                    Err(_) => break,
                };
                if self.ended.load(Ordering::Acquire) {
                    return;
                }
                let is_news = {
                    let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
                    events.iter().any(|event| watched.concerns(event))
                };
                if is_news && !self.noticed.swap(true, Ordering::AcqRel) && !notice() {
                    break;
                }
            }
            self.ended.store(true, Ordering::Release);
        }
    }

    impl Watched {
        fn concerns(&self, event: &InotifyEvent) -> bool {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                return true;
            }
            let Some(watch) = self.watches.get(&event.wd) else { return false };
            match &event.name {
                Some(name) => {
                    watch.names.contains(name) || (watch.all && !name.as_bytes().starts_with(b"."))
                }
                None => !event.mask.contains(AddWatchFlags::IN_IGNORED),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::path::Path;

    use super::Interest;

    /// Stands for the reports of systems that have no inotify. There is no value of this type.
    pub enum Reports {}

    impl Reports {
        /// Says that there are no reports.
        pub fn start(_: impl Fn() -> bool + Send + 'static) -> Result<Self, String> {
            Err("cannot watch for changes on this system".to_owned())
        }

        /// Returns whether changes are reported.
        pub fn are_there(&self) -> bool {
            match *self {}
        }

        /// Begins a round.
        pub fn begin(&mut self) {
            match *self {}
        }

        /// Watches a path.
        pub fn watch(&mut self, _: &Path, _: Interest) -> Result<bool, String> {
            match *self {}
        }

        /// Ends a round.
        pub fn end(&mut self) {
            match *self {}
        }
    }
}
