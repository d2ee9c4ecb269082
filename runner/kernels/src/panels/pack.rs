//! Bringing columns into the order of panels.

use super::{MAX_PAIR, Product};
use crate::dot::Layout;
use crate::element::{DType, Element};
use crate::simd::{Load, place};
use std::ops::Range;

/// Writes the values `ks` of the columns `columns`, as f32, a pair of vectors for each k. What lies right of the last column
/// is zero.
///
/// # Safety
/// The processor has the instruction set of `S`; `product` describes valid buffers; the ranges lie within `0..product.c` and
/// `0..product.k`, and `columns` is no longer than a pair of vectors; `to` has room for a pair for each of `ks`.
#[inline(always)]
pub unsafe fn panel<S: Load<T>, T: Element>(
    product: &Product<T>,
    columns: Range<usize>,
    ks: Range<usize>,
    to: *mut f32,
) {
    // SAFETY: handed on to the caller.
    unsafe {
        match product.layout {
            Layout::Nk if T::DTYPE == DType::F32 => from_vectors::<S, T>(product, columns, ks, to),
            Layout::Nk => from_rows::<S, T>(product, columns, ks, to),
            Layout::Kn => from_columns::<S, T>(product, columns, ks, to),
        }
    }
}

/// From rows of f32, in squares.
///
/// # Safety
/// As for [`panel`], with elements of f32.
#[inline(always)]
unsafe fn from_vectors<S: Load<T>, T: Element>(
    product: &Product<T>,
    columns: Range<usize>,
    ks: Range<usize>,
    to: *mut f32,
) {
    let pair = 2 * S::LANES;
    let whole = ks.len() - ks.len() % S::LANES;
    // SAFETY: see above.
    unsafe {
        let from = product.columns.cast::<f32>().add(columns.start * product.k + ks.start);
        for half in [0, S::LANES] {
            let count = columns.len().saturating_sub(half).min(S::LANES);
            for k in (0..whole).step_by(S::LANES) {
                let mut square = [S::zero(); MAX_PAIR / 2];
                for (row, vector) in square.iter_mut().enumerate().take(count) {
                    *vector = S::load(from.add((half + row) * product.k + k));
                }
                S::transpose(square.as_mut_ptr());
                for (i, &vector) in square.iter().enumerate().take(S::LANES) {
                    S::store(to.add((k + i) * pair + half), vector);
                }
            }
            for k in whole..ks.len() {
                for row in 0..S::LANES {
                    let value = if row < count { *from.add((half + row) * product.k + k) } else { 0.0 };
                    to.add(k * pair + half + row).write(value);
                }
            }
        }
    }
}

/// From rows of any type.
///
/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn from_rows<S: Load<T>, T: Element>(
    product: &Product<T>,
    columns: Range<usize>,
    ks: Range<usize>,
    to: *mut f32,
) {
    /// Values of one column that are read at once: a line of the cache, or a half.
    const RUN: usize = 16;
    let pair = 2 * S::LANES;
    // SAFETY: see above.
    unsafe {
        for start in (0..ks.len()).step_by(RUN) {
            let run = RUN.min(ks.len() - start);
            for column in 0..pair {
                let to = to.add(start * pair + place::<S, T>(column));
                if column >= columns.len() {
                    (0..run).for_each(|i| to.add(i * pair).write(0.0));
                    continue;
                }
                let from = product.columns.add((columns.start + column) * product.k + ks.start + start);
                if run == RUN {
                    (0..RUN).for_each(|i| to.add(i * pair).write((*from.add(i)).to_f32()));
                } else {
                    (0..run).for_each(|i| to.add(i * pair).write((*from.add(i)).to_f32()));
                }
            }
        }
    }
}

/// From columns that lie side by side.
///
/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn from_columns<S: Load<T>, T: Element>(
    product: &Product<T>,
    columns: Range<usize>,
    ks: Range<usize>,
    to: *mut f32,
) {
    let pair = 2 * S::LANES;
    let mut last = [T::ZERO; MAX_PAIR];
    // SAFETY: see above; a row that is no whole pair goes through a buffer that is one.
    unsafe {
        for (i, k) in ks.enumerate() {
            let mut from = product.columns.add(k * product.c + columns.start);
            if columns.len() < pair {
                last.as_mut_ptr().copy_from_nonoverlapping(from, columns.len());
                from = last.as_ptr();
            }
            let (a, b) = S::load_pair(from);
            S::store(to.add(i * pair), a);
            S::store(to.add(i * pair + S::LANES), b);
        }
    }
}
