//! Writing a tile's sums.

use super::COLUMNS;
use super::pack::LANES;
use crate::dot::Out;
use crate::simd::{Avx512, Simd};
use std::arch::x86_64::*;

/// Sums that lie `[row, output]`.
///
/// # Safety
/// The processor has AVX-512 F and BW; as many rows of sums lie there, [`COLUMNS`] apart, and the results, `stride` apart, lie in the
/// buffer.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn straight(sums: *const f32, rows: usize, columns: usize, out: Out, stride: usize) {
    for row in 0..rows {
        // SAFETY: handed on to the caller.
        unsafe { out.put_row(row * stride, sums.add(row * COLUMNS), columns) };
    }
}

/// Sums that lie `[output, row]`, for as many rows as a panel has outputs.
///
/// # Safety
/// As for [`straight`].
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn turned(sums: *const f32, rows: usize, columns: usize, out: Out, stride: usize) {
    let mut right = [[0_f32; COLUMNS]; COLUMNS];
    for (i, j) in [(0, 0), (0, LANES), (LANES, 0), (LANES, LANES)] {
        // SAFETY: the caller vouches for the sums; a square lies within them.
        unsafe {
            let mut square: [__m512; LANES] =
                std::array::from_fn(|row| _mm512_loadu_ps(sums.add((i + row) * COLUMNS + j)));
            Avx512::transpose(square.as_mut_ptr());
            for (row, &vector) in square.iter().enumerate() {
                _mm512_storeu_ps(right[j + row][i..].as_mut_ptr(), vector);
            }
        }
    }
    // SAFETY: handed on to the caller.
    unsafe { straight(right.as_ptr().cast(), rows, columns, out, stride) };
}
