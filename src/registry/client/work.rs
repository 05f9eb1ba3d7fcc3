//! The order in which a push asks for blobs and sends those that are missing.
//! Stage: registry.
//!
//! A blob is sent as soon as the registry has said that it lacks it, while the registry is still
//! asked for others. The time for a large blob depends on the bandwidth, and the time for a small
//! blob on the latency. Therefore a few large blobs keep the line busy while many small ones wait
//! for their answers beside them. "Largest first" would end with small blobs on an idle line, and
//! "smallest first" would begin with them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};

/// The number of large blobs that are sent at a time while there are small ones.
const LARGE_AT_ONCE: usize = 4;

/// The amount of work that is done at a time.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    /// The number of threads, each of which asks or sends.
    pub workers: usize,
    /// The largest number of blobs that are sent at a time.
    pub sends: usize,
}

/// The queue that a blob is sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The bandwidth decides how long the blob takes.
    Large,
    /// The latency decides how long the blob takes.
    Small,
}

/// A blob to be sent.
pub trait Sendable {
    /// The key by which blobs of the same weight are ordered; the smallest is sent first.
    type Turn: Ord;

    /// Returns the queue, and the key that decides the place in it.
    fn turn(&self) -> (Weight, Self::Turn);
}

/// Asks every question, and sends what `ask` returns for those whose answer is that something is
/// missing. After an error nothing more is begun.
///
/// # Errors
/// Returns the error of the first question that failed, in the order of the questions; or else the
/// first error of `send`.
pub fn ask_and_send<Q: Copy + Sync, S: Sendable + Send, E: Send>(
    limits: SendLimits,
    questions: &[Q],
    ask: impl Fn(Q) -> Result<Option<S>, E> + Sync,
    send: impl Fn(S) -> Result<(), E> + Sync,
) -> Result<(), E>
where
    S::Turn: Send,
{
    let work = Work {
        state: Mutex::new(State::new(questions.len())),
        changed: Condvar::new(),
        sends: limits.sends,
    };
    let run = || {
        while let Some(job) = work.next() {
            match job {
                Job::Ask(index) => work.answered(index, ask(questions[index])),
                Job::Send(weight, blob) => work.sent(weight, send(blob)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..limits.workers.min(questions.len()) {
            scope.spawn(run);
        }
    });
    let state = work.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.error.map_or(Ok(()), |(_, error)| Err(error))
}

/// The queues, and the workers that wait for them.
struct Work<S: Sendable, E> {
    state: Mutex<State<S, E>>,
    /// Signalled when a job ends: then there may be another job, or no job any more.
    changed: Condvar,
    sends: usize,
}

struct State<S: Sendable, E> {
    /// Indices of questions that were not asked yet.
    questions: VecDeque<usize>,
    /// Blobs to be sent. The number tells blobs with equal keys apart.
    large: BTreeMap<(S::Turn, usize), S>,
    small: BTreeMap<(S::Turn, usize), S>,
    /// The number of blobs that were missing so far.
    missing: usize,
    asking: usize,
    sending_large: usize,
    sending_small: usize,
    /// The error to return, with the index of the question that failed.
    error: Option<(usize, E)>,
}

enum Job<S> {
    Ask(usize),
    Send(Weight, S),
}

impl<S: Sendable, E> State<S, E> {
    fn new(questions: usize) -> Self {
        Self {
            questions: (0..questions).collect(),
            large: BTreeMap::new(),
            small: BTreeMap::new(),
            missing: 0,
            asking: 0,
            sending_large: 0,
            sending_small: 0,
            error: None,
        }
    }

    /// Takes the next job that may begin now. Sending goes before asking, since it takes longer.
    fn take(&mut self, sends: usize) -> Option<Job<S>> {
        if self.sending_large + self.sending_small < sends {
            let prefers_large = self.sending_large < LARGE_AT_ONCE || self.small.is_empty();
            if prefers_large && let Some((_, blob)) = self.large.pop_first() {
                self.sending_large += 1;
                return Some(Job::Send(Weight::Large, blob));
            }
            if let Some((_, blob)) = self.small.pop_first() {
                self.sending_small += 1;
                return Some(Job::Send(Weight::Small, blob));
            }
        }
        let question = self.questions.pop_front()?;
        self.asking += 1;
        Some(Job::Ask(question))
    }

    /// Returns whether no job is left, nor any that could bring another one.
    fn is_done(&self) -> bool {
        let is_empty = self.questions.is_empty() && self.large.is_empty() && self.small.is_empty();
        self.error.is_some() || (is_empty && self.asking == 0)
    }
}

impl<S: Sendable, E> Work<S, E> {
    /// Returns the next job; waits for one while there may be another.
    fn next(&self) -> Option<Job<S>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.is_done() {
                return None;
            }
            if let Some(job) = state.take(self.sends) {
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn answered(&self, index: usize, result: Result<Option<S>, E>) {
        self.end(index, |state| {
            state.asking -= 1;
            if let Some(blob) = result? {
                let (weight, turn) = blob.turn();
                let key = (turn, state.missing);
                state.missing += 1;
                match weight {
                    Weight::Large => state.large.insert(key, blob),
                    Weight::Small => state.small.insert(key, blob),
                };
            }
            Ok(())
        });
    }

    fn sent(&self, weight: Weight, result: Result<(), E>) {
        self.end(usize::MAX, |state| {
            match weight {
                Weight::Large => state.sending_large -= 1,
                Weight::Small => state.sending_small -= 1,
            }
            result
        });
    }

    fn end(&self, index: usize, change: impl FnOnce(&mut State<S, E>) -> Result<(), E>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = change(&mut state)
            && state.error.as_ref().is_none_or(|(other, _)| index < *other)
        {
            state.error = Some((index, error));
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A blob with its size. It is large if the size is at least 100.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Sized(u32);

    impl Sendable for Sized {
        type Turn = Reverse<u32>;

        fn turn(&self) -> (Weight, Self::Turn) {
            let weight = if self.0 >= 100 { Weight::Large } else { Weight::Small };
            (weight, Reverse(self.0))
        }
    }

    fn missing_all(size: u32) -> Result<Option<Sized>, ()> {
        Ok(Some(Sized(size)))
    }

    /// Takes jobs as workers would whose sends never end, until `sends` are under way.
    fn begun_together(sizes: &[u32], sends: usize) -> Vec<u32> {
        let mut state = State::<Sized, ()>::new(0);
        for (number, size) in sizes.iter().enumerate() {
            let (weight, turn) = Sized(*size).turn();
            match weight {
                Weight::Large => state.large.insert((turn, number), Sized(*size)),
                Weight::Small => state.small.insert((turn, number), Sized(*size)),
            };
        }
        std::iter::from_fn(|| match state.take(sends) {
            Some(Job::Send(_, blob)) => Some(blob.0),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn small_ones_go_beside_a_few_large_ones() {
        let sizes = [900, 1, 800, 2, 700, 3, 600, 4, 500, 5, 400];
        assert_eq!(begun_together(&sizes, 7), [900, 800, 700, 600, 5, 4, 3]);
        // Without small ones, large ones use all places; and the other way round.
        assert_eq!(begun_together(&[900, 800, 700, 600, 500, 400], 5), [900, 800, 700, 600, 500]);
        assert_eq!(begun_together(&[1, 2, 3], 5), [3, 2, 1]);
        assert_eq!(begun_together(&[1, 2, 2], 5), [2, 2, 1]);
    }

    #[test]
    fn everything_is_asked_and_what_is_missing_is_sent_once() {
        let sizes: Vec<u32> = (0..300).collect();
        for (workers, sends) in [(1, 1), (3, 2), (32, 16), (500, 500)] {
            let sent = Mutex::new(Vec::new());
            let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            ask_and_send(
                SendLimits { workers, sends },
                &sizes,
                |size| Ok::<_, ()>((size % 3 != 0).then_some(Sized(size))),
                |Sized(size)| {
                    most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sent.lock().unwrap().push(size);
                    std::thread::yield_now();
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                },
            )
            .unwrap();
            let mut sent = sent.into_inner().unwrap();
            sent.sort_unstable();
            let expected: Vec<u32> = sizes.iter().copied().filter(|size| size % 3 != 0).collect();
            assert_eq!(sent, expected);
            assert!(most.into_inner() <= sends);
        }
    }

    #[test]
    fn nothing_begins_after_an_error() {
        let sizes: Vec<u32> = (0..100).collect();
        let asked = AtomicUsize::new(0);
        let limits = SendLimits { workers: 1, sends: 1 };
        let ask = |size: u32| {
            asked.fetch_add(1, Ordering::SeqCst);
            if size < 7 { Ok(None) } else { Err(size) }
        };
        assert_eq!(ask_and_send(limits, &sizes, ask, |_: Sized| Ok(())), Err(7));
        assert_eq!(asked.into_inner(), 8);
        // If several questions fail at the same time, the error is that of the first one.
        let together = std::sync::Barrier::new(8);
        let limits = SendLimits { workers: 8, sends: 1 };
        let all_fail = |size: u32| {
            together.wait();
            Err::<Option<Sized>, _>(size)
        };
        assert_eq!(ask_and_send(limits, &sizes[..8], all_fail, |_| Ok(())), Err(0));
        let fails = |Sized(size)| if size == 5 { Err(()) } else { Ok(()) };
        for workers in [1, 8] {
            let limits = SendLimits { workers, sends: 4 };
            assert_eq!(ask_and_send(limits, &sizes, missing_all, fails), Err(()));
        }
        assert_eq!(ask_and_send(limits, &[], missing_all, |_| Ok(())), Ok(()));
    }
}
