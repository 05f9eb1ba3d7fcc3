//! Several messages hashed at once on fewer processors.
//! Vocabulary: names no stage.
//!
//! More than twice as many threads make bytes as may be at work. One that comes with bytes to hash finds
//! those of another that waits, and hashes both ([`two_lanes`]); or it leaves its own for the
//! next that comes, and lets another to work in its place. Bytes are lent, not copied: copying
//! would cost half of what is gained.

use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::two_lanes::{self, Block, State};

/// Fewer blocks are hashed at once: to look for others takes longer than is gained.
const FEW: usize = (32 << 10) / size_of::<Block>();

/// Does `work` for each item on threads of which `jobs` are at work at a time, the first items
/// first, and returns the results in the items' order. If it is for several processors, one more
/// thread is at work: else a processor is idle while a thread is told that it is its turn.
///
/// What `work` hashes by a [`LaneHasher`](super::LaneHasher) at its place is hashed together
/// with what others do, where the processor is faster so.
pub fn in_lanes<T: Send, R: Send>(
    items: impl IntoIterator<Item = T, IntoIter: Send>,
    jobs: usize,
    work: impl Fn(&Place<'_>, T) -> R + Sync,
) -> Vec<R> {
    let items: Vec<_> = items.into_iter().collect();
    let (lanes, spare) = if two_lanes::pays() { (2, usize::from(jobs > 1)) } else { (1, 0) };
    let threads = items.len().min(lanes * jobs + spare);
    let turns = Turns::new(threads, jobs + spare);
    let items = Mutex::new(items.into_iter().enumerate());
    let results = Mutex::new(Vec::new());
    let run = |number| {
        let place = turns.enter(number);
        // The block ends the lock before the work begins.
        while let Some((index, item)) = { lock(&items).next() } {
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

/// While a thread waits, none is `free`.
struct Shared {
    /// How many more may be at work.
    free: usize,
    /// Threads that wait and have nothing to hash, the first to come first.
    ready: VecDeque<usize>,
    /// Threads that wait and lend blocks, the first to come first. Those of the last would do
    /// as well, but then the first, of the largest layer, could wait to the end.
    lenders: VecDeque<usize>,
    /// What each thread lends, but not while another hashes it.
    loans: Vec<Option<Loan>>,
    /// Whether it is the turn of a thread that waits.
    turn: Vec<bool>,
}

/// Blocks of a thread that waits.
struct Loan {
    state: State,
    /// Those not hashed yet.
    blocks: *const [Block],
}

// SAFETY: The blocks are only read, and as bytes may be read by any thread. That they outlive
// the loan, `Place::compress` sees to.
unsafe impl Send for Loan {}

impl Turns {
    fn new(threads: usize, jobs: usize) -> Self {
        let shared = Shared {
            free: jobs,
            ready: VecDeque::new(),
            lenders: VecDeque::new(),
            loans: (0..threads).map(|_| None).collect(),
            turn: vec![false; threads],
        };
        let called = (0..threads).map(|_| Condvar::new()).collect();
        Self { shared: Mutex::new(shared), called }
    }

    fn enter(&self, thread: usize) -> Place<'_> {
        self.wait_for_place(thread);
        Place { turns: self, thread, here: PhantomData }
    }

    /// Waits for a place among those at work.
    fn wait_for_place(&self, thread: usize) {
        let mut shared = lock(&self.shared);
        if shared.free > 0 {
            shared.free -= 1;
        } else {
            shared.ready.push_back(thread);
            drop(self.wait(shared, thread));
        }
    }

    fn wait<'s>(
        &'s self,
        mut shared: MutexGuard<'s, Shared>,
        thread: usize,
    ) -> MutexGuard<'s, Shared> {
        while !mem::take(&mut shared.turn[thread]) {
            shared = self.called[thread].wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        shared
    }

    /// Lets another to work in place of one that no longer is.
    fn pass_on(&self, shared: &mut Shared) {
        match shared.ready.pop_front().or_else(|| shared.lenders.pop_front()) {
            Some(thread) => {
                shared.turn[thread] = true;
                self.called[thread].notify_one();
            }
            None => shared.free += 1,
        }
    }

    /// Ends that a thread's blocks are being hashed. It waits for its turn to go on.
    fn give_back(&self, thread: usize, loan: Loan) {
        let mut shared = lock(&self.shared);
        if loan.blocks.is_empty() {
            shared.ready.push_back(thread);
        } else {
            shared.lenders.push_back(thread);
        }
        shared.loans[thread] = Some(loan);
        // Of a thread that found nobody to pass it on to meanwhile.
        if shared.free > 0 {
            shared.free -= 1;
            self.pass_on(&mut shared);
        }
    }
}

/// A thread's place among those at work.
pub struct Place<'t> {
    turns: &'t Turns,
    thread: usize,
    /// Stays on its thread, which lends no more than one run of blocks.
    here: PhantomData<Cell<()>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.pass_on(&mut lock(&self.turns.shared));
    }
}

impl Place<'_> {
    /// Lets another to work while this thread waits for something else than to hash.
    pub fn away<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.turns.pass_on(&mut lock(&self.turns.shared));
        let result = wait();
        self.turns.wait_for_place(self.thread);
        result
    }

    /// Hashes the next blocks of a message, here or beside another's.
    pub(super) fn compress(&self, state: &mut State, mut blocks: &[Block]) {
        while blocks.len() >= FEW {
            let mut shared = lock(&self.turns.shared);
            if let Some(lender) = shared.lenders.pop_front() {
                let mut loan = shared.loans[lender].take().expect("a lender has lent");
                drop(shared);
                // SAFETY: Who lent them waits below for its turn, which it gets after
                // `give_back` alone: only what is in `lenders` or `ready` is called.
                let theirs = unsafe { &*loan.blocks };
                let both = theirs.len().min(blocks.len());
                let ((ours, rest), (theirs, left)) = (blocks.split_at(both), theirs.split_at(both));
                two_lanes::compress([state, &mut loan.state], [ours, theirs]);
                (blocks, loan.blocks) = (rest, left);
                self.turns.give_back(lender, loan);
            } else if shared.ready.is_empty() {
                break;
            } else {
                shared.loans[self.thread] = Some(Loan { state: *state, blocks });
                shared.lenders.push_back(self.thread);
                self.turns.pass_on(&mut shared);
                shared = self.turns.wait(shared, self.thread);
                let loan = shared.loans[self.thread].take().expect("a loan is given back");
                *state = loan.state;
                blocks = &blocks[blocks.len() - loan.blocks.len()..];
            }
        }
        two_lanes::compress_one(state, blocks);
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
            let results = in_lanes(0..items, jobs, |_, item| {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                thread::sleep(Duration::from_millis(1));
                now.fetch_sub(1, SeqCst);
                item
            });
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
            in_lanes(0..4, 1, |place, item| {
                assert_ne!(item, 1, "on purpose");
                place.compress(&mut two_lanes::INITIAL.clone(), &blocks);
                done.fetch_add(1, SeqCst);
            })
        });
        assert!(result.is_err());
        assert_eq!(done.into_inner(), 3);
    }
}
