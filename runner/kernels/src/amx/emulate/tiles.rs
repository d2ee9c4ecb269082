//! What tile instructions do (Intel's Software Developer's Manual, volume 1, chapter 18, and their pages in volume 2).
//!
//! `None` stands for what the processor refuses.

use crate::amx::{ROWS, WIDTH};
use std::arch::asm;

/// Tiles of a thread.
const COUNT: usize = 8;

/// The tiles of a thread and their configuration.
#[repr(C, align(64))]
pub struct Tiles {
    /// As `ldtilecfg` read it; zeros where tiles are not configured.
    configuration: [u8; 64],
    /// Zeros outside the configured shapes.
    data: [[[u8; WIDTH]; ROWS]; COUNT],
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    rows: usize,
    /// Bytes of a row.
    bytes: usize,
}

/// Adds to a row of sums what a row of the left factor, of so many lanes, and as many rows of the right one give.
type MultiplyRow = unsafe fn(sums: *mut u8, left: *const u8, right: *const u8, lanes: usize);

/// Where a configuration holds the row that an interrupted load or store goes on with.
const START: usize = 1;

impl Tiles {
    pub const RELEASED: Tiles = Tiles { configuration: [0; 64], data: [[[0; WIDTH]; ROWS]; COUNT] };

    /// Shapes of all tiles in a configuration, those it must leave alone included.
    fn shapes(configuration: &[u8; 64]) -> [Shape; 16] {
        std::array::from_fn(|tile| Shape {
            rows: usize::from(configuration[48 + tile]),
            bytes: usize::from(u16::from_le_bytes([configuration[16 + 2 * tile], configuration[17 + 2 * tile]])),
        })
    }

    /// The shape of a tile that can be used.
    fn shape(&self, tile: usize) -> Option<Shape> {
        Some(Tiles::shapes(&self.configuration)[tile]).filter(|shape| shape.rows > 0)
    }

    pub fn configure(&mut self, configuration: &[u8; 64]) -> Option<()> {
        if configuration[0] == 0 {
            *self = Tiles::RELEASED;
            return Some(());
        }
        let shapes = Tiles::shapes(configuration);
        let (used, unused) = shapes.split_at(COUNT);
        let right = configuration[0] == 1
            && configuration[2..16].iter().all(|&byte| byte == 0)
            && unused.iter().all(|&shape| shape == Shape { rows: 0, bytes: 0 })
            && used.iter().all(|&Shape { rows, bytes }| rows <= ROWS && bytes <= WIDTH && (rows == 0) == (bytes == 0));
        *self = Tiles { configuration: right.then_some(*configuration)?, ..Tiles::RELEASED };
        Some(())
    }

    pub fn configuration(&self) -> [u8; 64] {
        self.configuration
    }

    pub fn zero(&mut self, tile: usize) -> Option<()> {
        self.shape(tile)?;
        self.data[tile] = [[0; WIDTH]; ROWS];
        self.configuration[START] = 0;
        Some(())
    }

    /// # Safety
    /// The rows that the configuration asks for are there, `stride` bytes apart.
    pub unsafe fn load(&mut self, tile: usize, first: *const u8, stride: usize) -> Option<()> {
        let shape = self.shape(tile)?;
        let start = usize::from(self.configuration[START]);
        if start == 0 {
            self.data[tile] = [[0; WIDTH]; ROWS];
        }
        for row in start..shape.rows {
            let from = first.wrapping_add(row.wrapping_mul(stride));
            // SAFETY: the caller's promise; a configured tile has no more bytes than there are.
            unsafe { from.copy_to_nonoverlapping(self.data[tile][row].as_mut_ptr(), shape.bytes) };
        }
        self.configuration[START] = 0;
        Some(())
    }

    /// # Safety
    /// As for [`Tiles::load`].
    pub unsafe fn store(&mut self, tile: usize, first: *mut u8, stride: usize) -> Option<()> {
        let shape = self.shape(tile)?;
        for row in usize::from(self.configuration[START])..shape.rows {
            let to = first.wrapping_add(row.wrapping_mul(stride));
            // SAFETY: as in `load`.
            unsafe { to.copy_from_nonoverlapping(self.data[tile][row].as_ptr(), shape.bytes) };
        }
        self.configuration[START] = 0;
        Some(())
    }

    /// # Safety
    /// The processor has AVX-512 F.
    pub unsafe fn multiply(&mut self, tiles: [usize; 3], row: MultiplyRow) -> Option<()> {
        let [sums, left, right] = tiles;
        let [of_sums, of_left, of_right] = [self.shape(sums)?, self.shape(left)?, self.shape(right)?];
        let right_operands = sums != left
            && left != right
            && sums != right
            && [of_sums, of_left, of_right].iter().all(|shape| shape.bytes.is_multiple_of(4))
            && of_sums.rows == of_left.rows
            && of_sums.bytes == of_right.bytes
            && of_left.bytes / 4 == of_right.rows;
        right_operands.then_some(())?;
        for m in 0..of_sums.rows {
            let to = self.data[sums][m].as_mut_ptr();
            // SAFETY: all are 64 bytes a row, and the shapes were checked; lanes outside them are zeros and stay so.
            unsafe { row(to, self.data[left][m].as_ptr(), self.data[right].as_ptr().cast(), of_left.bytes / 4) };
        }
        self.configuration[START] = 0;
        Some(())
    }
}

/// In each lane the products of even elements are added up by themselves, so are those of odd ones, and both sums
/// then to what was there. Rounds to even, takes denormals as zero and makes zero of them, whatever MXCSR says.
///
/// # Safety
/// The processor has AVX-512 F; 64 bytes at `sums`, 4 at `left` for every lane, and 64 at `right`; there is a lane.
#[target_feature(enable = "avx512f")]
pub unsafe fn multiply_bf16(sums: *mut u8, left: *const u8, right: *const u8, lanes: usize) {
    // Both flush bits, and all exceptions masked.
    let (mut before, mode) = (0_u32, 0x9FC0_u32);
    // SAFETY: the caller's promise; MXCSR is as before at the end.
    unsafe {
        asm!(
            "stmxcsr [{before}]",
            "ldmxcsr [{mode}]",
            "vpxord zmm0, zmm0, zmm0",
            "vpxord zmm1, zmm1, zmm1",
            "2:",
            "vpbroadcastd zmm2, [{left}]",
            "vmovdqu32 zmm3, [{right}]",
            "vpslld zmm4, zmm2, 16",
            "vpslld zmm5, zmm3, 16",
            "vfmadd231ps zmm0, zmm4, zmm5",
            "vpsrld zmm2, zmm2, 16",
            "vpsrld zmm3, zmm3, 16",
            "vpslld zmm2, zmm2, 16",
            "vpslld zmm3, zmm3, 16",
            "vfmadd231ps zmm1, zmm2, zmm3",
            "add {left}, 4",
            "add {right}, 64",
            "dec {lanes}",
            "jnz 2b",
            "vaddps zmm0, zmm0, zmm1",
            "vmovups zmm1, [{sums}]",
            "vaddps zmm0, zmm1, zmm0",
            "vmovups [{sums}], zmm0",
            "ldmxcsr [{before}]",
            before = in(reg) &raw mut before,
            mode = in(reg) &raw const mode,
            sums = in(reg) sums,
            left = inout(reg) left => _,
            right = inout(reg) right => _,
            lanes = inout(reg) lanes => _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            options(nostack)
        );
    }
}

/// Sums wrap around.
///
/// # Safety
/// As for [`multiply_bf16`].
#[target_feature(enable = "avx512f")]
pub unsafe fn multiply_int8(sums: *mut u8, left: *const u8, right: *const u8, lanes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vmovdqu32 zmm0, [{sums}]",
            "2:",
            "vpbroadcastd zmm1, [{left}]",
            "vmovdqu32 zmm2, [{right}]",
            // The highest byte of every lane, sign-extended; then the next one.
            ".rept 4",
            "vpsrad zmm3, zmm1, 24",
            "vpsrad zmm4, zmm2, 24",
            "vpmulld zmm3, zmm3, zmm4",
            "vpaddd zmm0, zmm0, zmm3",
            "vpslld zmm1, zmm1, 8",
            "vpslld zmm2, zmm2, 8",
            ".endr",
            "add {left}, 4",
            "add {right}, 64",
            "dec {lanes}",
            "jnz 2b",
            "vmovdqu32 [{sums}], zmm0",
            sums = in(reg) sums,
            left = inout(reg) left => _,
            right = inout(reg) right => _,
            lanes = inout(reg) lanes => _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _,
            options(nostack)
        );
    }
}
