//! The vectors of x86-64.

use super::{Load, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;

#[path = "tile.rs"]
mod tile;

/// AVX-512 F and BW: 16 lanes.
#[derive(Clone, Copy)]
pub struct Avx512;

/// AVX2 with FMA and F16C: 8 lanes.
#[derive(Clone, Copy)]
pub struct Avx2;

/// A mask of the first lanes.
#[inline(always)]
fn first(count: usize) -> u16 {
    u16::MAX.checked_shr(16 - count.clamp(1, 16) as u32).unwrap_or(0)
}

/// All bits of the first lanes.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn lanes(count: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), numbers)
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const WIDE: bool = true;
    type V = __m512;
    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the trait's contract gives the instruction set; so for every block below.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: as for `zero`.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: as for `zero`; the caller vouches for the pointer.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        // SAFETY: as for `load`.
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as for `zero`.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as for `zero`.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as for `zero`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        // SAFETY: as for `zero`.
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> __m512 {
        // SAFETY: as for `load`; lanes outside of the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, value: __m512, count: usize) {
        // SAFETY: as for `load`; lanes outside of the mask are not written.
        unsafe { _mm512_mask_storeu_ps(to, first(count), value) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: *mut __m512) {
        // SAFETY: the caller vouches for sixteen vectors.
        unsafe {
            let rows = &mut *rows.cast::<[__m512; 16]>();
            // Squares of four within quarters, then quarters among each other.
            let mut fours = *rows;
            for (four, rows) in fours.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
                let [a, b] = [_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpacklo_ps(rows[2], rows[3])];
                let [c, d] = [_mm512_unpackhi_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[2], rows[3])];
                four[0] = _mm512_shuffle_ps::<0b01_00_01_00>(a, b);
                four[1] = _mm512_shuffle_ps::<0b11_10_11_10>(a, b);
                four[2] = _mm512_shuffle_ps::<0b01_00_01_00>(c, d);
                four[3] = _mm512_shuffle_ps::<0b11_10_11_10>(c, d);
            }
            for i in 0..4 {
                let [a, b, c, d] = [fours[i], fours[4 + i], fours[8 + i], fours[12 + i]];
                let [ab, cd] =
                    [_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d)];
                rows[i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
                rows[8 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd);
                let [ab, cd] =
                    [_mm512_shuffle_f32x4::<0b11_01_11_01>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d)];
                rows[4 + i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
                rows[12 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd);
            }
        }
    }
    #[inline(always)]
    unsafe fn twelve_rows(
        x: *const f32,
        x_stride: usize,
        w: *const f32,
        w_stride: usize,
        steps: usize,
        sums: *mut [__m512; 2],
    ) -> usize {
        let turns = steps / tile::STEPS;
        // SAFETY: handed on to the caller.
        unsafe { tile::twelve_rows(x, 4 * x_stride, w, 4 * w_stride, turns, sums) };
        turns * tile::STEPS
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}

impl Load<f32> for Avx512 {
    const EVEN_ODD: bool = false;
    #[inline(always)]
    unsafe fn load_pair(from: *const f32) -> (__m512, __m512) {
        // SAFETY: the caller vouches for 32 readable elements.
        unsafe { (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))) }
    }
}

impl Load<bf16> for Avx512 {
    // A bf16 is the upper half of an f32: one shift and one mask give both vectors, without moves between lanes.
    const EVEN_ODD: bool = true;
    #[inline(always)]
    unsafe fn load_pair(from: *const bf16) -> (__m512, __m512) {
        // SAFETY: the caller vouches for 32 readable elements.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            let even = _mm512_slli_epi32::<16>(pairs);
            let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
            (_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd))
        }
    }
}

impl Load<f16> for Avx512 {
    const EVEN_ODD: bool = false;
    #[inline(always)]
    unsafe fn load_pair(from: *const f16) -> (__m512, __m512) {
        let from: *const __m256i = from.cast();
        // SAFETY: the caller vouches for 32 readable elements.
        unsafe { (_mm512_cvtph_ps(_mm256_loadu_si256(from)), _mm512_cvtph_ps(_mm256_loadu_si256(from.add(1)))) }
    }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const WIDE: bool = false;
    type V = __m256;
    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: the trait's contract gives the instruction set; so for every block below.
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: as for `zero`.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: as for `zero`; the caller vouches for the pointer.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        // SAFETY: as for `load`.
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as for `zero`.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as for `zero`.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as for `zero`.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        // SAFETY: as for `zero`.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> __m256 {
        // SAFETY: as for `load`; lanes outside of the mask are not read.
        unsafe { _mm256_maskload_ps(from, lanes(count)) }
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, value: __m256, count: usize) {
        // SAFETY: as for `load`; lanes outside of the mask are not written.
        unsafe { _mm256_maskstore_ps(to, lanes(count), value) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: *mut __m256) {
        // SAFETY: the caller vouches for eight vectors.
        unsafe {
            let rows = &mut *rows.cast::<[__m256; 8]>();
            // Squares of four within halves, then halves among each other.
            let mut fours = *rows;
            for (four, rows) in fours.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
                let [a, b] = [_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpacklo_ps(rows[2], rows[3])];
                let [c, d] = [_mm256_unpackhi_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[2], rows[3])];
                four[0] = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                four[1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, b);
                four[2] = _mm256_shuffle_ps::<0b01_00_01_00>(c, d);
                four[3] = _mm256_shuffle_ps::<0b11_10_11_10>(c, d);
            }
            for i in 0..4 {
                rows[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
                rows[4 + i] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}

impl Load<f32> for Avx2 {
    const EVEN_ODD: bool = false;
    #[inline(always)]
    unsafe fn load_pair(from: *const f32) -> (__m256, __m256) {
        // SAFETY: the caller vouches for 16 readable elements.
        unsafe { (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
}

impl Load<bf16> for Avx2 {
    const EVEN_ODD: bool = true;
    #[inline(always)]
    unsafe fn load_pair(from: *const bf16) -> (__m256, __m256) {
        // SAFETY: the caller vouches for 16 readable elements.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            let even = _mm256_slli_epi32::<16>(pairs);
            let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF_0000_u32 as i32));
            (_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd))
        }
    }
}

impl Load<f16> for Avx2 {
    const EVEN_ODD: bool = false;
    #[inline(always)]
    unsafe fn load_pair(from: *const f16) -> (__m256, __m256) {
        let from: *const __m128i = from.cast();
        // SAFETY: the caller vouches for 16 readable elements.
        unsafe { (_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))) }
    }
}
