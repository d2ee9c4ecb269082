//! Words on the vectors of AVX-512: an f32 each, or two bf16 or four int8, of which one instruction adds all products to a sum.

use super::pack::{LANES, Rows, join, turn};
use super::{Blocks, COLUMNS, Part, WORD, write};
use crate::dot::{Dot, Layout, Out};
use crate::isa::Isa;
use half::bf16;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of a tile: with two vectors each, what the registers hold.
const TILE: usize = 12;

/// Rows of x from which on this is the better way.
const LEAST: usize = 16;

/// Rows of f32 from which on packing them all is worth while.
const LEAST_SINGLES: usize = 96;

/// f32 values in a page of memory. Rows that lie whole pages apart take each other's places in the first-level cache, unless they
/// are packed.
const PAGE: usize = 1024;

/// Whether the instruction for pairs of bf16 is there and the better choice.
pub fn suit_pairs(isa: Isa, sizes: &Dot) -> bool {
    // Tiles that are emulated for tests do not bring it along.
    let there = isa >= Isa::Avx512Bf16 && is_x86_feature_detected!("avx512bf16");
    there && sizes.m >= LEAST && sizes.n >= LANES / 2
}

/// Whether those for f32 are.
pub fn suit_singles(isa: Isa, sizes: &Dot) -> bool {
    isa >= Isa::Avx512 && sizes.m >= LEAST_SINGLES && sizes.n >= LANES && sizes.k.is_multiple_of(PAGE)
}

/// Whether those for four int8 are.
pub fn suit_quads(isa: Isa, sizes: &Dot) -> bool {
    isa >= Isa::Avx512 && is_x86_feature_detected!("avx512vnni") && sizes.m >= LEAST && sizes.n >= LANES / 2
}

/// Words that are an f32.
pub struct Singles;

/// Words that are two bf16.
pub struct Pairs;

/// Words that are four int8.
///
/// The instruction multiplies unsigned with signed bytes, so those of x are moved up by 128, and 128 times the sum of the weights is
/// taken off every result.
pub struct Quads;

/// The bytes of a word of [`Quads`] that stand for zeros.
const ZEROS: u32 = 0x8080_8080;

macro_rules! blocks {
    ($name:ident, $element:ty, $pack_rows:ident, $multiply:ident) => {
        impl Blocks<$element> for $name {
            const ROWS: usize = TILE;
            const STEP: usize = 1;

            unsafe fn begin() -> impl Sized {}

            unsafe fn pack_rows(x: *const $element, k: usize, rows: usize, to: *mut u32) {
                // SAFETY: handed on to the caller.
                unsafe { $pack_rows(x, k, rows, to) }
            }

            unsafe fn pack_columns(part: &Part<$element>, columns: Range<usize>, words: Range<usize>, to: *mut u32) {
                // SAFETY: handed on to the caller.
                unsafe { pack_columns(part, columns, words, to) }
            }

            unsafe fn multiply(rows: *const u32, columns: *const u32, words: usize, add: bool, sums: *mut f32) {
                // SAFETY: handed on to the caller.
                unsafe { $multiply(rows, columns, words, add, sums) }
            }

            unsafe fn write(sums: *const f32, rows: usize, columns: usize, out: Out, stride: usize) {
                // SAFETY: handed on to the caller.
                unsafe { write::straight(sums, rows, columns, out, stride) }
            }
        }
    };
}
blocks!(Singles, f32, pack_rows, multiply_singles);
blocks!(Pairs, bf16, pack_rows, multiply_pairs);
blocks!(Quads, i8, pack_rows_up, multiply_quads);

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows<T>(x: *const T, k: usize, rows: usize, to: *mut u32) {
    let stride = k * size_of::<T>();
    let rows = Rows { at: x.cast(), stride, count: rows, length: stride };
    // SAFETY: handed on to the caller.
    unsafe { turn(rows, stride.div_ceil(WORD), to, TILE, |word| word * TILE) };
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows_up(x: *const i8, k: usize, rows: usize, to: *mut u32) {
    // SAFETY: handed on to the caller; what `pack_rows` writes is a tile.
    unsafe {
        pack_rows(x, k, rows, to);
        for word in std::slice::from_raw_parts_mut(to, k.div_ceil(WORD) * TILE) {
            *word ^= ZEROS;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_columns<T>(part: &Part<T>, columns: Range<usize>, words: Range<usize>, to: *mut u32) {
    for offset in [0, LANES] {
        let place = |word: usize| word * COLUMNS + offset;
        // SAFETY: handed on to the caller.
        unsafe {
            match part.layout {
                Layout::Nk => turn(part.rows(&columns, offset, words.start), words.len(), to, LANES, place),
                Layout::Kn => join(part, &columns, offset, words.clone(), to, place),
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn multiply_singles(rows: *const u32, columns: *const u32, words: usize, add: bool, sums: *mut f32) {
    // SAFETY: handed on to the caller.
    unsafe {
        multiply::<false>(rows, columns, words, add, sums, |sum, x, w| {
            let [sum, x, w] = [sum, x, w].map(|vector| _mm512_castsi512_ps(vector));
            _mm512_castps_si512(_mm512_fmadd_ps(x, w, sum))
        });
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply_pairs(rows: *const u32, columns: *const u32, words: usize, add: bool, sums: *mut f32) {
    // SAFETY: handed on to the caller; vectors of one size.
    unsafe {
        multiply::<false>(rows, columns, words, add, sums, |sum, x, w| {
            let [x, w] = [x, w].map(|vector| std::mem::transmute::<__m512i, __m512bh>(vector));
            _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), x, w))
        });
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply_quads(rows: *const u32, columns: *const u32, words: usize, add: bool, sums: *mut f32) {
    // SAFETY: handed on to the caller.
    unsafe { multiply::<true>(rows, columns, words, add, sums, |sum, x, w| _mm512_dpbusd_epi32(sum, x, w)) }
}

/// With `LIFTED`, takes off each sum what it would be for a row of [`ZEROS`].
///
/// # Safety
/// As for [`Blocks::multiply`]; the processor has AVX-512 F, and what `add_product` needs.
#[inline(always)]
unsafe fn multiply<const LIFTED: bool>(
    rows: *const u32,
    columns: *const u32,
    words: usize,
    add: bool,
    sums: *mut f32,
    add_product: impl Fn(__m512i, __m512i, __m512i) -> __m512i,
) {
    // SAFETY: see above.
    unsafe {
        let mut all = [[_mm512_setzero_si512(); 2]; TILE];
        if add {
            for (row, pair) in all.iter_mut().enumerate() {
                *pair = [0, LANES].map(|offset| _mm512_loadu_si512(sums.add(row * COLUMNS + offset).cast()));
            }
        }
        let mut lifted = [_mm512_setzero_si512(); 2];
        for word in 0..words {
            let w = columns.add(word * COLUMNS);
            let w = [0, LANES].map(|offset| _mm512_loadu_si512(w.add(offset).cast()));
            let x = rows.add(word * TILE);
            for (row, pair) in all.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(x.add(row).read().cast_signed());
                *pair = [add_product(pair[0], x, w[0]), add_product(pair[1], x, w[1])];
            }
            if LIFTED {
                let zeros = _mm512_set1_epi32(ZEROS.cast_signed());
                lifted = [add_product(lifted[0], zeros, w[0]), add_product(lifted[1], zeros, w[1])];
            }
        }
        for (row, pair) in all.iter().enumerate() {
            for (vector, &sum) in pair.iter().enumerate() {
                let sum = if LIFTED { _mm512_sub_epi32(sum, lifted[vector]) } else { sum };
                _mm512_storeu_si512(sums.add(row * COLUMNS + vector * LANES).cast(), sum);
            }
        }
    }
}
