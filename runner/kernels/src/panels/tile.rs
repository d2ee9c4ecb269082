//! Tiles: some rows, one panel, sums in registers.

use super::{MAX_PAIR, Panel, Product};
use crate::element::Element;
use crate::simd::{Load, place};
use std::ops::Range;

/// Values along k between two looks ahead: a line of the cache.
const LINE: usize = 16;

/// Adds the products of `ks` to the outputs `rows` of the columns `columns`, which are one panel; the first products of an output
/// take the place of what it was.
///
/// # Safety
/// The processor has the instruction set of `S`; `product` describes valid buffers, and `panel` its columns `columns` at `ks`; no
/// other thread writes these outputs; the ranges lie within the product. Where `ks` does not begin with 0, outputs are f32, and
/// the elements `T` not [`Load::EVEN_ODD`].
#[inline(always)]
pub unsafe fn block<S: Load<T>, T: Element>(
    product: &Product<T>,
    panel: Panel,
    rows: Range<usize>,
    columns: Range<usize>,
    ks: Range<usize>,
) {
    // SAFETY: handed on to the caller.
    unsafe {
        if columns.len() <= S::LANES && !S::EVEN_ODD {
            heights::<S, T, 1>(product, panel, rows, columns, ks);
        } else {
            heights::<S, T, 2>(product, panel, rows, columns, ks);
        }
    }
}

/// # Safety
/// As for [`block`], with columns in `V` vectors.
#[inline(always)]
unsafe fn heights<S: Load<T>, T: Element, const V: usize>(
    product: &Product<T>,
    panel: Panel,
    rows: Range<usize>,
    columns: Range<usize>,
    ks: Range<usize>,
) {
    let mut row = rows.start;
    macro_rules! tiles {
        ($height:literal) => {
            while rows.end - row >= $height {
                // SAFETY: handed on to the caller.
                unsafe { tile::<S, T, $height, V>(product, panel, row, &columns, &ks) };
                row += $height;
            }
        };
    }
    if S::WIDE {
        tiles!(12);
        tiles!(8);
    } else {
        tiles!(6);
    }
    tiles!(4);
    tiles!(2);
    tiles!(1);
}

/// # Safety
/// As for [`heights`]; rows `row..row + M` exist.
#[inline(always)]
unsafe fn tile<S: Load<T>, T: Element, const M: usize, const V: usize>(
    product: &Product<T>,
    panel: Panel,
    row: usize,
    columns: &Range<usize>,
    ks: &Range<usize>,
) {
    let k = product.k;
    // SAFETY: see above; looking ahead needs no valid address.
    unsafe {
        let x = product.rows.add(row * k + ks.start);
        let mut sums = [[S::zero(); V]; M];
        let mut at = 0;
        if M == 12 && V == 2 {
            at = S::twelve_rows(x, k, panel.at, panel.stride, ks.len(), sums.as_mut_ptr().cast());
        }
        while at < ks.len() {
            // The same place in the next tile.
            (0..M).for_each(|i| S::prefetch(x.wrapping_add((M + i) * k + at).cast()));
            for i in at..ks.len().min(at + LINE) {
                let w = panel.at.add(i * panel.stride);
                let w: [S::V; V] = std::array::from_fn(|v| S::load(w.add(v * S::LANES)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = S::splat(*x.add(row * k + i));
                    for (sum, &w) in sums.iter_mut().zip(&w) {
                        *sum = S::fma(x, w, *sum);
                    }
                }
            }
            at += LINE;
        }
        if product.turned {
            turned::<S, T, M, V>(product, row, columns, ks.start > 0, &sums);
        } else {
            straight::<S, T, M, V>(product, row, columns, ks.start > 0, &sums);
        }
    }
}

/// Writes sums where the result is `[r, c]`.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn straight<S: Load<T>, T: Element, const M: usize, const V: usize>(
    product: &Product<T>,
    row: usize,
    columns: &Range<usize>,
    add: bool,
    sums: &[[S::V; V]; M],
) {
    // SAFETY: see above.
    unsafe {
        for (i, sums) in sums.iter().enumerate() {
            let at = (row + i) * product.c + columns.start;
            match product.out.f32s(at) {
                Some(to) if columns.len() == V * S::LANES && !S::EVEN_ODD => {
                    for (v, &sum) in sums.iter().enumerate() {
                        let to = to.add(v * S::LANES);
                        S::store(to, if add { S::add(S::load(to), sum) } else { sum });
                    }
                }
                to => {
                    let mut values = [0.0; MAX_PAIR];
                    for (v, &sum) in sums.iter().enumerate() {
                        S::store(values.as_mut_ptr().add(v * S::LANES), sum);
                    }
                    for i in 0..columns.len() {
                        let value = values[place::<S, T>(i)];
                        match to {
                            Some(to) if add => to.add(i).write(*to.add(i) + value),
                            _ => product.out.put(at + i, value),
                        }
                    }
                }
            }
        }
    }
}

/// Writes sums, which are f32, where the result is `[c, r]`.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn turned<S: Load<T>, T: Element, const M: usize, const V: usize>(
    product: &Product<T>,
    row: usize,
    columns: &Range<usize>,
    add: bool,
    sums: &[[S::V; V]; M],
) {
    let Some(out) = product.out.f32s(columns.start * product.r + row) else { return };
    // SAFETY: see above; a square has as many rows as a vector has values, at least as many as a tile.
    unsafe {
        for v in 0..V {
            let mut square = [S::zero(); MAX_PAIR / 2];
            for (vector, sums) in square.iter_mut().zip(sums) {
                *vector = sums[v];
            }
            S::transpose(square.as_mut_ptr());
            let left = columns.len().saturating_sub(v * S::LANES);
            for (i, &vector) in square.iter().enumerate().take(S::LANES.min(left)) {
                let to = out.add((v * S::LANES + i) * product.r);
                S::store_first(to, if add { S::add(S::load_first(to, M), vector) } else { vector }, M);
            }
        }
    }
}
