//! Matrix tiles, four products of tiles at a time.
//!
//! The left factor's rows are tiles as they lie in memory; the right one's have to be turned, a word at a time, or joined to words
//! where neighbours along k lie apart. Weights `[n, k]` are the left factor, so that they are only copied; weights `[k, n]` the right
//! one.

use super::pack::{LANES, Rows, half, join, plain, turn};
use super::{Blocks, COLUMNS, Part, WORD, write};
use crate::amx::{Configured, Tiled};
use crate::dot::{Dot, Layout, Out};
use crate::isa::Isa;
use std::ops::Range;

/// Words along k of a tile.
const STEP: usize = 16;

/// Rows of two tiles.
const TWO: usize = 2 * LANES;

/// Rows of x from which on this is the better way.
const LEAST: usize = LANES + 1;

/// Whether matrix tiles are there and this is the better choice.
pub fn suit(isa: Isa, sizes: &Dot) -> bool {
    isa == Isa::Amx && sizes.m >= LEAST && sizes.n >= LANES / 2
}

/// Contracts; see [`super::dot`].
///
/// # Safety
/// As there, and [`suit`].
pub unsafe fn dot<T: Tiled>(sizes: &Dot, x: *const T, w: *const T, out: Out) {
    // SAFETY: handed on to the caller.
    unsafe {
        match sizes.layout {
            Layout::Nk => super::dot::<Tiles<true>, T>(sizes, x, w, out),
            Layout::Kn => super::dot::<Tiles<false>, T>(sizes, x, w, out),
        }
    }
}

/// For weights `[n, k]`, if `NK`, or `[k, n]`.
pub struct Tiles<const NK: bool>;

/// Where the words with this number are, of the half of rows or columns that begins with `offset`.
fn place(word: usize, offset: usize) -> usize {
    word / STEP * STEP * TWO + offset * STEP + word % STEP * LANES
}

impl<T: Tiled, const NK: bool> Blocks<T> for Tiles<NK> {
    const ROWS: usize = TWO;
    const STEP: usize = STEP;

    unsafe fn begin() -> impl Sized {
        // SAFETY: handed on to the caller.
        unsafe { Configured::full() }
    }

    unsafe fn pack_rows(x: *const T, k: usize, rows: usize, to: *mut u32) {
        // SAFETY: handed on to the caller.
        unsafe { pack_rows::<T, NK>(x, k, rows, to) }
    }

    unsafe fn pack_columns(part: &Part<T>, columns: Range<usize>, words: Range<usize>, to: *mut u32) {
        // SAFETY: handed on to the caller.
        unsafe { pack_columns(part, columns, words, to) }
    }

    unsafe fn multiply(rows: *const u32, columns: *const u32, words: usize, add: bool, sums: *mut f32) {
        let (left, right) = if NK { (columns, rows) } else { (rows, columns) };
        // SAFETY: handed on to the caller.
        unsafe { T::multiply_four(left.cast(), right.cast(), words / STEP, add, sums.cast()) }
    }

    unsafe fn write(sums: *const f32, rows: usize, columns: usize, out: Out, stride: usize) {
        // SAFETY: handed on to the caller.
        unsafe {
            if NK {
                write::turned(sums, rows, columns, out, stride);
            } else {
                write::straight(sums, rows, columns, out, stride);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows<T, const NK: bool>(x: *const T, k: usize, rows: usize, to: *mut u32) {
    let stride = k * size_of::<T>();
    let words = stride.div_ceil(WORD).next_multiple_of(STEP);
    for offset in [0, LANES] {
        let at = x.cast::<u8>().wrapping_add(offset * stride);
        let rows = Rows { at, stride, count: half(rows, offset), length: stride };
        // SAFETY: handed on to the caller.
        unsafe {
            if NK {
                turn(rows, words, to, LANES, |word| place(word, offset));
            } else {
                plain(rows, words, to, |word| place(word, offset));
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_columns<T>(part: &Part<T>, columns: Range<usize>, words: Range<usize>, to: *mut u32) {
    for offset in [0, LANES] {
        let place = |word| place(word, offset);
        // SAFETY: handed on to the caller.
        unsafe {
            match part.layout {
                Layout::Nk => plain(part.rows(&columns, offset, words.start), words.len(), to, place),
                Layout::Kn => join(part, &columns, offset, words.clone(), to, place),
            }
        }
    }
}

const _: () = assert!(TWO == COLUMNS, "a panel is as wide as a tile is high");
