//! Bringing words into the order in which instructions take them.

use super::{Part, WORD};
use crate::simd::{Avx512, Simd};
use std::arch::x86_64::*;
use std::ops::Range;

/// Values of a vector.
pub const LANES: usize = 16;

/// Up to [`LANES`] rows of bytes.
#[derive(Clone, Copy)]
pub struct Rows {
    pub at: *const u8,
    /// Bytes from one row to the next.
    pub stride: usize,
    pub count: usize,
    /// Bytes of a row.
    pub length: usize,
}

/// Writes rows turned: all rows' first words, then their second
/// ones, and so on for `words` words, each group at `place` of its number and `width` words wide. Beyond rows and bytes there are zeros.
///
/// # Safety
/// The processor has AVX-512 F and BW; the rows exist; there is room at every place.
#[inline(always)]
pub unsafe fn turn(rows: Rows, words: usize, to: *mut u32, width: usize, place: impl Fn(usize) -> usize) {
    // SAFETY: see above; lanes outside of masks are neither read nor written.
    unsafe {
        for first in (0..words).step_by(LANES) {
            let at = first * WORD;
            let mask = bytes(rows.length, at);
            let mut square = [_mm512_setzero_ps(); LANES];
            for (row, vector) in square.iter_mut().enumerate().take(rows.count) {
                let from = rows.at.wrapping_add(row * rows.stride + at);
                *vector = _mm512_castsi512_ps(_mm512_maskz_loadu_epi8(mask, from.cast()));
            }
            Avx512::transpose(square.as_mut_ptr());
            let lanes = ((1_u32 << width) - 1) as u16;
            for (word, &vector) in square.iter().enumerate().take(words - first) {
                _mm512_mask_storeu_ps(to.add(place(first + word)).cast(), lanes, vector);
            }
        }
    }
}

/// Writes the columns of one half of a panel, the words `words` of them, from weights whose columns lie side by side; each word's
/// at `place` of its number. Beyond columns and elements there are zeros.
///
/// # Safety
/// The processor has AVX-512 F and BW; the columns exist; there is room at every place.
#[inline(always)]
pub unsafe fn join<T>(
    part: &Part<T>,
    columns: &Range<usize>,
    offset: usize,
    words: Range<usize>,
    to: *mut u32,
    place: impl Fn(usize) -> usize,
) {
    let lanes = WORD / size_of::<T>();
    let first = columns.start + offset;
    let mask = (1_u32 << half(columns.len(), offset)) - 1;
    // SAFETY: see above; lanes outside of masks are not read.
    unsafe {
        for (number, word) in words.enumerate() {
            let mut joined = _mm512_setzero_si512();
            for lane in 0..lanes.min(part.k.saturating_sub(word * lanes)) {
                let from = part.w.wrapping_add((word * lanes + lane) * part.n + first);
                let values = match lanes {
                    1 => _mm512_maskz_loadu_epi32(mask as u16, from.cast()),
                    2 => _mm512_cvtepu16_epi32(_mm512_castsi512_si256(_mm512_maskz_loadu_epi16(mask, from.cast()))),
                    _ => {
                        _mm512_cvtepu8_epi32(_mm512_castsi512_si128(_mm512_maskz_loadu_epi8(mask.into(), from.cast())))
                    }
                };
                let count = _mm_cvtsi32_si128((8 * size_of::<T>() * lane) as i32);
                joined = _mm512_or_si512(joined, _mm512_sll_epi32(values, count));
            }
            _mm512_storeu_si512(to.add(place(number)).cast(), joined);
        }
    }
}

/// Of `count` rows or columns, those of the half that begins with `offset`.
pub fn half(count: usize, offset: usize) -> usize {
    count.saturating_sub(offset).min(LANES)
}

impl<T> Part<T> {
    /// Of weights `[n, k]`, the rows of one half of a panel, from word `start` on.
    pub fn rows(&self, columns: &Range<usize>, offset: usize, start: usize) -> Rows {
        let stride = self.k * size_of::<T>();
        Rows {
            at: self.w.cast::<u8>().wrapping_add((columns.start + offset) * stride + start * WORD),
            stride,
            count: half(columns.len(), offset),
            length: stride.saturating_sub(start * WORD),
        }
    }
}

/// Writes [`LANES`] rows as they lie, a vector of each for every [`LANES`] words at `place` of the first of these. Beyond rows and bytes there are zeros.
///
/// # Safety
/// As for [`turn`].
#[inline(always)]
pub unsafe fn plain(rows: Rows, words: usize, to: *mut u32, place: impl Fn(usize) -> usize) {
    // SAFETY: see above; lanes outside of masks are not read.
    unsafe {
        for row in 0..LANES {
            let length = if row < rows.count { rows.length } else { 0 };
            for first in (0..words).step_by(LANES) {
                let at = first * WORD;
                let from = rows.at.wrapping_add(row * rows.stride + at);
                let vector = _mm512_maskz_loadu_epi8(bytes(length, at), from.cast());
                _mm512_storeu_si512(to.add(place(first) + row * LANES).cast(), vector);
            }
        }
    }
}

/// A mask of those of a vector's bytes, from byte `at` on, that lie within `length`.
#[inline(always)]
fn bytes(length: usize, at: usize) -> u64 {
    match length.saturating_sub(at) {
        left if left >= LANES * WORD => u64::MAX,
        left => (1 << left) - 1,
    }
}
