//! Vectors of bytes and their sums of products.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Operations of one instruction set on int8 operands.
///
/// # Safety
/// Every function may be called only where the processor has the instruction set; pointers must be valid for
/// [`Bytes::STEP`] bytes, those of groups and sums for [`Bytes::COLUMNS`] elements.
pub trait Bytes: Copy {
    /// Bytes of k in a step.
    const STEP: usize;
    /// Columns in a group of four rows.
    const COLUMNS: usize;
    /// What is added to weights as they are loaded.
    const OFFSET: i32;
    type Sums: Copy;
    type Weights: Copy;
    type Group: Copy;
    unsafe fn zero() -> Self::Sums;
    unsafe fn load_w(from: *const i8) -> Self::Weights;
    unsafe fn load_x(from: *const i8) -> Self::Weights;
    unsafe fn multiply_add(sums: Self::Sums, w: Self::Weights, x: Self::Weights) -> Self::Sums;
    unsafe fn sum(sums: Self::Sums) -> i32;
    unsafe fn load_group(rows: [*const i8; 4]) -> Self::Group;
    /// Adds the products of G groups with the four `x` of each to a sum per column, kept in the order of [`Bytes::place`].
    unsafe fn add_groups<const G: usize>(sums: *mut i32, groups: &[Self::Group; G], x: [[i8; 4]; G]);
    /// Where the sum of column `i` of a group lies.
    fn place(i: usize) -> usize {
        i
    }
    unsafe fn prefetch(_: *const i8) {}
}

/// Plain Rust that the compiler turns into the vectors of the target.
#[derive(Clone, Copy)]
pub struct Portable;

impl Bytes for Portable {
    const STEP: usize = 16;
    const COLUMNS: usize = 16;
    const OFFSET: i32 = 0;
    type Sums = [i32; 16];
    type Weights = [i8; 16];
    type Group = [[i8; 16]; 4];
    #[inline(always)]
    unsafe fn zero() -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    unsafe fn load_w(from: *const i8) -> [i8; 16] {
        // SAFETY: the caller vouches for a step's bytes.
        unsafe { from.cast::<[i8; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn load_x(from: *const i8) -> [i8; 16] {
        // SAFETY: as for `load_w`.
        unsafe { Self::load_w(from) }
    }
    #[inline(always)]
    unsafe fn multiply_add(sums: [i32; 16], w: [i8; 16], x: [i8; 16]) -> [i32; 16] {
        std::array::from_fn(|i| sums[i].wrapping_add(i32::from(w[i]) * i32::from(x[i])))
    }
    #[inline(always)]
    unsafe fn sum(sums: [i32; 16]) -> i32 {
        sums.into_iter().fold(0, i32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn load_group(rows: [*const i8; 4]) -> [[i8; 16]; 4] {
        // SAFETY: the caller vouches for a group's bytes.
        rows.map(|row| unsafe { Self::load_w(row) })
    }
    #[inline(always)]
    unsafe fn add_groups<const G: usize>(sums: *mut i32, groups: &[[[i8; 16]; 4]; G], x: [[i8; 4]; G]) {
        // SAFETY: the caller vouches for a group's sums, and nothing else refers to them meanwhile.
        let sums = unsafe { &mut *sums.cast::<[i32; 16]>() };
        for (row, &x) in groups.as_flattened().iter().zip(x.as_flattened()) {
            for (sum, &w) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(w) * i32::from(x));
            }
        }
    }
}

/// AVX2: bytes widened to 16 bits, so that no product saturates.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Bytes for Avx2 {
    const STEP: usize = 16;
    const COLUMNS: usize = 16;
    const OFFSET: i32 = 0;
    type Sums = __m256i;
    type Weights = __m256i;
    /// Columns 0 to 7 and 8 to 15 of the first two rows, then of the last two, a column's two bytes side by side.
    type Group = [__m256i; 4];
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the trait's contract gives the instruction set; so for every block below.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load_w(from: *const i8) -> __m256i {
        // SAFETY: the caller vouches for a step's bytes.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_x(from: *const i8) -> __m256i {
        // SAFETY: as for `load_w`.
        unsafe { Self::load_w(from) }
    }
    #[inline(always)]
    unsafe fn multiply_add(sums: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: as for `zero`.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(w, x)) }
    }
    #[inline(always)]
    unsafe fn sum(sums: __m256i) -> i32 {
        // SAFETY: as for `zero`.
        unsafe {
            let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
        }
    }
    #[inline(always)]
    unsafe fn load_group(rows: [*const i8; 4]) -> [__m256i; 4] {
        // SAFETY: the caller vouches for a group's bytes.
        unsafe {
            let [a, b, c, d] = rows.map(|row| _mm_loadu_si128(row.cast()));
            [
                _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)),
                _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b)),
                _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(c, d)),
                _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(c, d)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn add_groups<const G: usize>(sums: *mut i32, groups: &[[__m256i; 4]; G], x: [[i8; 4]; G]) {
        let pair = |low: i8, high: i8| (i32::from(low) & 0xFFFF) | (i32::from(high) << 16);
        let sums: *mut __m256i = sums.cast();
        // SAFETY: the caller vouches for a group's sums.
        unsafe {
            for half in 0..2 {
                let at = sums.add(half);
                let mut sum = _mm256_loadu_si256(at);
                for (group, x) in groups.iter().zip(x) {
                    let (first, second) = (_mm256_set1_epi32(pair(x[0], x[1])), _mm256_set1_epi32(pair(x[2], x[3])));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(group[half], first));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(group[half + 2], second));
                }
                _mm256_storeu_si256(at, sum);
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const i8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from) }
    }
}

/// AVX-512 with VNNI: four products per 32-bit lane and instruction.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Vnni;

#[cfg(target_arch = "x86_64")]
impl Bytes for Vnni {
    const STEP: usize = 64;
    const COLUMNS: usize = 64;
    const OFFSET: i32 = 128;
    type Sums = __m512i;
    type Weights = __m512i;
    /// A column's four bytes side by side.
    type Group = [__m512i; 4];
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the trait's contract gives the instruction set; so for every block below.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load_w(from: *const i8) -> __m512i {
        // SAFETY: the caller vouches for a step's bytes.
        unsafe { _mm512_xor_si512(_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn load_x(from: *const i8) -> __m512i {
        // SAFETY: as for `load_w`.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn multiply_add(sums: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: as for `zero`.
        unsafe { _mm512_dpbusd_epi32(sums, w, x) }
    }
    #[inline(always)]
    unsafe fn sum(sums: __m512i) -> i32 {
        // SAFETY: as for `zero`.
        unsafe { _mm512_reduce_add_epi32(sums) }
    }
    #[inline(always)]
    unsafe fn load_group(rows: [*const i8; 4]) -> [__m512i; 4] {
        // SAFETY: the caller vouches for a group's bytes.
        unsafe {
            let [a, b, c, d] = rows.map(|row| Self::load_w(row));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
            [
                _mm512_unpacklo_epi16(ab_low, cd_low),
                _mm512_unpackhi_epi16(ab_low, cd_low),
                _mm512_unpacklo_epi16(ab_high, cd_high),
                _mm512_unpackhi_epi16(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn add_groups<const G: usize>(sums: *mut i32, groups: &[[__m512i; 4]; G], x: [[i8; 4]; G]) {
        // SAFETY: the caller vouches for a group's sums.
        unsafe {
            let x = x.map(|x| _mm512_set1_epi32(i32::from_ne_bytes(x.map(|x| x as u8))));
            for i in 0..4 {
                let at = sums.add(16 * i);
                let mut sum = _mm512_loadu_si512(at.cast());
                for (group, &x) in groups.iter().zip(&x) {
                    sum = _mm512_dpbusd_epi32(sum, group[i], x);
                }
                _mm512_storeu_si512(at.cast(), sum);
            }
        }
    }
    // Interleaving works within quarters of a vector, so each vector holds four columns of every quarter.
    #[inline(always)]
    fn place(i: usize) -> usize {
        let (quarter, within) = (i / 16, i % 16);
        within / 4 * 16 + quarter * 4 + within % 4
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const i8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from) }
    }
}
