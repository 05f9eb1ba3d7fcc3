//! Limits the open connections: idle ones are closed if others need room.
//! Stage: registry. Input: connections. Output: which of them may stay.
//!
//! A connection is cheap, so there may be more connections than requests at a time. If there are
//! too many, the address with the most connections loses one: the one that has been idle for
//! longest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::registry::metrics::Metrics;

/// The open connections. Clones share them.
#[derive(Clone)]
pub struct Guests(Arc<Inner>);

struct Inner {
    most: usize,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    /// Notified when the last connection is closed.
    empty: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, Entry>,
    /// Connections that were told to end and are still there.
    ending: usize,
}

struct Entry {
    address: IpAddr,
    /// The number of the event by which the connection became idle; none while a request is
    /// answered.
    idle: Option<u64>,
    end: Arc<Notify>,
}

impl Guests {
    /// Allows at most `most` connections.
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        let (state, empty) = Default::default();
        Self(Arc::new(Inner { most: most.max(1), state, metrics, empty }))
    }

    /// Admits a connection if there is room, or if an idle connection can be told to end. Returns
    /// `None` otherwise.
    pub fn admit(&self, address: IpAddr) -> Option<Guest> {
        let mut state = self.lock();
        if state.open.len() >= self.0.most && !state.end_one() {
            return None;
        }
        state.next += 1;
        let (number, end) = (state.next, Arc::default());
        state.open.insert(number, Entry { address, idle: Some(number), end: Arc::clone(&end) });
        self.0.metrics.connections.inc();
        Some(Guest { guests: self.clone(), number, end })
    }

    /// Tells an idle connection to end, for example because the system has no more file
    /// descriptors.
    pub fn make_room(&self) {
        self.lock().end_one();
    }

    /// Waits until no connection is open.
    pub async fn all_gone(&self) {
        loop {
            let told = self.0.empty.notified();
            let state = {
                let state = self.lock();
                state.open.len() + state.ending
            };
            if state == 0 {
                return;
            }
            told.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells an idle connection to end. Returns whether there was one.
    fn end_one(&mut self) -> bool {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        self.open.values().for_each(|entry| *counts.entry(entry.address).or_default() += 1);
        let idle = self.open.iter().filter_map(|(number, entry)| {
            let count = counts.get(&entry.address).copied().unwrap_or(0);
            Some((count, std::cmp::Reverse(entry.idle?), *number))
        });
        let Some((_, _, number)) = idle.max() else { return false };
        if let Some(entry) = self.open.remove(&number) {
            // The connection no longer counts, though its task needs a moment to end.
            self.ending += 1;
            entry.end.notify_one();
        }
        true
    }
}

/// An open connection.
pub struct Guest {
    guests: Guests,
    number: u64,
    end: Arc<Notify>,
}

impl Guest {
    /// Waits until the connection is told to end.
    pub async fn told_to_end(&self) {
        self.end.notified().await;
    }

    /// Marks the connection as busy until the returned value is dropped. A busy connection is not
    /// told to end.
    pub fn busy(self: &Arc<Self>) -> Busy {
        if let Some(entry) = self.guests.lock().open.get_mut(&self.number) {
            entry.idle = None;
        }
        Busy(Arc::clone(self))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.guests.lock();
        if state.open.remove(&self.number).is_none() {
            state.ending -= 1;
        }
        self.guests.0.metrics.connections.dec();
        if state.open.is_empty() && state.ending == 0 {
            self.guests.0.empty.notify_waiters();
        }
    }
}

/// A busy connection, which answers a request.
pub struct Busy(Arc<Guest>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.guests.lock();
        state.next += 1;
        let now = state.next;
        if let Some(entry) = state.open.get_mut(&self.0.number) {
            entry.idle = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_told(guest: &Guest) -> bool {
        use std::future::Future;
        use std::pin::pin;
        use std::task::{Context, Waker};
        let told = pin!(guest.told_to_end());
        told.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn who_is_idle_makes_room() {
        let guests = Guests::new(4, Arc::default());
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let admit = |last| guests.admit(address(last)).map(Arc::new);
        let other = admit(2).unwrap();
        let mut many: Vec<_> = (0..3).map(|_| admit(1).unwrap()).collect();
        let busy = many[0].busy();
        // The connection that was idle for longest ends, of the address with the most connections.
        let newcomer = admit(3).unwrap();
        let told: Vec<_> = many.iter().map(|guest| is_told(guest)).collect();
        assert_eq!(told, [false, true, false]);
        assert!(!is_told(&other) && !is_told(&newcomer));
        let all = [other.busy(), many[2].busy(), newcomer.busy()];
        assert!(admit(4).is_none(), "all of them are being sent something");
        drop(busy);
        assert!(admit(4).is_some());
        drop(all);
        many.clear();
        drop((other, newcomer));
        assert_eq!(guests.0.metrics.connections.get(), 0);
        assert_eq!(guests.lock().ending, 0);
    }
}
