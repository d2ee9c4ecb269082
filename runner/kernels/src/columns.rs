//! Kernel for [`Layout::Kn`](crate::Layout::Kn): a row of weights holds one k for all outputs.
//!
//! A strip of outputs, narrow enough for its sums to stay in the first-level cache, walks down k several rows at a time. Each
//! output's products of such a group are added up in a register and then added to its sum, always in the order of k.

use crate::dot::Part;
use crate::element::Element;
use crate::simd::{Load, place};
use std::ops::Range;

/// Bytes of sums that a strip keeps.
const SUMS: usize = 16 << 10;

/// Strips are multiples of this many outputs (a pair of the widest vectors), and no narrower than twice that.
const GRAIN: usize = 32;

/// Outputs in a strip for `m` rows; narrow matrices still give several strips, for several threads.
pub fn width(m: usize, n: usize) -> usize {
    let fits = SUMS / (4 * m.max(1));
    fits.min(n.div_ceil(8)).clamp(2 * GRAIN, 1024).next_multiple_of(GRAIN)
}

/// Computes the outputs `range` of all rows of x.
///
/// # Safety
/// The processor has the instruction set of `S`; `part` describes valid buffers, `x` in f32; no other thread writes
/// these outputs; `range` lies within `0..part.n`.
#[inline(always)]
pub unsafe fn chunk<S: Load<T>, T: Element>(part: &Part<T>, range: Range<usize>) {
    // SAFETY: handed on to the caller.
    unsafe { if S::WIDE { strip::<S, T, 8>(part, range) } else { strip::<S, T, 4>(part, range) } }
}

/// As [`chunk`], `U` rows of w at a time.
///
/// # Safety
/// As for [`chunk`].
#[inline(always)]
unsafe fn strip<S: Load<T>, T: Element, const U: usize>(part: &Part<T>, range: Range<usize>) {
    let pair = 2 * S::LANES;
    let width = range.len().next_multiple_of(pair);
    let mut sums = vec![0.0_f32; part.m * width];
    let mut k = 0;
    // SAFETY: handed on to the caller; `sums` holds `m` rows of `width`.
    unsafe {
        while k + U <= part.k {
            group::<S, T, U>(part, &range, k, width, sums.as_mut_ptr());
            k += U;
        }
        while k < part.k {
            group::<S, T, 1>(part, &range, k, width, sums.as_mut_ptr());
            k += 1;
        }
        for (m, sums) in sums.chunks_exact(width).enumerate() {
            for (i, n) in range.clone().enumerate() {
                let at = i - i % pair + place::<S, T>(i % pair);
                part.out.put(m * part.n + n, sums[at]);
            }
        }
    }
}

/// Adds the products of the rows `k..k + U` of w to the sums of the strip.
///
/// # Safety
/// As for [`chunk`]; `sums` holds `m` rows of `width`, which is the strip's, padded to whole pairs; `k + U <= part.k`.
#[inline(always)]
unsafe fn group<S: Load<T>, T: Element, const U: usize>(
    part: &Part<T>,
    range: &Range<usize>,
    k: usize,
    width: usize,
    sums: *mut f32,
) {
    let pair = 2 * S::LANES;
    // SAFETY: see above; the last, partial piece of each row goes through a buffer of a full pair.
    unsafe {
        let w = part.w.add(k * part.n + range.start);
        let mut at = 0;
        while at < range.len() {
            let mut pairs = [(S::zero(), S::zero()); U];
            let rest = range.len() - at;
            for (u, loaded) in pairs.iter_mut().enumerate() {
                let from = w.add(u * part.n + at);
                if rest >= pair {
                    *loaded = S::load_pair(from);
                    // The same place in the next group: rows are too far apart for the hardware to guess it.
                    S::prefetch(from.wrapping_add(U * part.n).cast());
                    if size_of::<T>() == 4 {
                        S::prefetch(from.wrapping_add(U * part.n + S::LANES).cast());
                    }
                } else {
                    let mut last = [T::ZERO; GRAIN];
                    last.as_mut_ptr().copy_from_nonoverlapping(from, rest);
                    *loaded = S::load_pair(last.as_ptr());
                }
            }
            for m in 0..part.m {
                let x = part.x.add(m * part.k + k);
                let sums = sums.add(m * width + at);
                let first = S::splat(*x);
                let (mut a, mut b) = (S::mul(first, pairs[0].0), S::mul(first, pairs[0].1));
                for (u, &(wa, wb)) in pairs.iter().enumerate().skip(1) {
                    let x = S::splat(*x.add(u));
                    a = S::fma(x, wa, a);
                    b = S::fma(x, wb, b);
                }
                S::store(sums, S::add(S::load(sums), a));
                S::store(sums.add(S::LANES), S::add(S::load(sums.add(S::LANES)), b));
            }
            at += pair;
        }
    }
}
