//! How fast memory can be read, for benchmarks to compare with.

use crate::pool;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
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
    sum_plain(data)
}

/// Places at which a thread reads in turn: more than one keeps the prefetchers of more pages busy.
const STREAMS: usize = 8;

/// Adds up lines with vectors of one instruction set. By hand: what compilers make of additions of slices may be slower than memory.
#[cfg(target_arch = "x86_64")]
macro_rules! sum_lines {
    ($name:ident, $features:literal, $vector:ty, $zero:ident, $load:ident, $add:ident) => {
        #[target_feature(enable = $features)]
        fn $name(data: &[u8]) -> u64 {
            const VECTORS: usize = 64 / size_of::<$vector>();
            let (streams, rest) = data.split_at(data.len() / (64 * STREAMS) * (64 * STREAMS));
            let length = streams.len() / STREAMS;
            // Independent sums, so that loads and not additions set the pace.
            let mut sums = [[$zero(); VECTORS]; STREAMS];
            for at in (0..length).step_by(64) {
                for (stream, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        let from = stream * length + at + vector * size_of::<$vector>();
                        // SAFETY: the streams' lengths are multiples of a line.
                        *sum = $add(*sum, unsafe { $load(streams.as_ptr().add(from).cast()) });
                    }
                }
            }
            // SAFETY: plain numbers, any of which is valid.
            let lanes: [u64; 8 * STREAMS] = unsafe { std::mem::transmute(sums) };
            lanes.into_iter().fold(sum_plain(rest), u64::wrapping_add)
        }
    };
}
#[cfg(target_arch = "x86_64")]
sum_lines!(sum_avx512, "avx512f", __m512i, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_add_epi64);
#[cfg(target_arch = "x86_64")]
sum_lines!(sum_avx2, "avx2", __m256i, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_add_epi64);

fn sum_plain(data: &[u8]) -> u64 {
    let words = data.chunks_exact(64).flat_map(|line| line.as_chunks::<8>().0);
    words.fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
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
