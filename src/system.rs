//! Calls of the system that the standard library lacks. Some of them only Linux has: on other systems, the
//! functions that make these calls return an error or change nothing, and their callers work without
//! them.
//! Vocabulary: names no stage.

use std::io::{self, StdoutLock};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[cfg(target_os = "linux")]
pub use linux::{is_beneath, move_to_pipe, name_file, open_unnamed, widen_pipe};
#[cfg(not(target_os = "linux"))]
pub use others::{is_beneath, move_to_pipe, name_file, open_unnamed, widen_pipe};

/// Whether standard output was closed when the program started.
static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// A function that runs before Rust's runtime, which opens `/dev/null` in place of what is closed: later
/// on, nothing tells such a program from one whose output is discarded on purpose.
#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static BEFORE_MAIN: extern "C" fn() = look_at_stdout;

extern "C" fn look_at_stdout() {
    // SAFETY: the call only reads the flags of a descriptor, whether it is open or not, and works before
    // Rust's runtime has started.
    let flags = unsafe { nix::libc::fcntl(nix::libc::STDOUT_FILENO, nix::libc::F_GETFD) };
    STDOUT_WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// Returns standard output.
///
/// # Errors
/// Fails if standard output was closed when the program started (`>&-`). Otherwise everything that is
/// written to it would be lost without an error.
pub fn stdout() -> io::Result<StdoutLock<'static>> {
    if STDOUT_WAS_CLOSED.load(Ordering::Relaxed) {
        return Err(io::Error::other("it is closed"));
    }
    Ok(io::stdout().lock())
}

/// Returns whether this program was started with a signal ignored, as `nohup` does. Must be called
/// before any handler is set.
pub fn ignores_signal(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<nix::libc::sigaction>::uninit();
    // SAFETY: the new action is null, so that the call changes nothing. If the call succeeds, it
    // fills all of `action`, which has the type that the call writes; if it fails, `action` is not
    // read.
    unsafe {
        nix::libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == nix::libc::SIG_IGN
    }
}

/// Lets reads and writes of a file fail with [`io::ErrorKind::WouldBlock`] instead of waiting.
///
/// # Errors
/// Fails with the error of the system.
pub fn set_nonblocking(file: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Waits until a pipe has room for bytes, or its reader has gone, or for `most`.
///
/// # Errors
/// Fails with the error of the system. A signal is none.
pub fn wait_for_room(pipe: &impl AsFd, most: Duration) -> io::Result<()> {
    let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
    let most = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
    match poll(&mut wanted, most) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns the error of a system that lacks a call.
fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{self, File, OpenOptions};
    use std::io;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};

    use nix::errno::Errno;
    use nix::fcntl::{
        AT_FDCWD, AtFlags, FcntlArg, OFlag, OpenHow, ResolveFlag, SpliceFFlags, fcntl, openat2,
        splice,
    };
    use nix::unistd::linkat;

    /// Moves up to `length` bytes of a file, from `offset` on, to a pipe, as pages of the system's
    /// cache (splice(2)). Returns their number, which is 0 at the file's end.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::Unsupported`] if the file system or the system can't do this, and
    /// with the error of the system.
    pub fn move_to_pipe(file: &File, offset: u64, pipe: &File, length: usize) -> io::Result<u64> {
        let Ok(mut from) = i64::try_from(offset) else { return super::unsupported() };
        match splice(file, Some(&mut from), pipe, None, length, SpliceFFlags::SPLICE_F_MORE) {
            Ok(moved) => Ok(moved as u64),
            Err(Errno::EINVAL) => super::unsupported(),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a pipe the largest buffer that an ordinary user may ask for: with the default of 64 KiB,
    /// writer and reader of a layer spend their time waking each other.
    ///
    /// Changes nothing if `out` is not a pipe, or if the system refuses.
    pub fn widen_pipe(out: &impl AsFd) {
        const SIZE: i32 = 1 << 20; // the default of /proc/sys/fs/pipe-max-size
        let _ = fcntl(out, FcntlArg::F_SETPIPE_SZ(SIZE));
    }

    /// Opens a new file in a directory, for reading and writing, that has no name (`O_TMPFILE`,
    /// open(2)): [`name_file`] gives it one.
    ///
    /// # Errors
    /// Fails if the file system or the system has no such files, or with the error of the system.
    pub fn open_unnamed(directory: &Path, mode: u32) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(mode).custom_flags(OFlag::O_TMPFILE.bits());
        let file = options.open(directory)?;
        // `name_file` needs this path, which is missing where /proc is not mounted.
        fs::symlink_metadata(handle(&file))?;
        Ok(file)
    }

    /// Gives a file of [`open_unnamed`] a name.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::AlreadyExists`] if there is a file of that name, and with the error
    /// of the system.
    pub fn name_file(file: &File, path: &Path) -> io::Result<()> {
        Ok(linkat(AT_FDCWD, &handle(file), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
    }

    /// Returns a path by which this process can name an open file.
    fn handle(file: &File) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// Returns whether `name` leads to a file in `directory` when all symbolic links are followed
    /// (`RESOLVE_BENEATH`, openat2(2)).
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::Unsupported`] if the system can't answer, and with the error of the
    /// system, such as a missing file.
    pub fn is_beneath(directory: &Path, name: &str) -> io::Result<bool> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH);
        match openat2(File::open(directory)?, name, how) {
            Ok(_) => Ok(true),
            Err(Errno::EXDEV) => Ok(false),
            // Linux before 5.6, and sandboxes that refuse unknown calls, have no openat2.
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::EAGAIN) => {
                super::unsupported()
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[allow(missing_docs)] // the same calls as in `linux`
mod others {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::unsupported;

    pub fn move_to_pipe(_: &File, _: u64, _: &File, _: usize) -> io::Result<u64> {
        unsupported()
    }

    pub fn widen_pipe(_: &impl AsFd) {}

    pub fn open_unnamed(_: &Path, _: u32) -> io::Result<File> {
        unsupported()
    }

    pub fn name_file(_: &File, _: &Path) -> io::Result<()> {
        unsupported()
    }

    pub fn is_beneath(_: &Path, _: &str) -> io::Result<bool> {
        unsupported()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::libc::{SIGHUP, SIGTERM};

    use super::*;

    /// Checks a process that `nohup` starts, and one that it does not start. The test runs itself
    /// in these processes.
    #[test]
    fn signals_that_are_ignored_are_known() {
        const ASKED: &str = "STOWAGE_TEST_IGNORES";
        if let Ok(expected) = std::env::var(ASKED) {
            assert_eq!(ignores_signal(SIGHUP).to_string(), expected);
            assert!(!ignores_signal(SIGTERM));
            // The second call has the same result: the first one changed nothing.
            assert_eq!(ignores_signal(SIGHUP).to_string(), expected);
            return;
        }
        let test = std::env::current_exe().unwrap();
        for (ignored, how) in [("false", "default"), ("true", "ignore")] {
            // A shell can't stop ignoring a signal that was ignored when the shell was started.
            let mut env = Command::new("env");
            env.arg(format!("--{how}-signal=HUP")).arg(&test);
            env.args(["--exact", "system::tests::signals_that_are_ignored_are_known"]);
            let output = env.env(ASKED, ignored).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        // No system has a signal of this number.
        assert!(!ignores_signal(10_000));
    }
}
