//! How fast memory can be read, for benchmarks to compare with.

use crate::pool;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that one thread reads at a time.
const CHUNK: usize = 1 << 20;

/// Reads every whole 64-byte line of `data` with all threads and returns a sum over its contents.
pub fn read_all(data: &[u8]) -> u64 {
    let total = AtomicU64::new(0);
    pool::for_each(data.len().div_ceil(CHUNK), |index| {
        let piece = &data[index * CHUNK..data.len().min((index + 1) * CHUNK)];
        total.fetch_add(sum(piece), Ordering::Relaxed);
    });
    total.into_inner()
}

fn sum(data: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was checked.
            return unsafe { sum_avx512(data) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the instruction set was checked.
            return unsafe { sum_avx2(data) };
        }
    }
    sum_lines(data)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn sum_avx512(data: &[u8]) -> u64 {
    sum_lines(data)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(data: &[u8]) -> u64 {
    sum_lines(data)
}

#[inline(always)]
fn sum_lines(data: &[u8]) -> u64 {
    // Four independent lines at a time, so that loads and not additions set the pace.
    let mut sums = [0_u64; 32];
    for lines in data.chunks_exact(256) {
        for (sum, word) in sums.iter_mut().zip(lines.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            *sum = sum.wrapping_add(u64::from_le_bytes(bytes));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_whole_lines_of_all_chunks() {
        let data = vec![1_u8; 3 * CHUNK + 256 + 17];
        let words = (3 * CHUNK + 256) as u64 / 8;
        assert_eq!(read_all(&data), words.wrapping_mul(0x0101_0101_0101_0101));
        assert_eq!(read_all(&[]), 0);
    }
}
