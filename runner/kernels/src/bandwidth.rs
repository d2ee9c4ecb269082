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

/// Places at which a thread reads in turn: more than one keeps the prefetchers of more pages busy.
const STREAMS: usize = 8;

#[inline(always)]
fn sum_lines(data: &[u8]) -> u64 {
    let (streams, rest) = data.split_at(data.len() / (64 * STREAMS) * (64 * STREAMS));
    let length = streams.len() / STREAMS;
    // Independent sums, so that loads and not additions set the pace.
    let mut sums = [[0_u64; 8]; STREAMS];
    for at in (0..length).step_by(64) {
        for (stream, sums) in sums.iter_mut().enumerate() {
            add(sums, &streams[stream * length + at..][..64]);
        }
    }
    for line in rest.chunks_exact(64) {
        add(&mut sums[0], line);
    }
    sums.as_flattened().iter().copied().fold(0, u64::wrapping_add)
}

#[inline(always)]
fn add(sums: &mut [u64; 8], line: &[u8]) {
    for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
        *sum = sum.wrapping_add(u64::from_le_bytes(*word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri minutes")]
    fn sums_whole_lines_of_all_chunks() {
        let data = vec![1_u8; 3 * CHUNK + 192 + 17];
        let words = (3 * CHUNK + 192) as u64 / 8;
        assert_eq!(read_all(&data), words.wrapping_mul(0x0101_0101_0101_0101));
        assert_eq!(read_all(&[]), 0);
    }
}
