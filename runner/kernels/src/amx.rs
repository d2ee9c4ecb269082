//! Kernel for Intel's matrix tiles: weights `[n, k]` and up to some tens of rows, in bf16 and int8.
//!
//! Sixteen rows of w, 64 bytes each, are a tile as they lie in memory. The rows of x come to it transposed, four bytes (two
//! bf16, four int8) at a time, sixteen rows to a block, so that one instruction multiplies both tiles.
//! Products of bf16 are added up in f32 with denormals taken as zero, as the processor defines it.

use crate::dot::{Dot, Layout, Shared, divide};
use crate::isa::Isa;
use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::ops::Range;
use std::sync::OnceLock;

#[cfg(all(feature = "emulate-tiles", target_os = "linux"))]
mod emulate;

/// Rows of a tile.
const ROWS: usize = 16;
/// Bytes in a row of a tile.
const WIDTH: usize = 64;
/// Bytes of a tile.
const TILE: usize = ROWS * WIDTH;
/// Bytes that one lane of a tile takes from a row.
const LANE: usize = 4;

/// Rows of x from which on tiles are the faster choice.
const LEAST: usize = 5;

/// Whether the processor has tiles for both types, and the system lets this process use them.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        if !is_x86_feature_detected!("avx512f") || !is_x86_feature_detected!("xsave") {
            return false;
        }
        // Leaf 7: AMX-BF16, AMX-TILE, AMX-INT8; XCR0: the system saves the tiles' configuration and data.
        const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        const STATE: u64 = 1 << 17 | 1 << 18;
        // SAFETY: XGETBV exists where XSAVE is enabled.
        let enabled = unsafe { xcr0() } & STATE == STATE;
        // Where the state is enabled, instructions work on the processor's own tiles, and cannot all be made to raise SIGILL.
        #[cfg(all(feature = "emulate-tiles", target_os = "linux"))]
        if !enabled {
            return emulate::install();
        }
        __cpuid_count(7, 0).edx & FEATURES == FEATURES && enabled && permitted()
    })
}

/// # Safety
/// The system has enabled XSAVE.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: register 0 always exists; the rest is the caller's promise.
    unsafe { _xgetbv(0) }
}

/// Asks the system to let this process use tiles; Linux wants that before the first use.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Shapes of the tiles as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    const EMPTY: Configuration =
        Configuration { palette: 0, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };

    /// All eight tiles of full size.
    const fn full() -> Configuration {
        let mut all = Configuration { palette: 1, ..Configuration::EMPTY };
        let mut tile = 0;
        while tile < 8 {
            all.row_bytes[tile] = WIDTH as u16;
            all.rows[tile] = ROWS as u8;
            tile += 1;
        }
        all
    }
}

static FULL: Configuration = Configuration::full();

/// Tiles of this thread, configured for the kernel; gives back the configuration that it found.
pub struct Configured {
    before: Configuration,
}

impl Configured {
    /// # Safety
    /// [`available`].
    pub unsafe fn full() -> Configured {
        let mut before = Configuration::EMPTY;
        // SAFETY: both operands are 64 bytes; the processor has the instructions.
        unsafe {
            asm!("sttilecfg [{}]", in(reg) &raw mut before, options(nostack));
            asm!("ldtilecfg [{}]", in(reg) &raw const FULL, options(nostack, readonly));
        }
        Configured { before }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: as in `full`. Libraries that share the thread may count on the configuration they left; nobody
        // counts on tiles' contents.
        unsafe {
            if self.before.palette == 0 {
                asm!("tilerelease", options(nostack, nomem));
            } else {
                asm!("ldtilecfg [{}]", in(reg) &raw const self.before, options(nostack, readonly));
            }
        }
    }
}

/// An element type that tiles multiply.
pub trait Tiled: Copy + Send + Sync + 'static {
    /// What products are added up in.
    type Sum: Copy + Default;
    fn add(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    /// Adds up the products of sixteen rows of w, `stride` bytes apart, with a block of packed x, into four tiles at `sums`: four
    /// tiles at a time for `fours` times, then one at a time, then `tail` (a tile by itself) unless that is null.
    ///
    /// # Safety
    /// [`available`], tiles are configured, and the pointers are valid for what they are read and written for.
    unsafe fn multiply(
        w: *const u8,
        stride: usize,
        x: *const u8,
        fours: usize,
        ones: usize,
        tail: *const u8,
        sums: *mut Self::Sum,
    );
    /// Writes to `sums`, or adds to them, the products of two tiles of the left factor with two of the right one, for `steps` such
    /// pairs one behind the other. Sums are a matrix of as many rows and columns as two tiles have rows.
    ///
    /// # Safety
    /// As for [`Tiled::multiply`].
    unsafe fn multiply_four(left: *const u8, right: *const u8, steps: usize, add: bool, sums: *mut Self::Sum);
}

macro_rules! tiled {
    ($element:ty, $sum:ty, $instruction:literal, $add:expr) => {
        impl Tiled for $element {
            type Sum = $sum;
            #[inline(always)]
            fn add(a: $sum, b: $sum) -> $sum {
                $add(a, b)
            }
            unsafe fn multiply(
                w: *const u8,
                stride: usize,
                x: *const u8,
                fours: usize,
                ones: usize,
                tail: *const u8,
                sums: *mut $sum,
            ) {
                // Four sums, because each multiplication takes longer than the next one has to wait for its operands.
                // SAFETY: handed on to the caller.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "test {fours}, {fours}",
                        "jz 3f",
                        "2:",
                        "tileloadd tmm4, [{w} + {stride}*1]",
                        "tileloadd tmm5, [{x} + {row}*1]",
                        concat!($instruction, " tmm0, tmm4, tmm5"),
                        "tileloadd tmm6, [{w} + {stride}*1 + 64]",
                        "tileloadd tmm7, [{x} + {row}*1 + 1024]",
                        concat!($instruction, " tmm1, tmm6, tmm7"),
                        "tileloadd tmm4, [{w} + {stride}*1 + 128]",
                        "tileloadd tmm5, [{x} + {row}*1 + 2048]",
                        concat!($instruction, " tmm2, tmm4, tmm5"),
                        "tileloadd tmm6, [{w} + {stride}*1 + 192]",
                        "tileloadd tmm7, [{x} + {row}*1 + 3072]",
                        concat!($instruction, " tmm3, tmm6, tmm7"),
                        "add {w}, 256",
                        "add {x}, 4096",
                        "dec {fours}",
                        "jnz 2b",
                        "3:",
                        "test {ones}, {ones}",
                        "jz 5f",
                        "4:",
                        "tileloadd tmm4, [{w} + {stride}*1]",
                        "tileloadd tmm5, [{x} + {row}*1]",
                        concat!($instruction, " tmm0, tmm4, tmm5"),
                        "add {w}, 64",
                        "add {x}, 1024",
                        "dec {ones}",
                        "jnz 4b",
                        "5:",
                        "test {tail}, {tail}",
                        "jz 6f",
                        "tileloadd tmm4, [{tail} + {row}*1]",
                        "tileloadd tmm5, [{x} + {row}*1]",
                        concat!($instruction, " tmm0, tmm4, tmm5"),
                        "6:",
                        "tilestored [{sums} + {row}*1], tmm0",
                        "tilestored [{sums} + {row}*1 + 1024], tmm1",
                        "tilestored [{sums} + {row}*1 + 2048], tmm2",
                        "tilestored [{sums} + {row}*1 + 3072], tmm3",
                        w = inout(reg) w => _,
                        x = inout(reg) x => _,
                        fours = inout(reg) fours => _,
                        ones = inout(reg) ones => _,
                        tail = in(reg) tail,
                        stride = in(reg) stride,
                        row = in(reg) WIDTH,
                        sums = in(reg) sums,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                }
            }
            unsafe fn multiply_four(left: *const u8, right: *const u8, steps: usize, add: bool, sums: *mut $sum) {
                // SAFETY: handed on to the caller.
                unsafe {
                    asm!(
                        "test {add}, {add}",
                        "jz 2f",
                        "tileloadd tmm0, [{sums} + {row}*2]",
                        "tileloadd tmm1, [{sums} + {row}*2 + 64]",
                        "tileloadd tmm2, [{sums} + {row}*2 + 2048]",
                        "tileloadd tmm3, [{sums} + {row}*2 + 2112]",
                        "jmp 3f",
                        "2:",
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "3:",
                        "test {steps}, {steps}",
                        "jz 5f",
                        "4:",
                        "tileloadd tmm4, [{left} + {row}*1]",
                        "tileloadd tmm6, [{right} + {row}*1]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{right} + {row}*1 + 1024]",
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        "tileloadd tmm5, [{left} + {row}*1 + 1024]",
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        "add {left}, 2048",
                        "add {right}, 2048",
                        "dec {steps}",
                        "jnz 4b",
                        "5:",
                        "tilestored [{sums} + {row}*2], tmm0",
                        "tilestored [{sums} + {row}*2 + 64], tmm1",
                        "tilestored [{sums} + {row}*2 + 2048], tmm2",
                        "tilestored [{sums} + {row}*2 + 2112], tmm3",
                        left = inout(reg) left => _,
                        right = inout(reg) right => _,
                        steps = inout(reg) steps => _,
                        add = in(reg) usize::from(add),
                        row = in(reg) WIDTH,
                        sums = in(reg) sums,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                }
            }
        }
    };
}
tiled!(half::bf16, f32, "tdpbf16ps", |a: f32, b: f32| a + b);
tiled!(i8, i32, "tdpbssd", i32::wrapping_add);

/// Whether matrix tiles are there and the better choice.
pub fn suits(isa: Isa, sizes: &Dot) -> bool {
    isa == Isa::Amx && sizes.layout == Layout::Nk && sizes.m >= LEAST && sizes.n >= ROWS
}

/// Contracts operands whose lengths were checked and whose sizes [`suits`] accepts; `put` gets the index of every
/// result, and the sum.
pub fn dot<T: Tiled>(sizes: &Dot, x: &[T], w: &[T], put: impl Fn(usize, T::Sum) + Sync) {
    let Dot { batch, m, n, k, .. } = *sizes;
    let size = packed_size::<T>(m, k);
    let mut packed = vec![0_u8; batch * size];
    if size > 0 {
        for (x, to) in x.chunks_exact(m * k).zip(packed.chunks_exact_mut(size)) {
            pack(x, k, to);
        }
    }
    let shared = Shared((packed.as_ptr(), w.as_ptr()));
    divide(sizes, size_of::<T>(), |batch, outputs| {
        let &(x, w) = shared.get();
        let part = Part { x: x.wrapping_add(batch * size), w: w.wrapping_add(batch * n * k), m, n, k };
        // SAFETY: `suits` and the lengths were checked.
        unsafe { chunk(&part, outputs, |row, column, sum| put((batch * m + row) * n + column, sum)) }
    });
}

/// Bytes of x, packed: blocks of sixteen rows.
fn packed_size<T>(m: usize, k: usize) -> usize {
    m.div_ceil(ROWS) * (k * size_of::<T>()).div_ceil(WIDTH) * TILE
}

/// Brings one member of the batch, rows of `k` elements, into the order of tiles; `to` holds zeros.
fn pack<T: Tiled>(x: &[T], k: usize, to: &mut [u8]) {
    if k == 0 {
        return;
    }
    let tiles = (k * size_of::<T>()).div_ceil(WIDTH);
    for (m, row) in x.chunks_exact(k).enumerate() {
        let block = &mut to[m / ROWS * tiles * TILE..];
        // SAFETY: a plain number's bytes, all of them initialized.
        let bytes = unsafe { std::slice::from_raw_parts(row.as_ptr().cast::<u8>(), size_of_val(row)) };
        for (i, lane) in bytes.chunks(LANE).enumerate() {
            let at = i * WIDTH + m % ROWS * LANE;
            block[at..at + lane.len()].copy_from_slice(lane);
        }
    }
}

/// One member of the batch; `x` packed.
#[derive(Clone, Copy)]
struct Part<T> {
    x: *const u8,
    w: *const T,
    m: usize,
    n: usize,
    k: usize,
}

/// Computes the outputs `range` of all rows and hands each, with its row and column, to `put`.
///
/// # Safety
/// [`available`]; `part` describes valid buffers with `n` of at least [`ROWS`]; `range` lies within `0..n`.
unsafe fn chunk<T: Tiled>(part: &Part<T>, range: Range<usize>, put: impl Fn(usize, usize, T::Sum)) {
    let bytes = part.k * size_of::<T>();
    let (tiles, whole) = (bytes.div_ceil(WIDTH), bytes / WIDTH);
    let mut sums = [T::Sum::default(); 4 * ROWS * ROWS];
    // SAFETY: see above; what is left of the rows after whole tiles goes through a tile of zeros.
    unsafe {
        let _tiles = Configured::full();
        let mut next = range.start;
        while next < range.end {
            // The last tile goes back over rows that are done, rather than past the end.
            let first = next.min(part.n - ROWS);
            let w = part.w.add(first * part.k).cast::<u8>();
            let mut last = [0_u8; TILE];
            if whole < tiles {
                for (row, last) in last.chunks_exact_mut(WIDTH).enumerate() {
                    let from = w.add(row * bytes + whole * WIDTH);
                    last.as_mut_ptr().copy_from_nonoverlapping(from, bytes - whole * WIDTH);
                }
            }
            let tail = if whole < tiles { last.as_ptr() } else { std::ptr::null() };
            let end = range.end.min(first + ROWS);
            for block in 0..part.m.div_ceil(ROWS) {
                let x = part.x.add(block * tiles * TILE);
                T::multiply(w, bytes, x, whole / 4, whole % 4, tail, sums.as_mut_ptr());
                for n in next..end {
                    for m in block * ROWS..part.m.min((block + 1) * ROWS) {
                        let [a, b, c, d] = [0, 1, 2, 3].map(|i| sums[(i * ROWS + n - first) * ROWS + m % ROWS]);
                        put(m, n, T::add(T::add(a, b), T::add(c, d)));
                    }
                }
            }
            next = end;
        }
    }
}
