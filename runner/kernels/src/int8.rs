//! Kernels for int8 operands, in both layouts; sums in i32.
//!
//! VNNI multiplies unsigned with signed bytes, so weights are moved up by 128 as they are loaded, and 128 times the
//! sum of the row of x is taken off every result. Integer sums are exact, so their order is free.

#[cfg(target_arch = "x86_64")]
use crate::amx;
#[cfg(target_arch = "x86_64")]
use crate::blocks::{self, tiles, vectors};
#[cfg(target_arch = "x86_64")]
use crate::dot::Out;
use crate::dot::{Dot, Layout, Shared, divide};
use crate::isa::Isa;
use std::ops::Range;

mod simd;
#[cfg(target_arch = "x86_64")]
use simd::{Avx2, Vnni};
use simd::{Bytes, Portable};

/// Columns of the widest group, bytes of the widest step.
const MAX: usize = 64;

/// Rows of x that a tile takes at most.
const TILE: usize = 4;

/// One member of the batch; rows of `x` are padded with zeros to `padded` bytes.
#[derive(Clone, Copy)]
struct Part {
    x: *const i8,
    w: *const i8,
    out: *mut i32,
    m: usize,
    n: usize,
    k: usize,
    padded: usize,
}

type Kernel = unsafe fn(&Part, Range<usize>);

macro_rules! entry_points {
    ($name:ident, $simd:ty $(, $features:literal)?) => {
        mod $name {
            use super::*;
            /// # Safety
            /// The processor has the instruction set; the rest as `rows_chunk` asks.
            $(#[target_feature(enable = $features)])?
            pub unsafe fn rows(part: &Part, range: Range<usize>) {
                // SAFETY: handed on to the caller.
                unsafe { rows_chunk::<$simd>(part, range) }
            }
            /// # Safety
            /// The processor has the instruction set; the rest as `columns_chunk` asks.
            $(#[target_feature(enable = $features)])?
            pub unsafe fn columns(part: &Part, range: Range<usize>) {
                // SAFETY: handed on to the caller.
                unsafe { columns_chunk::<$simd>(part, range) }
            }
        }
    };
}
entry_points!(portable, Portable);
#[cfg(target_arch = "x86_64")]
entry_points!(avx2, Avx2, "avx2");
#[cfg(target_arch = "x86_64")]
entry_points!(vnni, Vnni, "avx512f,avx512bw,avx512vnni,avx2");

fn kernels(isa: Isa) -> (Kernel, Kernel) {
    #[cfg(target_arch = "x86_64")]
    {
        if isa >= Isa::Avx512 && is_x86_feature_detected!("avx512vnni") {
            return (vnni::rows, vnni::columns);
        }
        if isa >= Isa::Avx2 {
            return (avx2::rows, avx2::columns);
        }
    }
    let _ = isa;
    (portable::rows, portable::columns)
}

/// Contracts buffers whose lengths and instruction set were checked.
pub(crate) fn dot(isa: Isa, sizes: &Dot, x: &[i8], w: &[i8], out: &mut [i32]) {
    #[cfg(target_arch = "x86_64")]
    if tiles::suit(isa, sizes) {
        // SAFETY: the lengths and the instruction set were checked.
        return unsafe { tiles::dot(sizes, x.as_ptr(), w.as_ptr(), Out::i32s(out.as_mut_ptr())) };
    }
    #[cfg(target_arch = "x86_64")]
    if amx::suits(isa, sizes) {
        let shared = Shared(out.as_mut_ptr());
        // SAFETY: every result is written once, within the checked length.
        return amx::dot(sizes, x, w, |index, sum| unsafe { shared.get().add(index).write(sum) });
    }
    #[cfg(target_arch = "x86_64")]
    if vectors::suit_quads(isa, sizes) {
        let out = Out::i32s(out.as_mut_ptr());
        // SAFETY: as above.
        return unsafe { blocks::dot::<vectors::Quads, _>(sizes, x.as_ptr(), w.as_ptr(), out) };
    }
    let Dot { m, n, k, layout, .. } = *sizes;
    let (rows, columns) = kernels(isa);
    let kernel = if layout == Layout::Nk { rows } else { columns };
    let padded = k.next_multiple_of(MAX);
    let mut packed = vec![0_i8; sizes.batch * m * padded];
    if k > 0 {
        for (to, from) in packed.chunks_exact_mut(padded).zip(x.chunks_exact(k)) {
            to[..k].copy_from_slice(from);
        }
    }
    let shared = Shared((packed.as_ptr(), w.as_ptr(), out.as_mut_ptr()));
    divide(sizes, 1, |batch, outputs| {
        let &(x, w, out) = shared.get();
        let part = Part {
            x: x.wrapping_add(batch * m * padded),
            w: w.wrapping_add(batch * n * k),
            out: out.wrapping_add(batch * m * n),
            m,
            n,
            k,
            padded,
        };
        // SAFETY: lengths and instruction set were checked, and every output belongs to one call of this closure.
        unsafe { kernel(&part, outputs) }
    });
}

/// What a row's sums exceed its results by.
///
/// # Safety
/// Row `m` of `part.x` exists.
#[inline(always)]
unsafe fn excess<S: Bytes>(part: &Part, m: usize) -> i32 {
    if S::OFFSET == 0 {
        return 0;
    }
    // SAFETY: handed on to the caller.
    let row = unsafe { std::slice::from_raw_parts(part.x.add(m * part.padded), part.k) };
    row.iter().fold(0_i32, |sum, &x| sum.wrapping_add(i32::from(x))).wrapping_mul(S::OFFSET)
}

/// Outputs `range` for weights `[n, k]`.
///
/// # Safety
/// The processor has the instruction set of `S`; `part` describes valid buffers; no other thread writes these outputs.
#[inline(always)]
unsafe fn rows_chunk<S: Bytes>(part: &Part, range: Range<usize>) {
    // All rows of x take a tile's rows of w before the next ones are read: from memory they come once.
    const N: usize = TILE;
    let mut n = range.start;
    while n < range.end {
        let outputs = N.min(range.end - n);
        for m in (0..part.m).step_by(TILE) {
            // SAFETY: handed on to the caller.
            unsafe {
                match (part.m - m, outputs == N) {
                    (1, true) => tile::<S, 1, N>(part, m, n),
                    (2, true) => tile::<S, 2, N>(part, m, n),
                    (3, true) => tile::<S, 3, N>(part, m, n),
                    (_, true) => tile::<S, TILE, N>(part, m, n),
                    (rows, false) => {
                        for m in m..m + rows.min(TILE) {
                            (n..n + outputs).for_each(|n| tile::<S, 1, 1>(part, m, n));
                        }
                    }
                }
            }
        }
        n += outputs;
    }
}

/// # Safety
/// As for [`rows_chunk`], with rows `m..m + M` of x and `n..n + N` of w.
#[inline(always)]
unsafe fn tile<S: Bytes, const M: usize, const N: usize>(part: &Part, m: usize, n: usize) {
    let whole = part.k - part.k % S::STEP;
    // SAFETY: reads of w stop at `whole`, and the rest goes through a buffer; x is padded.
    unsafe {
        let x = part.x.add(m * part.padded);
        let w = part.w.add(n * part.k);
        let mut sums = [[S::zero(); N]; M];
        let mut i = 0;
        while i < whole {
            let mut weights = [S::load_w(w.add(i)); N];
            for (n, weights) in weights.iter_mut().enumerate() {
                let from = w.add(n * part.k + i);
                *weights = S::load_w(from);
                S::prefetch(from.wrapping_add(N * part.k));
            }
            accumulate::<S, M, N>(&mut sums, x.add(i), part.padded, &weights);
            i += S::STEP;
        }
        if whole < part.k {
            let zeros = [0_i8; MAX];
            let mut weights = [S::load_w(zeros.as_ptr()); N];
            for (n, weights) in weights.iter_mut().enumerate() {
                let mut last = zeros;
                last.as_mut_ptr().copy_from_nonoverlapping(w.add(n * part.k + whole), part.k - whole);
                *weights = S::load_w(last.as_ptr());
            }
            accumulate::<S, M, N>(&mut sums, x.add(whole), part.padded, &weights);
        }
        for (row, sums) in sums.iter().enumerate() {
            let excess = excess::<S>(part, m + row);
            for (column, &sum) in sums.iter().enumerate() {
                part.out.add((m + row) * part.n + n + column).write(S::sum(sum).wrapping_sub(excess));
            }
        }
    }
}

/// # Safety
/// `x` has M rows, `stride` apart, with a step's bytes at each.
#[inline(always)]
unsafe fn accumulate<S: Bytes, const M: usize, const N: usize>(
    sums: &mut [[S::Sums; N]; M],
    x: *const i8,
    stride: usize,
    w: &[S::Weights; N],
) {
    for (m, sums) in sums.iter_mut().enumerate() {
        // SAFETY: handed on to the caller.
        unsafe {
            let x = S::load_x(x.add(m * stride));
            for (sum, &w) in sums.iter_mut().zip(w) {
                *sum = S::multiply_add(*sum, w, x);
            }
        }
    }
}

/// Outputs `range` for weights `[k, n]`.
///
/// # Safety
/// As for [`rows_chunk`].
#[inline(always)]
unsafe fn columns_chunk<S: Bytes>(part: &Part, range: Range<usize>) {
    let width = range.len().next_multiple_of(S::COLUMNS);
    let mut sums = vec![0_i32; part.m * width];
    // SAFETY: handed on to the caller; x is padded to whole groups.
    unsafe {
        let mut k = 0;
        while k + 8 <= part.k {
            groups::<S, 2>(part, &range, k, width, sums.as_mut_ptr());
            k += 8;
        }
        while k < part.k {
            groups::<S, 1>(part, &range, k, width, sums.as_mut_ptr());
            k += 4;
        }
        for (m, sums) in sums.chunks_exact(width.max(1)).enumerate() {
            let excess = excess::<S>(part, m);
            for (i, n) in range.clone().enumerate() {
                let at = i - i % S::COLUMNS + S::place(i % S::COLUMNS);
                part.out.add(m * part.n + n).write(sums[at].wrapping_sub(excess));
            }
        }
    }
}

/// Adds the products of G groups of four rows of w, from row `k` on, to the sums of the strip.
///
/// # Safety
/// As for [`rows_chunk`]; `sums` holds `m` rows of `width`, which is the strip's, padded to whole groups.
#[inline(always)]
unsafe fn groups<S: Bytes, const G: usize>(part: &Part, range: &Range<usize>, k: usize, width: usize, sums: *mut i32) {
    // SAFETY: rows of w past k are replaced by zeros, and so are columns past the strip.
    unsafe {
        for at in (0..range.len()).step_by(S::COLUMNS) {
            let rest = range.len() - at;
            let loaded: [S::Group; G] = std::array::from_fn(|group| {
                let k = k + 4 * group;
                let from = part.w.add(k * part.n + range.start + at);
                if rest >= S::COLUMNS && k + 4 <= part.k {
                    let rows = [0, 1, 2, 3].map(|row| from.add(row * part.n));
                    // The same place in the next groups: rows are too far apart for the hardware to guess it.
                    rows.iter().for_each(|row| S::prefetch(row.wrapping_add(4 * G * part.n)));
                    return S::load_group(rows);
                }
                let mut last = [[0_i8; MAX]; 4];
                for (row, last) in last.iter_mut().enumerate().take(part.k - k) {
                    last.as_mut_ptr().copy_from_nonoverlapping(from.add(row * part.n), rest.min(S::COLUMNS));
                }
                S::load_group(last.each_ref().map(|row| row.as_ptr()))
            });
            for m in 0..part.m {
                let x = part.x.add(m * part.padded + k).cast::<[[i8; 4]; G]>().read();
                S::add_groups(sums.add(m * width + at), &loaded, x);
            }
        }
    }
}
