//! The threads that share one contraction.

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

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
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    })
}

/// The helpers of the calling thread; `None` where it works alone.
fn helpers() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    POOL.get_or_init(|| {
        let helpers = threads() - 1;
        let builder = ThreadPoolBuilder::new().num_threads(helpers).thread_name(|i| format!("nt-dot-{i}"));
        // Where the system refuses threads, one thread gives the same results, only later.
        (helpers > 0).then(|| builder.build().ok()).flatten()
    })
    .as_ref()
}

/// Calls `task` once with every index below `count`.
///
/// Which thread takes which index is left to chance, so what a task computes must depend on its index alone.
pub fn for_each(count: usize, task: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            task(index);
        }
    };
    match helpers() {
        Some(pool) if count > 1 => pool.in_place_scope(|scope| {
            // The caller takes its share too: were it to wait, every contraction would cost two switches of threads.
            for _ in 0..pool.current_num_threads().min(count - 1) {
                scope.spawn(|_| work());
            }
            work();
        }),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_taken_once() {
        for count in [0, 1, 2, 1000] {
            let taken: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            for_each(count, |i| {
                taken[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(taken.iter().all(|t| t.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let outcome = std::panic::catch_unwind(|| for_each(8, |i| assert!(i != 5)));
        assert!(outcome.is_err());
        for_each(4, |_| ());
    }
}
