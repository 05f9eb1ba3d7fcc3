//! Turns signals into orders for a service.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::DECIDED;

/// An order to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Look for changes everywhere.
    Reload,
    /// End.
    End,
}

/// Turns signals into orders from now on. A second signal to end ends the program at once.
pub fn orders() -> io::Result<Receiver<Order>> {
    DECIDED.call_once(|| ());
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGQUIT] {
        flag::register_conditional_shutdown(signal, 128 + signal, ended.clone())?;
        flag::register(signal, ended.clone())?;
    }
    // Administrators send SIGHUP on purpose, also to a service that `nohup` started.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT, SIGHUP])?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let order = if signal == SIGHUP { Order::Reload } else { Order::End };
            if sender.send(order).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}
