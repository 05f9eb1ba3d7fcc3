//! Signals that would end the program, and files that must not outlive it.

#[cfg(feature = "registry")]
mod orders;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Once};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

#[cfg(feature = "registry")]
pub use orders::{Order, orders};

/// The signal that came, or 0.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Who says first what becomes of signals has said it for good.
static DECIDED: Once = Once::new();

/// From now on such a signal ends nothing by itself, but [`received`] says that it came.
/// The second one does: nobody has to wait for what hangs. A service has its [`orders()`] instead.
pub fn hold() {
    DECIDED.call_once(|| {
        let ignored = ignored();
        let first = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if ignored >> (signal - 1) & 1 == 1 {
                continue;
            }
            // It can't fail: these are no signals that the system keeps to itself. If it did,
            // the signal would go on to end the program.
            let _ = flag::register_conditional_shutdown(signal, 128 + signal, first.clone());
            let _ = flag::register(signal, first.clone());
            let _ = flag::register_usize(signal, SIGNAL.clone(), signal as usize);
        }
    });
}

/// The signal that came since [`hold`].
pub fn received() -> Option<u8> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => None,
        signal => u8::try_from(signal).ok(),
    }
}

/// The signals that the program was started to ignore, a bit each: `nohup` is to keep its
/// meaning.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
