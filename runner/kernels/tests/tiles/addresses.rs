//! Every form of a memory operand, as an assembler writes it.

use super::{Bytes, Values, configuration, configure, load, load_configuration, release, stored, stored_configuration};
use super::{FULL, tiles};
use std::arch::{asm, global_asm};
use std::array::from_fn;
use std::ptr::with_exposed_provenance_mut;
use std::sync::{Mutex, PoisonError};

/// Displacements below: none, of one byte, of four.
const DISPLACEMENTS: [i64; 3] = [0, -21, 0x123456];
/// An address that four bytes hold.
const LOW: usize = 0x1000_0040;

// Each instruction below is entered with all general registers from `State`, and goes back to save them all there.
global_asm!(
    r#"
    .text
    .macro nt_forms name, instruction, last=
    .balign 32
    .globl nt_forms_\name
    nt_forms_\name:
    .irp base,rax,rcx,rdx,rbx,rsp,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15
    .irp index,rax,rcx,rdx,rbx,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15
    .irp scale,1,2,4,8
    .irp displacement,0,-21,0x123456
        .balign 32
        nt_form "\instruction", "[\base + \index*\scale + \displacement]"
    .endr
    .endr
    .endr
    .endr

    .balign 32
    .globl nt_forms_\name\()_without_base
    nt_forms_\name\()_without_base:
    .irp index,rax,rcx,rdx,rbx,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15
    .irp scale,1,2,4,8
        .balign 32
        nt_form "\instruction", "[\index*\scale + 0x10000040]"
    .endr
    .endr

    .balign 32
    .globl nt_forms_\name\()_without_index
    nt_forms_\name\()_without_index:
    .irp base,rax,rcx,rdx,rbx,rsp,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15
    .irp displacement,0,-21,0x123456
        .balign 32
        nt_form "\instruction", "[\base + \displacement]"
    .endr
    .endr

    .balign 32
    .globl nt_forms_\name\()_without_either
    nt_forms_\name\()_without_either:
        nt_form "\instruction", "[0x10000040]"
    .endm

    .macro nt_form instruction, operand
        .ifc "\instruction", "tileloadd"
            tileloadd tmm6, \operand
        .endif
        .ifc "\instruction", "tileloaddt1"
            tileloaddt1 tmm6, \operand
        .endif
        .ifc "\instruction", "tilestored"
            tilestored \operand, tmm6
        .endif
        .ifc "\instruction", "ldtilecfg"
            ldtilecfg \operand
        .endif
        .ifc "\instruction", "sttilecfg"
            sttilecfg \operand
        .endif
        jmp qword ptr [rip + nt_forms_back]
    .endm

    nt_forms load, tileloadd
    nt_forms load_t1, tileloaddt1
    nt_forms store, tilestored
    nt_forms load_configuration, ldtilecfg
    nt_forms store_configuration, sttilecfg

    .globl nt_forms_call
    nt_forms_call:
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        mov [rip + nt_forms_state], rdi
        mov [rip + nt_forms_stack], rsp
        mov rax, [rdi + 8*16]
        mov [rip + nt_forms_target], rax
        mov rax, [rdi]
        mov rcx, [rdi + 8*1]
        mov rdx, [rdi + 8*2]
        mov rbx, [rdi + 8*3]
        mov rsp, [rdi + 8*4]
        mov rbp, [rdi + 8*5]
        mov rsi, [rdi + 8*6]
        mov r8, [rdi + 8*8]
        mov r9, [rdi + 8*9]
        mov r10, [rdi + 8*10]
        mov r11, [rdi + 8*11]
        mov r12, [rdi + 8*12]
        mov r13, [rdi + 8*13]
        mov r14, [rdi + 8*14]
        mov r15, [rdi + 8*15]
        mov rdi, [rdi + 8*7]
        jmp qword ptr [rip + nt_forms_target]
    nt_forms_returned:
        mov [rip + nt_forms_target], rdi
        mov rdi, [rip + nt_forms_state]
        mov [rdi], rax
        mov rax, [rip + nt_forms_target]
        mov [rdi + 8*7], rax
        mov [rdi + 8*1], rcx
        mov [rdi + 8*2], rdx
        mov [rdi + 8*3], rbx
        mov [rdi + 8*4], rsp
        mov [rdi + 8*5], rbp
        mov [rdi + 8*6], rsi
        mov [rdi + 8*8], r8
        mov [rdi + 8*9], r9
        mov [rdi + 8*10], r10
        mov [rdi + 8*11], r11
        mov [rdi + 8*12], r12
        mov [rdi + 8*13], r13
        mov [rdi + 8*14], r14
        mov [rdi + 8*15], r15
        mov rsp, [rip + nt_forms_stack]
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        ret

    .data
    .balign 8
    nt_forms_back: .quad nt_forms_returned
    nt_forms_state: .quad 0
    nt_forms_stack: .quad 0
    nt_forms_target: .quad 0
    .text
    "#
);

#[repr(C)]
struct State {
    /// In the order in which instructions number them.
    registers: [u64; 16],
    target: *const u8,
}

const STACK: usize = 4;

macro_rules! tables {
    ($($table:ident)*) => { unsafe extern "C" { $(static $table: u8;)* } };
}
tables! {
    nt_forms_load nt_forms_load_without_base nt_forms_load_without_index nt_forms_load_without_either
    nt_forms_load_t1 nt_forms_load_t1_without_base nt_forms_load_t1_without_index nt_forms_load_t1_without_either
    nt_forms_store nt_forms_store_without_base nt_forms_store_without_index nt_forms_store_without_either
    nt_forms_load_configuration nt_forms_load_configuration_without_base
    nt_forms_load_configuration_without_index nt_forms_load_configuration_without_either
    nt_forms_store_configuration nt_forms_store_configuration_without_base
    nt_forms_store_configuration_without_index nt_forms_store_configuration_without_either
}
unsafe extern "C" {
    fn nt_forms_call(state: *mut State);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Instruction {
    Load,
    LoadT1,
    Store,
    LoadConfiguration,
    StoreConfiguration,
}
use Instruction::{Load, LoadConfiguration, LoadT1, Store, StoreConfiguration};

impl Instruction {
    /// Its forms with base and index, with an index only, with a base only, with neither.
    fn tables(self) -> [&'static u8; 4] {
        macro_rules! of {
            ($($table:ident)*) => {
                // SAFETY: the tables are there, and only their addresses are used.
                unsafe { [$(&$table),*] }
            };
        }
        match self {
            Load => {
                of!(nt_forms_load nt_forms_load_without_base nt_forms_load_without_index nt_forms_load_without_either)
            }
            LoadT1 => of!(nt_forms_load_t1 nt_forms_load_t1_without_base nt_forms_load_t1_without_index
                nt_forms_load_t1_without_either),
            Store => of!(nt_forms_store nt_forms_store_without_base nt_forms_store_without_index
                nt_forms_store_without_either),
            LoadConfiguration => of!(nt_forms_load_configuration nt_forms_load_configuration_without_base
                nt_forms_load_configuration_without_index nt_forms_load_configuration_without_either),
            StoreConfiguration => of!(nt_forms_store_configuration nt_forms_store_configuration_without_base
                nt_forms_store_configuration_without_index nt_forms_store_configuration_without_either),
        }
    }
}

/// A form of the operand: registers by number, the index with its scale.
#[derive(Clone, Copy, Debug)]
struct Form {
    table: usize,
    /// Place in the table.
    place: usize,
    base: Option<usize>,
    index: Option<(usize, u64)>,
    displacement: i64,
}

fn forms() -> Vec<Form> {
    // rsp is no index.
    let indices = || (0..16).filter(|&index| index != STACK).flat_map(|index| [1, 2, 4, 8].map(|scale| (index, scale)));
    let both = (0..16).flat_map(move |base| {
        indices().flat_map(move |index| DISPLACEMENTS.map(|displacement| (Some(base), Some(index), displacement)))
    });
    let only_index = indices().map(|index| (None, Some(index), LOW as i64));
    let only_base = (0..16).flat_map(|base| DISPLACEMENTS.map(|displacement| (Some(base), None, displacement)));
    let neither = std::iter::once((None, None, LOW as i64));
    let tables: [Vec<_>; 4] = [both.collect(), only_index.collect(), only_base.collect(), neither.collect()];
    let place = |(table, forms): (usize, Vec<_>)| {
        forms.into_iter().enumerate().map(move |(place, (base, index, displacement))| Form {
            table,
            place,
            base,
            index,
            displacement,
        })
    };
    tables.into_iter().enumerate().flat_map(place).collect()
}

/// Memory at an address that four bytes hold.
fn low_memory() -> *mut u8 {
    let (at, size) = (LOW & !0xFFF, 1 << 16);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the flags keep the system from replacing what is mapped already.
    let found =
        unsafe { libc::mmap(with_exposed_provenance_mut(at), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_eq!(found.addr(), at, "nothing else is mapped there");
    with_exposed_provenance_mut(LOW)
}

/// Bytes between rows, times a scale.
const STRIDE: u64 = 72;
/// Bytes that rows of any form reach.
const REACH: usize = 8 * STRIDE as usize * 2 + 64;

#[test]
fn every_form_of_an_address_is_understood() {
    if !tiles() {
        return;
    }
    // What the instructions come back to is kept in one place.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let low = low_memory();
    // Around its middle there is room for the largest displacement, and for signals' handlers where rsp is a base.
    let mut memory = vec![0_u8; 8 << 20];
    let middle = memory.as_mut_ptr().wrapping_add(4 << 20);
    let mut values = Values(7);
    for instruction in [Load, LoadT1, Store, LoadConfiguration, StoreConfiguration] {
        let rows_are_strided = matches!(instruction, Load | LoadT1 | Store);
        for form in forms() {
            let target = if form.base.is_some() { middle } else { low };
            let mut registers: [u64; 16] = from_fn(|_| u64::from(values.next()) << 32 | 0x5A5A);
            registers[STACK] = middle.addr() as u64;
            let same = form.base.zip(form.index).filter(|(base, (index, _))| base == index).is_some();
            let strided = |scale| STRIDE * scale;
            // Where one register is both, it holds an address, and rows past the first are out of reach.
            let (rows, stride, at) = match form.index {
                _ if same && rows_are_strided => (1, 0, target),
                Some((index, scale)) if !same => {
                    registers[index] = STRIDE;
                    let moved = if rows_are_strided { 0 } else { strided(scale) as usize };
                    (3, strided(scale) as usize, target.wrapping_add(moved))
                }
                Some((_, scale)) => {
                    // base + base * scale + displacement, for an address that this divides.
                    let times = 1 + scale;
                    let sum = (target.addr() as u64).wrapping_add_signed(-form.displacement).next_multiple_of(times);
                    registers[form.base.unwrap_or(0)] = sum / times;
                    let at = sum.wrapping_add_signed(form.displacement) as usize;
                    (1, 0, target.wrapping_add(at - target.addr()))
                }
                None => (3, 0, target),
            };
            if let Some(base) = form.base
                && (rows_are_strided || !same)
            {
                registers[base] = (target.addr() as u64).wrapping_add_signed(-form.displacement);
            }
            let table = &raw const *instruction.tables()[form.table];
            let mut state = State { registers, target: table.wrapping_add(32 * form.place) };
            let mut shapes = FULL;
            shapes[6] = (rows, 20);
            let mut wanted = [0_u8; REACH];
            wanted.fill_with(|| (values.next() >> 8) as u8);
            // SAFETY: as much memory is there, beginning at this address.
            let around = unsafe { std::slice::from_raw_parts_mut(at, REACH) };
            around.copy_from_slice(&wanted);
            let content: Bytes = values.bytes();
            configure(&shapes);
            match instruction {
                Load | LoadT1 | StoreConfiguration => (),
                Store => load(6, &content),
                LoadConfiguration => {
                    shapes[0] = (1 + form.place % 16, 1 + form.place % 64);
                    wanted[..64].copy_from_slice(&configuration(&shapes));
                    around.copy_from_slice(&wanted);
                }
            }
            // SAFETY: the instruction reads or writes what was made ready for it, and rsp has room below.
            unsafe { nt_forms_call(&raw mut state) };
            assert!(state.registers == registers, "{instruction:?} {form:?} changes registers");
            match instruction {
                Load | LoadT1 => {
                    let found = stored(6);
                    for row in 0..rows {
                        assert!(found[row][..20] == wanted[row * stride..][..20], "{instruction:?} {form:?} row {row}");
                    }
                }
                // One after the other: without an index they all go to one place.
                Store => (0..rows).for_each(|row| wanted[row * stride..][..20].copy_from_slice(&content[row][..20])),
                LoadConfiguration => assert!(stored_configuration()[..] == wanted[..64], "{instruction:?} {form:?}"),
                StoreConfiguration => wanted[..64].copy_from_slice(&configuration(&shapes)),
            }
            // SAFETY: as above.
            let around = unsafe { std::slice::from_raw_parts(at, REACH) };
            assert!(around == wanted, "{instruction:?} {form:?} in memory");
        }
    }
    release();
}

#[test]
fn the_largest_displacements_reach_their_rows() {
    if !tiles() {
        return;
    }
    let (bytes, mut to) = (Values(8).bytes(), [[0; 64]; 16]);
    let (from, into) = (bytes.as_ptr().cast::<u8>(), to.as_mut_ptr().cast::<u8>());
    configure(&FULL);
    // SAFETY: with the displacements, the addresses are those of a full tile.
    unsafe {
        asm!("tileloadd tmm1, [{} + {}*8 + 0x7FFFFFFF]", in(reg) from.wrapping_sub(0x7FFF_FFFF), in(reg) 8_usize, options(nostack));
        asm!("tilestored [{} + {}*4 - 0x80000000], tmm1", in(reg) into.wrapping_add(0x8000_0000), in(reg) 16_usize, options(nostack));
    }
    assert!(to == bytes);
    // SAFETY: as above; a displacement of one byte.
    unsafe {
        asm!("tileloaddt1 tmm0, [{} + {}*2 + 127]", in(reg) from.wrapping_sub(127), in(reg) 32_usize, options(nostack));
        asm!("tilestored [{} + {}*1 - 128], tmm0", in(reg) into.wrapping_add(128), in(reg) 64_usize, options(nostack));
    }
    assert!(to == bytes);
    release();
}

static THERE: [u8; 64] = {
    let mut there = [0; 64];
    (there[0], there[16], there[48]) = (1, 12, 3);
    there
};
static mut HERE: [u8; 64] = [0; 64];

#[test]
fn configurations_are_addressed_from_the_instruction() {
    if !tiles() {
        return;
    }
    load_configuration(&configuration(&FULL));
    // SAFETY: both are 64 bytes; this test alone uses the latter.
    let here = unsafe {
        asm!("ldtilecfg [rip + {}]", sym THERE, options(nostack));
        asm!("sttilecfg [rip + {}]", sym HERE, options(nostack));
        HERE
    };
    assert_eq!(here, THERE);
    assert_eq!(stored_configuration(), THERE);
    release();
}
