//! The threads that share one piece of work.
//!
//! A program is hundreds of pieces, many of them shorter than it takes to wake a thread. So helpers are told of work by a single
//! word of memory: while a program runs ([`awake`]) they keep looking at it for a while before they sleep, and who has work does not wait
//! for those that come too late to take part.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a thread looks for work before it sleeps while a program runs: longer than most steps that one thread does alone.
const PATIENCE: Duration = Duration::from_micros(200);

/// How often a thread looks before it lets others have the processor, who may be what it waits for.
const LOOKS: usize = 64;

/// Times that a thread lets others have the processor before it sleeps, where no program is said to run: others, such as XLA's
/// own threads, have more use for it.
const YIELDS: usize = 32;

/// Threads that a contraction may use, the calling one included.
///
/// All that the process may run on, or `NT_NUM_THREADS` where that is a positive integer; read once.
pub fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        std::env::var("NT_NUM_THREADS")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .filter(|&count| count > 0)
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
            .min(MOST)
    })
}

/// Most threads, as [`State`] counts them.
const MOST: usize = 1 << 12;

/// Work that is open to helpers.
struct Job {
    /// Valid until the job is closed and nobody is inside.
    work: *const (dyn Fn() + Sync),
    caller: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A job's number, how many more helpers may take part, and how many do, in a single word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u64);

impl State {
    fn number(self) -> u64 {
        self.0 >> 32
    }
    fn seats(self) -> u64 {
        self.0 >> 16 & 0xFFFF
    }
    fn inside(self) -> u64 {
        self.0 & 0xFFFF
    }
    fn next(self, seats: usize) -> State {
        State((self.number() + 1) << 32 | (seats as u64) << 16)
    }
    fn entered(self) -> State {
        State(self.0 - (1 << 16) + 1)
    }
    fn closed(self) -> State {
        State(self.0 & !(0xFFFF << 16))
    }
}

struct Pool {
    helpers: AtomicUsize,
    state: AtomicU64,
    /// Written by the caller that has `taken` the pool, while nobody is inside; read by who is.
    job: UnsafeCell<Option<Job>>,
    taken: AtomicBool,
    /// Programs that run.
    running: AtomicUsize,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job`, the one part that is not made for sharing, is written and read in turns, as said there.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool {
    helpers: AtomicUsize::new(0),
    state: AtomicU64::new(0),
    job: UnsafeCell::new(None),
    taken: AtomicBool::new(false),
    running: AtomicUsize::new(0),
    sleepers: AtomicUsize::new(0),
    sleep: Mutex::new(()),
    wake: Condvar::new(),
};

/// The pool with its helpers, who are there from the first call on.
fn pool() -> &'static Pool {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        for index in 1..threads() {
            let name = format!("nt-{index}");
            // Where the system refuses threads, fewer of them give the same results, only later.
            if thread::Builder::new().name(name).spawn(|| POOL.help()).is_err() {
                break;
            }
            POOL.helpers.fetch_add(1, Relaxed);
        }
    });
    &POOL
}

/// While it lives, a program runs: see [`awake`].
pub struct Awake(());

/// Says that pieces of work will follow each other closely until what is returned is dropped.
#[must_use]
pub fn awake() -> Awake {
    pool().running.fetch_add(1, Relaxed);
    Awake(())
}

impl Drop for Awake {
    fn drop(&mut self) {
        POOL.running.fetch_sub(1, Relaxed);
    }
}

/// Calls `task` once with every index below `count`.
///
/// Which thread takes which index is left to chance, so what a task computes must depend on its index alone. Where the threads are
/// at work for someone else already, the calling one does everything.
pub fn for_each(count: usize, task: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Relaxed);
            if index >= count {
                return;
            }
            task(index);
        }
    };
    if count > 1 && threads() > 1 {
        pool().share(count - 1, &work);
    } else {
        work();
    }
}

impl Pool {
    fn state(&self) -> State {
        State(self.state.load(SeqCst))
    }

    /// Runs `work` here and in up to `most` helpers; returns once all of them have returned.
    fn share(&self, most: usize, work: &(dyn Fn() + Sync)) {
        let seats = self.helpers.load(Relaxed).min(most);
        if seats == 0 || self.taken.swap(true, Acquire) {
            return work();
        }
        // SAFETY: the lifetime is left out of the type only: `finish` returns when nobody can reach the work any more.
        let erased: *const (dyn Fn() + Sync) = unsafe { std::mem::transmute(std::ptr::from_ref(work)) };
        let job = Job { work: erased, caller: thread::current(), panic: Mutex::new(None) };
        // SAFETY: the pool is ours, and nobody is inside.
        unsafe { *self.job.get() = Some(job) };
        self.state.store(self.state().next(seats).0, SeqCst);
        let asleep = self.sleepers.load(SeqCst);
        if asleep > 0 {
            // Whoever is about to sleep has the lock until they do.
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            (0..seats.min(asleep)).for_each(|_| self.wake.notify_one());
        }
        // The caller takes its share too: were it to wait, every piece would cost two switches of threads.
        let mine = catch_unwind(AssertUnwindSafe(work));
        self.finish();
        // SAFETY: as above.
        let job = unsafe { (*self.job.get()).take() };
        self.taken.store(false, Release);
        let theirs = job.and_then(|job| job.panic.into_inner().unwrap_or_else(PoisonError::into_inner));
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Lets no more helpers in and waits for those who are.
    fn finish(&self) {
        let closed = |state| Some(State(state).closed().0);
        let mut state = State(self.state.fetch_update(AcqRel, Acquire, closed).unwrap_or_else(|state| state));
        let mut patience = Patience::new();
        while state.inside() > 0 {
            if !patience.look_again() {
                thread::park();
            }
            state = State(self.state.load(Acquire));
        }
    }

    /// What a helper does, forever.
    fn help(&self) {
        let mut done = 0;
        loop {
            let state = self.wait(done);
            if self.state.compare_exchange(state.0, state.entered().0, AcqRel, Relaxed).is_err() {
                continue;
            }
            done = state.number();
            // SAFETY: the job stays while somebody is inside.
            let caller = unsafe { (*self.job.get()).as_ref() }.map(|job| {
                // SAFETY: as above; the work stays as long as the job.
                let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.work)() }));
                if let Err(panic) = outcome {
                    job.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                }
                job.caller.clone()
            });
            let left = State(self.state.fetch_sub(1, AcqRel));
            if let (1, 0, Some(caller)) = (left.inside(), left.seats(), caller) {
                caller.unpark();
            }
        }
    }

    /// Returns once there is a seat in a job other than `done`.
    fn wait(&self, done: u64) -> State {
        let open = || Some(self.state()).filter(|state| state.seats() > 0 && state.number() != done);
        let mut patience = Patience::new();
        loop {
            if let Some(state) = open() {
                return state;
            }
            let yields = if self.running.load(Relaxed) > 0 { usize::MAX } else { YIELDS };
            if patience.yields < yields && patience.look_again() {
                continue;
            }
            let mut lock = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.sleepers.fetch_add(1, SeqCst);
            let found = loop {
                if let Some(state) = open() {
                    break state;
                }
                lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
            };
            self.sleepers.fetch_sub(1, SeqCst);
            return found;
        }
    }
}

/// Waiting that lets others work, up to a point.
struct Patience {
    since: Option<Instant>,
    looks: usize,
    yields: usize,
}

impl Patience {
    fn new() -> Patience {
        Patience { since: None, looks: 0, yields: 0 }
    }

    /// Waits for a moment; whether it is worth while to wait further without sleeping.
    fn look_again(&mut self) -> bool {
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS) {
            spin_loop();
            return true;
        }
        thread::yield_now();
        self.yields += 1;
        self.since.get_or_insert_with(Instant::now).elapsed() < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_once(count: usize) {
        let taken: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        for_each(count, |i| {
            taken[i].fetch_add(1, Relaxed);
        });
        assert!(taken.iter().all(|t| t.load(Relaxed) == 1));
    }

    #[test]
    fn every_index_is_taken_once() {
        for count in [0, 1, 2, 1000] {
            all_once(count);
        }
    }

    #[test]
    fn many_callers_at_once_each_get_their_work_done() {
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        thread::scope(|scope| {
            for caller in 0..4 {
                scope.spawn(move || {
                    let _awake = (caller % 2 == 0).then(awake);
                    for round in 0..rounds {
                        all_once(round % 7);
                    }
                });
            }
        });
    }

    #[test]
    fn work_within_work_is_done() {
        let sum = AtomicUsize::new(0);
        for_each(8, |i| {
            for_each(8, |j| {
                sum.fetch_add(i * j, Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 28 * 28);
    }

    #[test]
    fn helpers_that_sleep_are_woken() {
        for _ in 0..3 {
            // Longer than anybody's patience.
            thread::sleep(2 * PATIENCE + Duration::from_millis(5));
            all_once(50);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        for unlucky in [0, 5] {
            let outcome = catch_unwind(|| for_each(8, |i| assert!(i != unlucky)));
            assert!(outcome.is_err());
            all_once(4);
        }
    }

    #[test]
    fn results_of_helpers_are_seen_by_the_caller() {
        let mut values = vec![0_usize; 64];
        for round in 1..200 {
            let at = SendPointer(values.as_mut_ptr());
            for_each(64, |i| {
                // SAFETY: each index is one task's alone.
                unsafe { at.get().add(i).write(round * i) };
            });
            assert!(values.iter().enumerate().all(|(i, &value)| value == round * i));
        }
    }

    struct SendPointer(*mut usize);

    impl SendPointer {
        fn get(&self) -> *mut usize {
            self.0
        }
    }

    // SAFETY: the test writes to different places.
    unsafe impl Sync for SendPointer {}
}
