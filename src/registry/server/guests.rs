//! Connections that are open: those that ask for nothing make room for others.
//! Stage: registry. Input: connections. Output: which of them may stay.
//!
//! A connection is cheap, and so there may be more of them than requests at a time. Where there are too
//! many, that one ends which has been idle for longest, of the address that has the most.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::registry::metrics::Metrics;

/// Connections that are open. Clones are of the same.
#[derive(Clone)]
pub struct Guests(Arc<Inner>);

struct Inner {
    most: usize,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    /// Told when the last one has gone.
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
    /// When it became idle, by the order of such events; none while something is sent.
    idle: Option<u64>,
    end: Arc<Notify>,
}

impl Guests {
    /// At most so many.
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        let (state, empty) = Default::default();
        Self(Arc::new(Inner { most: most.max(1), state, metrics, empty }))
    }

    /// Lets a connection in, if there is room or another can be told to end.
    pub fn admit(&self, address: IpAddr) -> Option<Guest> {
        let mut state = self.lock();
        if state.open.len() >= self.0.most && !state.end_one() {
            return None;
        }
        state.next += 1;
        let (number, end) = (state.next, Arc::default());
        state.open.insert(number, Entry { address, idle: Some(number), end: Arc::clone(&end) });
        self.0.metrics.connections.add(1);
        Some(Guest { guests: self.clone(), number, end })
    }

    /// Tells an idle connection to end, since the system has no more of something.
    pub fn make_room(&self) {
        self.lock().end_one();
    }

    /// Waits until none is open.
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
    /// Returns whether there was one to end.
    fn end_one(&mut self) -> bool {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        self.open.values().for_each(|entry| *counts.entry(entry.address).or_default() += 1);
        let idle = self.open.iter().filter_map(|(number, entry)| {
            let count = counts.get(&entry.address).copied().unwrap_or(0);
            Some((count, std::cmp::Reverse(entry.idle?), *number))
        });
        let Some((_, _, number)) = idle.max() else { return false };
        if let Some(entry) = self.open.remove(&number) {
            // It counts no more, though its task takes a moment to end.
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
    /// Waits until it has to make room for others.
    pub async fn told_to_end(&self) {
        self.end.notified().await;
    }

    /// Has it stay as long as what is returned is there.
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
        self.guests.0.metrics.connections.decrement();
        if state.open.is_empty() && state.ending == 0 {
            self.guests.0.empty.notify_waiters();
        }
    }
}

/// A connection by which something is being sent.
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
        // The longest idle one of the address that has the most.
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
