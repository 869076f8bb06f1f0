//! Fork and join on threads that spin before they sleep.
//!
//! A forward pass of K2 joins several hundred times a token; waking a sleeping thread costs tens of
//! microseconds, a spinning one under one. Workers spin, then yield, then sleep, so an idle engine costs nothing.

use crate::topology::{MAX_NODES, Place, Topology, bind_thread};
use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
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
    /// The state whose place this calling thread has taken.
    static PLACED: Cell<*const State> = const { Cell::new(std::ptr::null()) };
}

/// A counter in a line of its own: nodes would slow each other down by sharing one.
#[repr(align(64))]
#[derive(Default)]
struct Counter(AtomicUsize);

/// Whether threads stay on the processors where they belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// To the processors of their NUMA node, where there are several; else wherever the system puts them.
    #[default]
    Node,
    /// Each to a processor of its own; where there are more threads than cores, some share one.
    Core,
    /// Not at all.
    Free,
}

/// A job as the workers see it: a closure over task indices, its lifetime erased for the length of one `run`.
type Job = *const (dyn Fn(usize) + Sync);

struct State {
    epoch: AtomicU64,
    job: Mutex<Option<JobPtr>>,
    n_tasks: AtomicUsize,
    /// The next task of each node's share.
    next_task: [Counter; MAX_NODES],
    /// Threads on the nodes before each, and at last on all.
    n_threads_before: Vec<usize>,
    topology: Topology,
    /// Where the thread that calls [`Pool::run`] belongs.
    caller: Place,
    binding: Binding,
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
        Self::on(Topology::of_machine(), Binding::Node, n_threads)
    }

    /// A pool of `n_threads` spread over a machine's nodes: each node's threads take its share of the tasks first,
    /// the same share in every run of as many tasks, so what a task reads lies in the memory of the node that read it
    /// first.
    pub fn on(topology: Topology, binding: Binding, n_threads: usize) -> Self {
        let n_threads = n_threads.clamp(1, MAX_THREADS);
        let places = topology.places(n_threads);
        let n_before = |node: usize| places.iter().filter(|place| place.node < node).count();
        let state = Arc::new(State {
            epoch: AtomicU64::new(0),
            job: Mutex::new(None),
            n_tasks: AtomicUsize::new(0),
            next_task: Default::default(),
            n_threads_before: (0..=topology.n_nodes()).map(n_before).collect(),
            caller: places[0],
            topology,
            binding,
            n_working: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            gate: Mutex::new(()),
            bell: Condvar::new(),
            panic: Mutex::new(None),
        });
        let spawn = |worker_idx: usize| {
            let state = Arc::clone(&state);
            let place = places[worker_idx];
            let builder = std::thread::Builder::new().name(format!("perilune-cpu-{worker_idx}"));
            builder.spawn(move || work(&state, place))
        };
        let workers = (1..n_threads).map_while(|i| spawn(i).ok()).collect();
        Pool { state, workers, turn: Mutex::new(()) }
    }

    /// Threads in all, the caller counted.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// NUMA nodes that tasks are shared out to, at least 1.
    pub fn n_nodes(&self) -> usize {
        self.state.topology.n_nodes()
    }

    /// Call `job` once for each index below `n_tasks`, spread over the threads, and return when all are done.
    ///
    /// Which thread takes which index is not fixed, so a job must give the same result whoever runs it. A call from
    /// inside a job runs on that thread alone; calls from several threads take turns.
    ///
    /// # Panics
    /// Where a task panicked: its panic is passed on once no thread works on the job any more.
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
        for node in 0..self.n_nodes() {
            state.next_task[node].0.store(state.share(node, n_tasks).start, Ordering::Relaxed);
        }
        state.n_working.store(self.workers.len(), Ordering::Relaxed);
        state.epoch.fetch_add(1, Ordering::SeqCst);
        if state.sleepers.load(Ordering::SeqCst) > 0 {
            let _gate = lock(&state.gate);
            state.bell.notify_all();
        }
        if PLACED.replace(state) != state {
            state.bind(state.caller);
        }
        state.take_tasks(state.caller.node, job);
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
    /// Those of `n_tasks` that node `node` takes first: as many as it has of the threads.
    fn share(&self, node: usize, n_tasks: usize) -> Range<usize> {
        let n_threads = self.n_threads_before[self.topology.n_nodes()];
        let at = |node: usize| n_tasks * self.n_threads_before[node] / n_threads;
        at(node)..at(node + 1)
    }

    /// The tasks of this node's share, then of the others'.
    fn take_tasks(&self, node: usize, job: &(dyn Fn(usize) + Sync)) {
        let n_tasks = self.n_tasks.load(Ordering::Relaxed);
        let n_nodes = self.topology.n_nodes();
        INSIDE.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for other in 0..n_nodes {
                let node = (node + other) % n_nodes;
                let end = self.share(node, n_tasks).end;
                loop {
                    let task_idx = self.next_task[node].0.fetch_add(1, Ordering::Relaxed);
                    if task_idx >= end {
                        break;
                    }
                    job(task_idx);
                }
            }
        }));
        INSIDE.set(false);
        if let Err(payload) = outcome {
            *lock(&self.panic) = Some(payload);
        }
    }

    /// Keep the calling thread where it belongs; where the system refuses, it runs anywhere.
    fn bind(&self, place: Place) {
        let _ = match self.binding {
            Binding::Core => bind_thread(&[place.cpu]),
            Binding::Node if self.topology.n_nodes() > 1 => bind_thread(self.topology.cores(place.node)),
            Binding::Node | Binding::Free => true,
        };
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

fn work(state: &State, place: Place) {
    state.bind(place);
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
            state.take_tasks(place.node, unsafe { &*job });
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
    fn each_node_begins_with_its_own_share_and_helps_the_others() {
        for (cores, n_threads) in [(vec![1, 1], 2), (vec![2, 1], 3), (vec![1, 1, 1], 3), (vec![2, 2], 3)] {
            let topology = Topology::simulated(&cores);
            let places = topology.places(n_threads);
            let pool = Pool::on(topology, Binding::Free, n_threads);
            let n_tasks = 30 * n_threads;
            let all_began = std::sync::Barrier::new(n_threads);
            thread_local! { static IS_FIRST: Cell<bool> = const { Cell::new(true) }; }
            let firsts = Mutex::new(Vec::new());
            let counts: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
            // Every thread holds its first task until all have one, so none can take another's share before.
            pool.run(n_tasks, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
                if IS_FIRST.replace(false) {
                    lock(&firsts).push(i);
                    all_began.wait();
                }
            });
            IS_FIRST.set(true);
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{cores:?}");
            for node in 0..cores.len() {
                let share = pool.state.share(node, n_tasks);
                let n_here = places.iter().filter(|place| place.node == node).count();
                assert_eq!(share.len(), 30 * n_here);
                let n_began = lock(&firsts).iter().filter(|first| share.contains(first)).count();
                assert_eq!(n_began, n_here, "{cores:?}, node {node}");
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
