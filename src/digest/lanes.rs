//! Several messages made and hashed at once on each processor.
//! Vocabulary: names no stage.
//!
//! To hash sixteen messages at once takes bytes of sixteen. So whoever makes a message is a
//! coroutine: when it comes with bytes to hash it is suspended, and its thread makes another's,
//! until there are as many as is best for the processor ([`Widths`]). Threads would do, but each
//! piece would cost two of them a wait for the other: a fifth of the time, as measured. Bytes are
//! lent, not copied.

use std::cmp::Reverse;
use std::marker::PhantomData;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::sink::PIECE;
use sha256_lanes::{self as sha256, Block, INITIAL, Lane, State, Widths};

/// Fewer blocks are hashed at once, alone: to switch costs more than is gained.
const FEW: usize = (16 << 10) / size_of::<Block>();
/// Blocks of each message that are hashed before the thread looks again for what is best.
const AT_ONCE: usize = PIECE / size_of::<Block>();
/// More than any layer has: sums of such weights are numbers still.
const HEAVY: u64 = u64::MAX >> 16;
/// Of a coroutine's stack, in bytes: as a thread has it. Most of them are never touched.
const STACK: usize = 2 << 20;

/// Does `work` for each item on `jobs` threads, the heaviest first, and returns the results in
/// the items' order.
///
/// What `work` hashes by a [`LaneHasher`](super::LaneHasher) at its place is hashed together
/// with what others do, where the processor is faster so. `weight` is a guess of the bytes of
/// each item's message; it changes nothing but the time.
///
/// Where `work` writes to be hashed it may be suspended, and another item's go on meanwhile on
/// its thread: it must hold no lock then.
///
/// # Panics
/// If `work` does.
pub fn in_lanes<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    weight: impl Fn(&T) -> u64,
    jobs: usize,
    work: impl Fn(&Place<'_>, T) -> R + Sync,
) -> Vec<R> {
    in_lanes_of(Widths::here(), items, weight, jobs, work)
}

fn in_lanes_of<T: Send, R: Send>(
    widths: Widths,
    items: impl IntoIterator<Item = T>,
    weight: impl Fn(&T) -> u64,
    jobs: usize,
    work: impl Fn(&Place<'_>, T) -> R + Sync,
) -> Vec<R> {
    let numbered = items.into_iter().enumerate();
    let mut items: Vec<_> = numbered
        .map(|(number, item)| Item { number, weight: weight(&item).min(HEAVY), item })
        .collect();
    // Taken from the end.
    items.sort_by_key(|item| (item.weight, Reverse(item.number)));
    let threads = items.len().min(jobs);
    let deck = &Mutex::new(Deck::new(items, threads));
    let work = &work;
    let run = move |thread| Messages::new(widths, thread, deck).all(work);
    let mut results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        // Else it would say that some thread did.
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

/// What is left to be dealt to threads.
struct Deck<T> {
    /// The lightest first.
    items: Vec<Item<T>>,
    weight: u64,
    /// Bytes that each thread has left to do, as it last said: within `work` it doesn't.
    left: Vec<u64>,
}

impl<T> Deck<T> {
    fn new(items: Vec<Item<T>>, threads: usize) -> Self {
        let weight = items.iter().map(|item| item.weight).sum();
        Self { items, weight, left: vec![0; threads] }
    }

    /// The heaviest item, for a thread that has so much left. If another has less, that one is
    /// to take it.
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

    /// What a thread has to expect of the rest.
    fn share(&self) -> u64 {
        self.weight / self.left.len() as u64
    }
}

/// Bytes of one that is suspended.
struct Loan {
    /// The hash value of the blocks before.
    state: State,
    /// Those not hashed yet. They stay where they are until it is resumed.
    blocks: *const [Block],
}

/// Where a message is made: alone, or as a coroutine.
pub struct Place<'p>(Option<&'p Yielder<State, Loan>>);

impl Place<'_> {
    /// Hashes the next blocks of a message, perhaps beside others'. Those are made meanwhile.
    pub(super) fn compress(&self, state: &mut State, blocks: &[Block]) {
        match self.0 {
            Some(yielder) if blocks.len() >= FEW => {
                *state = yielder.suspend(Loan { state: *state, blocks });
            }
            _ => sha256::compress(state, blocks),
        }
    }
}

/// A message in the making.
struct Message<'w, R> {
    number: usize,
    making: Coroutine<State, Loan, R>,
    /// Bytes that are not hashed yet, as was thought.
    left: u64,
    loan: Loan,
    /// By `making`.
    borrows: PhantomData<&'w ()>,
}

/// What has become of a message.
enum Step<'w, R> {
    Lent(Message<'w, R>),
    Made(usize, R),
}

/// Those that one thread makes.
struct Messages<'d, T, R> {
    thread: usize,
    deck: &'d Mutex<Deck<T>>,
    widths: Widths,
    /// Those with most left first.
    lent: Vec<Message<'d, R>>,
    made: Vec<(usize, R)>,
}

impl<'d, T: 'd, R: 'd> Messages<'d, T, R> {
    fn new(widths: Widths, thread: usize, deck: &'d Mutex<Deck<T>>) -> Self {
        Self { thread, deck, widths, lent: Vec::new(), made: Vec::new() }
    }

    /// Makes and hashes messages for as long as there are any, and returns what `work` did.
    fn all(mut self, work: &'d (impl Fn(&Place<'_>, T) -> R + Sync)) -> Vec<(usize, R)> {
        loop {
            while self.lent.len() < self.widths.most
                && let Some(item) = self.next()
            {
                if self.widths.most == 1 {
                    self.made.push((item.number, work(&Place(None), item.item)));
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
        // Nobody panics while it is locked.
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

    /// Hashes some of what is lent, and has those go on that lend nothing any more.
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

/// How many of so many messages to hash together, those with most left, of which the first has
/// `left` of `total` bytes.
///
/// The more they are, the more is hashed in all, and the slower is each one: a large one could be
/// the only one in the end. So if it has more than its share of what there is to do, it has less
/// company.
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
        work: &'w (impl Fn(&Place<'_>, T) -> R + Sync),
    ) -> Step<'w, R> {
        let Ok(stack) = DefaultStack::new(STACK) else {
            return Step::Made(number, work(&Place(None), item));
        };
        let make = move |yielder: &Yielder<_, _>, _| work(&Place(Some(yielder)), item);
        // SAFETY: What it borrows is there for `'w`, and it is part of a message, which is not
        // there for longer, and never forgotten.
        let making = unsafe { Coroutine::with_stack_unchecked(stack, make) };
        let loan = Loan { state: INITIAL, blocks: &[] };
        Self { number, making, left: weight, loan, borrows: PhantomData }.go_on()
    }

    /// Makes more bytes of it.
    fn go_on(mut self) -> Step<'w, R> {
        match self.making.resume(self.loan.state) {
            CoroutineResult::Yield(loan) => Step::Lent(Self { loan, ..self }),
            CoroutineResult::Return(result) => Step::Made(self.number, result),
        }
    }

    fn lane(&self) -> Lane<'_> {
        // SAFETY: They stay where they are until it goes on, which takes the message.
        Lane { state: self.loan.state, blocks: unsafe { &*self.loan.blocks } }
    }

    /// So many of its blocks are hashed, perhaps all.
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

    /// Blocks that are all different.
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
        // Nothing of those that were suspended is left.
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
