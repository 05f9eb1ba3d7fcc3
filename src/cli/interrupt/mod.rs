//! Handles signals that would end the program, so that temporary files are removed.

#[cfg(feature = "registry")]
mod orders;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Once};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::system;

#[cfg(feature = "registry")]
pub use orders::{Order, orders};

/// The number of the signal that has arrived, or 0.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Lets the first caller decide how signals are handled: [`hold`] or [`orders()`].
static DECIDED: Once = Once::new();

/// Lets a write beyond the limit of a file's size (`RLIMIT_FSIZE`, setrlimit(2)) fail with an error, which
/// names the file: the signal would end the program. Programs that this one starts still get the signal.
pub fn survive_large_files() {
    let _ = flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Holds signals back from now on: the first one does not end the program, and [`received`] returns
/// it. The second one ends the program, in case it hangs. A service has its [`orders()`] instead.
pub fn hold() {
    DECIDED.call_once(|| {
        let first = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            // The program was started with this signal ignored, as `nohup` does: it stays ignored.
            if system::ignores_signal(signal) {
                continue;
            }
            // These calls can't fail for these signals. If one did, the signal would still end
            // the program.
            let _ = flag::register_conditional_shutdown(signal, 128 + signal, first.clone());
            let _ = flag::register(signal, first.clone());
            let _ = flag::register_usize(signal, SIGNAL.clone(), signal as usize);
        }
    });
}

/// Returns the signal that has arrived since [`hold`].
pub fn received() -> Option<u8> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => None,
        signal => u8::try_from(signal).ok(),
    }
}
