//! Makes and hashes several messages at once on each processor.
//! Vocabulary: names no stage.
//!
//! To hash sixteen messages at once, bytes of sixteen messages must be ready. So each message is
//! made by a coroutine. When a coroutine has bytes to hash it is suspended, and its thread goes on
//! with another message, until there are as many messages as the processor hashes best
//! ([`Widths`]). Threads instead of coroutines would work too, but two of them would wait for each
//! other at each piece: a fifth of the time, as measured. Bytes are lent, not copied.

use std::cmp::Reverse;
use std::marker::PhantomData;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::sink::PIECE;
use sha256_lanes::{self as sha256, Block, INITIAL, Lane, State, Widths};

/// The number of blocks below which a message is hashed alone: to switch costs more than is gained.
const FEW: usize = (16 << 10) / size_of::<Block>();
/// The number of blocks of each message that are hashed before the thread chooses again which
/// messages to hash.
const AT_ONCE: usize = PIECE / size_of::<Block>();
/// The largest weight, more than any layer has. Sums of such weights do not overflow.
const HEAVY: u64 = u64::MAX >> 16;
/// The size of a coroutine's stack in bytes, as a thread has it. Most of it is never touched.
const STACK: usize = 2 << 20;

/// Does `work` for each item on `jobs` threads, the heaviest items first, and returns the results
/// in the items' order.
///
/// A message that `work` hashes by a [`LaneHasher`](super::LaneHasher) at the item's place is hashed
/// together with the messages of other items, if that is faster on this processor. `weight` guesses the number
/// of bytes of each item's message; it affects nothing but the time.
///
/// `work` may be suspended where it writes bytes to be hashed, and the work of another item may go
/// on meanwhile on the same thread: `work` must hold no lock then.
///
/// # Panics
/// Panics if `work` panics.
pub fn in_lanes<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    weight: impl Fn(&T) -> u64,
    jobs: usize,
    work: impl Fn(&LanePlace<'_>, T) -> R + Sync,
) -> Vec<R> {
    in_lanes_of(Widths::here(), items, weight, jobs, work)
}

fn in_lanes_of<T: Send, R: Send>(
    widths: Widths,
    items: impl IntoIterator<Item = T>,
    weight: impl Fn(&T) -> u64,
    jobs: usize,
    work: impl Fn(&LanePlace<'_>, T) -> R + Sync,
) -> Vec<R> {
    let numbered = items.into_iter().enumerate();
    let mut items: Vec<_> = numbered
        .map(|(number, item)| Item { number, weight: weight(&item).min(HEAVY), item })
        .collect();
    // Items are taken from the end.
    items.sort_by_key(|item| (item.weight, Reverse(item.number)));
    let threads = items.len().min(jobs);
    let deck = &Mutex::new(Deck::new(items, threads));
    let work = &work;
    let run = move |thread| Messages::new(widths, thread, deck).all(work);
    let mut results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        // Without this, the panic's own message would be lost.
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    });
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

struct Item<T> {
    number: usize,
    weight: u64,
    item: T,
}

/// The items that no thread has yet.
struct Deck<T> {
    /// The items, the lightest first.
    items: Vec<Item<T>>,
    weight: u64,
    /// The bytes that each thread has left to do, as the thread last reported; while it runs `work`
    /// it does not report.
    left: Vec<u64>,
}

impl<T> Deck<T> {
    fn new(items: Vec<Item<T>>, threads: usize) -> Self {
        let weight = items.iter().map(|item| item.weight).sum();
        Self { items, weight, left: vec![0; threads] }
    }

    /// Returns the heaviest item for a thread that has `left` bytes left to do, or `None` if
    /// another thread has less left and is to take the item.
    fn deal(&mut self, thread: usize, left: u64) -> Option<Item<T>> {
        self.left[thread] = left;
        if self.left.iter().any(|other| *other < left) {
            return None;
        }
        let item = self.items.pop()?;
        self.weight -= item.weight;
        self.left[thread] += item.weight;
        Some(item)
    }

    /// Returns each thread's share of the bytes that are not dealt yet.
    fn share(&self) -> u64 {
        self.weight / self.left.len() as u64
    }
}

/// The bytes that a suspended coroutine lends to be hashed.
struct Loan {
    /// The hash value of the blocks before these.
    state: State,
    /// The blocks that are not hashed yet. They stay where they are until the coroutine is resumed.
    blocks: *const [Block],
}

/// The place where a message is made and hashed: alone, or as a coroutine among others.
pub struct LanePlace<'p>(Option<&'p Yielder<State, Loan>>);

impl LanePlace<'_> {
    /// Hashes the next blocks of a message, perhaps together with blocks of other messages, which
    /// are made meanwhile.
    pub(super) fn compress(&self, state: &mut State, blocks: &[Block]) {
        match self.0 {
            Some(yielder) if blocks.len() >= FEW => {
                *state = yielder.suspend(Loan { state: *state, blocks });
            }
            _ => sha256::compress(state, blocks),
        }
    }
}

/// A message that is being made.
struct Message<'w, R> {
    number: usize,
    making: Coroutine<State, Loan, R>,
    /// The estimated number of bytes that are not hashed yet.
    left: u64,
    loan: Loan,
    /// Stands for what `making` borrows.
    borrows: PhantomData<&'w ()>,
}

/// The state of a message after it was resumed: it lends bytes, or it is finished.
enum Step<'w, R> {
    Lent(Message<'w, R>),
    Made(usize, R),
}

/// The messages that one thread makes.
struct Messages<'d, T, R> {
    thread: usize,
    deck: &'d Mutex<Deck<T>>,
    widths: Widths,
    /// The messages that lend bytes. [`Messages::hash`] sorts them, those with most left first.
    lent: Vec<Message<'d, R>>,
    made: Vec<(usize, R)>,
}

impl<'d, T: 'd, R: 'd> Messages<'d, T, R> {
    fn new(widths: Widths, thread: usize, deck: &'d Mutex<Deck<T>>) -> Self {
        Self { thread, deck, widths, lent: Vec::new(), made: Vec::new() }
    }

    /// Makes and hashes messages until no item is left, and returns the results of `work`.
    fn all(mut self, work: &'d (impl Fn(&LanePlace<'_>, T) -> R + Sync)) -> Vec<(usize, R)> {
        loop {
            while self.lent.len() < self.widths.most
                && let Some(item) = self.next()
            {
                if self.widths.most == 1 {
                    self.made.push((item.number, work(&LanePlace(None), item.item)));
                } else {
                    self.step(Message::begin(item, work));
                }
            }
            if self.lent.is_empty() {
                return self.made;
            }
            self.hash();
        }
    }

    fn next(&self) -> Option<Item<T>> {
        self.deck().deal(self.thread, self.left())
    }

    fn deck(&self) -> MutexGuard<'d, Deck<T>> {
        // No code panics while it holds this lock.
        self.deck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> u64 {
        self.lent.iter().map(|message| message.left).sum()
    }

    fn step(&mut self, step: Step<'d, R>) {
        match step {
            Step::Lent(message) => self.lent.push(message),
            Step::Made(number, result) => self.made.push((number, result)),
        }
    }

    /// Hashes some of the lent blocks, and resumes the messages whose blocks are all hashed.
    fn hash(&mut self) {
        self.lent.sort_by_key(|message| Reverse(message.left));
        let total = self.left() + self.deck().share();
        let together = together(self.widths, self.lent.len(), self.lent[0].left, total);
        let mut lanes: Vec<_> = self.lent[..together].iter().map(Message::lane).collect();
        let count = sha256::compress_together(self.widths, &mut lanes, AT_ONCE);
        let states: Vec<_> = lanes.iter().map(|lane| lane.state).collect();
        let rest = self.lent.split_off(together);
        for (message, state) in mem::replace(&mut self.lent, rest).into_iter().zip(states) {
            let step = message.hashed(state, count);
            self.step(step);
        }
    }
}

/// Returns how many of `count` messages to hash together, beginning with those that have most left.
/// `left` is what the first of them has left, of `total` bytes in all.
///
/// The more messages are hashed together, the more is hashed in all, and the slower each one is: a
/// large message could be the only one left at the end. So a message that has more than its share
/// of the remaining bytes is hashed together with fewer others.
fn together(widths: Widths, count: usize, left: u64, total: u64) -> usize {
    let Widths { enough, few, .. } = widths;
    let is_more_than_one_of = |messages: usize| left.saturating_mul(messages as u64) > total;
    let best = if is_more_than_one_of(few) {
        1
    } else if is_more_than_one_of(enough) {
        few
    } else {
        widths.best_for(count)
    };
    best.min(count)
}

impl<'w, R: 'w> Message<'w, R> {
    fn begin<T: 'w>(
        Item { number, weight, item }: Item<T>,
        work: &'w (impl Fn(&LanePlace<'_>, T) -> R + Sync),
    ) -> Step<'w, R> {
        let Ok(stack) = DefaultStack::new(STACK) else {
            return Step::Made(number, work(&LanePlace(None), item));
        };
        let make = move |yielder: &Yielder<_, _>, _| work(&LanePlace(Some(yielder)), item);
        // SAFETY: What `make` borrows lives for `'w`. The coroutine is part of a message, which
        // does not outlive `'w` and is never forgotten.
        let making = unsafe { Coroutine::with_stack_unchecked(stack, make) };
        let loan = Loan { state: INITIAL, blocks: &[] };
        Self { number, making, left: weight, loan, borrows: PhantomData }.go_on()
    }

    /// Resumes the coroutine, which makes more of the message's bytes.
    fn go_on(mut self) -> Step<'w, R> {
        match self.making.resume(self.loan.state) {
            CoroutineResult::Yield(loan) => Step::Lent(Self { loan, ..self }),
            CoroutineResult::Return(result) => Step::Made(self.number, result),
        }
    }

    fn lane(&self) -> Lane<'_> {
        // SAFETY: The blocks stay where they are until the coroutine is resumed, which takes the
        // message.
        Lane { state: self.loan.state, blocks: unsafe { &*self.loan.blocks } }
    }

    /// Notes that `count` of the lent blocks are hashed. Goes on if these were all.
    fn hashed(mut self, state: State, count: usize) -> Step<'w, R> {
        let blocks = &self.lane().blocks[count..];
        self.loan = Loan { state, blocks };
        self.left = self.left.saturating_sub((count * size_of::<Block>()) as u64);
        if self.loan.blocks.is_empty() { self.go_on() } else { Step::Lent(self) }
    }
}

#[cfg(test)]
mod tests {
    use std::panic;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// Returns blocks that are all different.
    fn blocks(count: usize, seed: usize) -> Vec<Block> {
        let mut blocks = vec![[0; size_of::<Block>()]; count];
        for (place, byte) in blocks.as_flattened_mut().iter_mut().enumerate() {
            *byte = (place * 31 + seed * 7) as u8 ^ (place >> 8) as u8 ^ (place >> 3) as u8;
        }
        blocks
    }

    const ALONE: Widths = Widths { most: 1, enough: 1, few: 1 };
    const TWO: Widths = Widths { most: 2, enough: 2, few: 2 };
    const SIXTEEN: Widths = Widths { most: 16, enough: 9, few: 2 };

    #[test]
    fn results_are_in_order_and_those_of_each_alone() {
        for widths in [ALONE, TWO, SIXTEEN] {
            for (count, jobs) in [(0, 2), (1, 2), (2, 1), (7, 3), (40, 1), (40, 2)] {
                let all: Vec<_> = (0..count).map(|item| blocks(item * FEW / 3, item)).collect();
                let weight = |blocks: &&Vec<Block>| blocks.len() as u64;
                let states = in_lanes_of(widths, &all, weight, jobs, |place, blocks| {
                    let mut state = INITIAL;
                    blocks.chunks(FEW + 1).for_each(|blocks| place.compress(&mut state, blocks));
                    state
                });
                assert_eq!(states.len(), count);
                for (item, (state, blocks)) in states.iter().zip(&all).enumerate() {
                    let mut alone = INITIAL;
                    sha256::compress(&mut alone, blocks);
                    assert_eq!(*state, alone, "{item} of {count}, {jobs} jobs, {widths:?}");
                }
            }
        }
    }

    #[test]
    fn a_panic_is_passed_on() {
        let blocks = blocks(2 * FEW, 0);
        let (begun, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        struct Counted<'d>(&'d AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let result = panic::catch_unwind(|| {
            in_lanes_of(
                SIXTEEN,
                0..4,
                |_| 0,
                1,
                |place, item| {
                    begun.fetch_add(1, SeqCst);
                    let _counted = Counted(&dropped);
                    place.compress(&mut INITIAL.clone(), &blocks);
                    assert_ne!(item, 1, "on purpose");
                },
            )
        });
        let panic = result.unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("on purpose"));
        // Nothing of the suspended messages is left.
        assert_eq!((begun.into_inner(), dropped.into_inner()), (4, 4));
    }

    #[test]
    fn large_messages_have_less_company() {
        for (why, widths, count, left, total, expected) in [
            ("as many as can be", SIXTEEN, 20, 1, 20, 16),
            ("as many as there are", SIXTEEN, 12, 1, 20, 12),
            ("too few for that", SIXTEEN, 8, 1, 20, 2),
            ("more than a ninth of all", SIXTEEN, 16, 3, 20, 2),
            ("more than half of all", SIXTEEN, 16, 11, 20, 1),
            ("the last one", SIXTEEN, 1, 1, 1, 1),
            ("nothing is known of them", SIXTEEN, 16, 0, 0, 16),
            ("where two are the most", TWO, 2, 1, 20, 2),
            ("and one is more than both", TWO, 2, 11, 20, 1),
        ] {
            assert_eq!(together(widths, count, left, total), expected, "{why}");
        }
    }

    #[test]
    fn the_thread_with_least_is_dealt_the_heaviest() {
        let item = |(number, weight)| Item { number, weight, item: () };
        let items = [1, 2, 3, 5].into_iter().enumerate().map(item).collect();
        let mut deck = Deck::new(items, 2);
        let mut deal = |thread, left| deck.deal(thread, left).map(|item| item.weight);
        assert_eq!(deal(0, 0), Some(5));
        assert_eq!(deal(0, 5), None, "it is the other's turn");
        assert_eq!([deal(1, 0), deal(1, 3), deal(1, 5)], [Some(3), Some(2), Some(1)]);
        assert_eq!(deal(0, 0), None, "there are none left");
    }
}
