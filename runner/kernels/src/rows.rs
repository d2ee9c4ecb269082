//! Kernel for [`Layout::Nk`](crate::Layout::Nk): every output is a row of weights times a row of x.
//!
//! A tile of several rows of w and up to eight rows of x keeps its sums in registers while it walks k. Each
//! output has one vector of partial sums, filled in the order of k, whatever the tile, so neither the number of rows
//! of x nor the division of work changes a result.

use crate::dot::Part;
use crate::element::Element;
use crate::simd::Load;
use std::ops::Range;

/// Chunks are multiples of this, so that only the last one has a remainder: every tile height divides it.
pub const GRAIN: usize = 24;

/// Rows of x that a tile takes at most.
const MAX_ROWS: usize = 8;

/// Pair of the widest vectors.
const MAX_PAIR: usize = 32;

/// Writes the rows of `x`, `k` elements each, as f32 in the order in which `load_pair` gives elements, padded with zeros
/// to whole pairs of vectors.
///
/// # Safety
/// The processor has the instruction set of `S`; `to` has room for the padded rows; `k` divides the length of `x`.
#[inline(always)]
pub unsafe fn pack<S: Load<T>, T: Element>(x: &[T], k: usize, to: *mut f32) {
    let pair = 2 * S::LANES;
    if k == 0 {
        return;
    }
    let mut to = to;
    for row in x.chunks_exact(k) {
        let whole = row.chunks_exact(pair);
        let rest = whole.remainder();
        let mut last = [T::ZERO; MAX_PAIR];
        last[..rest.len()].copy_from_slice(rest);
        for piece in whole.chain((!rest.is_empty()).then_some(&last[..pair])) {
            // SAFETY: a piece holds a pair, and the padded row has room for it.
            unsafe {
                let (a, b) = S::load_pair(piece.as_ptr());
                S::store(to, a);
                S::store(to.add(S::LANES), b);
                to = to.add(pair);
            }
        }
    }
}

/// Computes the outputs `range` of all rows of x.
///
/// # Safety
/// The processor has the instruction set of `S`; `part` describes valid buffers, `x` packed by [`pack`]; no other
/// thread writes these outputs; `range` lies within `0..part.n`.
#[inline(always)]
pub unsafe fn chunk<S: Load<T>, T: Element>(part: &Part<T>, range: Range<usize>) {
    // Row blocks of equal height where m exceeds a tile: 9 rows are 5 and 4, not 8 and 1.
    let limit = if S::WIDE { MAX_ROWS } else { MAX_ROWS / 2 };
    let blocks = part.m.div_ceil(limit);
    let height = part.m.div_ceil(blocks);
    // The weights of a panel stay in cache for the further blocks of rows.
    let panel = if blocks == 1 { range.len() } else { GRAIN };
    let mut n = range.start;
    while n < range.end {
        let end = range.end.min(n + panel);
        let mut m = 0;
        while m < part.m {
            let rows = height.min(part.m - m);
            // SAFETY: handed on to the caller; the panel lies within both matrices.
            unsafe { tiles::<S, T>(part, m, rows, n..end) };
            m += rows;
        }
        n = end;
    }
}

/// Rows of w in a tile with `rows` rows of x: as many as leave the sums in registers.
const fn tile_outputs(wide: bool, rows: usize) -> usize {
    if wide {
        match rows {
            1 => 8,
            2 => 6,
            3 | 4 => 4,
            _ => 3,
        }
    } else {
        match rows {
            1 => 4,
            2 => 3,
            _ => 2,
        }
    }
}

/// Outputs `range` of the rows `m..m + rows` of x.
///
/// # Safety
/// As for [`chunk`].
#[inline(always)]
unsafe fn tiles<S: Load<T>, T: Element>(part: &Part<T>, m: usize, rows: usize, range: Range<usize>) {
    macro_rules! run {
        ($rows:literal) => {
            // SAFETY: handed on to the caller.
            unsafe {
                if S::WIDE {
                    run::<S, T, $rows, { tile_outputs(true, $rows) }>(part, m, range)
                } else {
                    run::<S, T, $rows, { tile_outputs(false, $rows) }>(part, m, range)
                }
            }
        };
    }
    match rows {
        1 => run!(1),
        2 => run!(2),
        3 => run!(3),
        4 => run!(4),
        5 => run!(5),
        6 => run!(6),
        7 => run!(7),
        _ => run!(8),
    }
}

/// # Safety
/// As for [`chunk`].
#[inline(always)]
unsafe fn run<S: Load<T>, T: Element, const M: usize, const N: usize>(part: &Part<T>, m: usize, range: Range<usize>) {
    let mut n = range.start;
    // SAFETY: handed on to the caller.
    unsafe {
        while n + N <= range.end {
            tile::<S, T, M, N>(part, m, n);
            n += N;
        }
        while n < range.end {
            tile::<S, T, M, 1>(part, m, n);
            n += 1;
        }
    }
}

/// Outputs `n..n + N` of the rows `m..m + M` of x.
///
/// # Safety
/// As for [`chunk`].
#[inline(always)]
unsafe fn tile<S: Load<T>, T: Element, const M: usize, const N: usize>(part: &Part<T>, m: usize, n: usize) {
    let pair = 2 * S::LANES;
    let k = part.k;
    let padded = k.next_multiple_of(pair);
    let whole = k - k % pair;
    // SAFETY: rows m..m + M of x and n..n + N of w exist; reads of w stop at `whole`, and the rest goes through a
    // buffer of a full pair; prefetching needs no valid address.
    unsafe {
        let x = part.x.add(m * padded);
        let w = part.w.add(n * k);
        let mut sums = [[S::zero(); N]; M];
        let mut i = 0;
        while i < whole {
            let mut pairs = [(S::zero(), S::zero()); N];
            for (n, pair) in pairs.iter_mut().enumerate() {
                let from = w.add(n * k + i);
                *pair = S::load_pair(from);
                // The same place in the next tile.
                S::prefetch(from.wrapping_add(N * k).cast());
                if size_of::<T>() == 4 {
                    S::prefetch(from.wrapping_add(N * k + S::LANES).cast());
                }
            }
            accumulate::<S, T, M, N>(&mut sums, x.add(i), padded, &pairs);
            i += pair;
        }
        if whole < k {
            let mut pairs = [(S::zero(), S::zero()); N];
            for (n, pair) in pairs.iter_mut().enumerate() {
                let mut last = [T::ZERO; MAX_PAIR];
                last.as_mut_ptr().copy_from_nonoverlapping(w.add(n * k + whole), k - whole);
                *pair = S::load_pair(last.as_ptr());
            }
            accumulate::<S, T, M, N>(&mut sums, x.add(whole), padded, &pairs);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (column, &sum) in sums.iter().enumerate() {
                part.out.put((m + row) * part.n + n + column, S::sum(sum));
            }
        }
    }
}

/// # Safety
/// `x` has M rows, `stride` apart, with a pair of vectors at each.
#[inline(always)]
unsafe fn accumulate<S: Load<T>, T: Element, const M: usize, const N: usize>(
    sums: &mut [[S::V; N]; M],
    x: *const f32,
    stride: usize,
    w: &[(S::V, S::V); N],
) {
    for (m, sums) in sums.iter_mut().enumerate() {
        // SAFETY: handed on to the caller.
        let (a, b) = unsafe { (S::load(x.add(m * stride)), S::load(x.add(m * stride + S::LANES))) };
        for (sum, &(wa, wb)) in sums.iter_mut().zip(w) {
            // SAFETY: the instruction set is the caller's promise.
            *sum = unsafe { S::fma(b, wb, S::fma(a, wa, *sum)) };
        }
    }
}
