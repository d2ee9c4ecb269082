//! Every tile instruction that the kernels use against plain Rust: the processor's own, or those that the feature
//! `emulate-tiles` computes.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use nt_kernels::Isa;
use std::arch::{asm, global_asm};
use std::array::from_fn;
use std::sync::Barrier;

mod addresses;
mod multiplication;
mod refusals;

/// Rows and bytes of a row, of all eight tiles.
type Shapes = [(usize, usize); 8];
/// A tile's contents.
type Bytes = [[u8; 64]; 16];
type Configuration = [u8; 64];

const FULL: Shapes = [(16, 64); 8];

/// Whether there are tiles; the feature leaves out processors without AVX-512 only.
fn tiles() -> bool {
    assert!(Isa::Amx.available() || !Isa::Avx512.available());
    Isa::Amx.available()
}

/// A fixed sequence of values that look random.
struct Values(u64);

impl Values {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn bytes(&mut self) -> Bytes {
        from_fn(|_| from_fn(|_| (self.next() >> 8) as u8))
    }
}

// Every instruction with every choice of tiles, 16 bytes apart, as functions of an address and a stride.
global_asm!(
    r#"
    .text
    .macro nt_tiles_addressing name, instruction
    .balign 16
    .globl nt_tiles_\name
    nt_tiles_\name:
    .irp tile,0,1,2,3,4,5,6,7
        .balign 16
        \instruction tmm\tile, [rdi + rsi*1]
        ret
    .endr
    .endm
    nt_tiles_addressing load, tileloadd
    nt_tiles_addressing load_t1, tileloaddt1

    .balign 16
    .globl nt_tiles_store
    nt_tiles_store:
    .irp tile,0,1,2,3,4,5,6,7
        .balign 16
        tilestored [rdi + rsi*1], tmm\tile
        ret
    .endr

    .balign 16
    .globl nt_tiles_zero
    nt_tiles_zero:
    .irp tile,0,1,2,3,4,5,6,7
        .balign 16
        tilezero tmm\tile
        ret
    .endr

    .macro nt_tiles_multiplication name, instruction
    .balign 16
    .globl nt_tiles_\name
    nt_tiles_\name:
    .irp sums,0,1,2,3,4,5,6,7
    .irp left,0,1,2,3,4,5,6,7
    .irp right,0,1,2,3,4,5,6,7
        .balign 16
        # No assembler accepts a tile twice.
        .if (\sums - \left) * (\left - \right) * (\right - \sums)
        \instruction tmm\sums, tmm\left, tmm\right
        .else
        ud2
        .endif
        ret
    .endr
    .endr
    .endr
    .endm
    nt_tiles_multiplication bf16, tdpbf16ps
    nt_tiles_multiplication int8, tdpbssd
    "#
);

unsafe extern "C" {
    static nt_tiles_load: u8;
    static nt_tiles_load_t1: u8;
    static nt_tiles_store: u8;
    static nt_tiles_zero: u8;
    static nt_tiles_bf16: u8;
    static nt_tiles_int8: u8;
}

/// Calls function `index` of a table above.
///
/// # Safety
/// There are tiles, and the instruction may do what it does with these operands.
unsafe fn call(table: &'static u8, index: usize, address: *mut u8, stride: isize) {
    let at = (&raw const *table).wrapping_add(16 * index);
    // SAFETY: that is where the function is, which needs nothing that Rust keeps; the rest is the caller's promise.
    unsafe { std::mem::transmute::<*const u8, unsafe extern "C" fn(*mut u8, isize)>(at)(address, stride) }
}

fn configuration(shapes: &Shapes) -> Configuration {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    for (tile, &(rows, width)) in shapes.iter().enumerate() {
        bytes[16 + 2 * tile] = width as u8;
        bytes[48 + tile] = rows as u8;
    }
    bytes
}

fn load_configuration(from: &Configuration) {
    // SAFETY: 64 bytes; callers have tiles, which nothing else in this thread uses.
    unsafe { asm!("ldtilecfg [{}]", in(reg) from, options(nostack, readonly)) }
}

fn stored_configuration() -> Configuration {
    let mut to = [0xAA; 64];
    // SAFETY: 64 bytes; callers have tiles.
    unsafe { asm!("sttilecfg [{}]", in(reg) &mut to, options(nostack)) }
    to
}

fn configure(shapes: &Shapes) {
    load_configuration(&configuration(shapes));
}

fn release() {
    // SAFETY: callers have tiles, which nothing else in this thread uses.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

fn load(tile: usize, from: &Bytes) {
    // SAFETY: no tile is larger than this.
    unsafe { call(&nt_tiles_load, tile, from.as_ptr().cast_mut().cast(), 64) }
}

/// What a tile holds, with zeros where it has nothing.
fn stored(tile: usize) -> Bytes {
    let mut to = [[0; 64]; 16];
    // SAFETY: as in `load`.
    unsafe { call(&nt_tiles_store, tile, to.as_mut_ptr().cast(), 64) }
    to
}

/// What is left of `bytes` in a tile of this shape.
fn clipped(bytes: &Bytes, (rows, width): (usize, usize)) -> Bytes {
    from_fn(|row| from_fn(|at| if row < rows && at < width { bytes[row][at] } else { 0 }))
}

#[test]
fn configurations_are_kept_until_released() {
    if !tiles() {
        return;
    }
    assert_eq!(stored_configuration(), [0; 64]);
    // The last two are not configured.
    let shapes = [(16, 64), (1, 1), (2, 3), (16, 4), (7, 64), (5, 20), (0, 0), (0, 0)];
    configure(&shapes);
    assert_eq!(stored_configuration(), configuration(&shapes));
    configure(&FULL);
    assert_eq!(stored_configuration(), configuration(&FULL));
    release();
    assert_eq!(stored_configuration(), [0; 64]);
    configure(&FULL);
    // The palette alone says that tiles are released.
    load_configuration(&from_fn(|at| if at == 0 { 0 } else { configuration(&FULL)[at] }));
    assert_eq!(stored_configuration(), [0; 64]);
}

#[test]
fn a_new_configuration_zeroes_all_tiles() {
    if !tiles() {
        return;
    }
    configure(&FULL);
    (0..8).for_each(|tile| load(tile, &[[7; 64]; 16]));
    configure(&FULL);
    (0..8).for_each(|tile| assert_eq!(stored(tile), [[0; 64]; 16]));
}

#[test]
fn tiles_of_every_shape_are_loaded_and_stored() {
    if !tiles() {
        return;
    }
    let mut values = Values(1);
    for rows in 1..=16 {
        for width in 1..=64 {
            let tile = (rows + width) % 8;
            let mut shapes = FULL;
            shapes[tile] = (rows, width);
            configure(&shapes);
            let bytes = values.bytes();
            load(tile, &bytes);
            let mut to = [[0xAA; 64]; 16];
            // SAFETY: as in `load`.
            unsafe { call(&nt_tiles_store, tile, to.as_mut_ptr().cast(), 64) };
            for (row, (to, from)) in to.iter().zip(&bytes).enumerate() {
                let stored = if row < rows { width } else { 0 };
                assert_eq!(to[..stored], from[..stored], "row {row} of {rows}, {width} bytes");
                assert_eq!(to[stored..], [0xAA; 64][stored..], "row {row} of {rows}, {width} bytes");
            }
        }
    }
    release();
}

#[test]
fn rows_lie_a_stride_apart() {
    if !tiles() {
        return;
    }
    let shape = (5, 24);
    let mut values = Values(2);
    let memory: Vec<u8> = (0..40_000).map(|_| values.next() as u8).collect();
    for stride in [0, 1, 24, 64, 1000, 4099, -1, -24, -65, -4099] {
        // SAFETY: the tables are there.
        for table in unsafe { [&nt_tiles_load, &nt_tiles_load_t1] } {
            configure(&[shape; 8]);
            // SAFETY: five rows lie within the buffer, on either side of its middle.
            unsafe { call(table, 3, memory.as_ptr().wrapping_add(20_000).cast_mut(), stride) };
            for (row, bytes) in stored(3).iter().enumerate().take(5) {
                let from = 20_000_usize.wrapping_add_signed(row as isize * stride);
                assert_eq!(bytes[..24], memory[from..from + 24], "row {row}, stride {stride}");
            }
            let mut to = vec![0xAA; 40_000];
            // SAFETY: as above.
            unsafe { call(&nt_tiles_store, 3, to.as_mut_ptr().wrapping_add(20_000), stride) };
            let mut wanted = vec![0xAA; 40_000];
            for row in 0..5 {
                let at = 20_000_usize.wrapping_add_signed(row * stride);
                wanted[at..at + 24].copy_from_slice(&stored(3)[row as usize][..24]);
            }
            assert!(to == wanted, "stride {stride}");
        }
    }
    release();
}

#[test]
fn each_tile_is_loaded_zeroed_and_stored_by_itself() {
    if !tiles() {
        return;
    }
    let mut values = Values(3);
    configure(&FULL);
    let mut wanted: [Bytes; 8] = from_fn(|_| values.bytes());
    (0..8).for_each(|tile| load(tile, &wanted[tile]));
    let check = |wanted: &[Bytes; 8]| (0..8).for_each(|tile| assert!(stored(tile) == wanted[tile], "tile {tile}"));
    check(&wanted);
    for tile in 0..8 {
        // SAFETY: the tile is configured.
        unsafe { call(&nt_tiles_zero, tile, std::ptr::null_mut(), 0) };
        wanted[tile] = [[0; 64]; 16];
        check(&wanted);
        wanted[tile] = values.bytes();
        // SAFETY: as in `load`.
        unsafe { call(&nt_tiles_load_t1, tile, wanted[tile].as_mut_ptr().cast(), 64) };
        check(&wanted);
    }
    release();
}

#[test]
fn an_interrupted_load_goes_on_where_it_was() {
    if !tiles() {
        return;
    }
    let bytes = Values(4).bytes();
    let mut interrupted = configuration(&FULL);
    interrupted[1] = 5;
    load_configuration(&interrupted);
    assert_eq!(stored_configuration(), interrupted);
    load(2, &bytes);
    assert_eq!(stored_configuration(), configuration(&FULL));
    let wanted: Bytes = from_fn(|row| if row < 5 { [0; 64] } else { bytes[row] });
    assert!(stored(2) == wanted);
    release();
}

#[test]
fn threads_have_tiles_of_their_own() {
    if !tiles() {
        return;
    }
    let all = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let all = &all;
            scope.spawn(move || {
                let (mut values, shapes) = (Values(thread), [(1 + thread as usize, 64 - 8 * thread as usize); 8]);
                assert_eq!(stored_configuration(), [0; 64]);
                configure(&shapes);
                for _ in 0..50 {
                    let bytes: [Bytes; 8] = from_fn(|_| values.bytes());
                    (0..8).for_each(|tile| load(tile, &bytes[tile]));
                    all.wait();
                    (0..8).for_each(|tile| assert!(stored(tile) == clipped(&bytes[tile], shapes[tile])));
                }
                assert_eq!(stored_configuration(), configuration(&shapes));
                release();
            });
        }
    });
}
