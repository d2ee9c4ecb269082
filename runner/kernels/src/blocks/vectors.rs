//! Words on the vectors of AVX-512: an f32 each, or a pair of bf16, of which `vdpbf16ps` adds both products to a sum.

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
    isa >= Isa::Avx512Bf16 && sizes.m >= LEAST && sizes.n >= LANES / 2
}

/// Whether those for f32 are.
pub fn suit_singles(isa: Isa, sizes: &Dot) -> bool {
    isa >= Isa::Avx512 && sizes.m >= LEAST_SINGLES && sizes.n >= LANES && sizes.k.is_multiple_of(PAGE)
}

/// Words that are an f32.
pub struct Singles;

/// Words that are two bf16.
pub struct Pairs;

macro_rules! blocks {
    ($name:ident, $element:ty, $multiply:ident) => {
        impl Blocks<$element> for $name {
            const ROWS: usize = TILE;
            const STEP: usize = 1;

            unsafe fn begin() -> impl Sized {}

            unsafe fn pack_rows(x: *const $element, k: usize, rows: usize, to: *mut u32) {
                // SAFETY: handed on to the caller.
                unsafe { pack_rows(x, k, rows, to) }
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
blocks!(Singles, f32, multiply_singles);
blocks!(Pairs, bf16, multiply_pairs);

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows<T>(x: *const T, k: usize, rows: usize, to: *mut u32) {
    let stride = k * size_of::<T>();
    let rows = Rows { at: x.cast(), stride, count: rows, length: stride };
    // SAFETY: handed on to the caller.
    unsafe { turn(rows, stride.div_ceil(WORD), to, TILE, |word| word * TILE) };
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
    unsafe { multiply(rows, columns, words, add, sums, |sum, x, w| _mm512_fmadd_ps(_mm512_castsi512_ps(x), w, sum)) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply_pairs(rows: *const u32, columns: *const u32, words: usize, add: bool, sums: *mut f32) {
    // SAFETY: handed on to the caller; vectors of one size.
    unsafe {
        multiply(rows, columns, words, add, sums, |sum, x, w| {
            let x = std::mem::transmute::<__m512i, __m512bh>(x);
            let w = std::mem::transmute::<__m512, __m512bh>(w);
            _mm512_dpbf16_ps(sum, x, w)
        })
    }
}

/// # Safety
/// As for [`Blocks::multiply`]; the processor has AVX-512 F, and what `add_product` needs.
#[inline(always)]
unsafe fn multiply(
    rows: *const u32,
    columns: *const u32,
    words: usize,
    add: bool,
    sums: *mut f32,
    add_product: impl Fn(__m512, __m512i, __m512) -> __m512,
) {
    // SAFETY: see above.
    unsafe {
        let mut all = [[_mm512_setzero_ps(); 2]; TILE];
        if add {
            for (row, pair) in all.iter_mut().enumerate() {
                *pair = [0, LANES].map(|offset| _mm512_loadu_ps(sums.add(row * COLUMNS + offset)));
            }
        }
        for word in 0..words {
            let w = columns.add(word * COLUMNS);
            let w = [0, LANES].map(|offset| _mm512_loadu_ps(w.add(offset).cast()));
            let x = rows.add(word * TILE);
            for (row, pair) in all.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(x.add(row).read().cast_signed());
                *pair = [add_product(pair[0], x, w[0]), add_product(pair[1], x, w[1])];
            }
        }
        for (row, pair) in all.iter().enumerate() {
            for (vector, &sum) in pair.iter().enumerate() {
                _mm512_storeu_ps(sums.add(row * COLUMNS + vector * LANES), sum);
            }
        }
    }
}
