//! How long each kind of step takes, for whoever makes programs faster; only with the feature `trace`.
//!
//! `cargo run --release --package nt-cpu --features trace --example nt-cpu-run -- FILE.ntx DIRECTORY 20` prints, when the
//! program is dropped, the seconds of all its calls by step: functions of the machine code by name, contractions by size. A
//! loop's or a branch's own line counts its steps' time once more. It is the processor time of the calling thread, which other
//! programs on the machine disturb little; with `NT_NUM_THREADS=1` that thread does all the work.

use crate::plan::{Dot, Step};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Calls and time by step.
#[derive(Default)]
pub struct Trace(Mutex<HashMap<String, (u32, Duration)>>);

/// Processor time of this thread.
pub fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is writable, and every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Trace {
    pub fn add(&self, step: &Step, functions: &[String], took: Duration) {
        let name = match step {
            Step::Kernel(step) => format!("{} {:?}", functions[step.function], step.workgroups),
            Step::Copy(step) => format!("copy {} {}", step.from.size, step.transposed.is_some()),
            Step::While(_) => "while".into(),
            Step::Conditional(_) => "conditional".into(),
            Step::Sort(step) => format!("sort {}x{}x{}", step.outer, step.length, step.inner),
            Step::TopK(step) => format!("top-k {} of {}", step.k, step.length),
            Step::Dot(Dot { dtype, batch, m, n, k, lhs, rhs, out, .. }) => format!(
                "dot {dtype} b{batch} m{m} n{n} k{k}, strides {:?} {:?} {:?}",
                lhs.strides, rhs.strides, out.strides
            ),
            Step::Convolution(step) => format!("convolution {:?} with {:?}", step.x.sizes, step.kernel.sizes),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(name).or_default();
        *entry = (entry.0 + 1, entry.1 + took);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let all = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = all.iter().collect();
        all.sort_by_key(|(_, (_, took))| std::cmp::Reverse(*took));
        for (name, (calls, took)) in all {
            eprintln!("{:>10.6} s {calls:>6} x {name}", took.as_secs_f64());
        }
    }
}
