//! Runs jobs on threads that all compressors share, and returns their results in order.
//! Stage: oci. Input: jobs. Output: their results.

use std::collections::VecDeque;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A count of the jobs in all queues.
#[derive(Debug, Default)]
pub struct Jobs(AtomicUsize);

/// A job that is counted as long as this value exists.
struct Counted(&'static Jobs);

impl Jobs {
    /// Returns the count that all queues share.
    pub fn of_all() -> &'static Self {
        static JOBS: Jobs = Jobs(AtomicUsize::new(0));
        &JOBS
    }

    /// Returns whether there are enough jobs to keep all threads busy: one in work and one waiting
    /// for each thread.
    fn are_enough(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 2 * threads().current_num_threads()
    }

    fn one_more(&'static self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A job that was started.
struct Pending<T> {
    result: Receiver<io::Result<T>>,
    /// Counts the job until its result is passed on.
    _counted: Counted,
}

impl<T> Pending<T> {
    fn receive(self) -> io::Result<T> {
        self.result.recv().map_err(|_| io::Error::other("the compressor gave up"))?
    }
}

/// The jobs of one compressor, whose results it takes in the order in which they began.
///
/// Memory is bounded: two jobs for each thread, and two more for each queue.
pub struct Queue<T> {
    /// The jobs that are being done, the oldest first.
    pending: VecDeque<Pending<T>>,
    jobs: &'static Jobs,
}

impl<T: Send + 'static> Queue<T> {
    /// Creates an empty queue, whose jobs count among others.
    pub fn among(jobs: &'static Jobs) -> Self {
        Self { pending: VecDeque::new(), jobs }
    }

    /// Starts a job, after the results of older ones were passed to `take` if there are enough jobs.
    ///
    /// # Errors
    /// Fails if an older job or `take` fails.
    pub fn start(
        &mut self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
        mut take: impl FnMut(T) -> io::Result<()>,
    ) -> io::Result<()> {
        // Even if other queues have many jobs, one job of this one is done while its caller
        // prepares the next.
        while self.jobs.are_enough()
            && let Some(oldest) = self.pending.pop_front()
        {
            take(oldest.receive()?)?;
        }
        let (sender, result) = sync_channel(1);
        threads().spawn(move || {
            // If the queue was dropped, nothing receives this.
            let _ = sender.send(job());
        });
        let _counted = self.jobs.one_more();
        self.pending.push_back(Pending { result, _counted });
        Ok(())
    }

    /// Passes the results of all jobs to `take`.
    ///
    /// # Errors
    /// Fails if a job or `take` fails.
    pub fn finish(self, mut take: impl FnMut(T) -> io::Result<()>) -> io::Result<()> {
        self.pending.into_iter().try_for_each(|oldest| take(oldest.receive()?))
    }
}

/// Returns the threads for compression. rayon's own pool could deadlock: layers are made there,
/// which wait for jobs here.
fn threads() -> &'static ThreadPool {
    static THREADS: OnceLock<ThreadPool> = OnceLock::new();
    THREADS.get_or_init(|| {
        let threads = rayon::current_num_threads();
        ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that many idle queues together hold no more jobs than a single queue would, plus one for
    /// each.
    #[test]
    fn queues_share_the_jobs() {
        let jobs: &'static Jobs = Box::leak(Box::default());
        let mut results = vec![Vec::new(); 10];
        let queues = results.iter_mut().map(|results| {
            let mut queue = Queue::among(jobs);
            for number in 0..4 {
                queue
                    .start(
                        move || Ok(number),
                        |number| {
                            results.push(number);
                            Ok(())
                        },
                    )
                    .unwrap();
            }
            (queue, results)
        });
        let queues: Vec<_> = queues.collect();
        let most = 2 * threads().current_num_threads() + queues.len();
        assert!(jobs.0.load(Ordering::Relaxed) <= most, "{jobs:?}, not {most}");
        for (queue, results) in queues {
            queue
                .finish(|number| {
                    results.push(number);
                    Ok(())
                })
                .unwrap();
            assert_eq!(*results, [0, 1, 2, 3]);
        }
        assert_eq!(jobs.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_failed_job_is_an_error() {
        let mut queue = Queue::<()>::among(Jobs::of_all());
        queue.start(|| Err(io::Error::other("it failed")), Ok).unwrap();
        assert_eq!(queue.finish(Ok).unwrap_err().to_string(), "it failed");
    }
}
