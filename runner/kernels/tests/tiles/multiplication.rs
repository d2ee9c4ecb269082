//! `tdpbf16ps` and `tdpbssd`.

use super::{Bytes, FULL, Shapes, Values, call, clipped, configure, load, nt_tiles_bf16, nt_tiles_int8, release};
use super::{stored, tiles};
use half::bf16;
use std::arch::asm;
use std::array::from_fn;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Instruction {
    Bf16,
    Int8,
}

const INSTRUCTIONS: [Instruction; 2] = [Instruction::Bf16, Instruction::Int8];

/// Executes the instruction on these tiles.
fn execute(instruction: Instruction, [sums, left, right]: [usize; 3]) {
    let index = (sums * 8 + left) * 8 + right;
    // SAFETY: callers have tiles of shapes that fit each other.
    unsafe {
        let table = match instruction {
            Instruction::Bf16 => &nt_tiles_bf16,
            Instruction::Int8 => &nt_tiles_int8,
        };
        call(table, index, std::ptr::null_mut(), 0);
    }
}

fn lane(bytes: &Bytes, row: usize, lane: usize) -> [u8; 4] {
    from_fn(|byte| bytes[row][4 * lane + byte])
}

fn pair(lane: [u8; 4]) -> [f32; 2] {
    [0, 2].map(|at| flushed(bf16::from_le_bytes([lane[at], lane[at + 1]]).to_f32()))
}

fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0_f32.copysign(value) } else { value }
}

/// The manual's definition, for tiles of `m` rows and `n` lanes.
fn product(instruction: Instruction, [sums, left, right]: [&Bytes; 3], (m, k, n): (usize, usize, usize)) -> Bytes {
    let mut results = *sums;
    for (row, results) in results.iter_mut().enumerate().take(m) {
        for column in 0..n {
            let factors = (0..k).map(|k| (lane(left, row, k), lane(right, k, column)));
            let before = lane(sums, row, column);
            let result = match instruction {
                Instruction::Bf16 => {
                    let mut apart = [0_f32; 2];
                    for (left, right) in factors {
                        let (left, right) = (pair(left), pair(right));
                        apart = from_fn(|i| flushed(left[i].mul_add(right[i], apart[i])));
                    }
                    let together = flushed(apart[0] + apart[1]);
                    flushed(flushed(f32::from_le_bytes(before)) + together).to_le_bytes()
                }
                Instruction::Int8 => factors
                    .flat_map(|(left, right)| left.into_iter().zip(right))
                    .map(|(left, right)| i32::from(left.cast_signed()) * i32::from(right.cast_signed()))
                    .fold(i32::from_le_bytes(before), i32::wrapping_add)
                    .to_le_bytes(),
            };
            results[4 * column..4 * column + 4].copy_from_slice(&result);
        }
    }
    results
}

/// Equal bits, or NaNs of whatever bits.
fn assert_same(instruction: Instruction, found: &Bytes, wanted: &Bytes, what: &str) {
    for row in 0..16 {
        for column in 0..16 {
            let (found, wanted) = (lane(found, row, column), lane(wanted, row, column));
            let nan = |lane| instruction == Instruction::Bf16 && f32::from_le_bytes(lane).is_nan();
            assert!(
                found == wanted || nan(found) && nan(wanted),
                "{instruction:?} {what}, row {row}, column {column}: {found:?} for {wanted:?}"
            );
        }
    }
}

#[test]
fn every_choice_of_tiles_is_multiplied() {
    if !tiles() {
        return;
    }
    let mut values = Values(5);
    // Two lanes and two rows: any tile fits any other.
    let shape = (2, 8);
    configure(&[shape; 8]);
    for instruction in INSTRUCTIONS {
        for index in 0..512 {
            let [sums, left, right] = [index / 64, index / 8 % 8, index % 8];
            if sums == left || left == right || sums == right {
                continue;
            }
            let mut wanted: [Bytes; 8] = from_fn(|_| clipped(&values.bytes(), shape));
            (0..8).for_each(|tile| load(tile, &wanted[tile]));
            execute(instruction, [sums, left, right]);
            wanted[sums] = product(instruction, [sums, left, right].map(|tile| &wanted[tile]), (2, 2, 2));
            for (tile, wanted) in wanted.iter().enumerate() {
                let what = format!("tile {tile} of {sums} += {left} * {right}");
                assert_same(instruction, &stored(tile), wanted, &what);
            }
        }
    }
    release();
}

/// Tiles 0 for sums, 1 and 2 for factors.
fn shapes((m, k, n): (usize, usize, usize)) -> Shapes {
    let mut shapes = FULL;
    (shapes[0], shapes[1], shapes[2]) = ((m, 4 * n), (m, 4 * k), (k, 4 * n));
    shapes
}

#[test]
fn products_of_every_size_agree_with_the_definition() {
    if !tiles() {
        return;
    }
    let mut values = Values(6);
    // Any bits; sizes near one; and so small that many products are denormal.
    let any = |value: u32| value as u16;
    let near_one = |value: u32| (value as u16 & 0x807F) | (120 + (value >> 16 & 15) as u16) << 7;
    let small = |value: u32| (value as u16 & 0x807F) | (58 + (value >> 16 & 15) as u16) << 7;
    let kinds: [&dyn Fn(u32) -> u16; 3] = [&any, &near_one, &small];
    for i in 0..120 {
        let sizes = if i < 6 { (16, 16, 16) } else { (1 + i % 16, 1 + i * 7 % 16, 1 + i * 11 % 13) };
        configure(&shapes(sizes));
        for instruction in INSTRUCTIONS {
            let mut factor = || -> Bytes {
                let halves: [[u16; 32]; 16] = from_fn(|_| from_fn(|_| kinds[i % 3](values.next() >> 3)));
                halves.map(|row| from_fn(|at| row[at / 2].to_le_bytes()[at % 2]))
            };
            let (left, right) = (factor(), factor());
            let before = if i % 2 == 0 { factor() } else { [[0; 64]; 16] };
            [&before, &left, &right].iter().enumerate().for_each(|(tile, bytes)| load(tile, bytes));
            // Twice: the second time adds to the first one's results.
            let mut wanted = clipped(&before, shapes(sizes)[0]);
            for _ in 0..2 {
                execute(instruction, [0, 1, 2]);
                wanted = product(instruction, [&wanted, &left, &right], sizes);
                assert_same(instruction, &stored(0), &wanted, &format!("{sizes:?}"));
            }
        }
    }
    release();
}

/// What one lane is, after products of bf16 pairs were added to `before`.
fn lane_of_bf16(before: f32, pairs: &[[[f32; 2]; 2]]) -> f32 {
    configure(&shapes((1, pairs.len(), 1)));
    let mut tiles = [[[0; 64]; 16]; 3];
    tiles[0][0][..4].copy_from_slice(&before.to_le_bytes());
    for (k, [left, right]) in pairs.iter().enumerate() {
        for i in 0..2 {
            tiles[1][0][4 * k + 2 * i..][..2].copy_from_slice(&exactly(left[i]));
            tiles[2][k][2 * i..][..2].copy_from_slice(&exactly(right[i]));
        }
    }
    tiles.iter().enumerate().for_each(|(tile, bytes)| load(tile, bytes));
    execute(Instruction::Bf16, [0, 1, 2]);
    let result = f32::from_le_bytes(lane(&stored(0), 0, 0));
    release();
    result
}

fn exactly(value: f32) -> [u8; 2] {
    let short = bf16::from_f32(value);
    assert!(short.to_f32() == value || value.is_nan(), "{value} is no bf16");
    short.to_le_bytes()
}

fn power(exponent: i32) -> f32 {
    2_f32.powi(exponent)
}

#[test]
fn even_and_odd_elements_are_added_up_apart() {
    if !tiles() {
        return;
    }
    let (one, large) = ([1.0, 1.0], power(24));
    // 2^24 + 1 is no f32, 1 - 2^24 is one: 2^24 and 1 - 2^24 make 1, and with what was there, 1.5. One after the other, they
    // would make 0; each pair by itself first, 1.
    assert_eq!(lane_of_bf16(0.5, &[[[large, 1.0], one], [[1.0, -large], one]]), 1.5);
    // Odd ones come to the even ones before both come to the sum.
    assert_eq!(lane_of_bf16(large, &[[[1.0, 1.0], one]]), large + 2.0);
    // A product is not rounded before it is added: 1 - (1 + 2^-7)(1 - 2^-7) = 2^-14.
    let factors = [[1.0, 0.0], [1.0, 0.0]];
    assert_eq!(lane_of_bf16(0.0, &[factors, [[-1.0 - power(-7), 0.0], [1.0 - power(-7), 0.0]]]), power(-14));
}

#[test]
fn sums_of_bf16_are_rounded_to_even_whatever_the_thread_wants() {
    if !tiles() {
        return;
    }
    let half = [[power(-12), 0.0], [power(-12), 0.0]];
    assert_eq!(lane_of_bf16(1.0, &[half]), 1.0);
    assert_eq!(lane_of_bf16(1.0 + power(-23), &[half]), 1.0 + power(-22));
    assert_eq!(lane_of_bf16(-1.0, &[[[power(-12), 0.0], [-power(-12), 0.0]]]), -1.0);

    configure(&shapes((1, 1, 1)));
    let mut factor = [[0; 64]; 16];
    factor[0][..2].copy_from_slice(&exactly(power(-12)));
    let mut before = [[0; 64]; 16];
    before[0][..4].copy_from_slice(&1_f32.to_le_bytes());
    [before, factor, factor].iter().enumerate().for_each(|(tile, bytes)| load(tile, bytes));
    // Upwards, and no exception has been seen.
    let (mut own, upwards, mut after) = (0_u32, 0x5F80_u32, 0_u32);
    // SAFETY: shapes fit, and MXCSR is as before at the end.
    unsafe {
        asm!(
            "stmxcsr [{own}]",
            "ldmxcsr [{upwards}]",
            "tdpbf16ps tmm0, tmm1, tmm2",
            "stmxcsr [{after}]",
            "ldmxcsr [{own}]",
            own = in(reg) &raw mut own,
            upwards = in(reg) &raw const upwards,
            after = in(reg) &raw mut after,
            options(nostack)
        );
    }
    assert_eq!(f32::from_le_bytes(lane(&stored(0), 0, 0)), 1.0);
    assert_eq!(after, upwards);
    release();
}

#[test]
fn denormals_of_bf16_and_of_sums_are_zero() {
    if !tiles() {
        return;
    }
    let (one, least) = ([1.0, 0.0], power(-126));
    let bits = |before, pairs: &[[[f32; 2]; 2]]| lane_of_bf16(before, pairs).to_bits();
    // As a factor, as a product, as what was there, and as a difference of two numbers that are none.
    assert_eq!(bits(0.0, &[[[power(-127), 0.0], [power(127), 0.0]]]), 0);
    assert_eq!(bits(0.0, &[[[power(-70), 0.0], [power(-70), 0.0]]]), 0);
    assert_eq!(bits(power(-127), &[[[power(-70), 0.0], one]]), power(-70).to_bits());
    assert_eq!(bits(power(-130), &[[[0.0, 0.0], one]]), 0);
    assert_eq!(bits(0.0, &[[[1.5 * least, 0.0], one], [[-least, 0.0], one]]), 0);
    assert_eq!(bits(1.5 * least, &[[[-least, 0.0], one]]), 0);
    // The least of those that are none stays, and zeros keep their signs.
    assert_eq!(bits(0.0, &[[[least, 0.0], one]]), least.to_bits());
    assert_eq!(bits(-power(-127), &[[[0.0, 0.0], one]]), 0);
}

#[test]
fn infinities_and_nans_of_bf16_are_kept() {
    if !tiles() {
        return;
    }
    let one = [1.0, 1.0];
    let infinity = f32::INFINITY;
    assert_eq!(lane_of_bf16(1.0, &[[[infinity, 1.0], one]]), infinity);
    assert_eq!(lane_of_bf16(-infinity, &[[[1.0, 1.0], one]]), -infinity);
    assert_eq!(lane_of_bf16(0.0, &[[[power(127), 0.0], [power(127), 0.0]]]), infinity);
    assert!(lane_of_bf16(0.0, &[[[infinity, -infinity], one]]).is_nan());
    assert!(lane_of_bf16(0.0, &[[[infinity, 0.0], [0.0, 0.0]]]).is_nan());
    assert!(lane_of_bf16(0.0, &[[[0.0, f32::NAN], one]]).is_nan());
}

#[test]
fn bytes_are_signed_and_their_sums_wrap_around() {
    if !tiles() {
        return;
    }
    configure(&FULL);
    let lane_of = |left: u8, right: u8, before: i32| {
        let row: [u8; 64] = from_fn(|at| before.to_le_bytes()[at % 4]);
        [[row; 16], [[left; 64]; 16], [[right; 64]; 16]].iter().enumerate().for_each(|(i, bytes)| load(i, bytes));
        execute(Instruction::Int8, [0, 1, 2]);
        let found = stored(0);
        let first = lane(&found, 0, 0);
        assert!((0..256).all(|i| lane(&found, i / 16, i % 16) == first));
        i32::from_le_bytes(first)
    };
    assert_eq!(lane_of(0x80, 0x80, 0), 64 * 16384);
    assert_eq!(lane_of(0x80, 0x7F, 5), -64 * 128 * 127 + 5);
    assert_eq!(lane_of(0xFF, 0x01, 0), -64);
    assert_eq!(lane_of(0x01, 0x01, i32::MAX), i32::MIN + 63);
    assert_eq!(lane_of(0xFF, 0x01, i32::MIN), i32::MAX - 63);
    release();
}
