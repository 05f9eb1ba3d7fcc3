//! Gives places to waiting clients, a fair share to each.
//! Stage: registry. Input: who asks. Output: [`FairPlace`]s, one after the other.
//!
//! The next place goes to the client with the fewest places; among equals, to the one whose last
//! turn is longest ago. If the queue is full, a new request displaces the last request of the
//! client that has the most requests in the queue, unless the new one is from that client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::{Receiver, Sender, channel};

/// The numbers of places and of waiting requests.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// The number of places.
    pub places: usize,
    /// The largest number of places of one client.
    pub client_places: usize,
    /// The largest number of waiting requests.
    pub queue: usize,
    /// The largest number of waiting requests of one client.
    pub client_queue: usize,
}

/// Says that too many requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

/// Places for clients, which have keys of type `K`. Clones share the places.
pub struct FairPlaces<K: Ord + Clone>(Arc<Mutex<State<K>>>);

struct State<K> {
    shares: Shares,
    free: usize,
    waiting: usize,
    clients: BTreeMap<K, Client>,
    turns: u64,
}

struct Client {
    places: usize,
    /// The number of its last turn.
    turn: u64,
    waiting: VecDeque<(u64, Sender<()>)>,
}

impl<K: Ord + Clone> Clone for FairPlaces<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Ord + Clone> FairPlaces<K> {
    /// Makes a queue in which all places are free.
    pub fn new(shares: Shares) -> Self {
        let (waiting, turns, clients) = (0, 0, BTreeMap::new());
        Self(Arc::new(Mutex::new(State { shares, free: shares.places, waiting, clients, turns })))
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Fails with [`Crowded`] if too many requests wait, or if this one was displaced.
    pub async fn acquire(&self, client: &K) -> Result<FairPlace<K>, Crowded> {
        let (number, turn) = self.lock().enter(client)?;
        let mut ticket = Ticket { all: self, client, number, turn, taken: false };
        match (&mut ticket.turn).await {
            Ok(()) => {
                ticket.taken = true;
                Ok(FairPlace { all: self.clone(), client: client.clone() })
            }
            Err(_) => Err(Crowded),
        }
    }

    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone> State<K> {
    fn enter(&mut self, client: &K) -> Result<(u64, Receiver<()>), Crowded> {
        let own = self.clients.get(client).map_or(0, |client| client.waiting.len());
        let has_turn = self.free > 0
            && own == 0
            && self.clients.get(client).is_none_or(|c| c.places < self.shares.client_places);
        if !has_turn {
            if own >= self.shares.client_queue {
                return Err(Crowded);
            }
            if self.waiting >= self.shares.queue {
                let most = self.clients.values_mut().max_by_key(|client| client.waiting.len());
                let most = most.filter(|most| most.waiting.len() > own + 1).ok_or(Crowded)?;
                // Dropping the sender tells the displaced request.
                most.waiting.pop_back();
                self.waiting -= 1;
            }
        }
        self.turns += 1;
        let (number, (sender, receiver)) = (self.turns, channel());
        let empty = || Client { places: 0, turn: 0, waiting: VecDeque::new() };
        let entry = self.clients.entry(client.clone()).or_insert_with(empty);
        entry.waiting.push_back((number, sender));
        self.waiting += 1;
        self.give();
        Ok((number, receiver))
    }

    /// Gives the free places to waiting requests.
    fn give(&mut self) {
        while self.free > 0 {
            let next = self
                .clients
                .values_mut()
                .filter(|c| !c.waiting.is_empty() && c.places < self.shares.client_places)
                .min_by_key(|client| (client.places, client.turn));
            let Some(next) = next else { return };
            let Some((_, sender)) = next.waiting.pop_front() else { return };
            self.waiting -= 1;
            if sender.send(()).is_ok() {
                self.turns += 1;
                next.turn = self.turns;
                next.places += 1;
                self.free -= 1;
            }
        }
    }

    fn release(&mut self, client: &K) {
        if let Some(entry) = self.clients.get_mut(client) {
            entry.places = entry.places.saturating_sub(1);
            self.free += 1;
        }
        self.give();
        self.forget(client);
    }

    fn forget(&mut self, client: &K) {
        if self.clients.get(client).is_some_and(|c| c.places == 0 && c.waiting.is_empty()) {
            self.clients.remove(client);
        }
    }
}

/// A request that waits, or that has a turn and did not take it.
struct Ticket<'a, K: Ord + Clone> {
    all: &'a FairPlaces<K>,
    client: &'a K,
    number: u64,
    turn: Receiver<()>,
    taken: bool,
}

impl<K: Ord + Clone> Drop for Ticket<'_, K> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.all.lock();
        // No turn can be given while the state is locked.
        if self.turn.try_recv().is_ok() {
            state.release(self.client);
            return;
        }
        if let Some(client) = state.clients.get_mut(self.client) {
            let before = client.waiting.len();
            client.waiting.retain(|(number, _)| *number != self.number);
            let left = before - client.waiting.len();
            state.waiting -= left;
        }
        state.forget(self.client);
    }
}

/// A place. Dropping it makes the place free.
pub struct FairPlace<K: Ord + Clone> {
    all: FairPlaces<K>,
    client: K,
}

impl<K: Ord + Clone> Drop for FairPlace<K> {
    fn drop(&mut self) {
        self.all.lock().release(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<FairPlace<char>, Crowded>> + 'a>>;

    fn poll(waiting: &mut Waiting<'_>) -> Option<Result<FairPlace<char>, Crowded>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    fn places(places: usize, client_places: usize, queue: usize) -> FairPlaces<char> {
        FairPlaces::new(Shares { places, client_places, queue, client_queue: queue })
    }

    #[test]
    fn who_has_the_fewest_is_next() {
        let all = places(2, 2, 10);
        let mut wait = "aaaab".chars().collect::<Vec<_>>();
        let names = wait.clone();
        let mut futures: Vec<Waiting<'_>> =
            names.iter().map(|name| Box::pin(all.acquire(name)) as Waiting<'_>).collect();
        let mut held = Vec::new();
        let mut order = String::new();
        let mut step = |held: &mut Vec<FairPlace<char>>, futures: &mut Vec<Waiting<'_>>| {
            let mut at = 0;
            while at < futures.len() {
                match poll(&mut futures[at]) {
                    Some(done) => {
                        held.push(done.ok().unwrap());
                        order.push(wait.remove(at));
                        drop(futures.remove(at));
                    }
                    None => at += 1,
                }
            }
        };
        step(&mut held, &mut futures);
        assert_eq!(all.waiting(), 3);
        while !futures.is_empty() {
            drop(held.remove(0));
            step(&mut held, &mut futures);
        }
        assert_eq!(order, "aabaa");
        drop(held);
        let state = all.lock();
        assert!(state.free == 2 && state.waiting == 0 && state.clients.is_empty());
    }

    #[test]
    fn a_client_has_no_more_than_its_share() {
        let all = places(3, 2, 10);
        let mut waiting: Vec<Waiting<'_>> =
            (0..3).map(|_| Box::pin(all.acquire(&'a')) as Waiting<'_>).collect();
        let held: Vec<_> =
            waiting[..2].iter_mut().map(|w| poll(w).unwrap().ok().unwrap()).collect();
        assert!(poll(&mut waiting[2]).is_none());
        let mut other: Waiting<'_> = Box::pin(all.acquire(&'b'));
        assert!(poll(&mut other).unwrap().is_ok());
        drop(held);
        assert!(poll(&mut waiting[2]).unwrap().is_ok());
    }

    #[test]
    fn a_crowd_makes_room_for_others() {
        let all = places(1, 1, 3);
        let mut first: Waiting<'_> = Box::pin(all.acquire(&'a'));
        let held = poll(&mut first).unwrap().ok().unwrap();
        let mut waiting: Vec<Waiting<'_>> =
            (0..4).map(|_| Box::pin(all.acquire(&'a')) as Waiting<'_>).collect();
        let told: Vec<_> = waiting.iter_mut().map(|w| poll(w).is_some()).collect();
        assert_eq!(told, [false, false, false, true]);
        let mut other: Waiting<'_> = Box::pin(all.acquire(&'b'));
        assert!(poll(&mut other).is_none());
        // The last waiting request was displaced.
        assert_eq!(poll(&mut waiting[2]).unwrap().err(), Some(Crowded));
        assert!(poll(&mut waiting[1]).is_none());
        drop(held);
        let held = poll(&mut other).unwrap().ok().unwrap();
        // A request that is dropped keeps no place, whether it had a turn or not.
        drop(held);
        drop(waiting.remove(0));
        assert!(poll(&mut waiting[0]).unwrap().is_ok());
        drop(waiting);
        let state = all.lock();
        assert!(state.free == 1 && state.waiting == 0 && state.clients.is_empty());
    }
}
