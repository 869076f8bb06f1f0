//! Fork and join on threads that spin before they sleep.
//!
//! A forward pass of K2 joins several hundred times a token; waking a sleeping thread costs tens of
//! microseconds, a spinning one under one. Workers spin, then yield, then sleep, so an idle engine costs nothing.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Rounds of spinning before a waiting thread starts to yield its processor.
const SPIN_ROUNDS: u32 = 4_000;
/// Rounds of spinning and yielding before it sleeps.
const PATIENCE_ROUNDS: u32 = SPIN_ROUNDS + 200;
/// Most threads a pool will start.
pub const MAX_THREADS: usize = 1_024;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A job as the workers see it: a closure over task indices, its lifetime erased for the length of one `run`.
type Job = *const (dyn Fn(usize) + Sync);

struct State {
    epoch: AtomicU64,
    job: Mutex<Option<JobPtr>>,
    n_tasks: AtomicUsize,
    next_task: AtomicUsize,
    n_working: AtomicUsize,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    gate: Mutex<()>,
    bell: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct JobPtr(Job);
// SAFETY: the pointee is `Sync`, and `Pool::run` keeps it alive until every worker has left the job.
unsafe impl Send for JobPtr {}

/// Threads that run one indexed job at a time; the calling thread works too.
pub struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `n_threads` in all (the caller counted), at least 1 and at most [`MAX_THREADS`]; fewer where the
    /// system gives no more, which [`Pool::n_threads`] tells.
    pub fn new(n_threads: usize) -> Self {
        let state = Arc::new(State {
            epoch: AtomicU64::new(0),
            job: Mutex::new(None),
            n_tasks: AtomicUsize::new(0),
            next_task: AtomicUsize::new(0),
            n_working: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            gate: Mutex::new(()),
            bell: Condvar::new(),
            panic: Mutex::new(None),
        });
        let spawn = |worker_idx: usize| {
            let state = Arc::clone(&state);
            std::thread::Builder::new().name(format!("perilune-cpu-{worker_idx}")).spawn(move || work(&state))
        };
        let workers = (1..n_threads.clamp(1, MAX_THREADS)).map_while(|i| spawn(i).ok()).collect();
        Pool { state, workers, turn: Mutex::new(()) }
    }

    /// Threads in all, the caller counted.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Call `job` once for each index below `n_tasks`, spread over the threads, and return when all are done.
    ///
    /// Which thread takes which index is not fixed, so a job must give the same result whoever runs it. A call
    /// from inside a job runs on that thread alone. A panic in a task is passed on to the caller.
    pub fn run(&self, n_tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        if n_tasks == 0 {
            return;
        }
        if n_tasks == 1 || self.workers.is_empty() || INSIDE.get() {
            (0..n_tasks).for_each(job);
            return;
        }
        let _turn = lock(&self.turn);
        let state = &*self.state;
        // SAFETY: only the lifetime is erased; this function does not return before `n_working` is back at zero.
        let erased: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        *lock(&state.job) = Some(JobPtr(erased));
        state.n_tasks.store(n_tasks, Ordering::Relaxed);
        state.next_task.store(0, Ordering::Relaxed);
        state.n_working.store(self.workers.len(), Ordering::Relaxed);
        state.epoch.fetch_add(1, Ordering::SeqCst);
        if state.sleepers.load(Ordering::SeqCst) > 0 {
            let _gate = lock(&state.gate);
            state.bell.notify_all();
        }
        state.take_tasks(job);
        wait_until(|| state.n_working.load(Ordering::Acquire) == 0);
        let panic = lock(&state.panic).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.state.epoch.fetch_add(1, Ordering::SeqCst);
        {
            let _gate = lock(&self.state.gate);
            self.state.bell.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so joining can only fail where there is nothing to save.
            let _ = worker.join();
        }
    }
}

impl State {
    fn take_tasks(&self, job: &(dyn Fn(usize) + Sync)) {
        let n_tasks = self.n_tasks.load(Ordering::Relaxed);
        INSIDE.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task_idx = self.next_task.fetch_add(1, Ordering::Relaxed);
                if task_idx >= n_tasks {
                    break;
                }
                job(task_idx);
            }
        }));
        INSIDE.set(false);
        if let Err(payload) = outcome {
            *lock(&self.panic) = Some(payload);
        }
    }

    /// Sleep until the epoch leaves `seen`.
    fn sleep(&self, seen: u64) {
        let mut gate = lock(&self.gate);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.epoch.load(Ordering::SeqCst) == seen {
            gate = self.bell.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

fn work(state: &State) {
    let mut seen = 0;
    loop {
        let mut rounds = 0;
        while state.epoch.load(Ordering::Acquire) == seen {
            rounds += 1;
            match rounds {
                0..SPIN_ROUNDS => std::hint::spin_loop(),
                SPIN_ROUNDS..PATIENCE_ROUNDS => std::thread::yield_now(),
                _ => state.sleep(seen),
            }
        }
        seen += 1;
        if state.stop.load(Ordering::SeqCst) {
            return;
        }
        let job = *lock(&state.job);
        if let Some(JobPtr(job)) = job {
            // SAFETY: `Pool::run` keeps the closure alive until `n_working` reaches zero below.
            state.take_tasks(unsafe { &*job });
        }
        state.n_working.fetch_sub(1, Ordering::Release);
    }
}

fn wait_until(done: impl Fn() -> bool) {
    let mut rounds = 0u32;
    while !done() {
        rounds = rounds.saturating_add(1);
        if rounds < SPIN_ROUNDS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_and_sleepers_wake() {
        let pool = Pool::new(3);
        for round in 0..200 {
            let counts: Vec<AtomicUsize> = (0..97).map(|_| AtomicUsize::new(0)).collect();
            pool.run(counts.len(), &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "round {round}");
            if round % 50 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|i| assert!(i != 5, "task five"))));
        assert!(outcome.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(8, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 28);
    }

    #[test]
    fn a_run_inside_a_job_works_on_its_own_thread() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        pool.run(4, &|_| {
            pool.run(3, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            })
        });
        assert_eq!(sum.load(Ordering::Relaxed), 12);
    }
}
