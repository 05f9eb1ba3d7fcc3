//! Several messages hashed at once on fewer processors.
//! Vocabulary: names no stage.
//!
//! Many more threads make bytes than may be at work. One that comes with bytes to hash leaves
//! them where all can see them, and whoever is at work hashes those of as many as is best for
//! the processor ([`Widths`]), or lets another make more bytes. Bytes are lent, not copied:
//! copying would cost half of what is gained.

use std::cell::Cell;
use std::cmp::Reverse;
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::loans::{Loans, Next};
use super::sha256::{self, Block, State, Widths};

/// Fewer blocks are hashed at once: to look for others takes longer than is gained.
const FEW: usize = (32 << 10) / size_of::<Block>();
/// More threads would have more memory than their company gains.
const THREADS: usize = 64;

/// Does `work` for each item on threads of which `jobs` are at work at a time, the heaviest
/// first, and returns the results in the items' order. If it is for several processors, one more
/// thread is at work: else a processor is idle while a thread is told that it is its turn.
///
/// What `work` hashes by a [`LaneHasher`](super::LaneHasher) at its place is hashed together
/// with what others do, where the processor is faster so. `weight` is a guess of the bytes of
/// each item's message; it changes nothing but the time.
pub fn in_lanes<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    weight: impl Fn(&T) -> u64,
    jobs: usize,
    work: impl Fn(&Place<'_>, T) -> R + Sync,
) -> Vec<R> {
    let mut items: Vec<_> =
        items.into_iter().enumerate().map(|(index, item)| (weight(&item), index, item)).collect();
    items.sort_by_key(|(weight, ..)| Reverse(*weight));
    let total = items.iter().map(|(weight, ..)| weight).sum();
    let widths = Widths::here();
    let (spare, threads) = match widths.most {
        1 => (0, jobs),
        // While some are hashed, others make what is hashed next.
        most => (usize::from(jobs > 1), (most * jobs).min(THREADS.max(2 * jobs)) + most / 2),
    };
    let threads = items.len().min(threads);
    let loans = Loans::new(widths, jobs, threads, total);
    let turns = Turns {
        shared: Mutex::new(Shared { free: jobs + spare, loans }),
        called: (0..threads).map(|_| Condvar::new()).collect(),
    };
    let items = Mutex::new(items.into_iter());
    let results = Mutex::new(Vec::new());
    let run = |number| {
        let place = Place::of(number, &turns);
        // The block ends the lock before the work begins.
        while let Some((weight, index, item)) = { lock(&items).next() } {
            lock(&turns.shared).loans.begin(number, weight);
            let result = work(&place, item);
            lock(&results).push((index, result));
        }
    };
    thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || run(number));
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Nobody panics while what is locked is half done.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which threads are at work.
struct Turns {
    shared: Mutex<Shared>,
    /// One for each thread, by which it is told that it is its turn.
    called: Vec<Condvar>,
}

/// While a thread is idle that has something to do, no place is `free`.
struct Shared {
    /// How many more may be at work.
    free: usize,
    loans: Loans,
}

impl Shared {
    /// Uses the places that nobody had anything to do at.
    fn fill_places(&mut self, called: &[Condvar]) {
        while self.free > 0
            && let Some(thread) = self.loans.idle()
        {
            self.free -= 1;
            self.loans.set_at_work(thread, true);
            called[thread].notify_one();
        }
    }
}

impl Turns {
    /// Waits for a thread's turn.
    fn wait<'s>(
        &'s self,
        mut shared: MutexGuard<'s, Shared>,
        thread: usize,
    ) -> MutexGuard<'s, Shared> {
        while !shared.loans.is_at_work(thread) {
            shared = self.called[thread].wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        shared
    }

    /// Lets others work in place of a thread.
    fn leave(&self, shared: &mut Shared, thread: usize) {
        shared.loans.set_at_work(thread, false);
        shared.free += 1;
        shared.fill_places(&self.called);
    }
}

/// A thread's place among those at work.
pub struct Place<'t> {
    turns: &'t Turns,
    thread: usize,
    /// Stays on its thread, which lends no more than one run of blocks.
    here: PhantomData<Cell<()>>,
}

impl<'t> Place<'t> {
    /// Waits for it.
    fn of(thread: usize, turns: &'t Turns) -> Self {
        let mut shared = lock(&turns.shared);
        shared.fill_places(&turns.called);
        drop(turns.wait(shared, thread));
        Self { turns, thread, here: PhantomData }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut shared = lock(&self.turns.shared);
        shared.loans.end(self.thread);
        self.turns.leave(&mut shared, self.thread);
    }
}

impl Place<'_> {
    /// Hashes the next blocks of a message, here or elsewhere, and perhaps others' meanwhile.
    pub(super) fn compress(&self, state: &mut State, blocks: &[Block]) {
        let Self { turns, thread, .. } = *self;
        if blocks.len() < FEW || Widths::here().most == 1 {
            return sha256::compress(state, blocks);
        }
        let mut shared = lock(&turns.shared);
        // SAFETY: This returns when it is told that they are hashed, and not before: nothing in
        // between fails.
        unsafe { shared.loans.lend(thread, *state, blocks) };
        loop {
            match shared.loans.next(thread) {
                Next::Own(hashed) => {
                    *state = hashed;
                    return;
                }
                Next::Hash(mut group) => {
                    drop(shared);
                    group.hash();
                    shared = lock(&turns.shared);
                    shared.loans.give_back(group);
                    shared.fill_places(&turns.called);
                }
                Next::Wait => {
                    turns.leave(&mut shared, thread);
                    shared = turns.wait(shared, thread);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_are_in_order_and_no_more_are_at_work() {
        for (items, jobs) in [(0_usize, 2_usize), (1, 2), (2, 1), (7, 3), (20, 2)] {
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let results = in_lanes(
                0..items,
                |_| 0,
                jobs,
                |_, item| {
                    most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::sleep(Duration::from_millis(1));
                    now.fetch_sub(1, SeqCst);
                    item
                },
            );
            assert_eq!(results, (0..items).collect::<Vec<_>>());
            let spare = usize::from(jobs > 1);
            assert!(most.into_inner() <= (jobs + spare).min(items), "{items} items, {jobs} jobs");
        }
    }

    /// Else the others would wait for ever.
    #[test]
    fn a_panic_leaves_its_place() {
        let blocks = [[7; size_of::<Block>()]; 2 * FEW];
        let done = AtomicUsize::new(0);
        let result = panic::catch_unwind(|| {
            in_lanes(
                0..4,
                |_| 0,
                1,
                |place, item| {
                    assert_ne!(item, 1, "on purpose");
                    place.compress(&mut sha256::INITIAL.clone(), &blocks);
                    done.fetch_add(1, SeqCst);
                },
            )
        });
        assert!(result.is_err());
        assert_eq!(done.into_inner(), 3);
    }
}
