//! Which of the messages that are hashed beside each other is hashed next.
//! Vocabulary: names no stage.
//!
//! The more are hashed together, the more are hashed in all ([`Widths`]), and the slower is each
//! one: the largest could keep everybody waiting at the end. So one of which so much is left that
//! it would is hurried: hashed as soon as it is there, beside another such one or alone.

use std::cmp::Reverse;
use std::mem;

use super::sha256::{self, Block, Lane, State, Widths};

/// Blocks of each message that are hashed before somebody looks again for what is best.
const AT_ONCE: usize = (256 << 10) / size_of::<Block>();

/// Threads that each make a message, and lend its blocks to whoever hashes them.
pub struct Loans {
    widths: Widths,
    /// How many processors they are for.
    jobs: u64,
    threads: Vec<Thread>,
    /// Bytes of all messages that are not hashed yet.
    left: u64,
}

struct Thread {
    at_work: bool,
    bytes: Bytes,
    /// Bytes of its message that are not hashed yet.
    left: u64,
}

/// What there is of a thread's message to be hashed.
enum Bytes {
    /// Nothing: it makes some, or is going to.
    ToBeMade,
    Lent(Loan),
    /// Somebody hashes them.
    Taken,
    /// What it lent is hashed.
    Hashed(State),
    /// Nothing, and there won't be anything.
    None,
}

/// Blocks of a thread that stays where it is until they are hashed.
struct Loan {
    state: State,
    /// Those not hashed yet.
    blocks: *const [Block],
}

// SAFETY: The blocks are only read, and as bytes may be read by any thread. That they outlive
// the loan, whoever calls `Loans::lend` sees to.
unsafe impl Send for Loan {}

/// In which company a message is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Company {
    Any,
    /// One that is hurried as well.
    Another,
    Nobody,
}

/// What a thread at work does next.
pub enum Next {
    /// It goes on with its own message: what it lent is hashed.
    Own(State),
    /// It hashes this.
    Hash(Group),
    /// Nothing. Others make bytes, or hash its own.
    Wait,
}

/// Blocks to be hashed together.
pub struct Group {
    lenders: Vec<usize>,
    loans: Vec<Loan>,
    /// Of each message.
    hashed: u64,
}

impl Group {
    /// Hashes some of the blocks.
    pub fn hash(&mut self) {
        // SAFETY: Who lent them waits until they are hashed, and here they are nobody else's:
        // they were taken.
        let borrow = |loan: &Loan| unsafe { &*loan.blocks };
        let lane = |loan: &Loan| Lane { state: loan.state, blocks: borrow(loan) };
        let mut lanes: Vec<_> = self.loans.iter().map(lane).collect();
        let count = sha256::compress_together(&mut lanes, AT_ONCE);
        self.hashed += (count * size_of::<Block>()) as u64;
        for (loan, lane) in self.loans.iter_mut().zip(&lanes) {
            *loan = Loan { state: lane.state, blocks: lane.blocks };
        }
    }
}

impl Loans {
    /// No thread is at work, and all are going to make bytes. `left` is how many in all.
    pub fn new(widths: Widths, jobs: usize, threads: usize, left: u64) -> Self {
        let thread = || Thread { at_work: false, bytes: Bytes::ToBeMade, left: 0 };
        let threads = (0..threads).map(|_| thread()).collect();
        Self { widths, jobs: jobs as u64, threads, left }
    }

    /// Whether it is a thread's turn to be at work.
    pub fn is_at_work(&self, thread: usize) -> bool {
        self.threads[thread].at_work
    }

    /// Says whether it is.
    pub fn set_at_work(&mut self, thread: usize, at_work: bool) {
        self.threads[thread].at_work = at_work;
    }

    /// A thread begins another message, of about so many bytes.
    pub fn begin(&mut self, thread: usize, bytes: u64) {
        // What the last message was expected to have and had not.
        self.has_hashed(thread, u64::MAX);
        self.threads[thread].left = bytes;
    }

    /// A thread is never going to make bytes again.
    pub fn end(&mut self, thread: usize) {
        self.begin(thread, 0);
        self.threads[thread].bytes = Bytes::None;
    }

    /// A thread lends blocks, which come after what led to a hash value.
    ///
    /// # Safety
    /// The blocks stay where they are until [`Loans::next`] says [`Next::Own`] to the thread.
    pub unsafe fn lend(&mut self, thread: usize, state: State, blocks: &[Block]) {
        self.threads[thread].bytes = Bytes::Lent(Loan { state, blocks });
    }

    /// What a thread that lent blocks does, now that it is at work.
    pub fn next(&mut self, thread: usize) -> Next {
        if let Bytes::Hashed(state) = self.threads[thread].bytes {
            self.threads[thread].bytes = Bytes::ToBeMade;
            return Next::Own(state);
        }
        let lenders = self.choose();
        if lenders.is_empty() {
            return Next::Wait;
        }
        let take =
            |lender: &usize| match mem::replace(&mut self.threads[*lender].bytes, Bytes::Taken) {
                Bytes::Lent(loan) => loan,
                _ => unreachable!("it was chosen since it lends"),
            };
        let loans = lenders.iter().map(take).collect();
        Next::Hash(Group { lenders, loans, hashed: 0 })
    }

    /// Takes back what was hashed.
    pub fn give_back(&mut self, Group { lenders, loans, hashed }: Group) {
        for (lender, loan) in lenders.into_iter().zip(loans) {
            self.has_hashed(lender, hashed);
            self.threads[lender].bytes = match loan.blocks.is_empty() {
                true => Bytes::Hashed(loan.state),
                false => Bytes::Lent(loan),
            };
        }
    }

    /// A thread that is not at work and could be: to make bytes, or else to hash.
    pub fn idle(&self) -> Option<usize> {
        let ready = self.ready().max_by_key(|thread| self.threads[*thread].left);
        ready.or_else(|| self.lenders().into_iter().find(|lender| !self.is_at_work(*lender)))
    }

    fn has_hashed(&mut self, thread: usize, bytes: u64) {
        let left = &mut self.threads[thread].left;
        let less = bytes.min(*left);
        *left -= less;
        self.left -= less;
    }

    /// Threads that would make bytes if it were their turn.
    fn ready(&self) -> impl Iterator<Item = usize> {
        let ready = |thread: &usize| {
            let Thread { at_work, bytes, .. } = &self.threads[*thread];
            !at_work && matches!(bytes, Bytes::ToBeMade | Bytes::Hashed(_))
        };
        (0..self.threads.len()).filter(ready)
    }

    /// Threads that lend blocks, those with most left first.
    fn lenders(&self) -> Vec<usize> {
        let lends = |thread: &usize| matches!(self.threads[*thread].bytes, Bytes::Lent(_));
        let mut lenders: Vec<_> = (0..self.threads.len()).filter(lends).collect();
        lenders.sort_by_key(|thread| Reverse(self.threads[*thread].left));
        lenders
    }

    /// In company a message has its share of a processor, that hashes about twice as fast then
    /// as alone: for a message with more left than so many times its share, that is too slow.
    fn company(&self, thread: usize) -> Company {
        let left = self.threads[thread].left.saturating_mul(self.jobs);
        if left.saturating_mul(2) > self.left {
            Company::Nobody
        } else if left.saturating_mul(self.widths.enough as u64) > self.left {
            Company::Another
        } else {
            Company::Any
        }
    }

    fn is_hurried(&self, thread: usize) -> bool {
        self.company(thread) > Company::Any
    }

    /// Whether a hurried message is going to find another, if it waits.
    fn is_another_hurried(&self, thread: usize) -> bool {
        (0..self.threads.len()).any(|other| other != thread && self.is_hurried(other))
    }

    /// Whose blocks to hash now; nobody's, if others should rather make more first.
    fn choose(&self) -> Vec<usize> {
        let Widths { most, enough, few } = self.widths;
        let mut lenders = self.lenders();
        let hurried = lenders.partition_point(|thread| self.is_hurried(*thread));
        let is_alone = lenders.first().is_some_and(|first| {
            self.company(*first) == Company::Nobody
                || (hurried == 1 && !self.is_another_hurried(*first))
        });
        if is_alone {
            lenders.truncate(1);
        } else if hurried > 1 {
            lenders.truncate(few);
        } else if lenders.len() - hurried >= most {
            lenders.drain(..hurried);
            lenders.truncate(most);
        } else if self.ready().next().is_some() {
            lenders.clear();
        } else {
            lenders.truncate(if lenders.len() < enough { few } else { most });
        }
        lenders
    }
}

#[cfg(test)]
mod tests {
    use super::super::sha256::INITIAL;
    use super::*;

    const WIDTHS: Widths = Widths { most: 16, enough: 9, few: 2 };
    const BLOCKS: [Block; 4] = [[7; 64]; 4];

    /// Threads for two processors: what is left of the message of each that lends, of each that
    /// is going to, and of messages not begun.
    fn loans(widths: Widths, lent: &[u64], to_be_made: &[u64], rest: u64) -> Loans {
        let all = [lent, to_be_made].concat();
        let mut loans = Loans::new(widths, 2, all.len(), all.iter().sum::<u64>() + rest);
        for (thread, left) in all.into_iter().enumerate() {
            loans.begin(thread, left);
            if thread < lent.len() {
                // SAFETY: They stay where they are for ever.
                unsafe { loans.lend(thread, INITIAL, &BLOCKS) };
            }
        }
        loans
    }

    #[test]
    fn the_best_company_is_chosen() {
        let two = Widths { most: 2, enough: 2, few: 2 };
        let sixteen: Vec<_> = (0..16).collect();
        for (why, widths, lent, to_be_made, rest, expected) in [
            ("as many as can be", WIDTHS, &[1; 40][..], &[][..], 0, &sixteen[..]),
            ("others come first", WIDTHS, &[1; 15], &[1; 25], 0, &[]),
            ("or as many as there are", WIDTHS, &[1; 12], &[], 30, &sixteen[..12]),
            ("too few for that", WIDTHS, &[1; 8], &[], 30, &[0, 1]),
            ("the last of all", WIDTHS, &[1; 3], &[], 0, &[0]),
            ("as large as all others", WIDTHS, &[1, 40], &[1; 38], 0, &[1]),
            ("two large ones", WIDTHS, &[10, 1, 10], &[1; 40], 0, &[0, 2]),
            ("a large one, and another comes", WIDTHS, &[10, 1, 1], &[10, 1], 40, &[]),
            ("a large one and no other", WIDTHS, &[10, 1, 1], &[1; 30], 20, &[0]),
            ("nobody is hurried without need", WIDTHS, &[3, 1, 1], &[1; 60], 0, &[]),
            ("where two are the most", two, &[1; 5], &[1; 5], 0, &[0, 1]),
            ("and one is too few", two, &[1], &[1; 5], 0, &[]),
        ] {
            assert_eq!(loans(widths, lent, to_be_made, rest).choose(), expected, "{why}");
        }
    }

    #[test]
    fn what_is_hashed_is_given_back() {
        let mut loans = loans(WIDTHS, &[1000, 1000], &[], 20_000);
        let Next::Hash(mut group) = loans.next(0) else { panic!("there is something to hash") };
        assert!(matches!(loans.next(1), Next::Wait), "all is taken");
        assert_eq!(loans.idle(), None);
        group.hash();
        loans.give_back(group);
        assert_eq!((loans.left, loans.threads[0].left), (22_000 - 2 * 256, 1000 - 256));
        let mut expected = INITIAL;
        sha256::compress(&mut expected, &BLOCKS);
        for thread in 0..2 {
            assert!(matches!(loans.next(thread), Next::Own(state) if state == expected));
        }
        // The last one turns out to be shorter than was thought.
        loans.begin(0, 0);
        assert_eq!(loans.left, 21_000 - 256);
    }
}
