//! What is no tile instruction, or a wrong one, ends the process; each case in one of its own.

use super::{FULL, configuration, configure, load_configuration, release, stored_configuration, tiles};
use std::arch::asm;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// Names the case to a child.
const CASE: &str = "NT_TEST_CASE";

/// Status that a handler ends a child with.
const HANDLED: i32 = 42;

macro_rules! cases {
    ($($name:literal: $shapes:expr, $($line:literal),+;)*) => {
        /// A name, what is configured before, and the instruction.
        const CASES: &[(&str, [(usize, usize); 8], unsafe fn())] = &[$(($name, $shapes, {
            unsafe fn case() {
                let mut row = [0_u8; 64];
                // SAFETY: the process is there for this alone.
                unsafe { asm!($($line),+, in("rax") &raw mut row) }
            }
            case
        })),*];
    };
}

const NOTHING: [(usize, usize); 8] = [(0, 0); 8];

/// The first tiles have these shapes.
const fn first<const N: usize>(shapes: [(usize, usize); N]) -> [(usize, usize); 8] {
    let mut all = FULL;
    let mut tile = 0;
    while tile < N {
        all[tile] = shapes[tile];
        tile += 1;
    }
    all
}

cases! {
    "an instruction of another kind": FULL, "ud2";
    "one that begins otherwise": FULL, ".byte 0x06, 0xE2, 0x78, 0x49, 0xC0";
    "one of another map": FULL, ".byte 0xC4, 0xE1, 0x78, 0x49, 0xC0";
    "one with the width bit": FULL, ".byte 0xC4, 0xE2, 0xFB, 0x49, 0xC0";
    "one for vectors of 256 bits": FULL, ".byte 0xC4, 0xE2, 0x7F, 0x49, 0xC0";
    "one with a third operand too many": FULL, ".byte 0xC4, 0xE2, 0x73, 0x49, 0xC0";
    "one with a ninth tile": FULL, ".byte 0xC4, 0x62, 0x7B, 0x49, 0xC0";
    "one with a ninth tile on the left": FULL, ".byte 0xC4, 0xC2, 0x72, 0x5C, 0xC2";
    "one with a ninth tile on the right": FULL, ".byte 0xC4, 0xE2, 0x32, 0x5C, 0xC2";
    "rows without a SIB byte": FULL, ".byte 0xC4, 0xE2, 0x7B, 0x4B, 0x00";
    "sums that are the left factor": FULL, ".byte 0xC4, 0xE2, 0x6A, 0x5C, 0xC0";
    "sums that are the right factor": FULL, ".byte 0xC4, 0xE2, 0x7A, 0x5C, 0xC1";
    "a factor twice": FULL, ".byte 0xC4, 0xE2, 0x72, 0x5C, 0xC1";
    "sums with too few rows": first([(15, 64)]), "tdpbssd tmm0, tmm1, tmm2";
    "sums with too few columns": first([(16, 60)]), "tdpbf16ps tmm0, tmm1, tmm2";
    "factors that do not fit": first([(16, 64), (16, 60)]), "tdpbf16ps tmm0, tmm1, tmm2";
    "a part of a lane": first([(16, 62), (16, 64), (16, 62)]), "tdpbssd tmm0, tmm1, tmm2";
    "a tile that is not configured": first([(0, 0)]), "tilezero tmm0";
    "sums that are not configured": first([(0, 0)]), "tdpbf16ps tmm0, tmm1, tmm2";
    "a load without a configuration": NOTHING, "tileloadd tmm0, [rax]";
    "a store without a configuration": NOTHING, "tilestored [rax], tmm0";
    "a product without a configuration": NOTHING, "tdpbf16ps tmm0, tmm1, tmm2";
}

/// Wrong configurations: at this place, this byte.
const CONFIGURATIONS: &[(&str, usize, u8)] = &[
    ("a configuration of another palette", 0, 2),
    ("a configuration with a reserved byte", 15, 1),
    ("a configuration with too long rows", 16, 65),
    ("a configuration with far too long rows", 17, 1),
    ("a configuration with too many rows", 48, 17),
    ("a configuration of a tile without rows", 55, 0),
    ("a configuration of a tile without columns", 30, 0),
    ("a configuration of a ninth tile's columns", 32, 4),
    ("a configuration of a ninth tile's rows", 56, 1),
];

fn end(case: &str) -> ExitStatus {
    let name = "refusals::a_process_to_end";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .output()
        .unwrap()
        .status
}

#[test]
#[ignore = "for the processes that other tests start"]
fn a_process_to_end() {
    let case = std::env::var(CASE).expect("the name of a case");
    // SAFETY: integers only; no core is left behind.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
    if case == "a handler that was there" {
        extern "C" fn handler(_: libc::c_int) {
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(HANDLED) }
        }
        let handler: extern "C" fn(libc::c_int) = handler;
        // SAFETY: the handler does what one may do.
        unsafe { libc::signal(libc::SIGILL, handler as libc::sighandler_t) };
    }
    assert!(tiles());
    assert_eq!(stored_configuration(), [0; 64]);
    for (name, shapes, instruction) in CASES {
        if case == *name {
            configure(&FULL);
            if *shapes == NOTHING {
                release()
            } else {
                configure(shapes)
            }
            // SAFETY: this process is there for it.
            unsafe { instruction() };
        }
    }
    for &(name, at, byte) in CONFIGURATIONS {
        if case == name {
            let mut wrong = configuration(&FULL);
            wrong[at] = byte;
            load_configuration(&wrong);
        }
    }
    configure(&FULL);
    match case.as_str() {
        // SAFETY: as above.
        "a handler that was there" => unsafe { asm!("ud2") },
        // SAFETY: integers only.
        "a signal from outside" => unsafe {
            libc::raise(libc::SIGILL);
        },
        // SAFETY: as above.
        "rows that are not there" => unsafe { asm!("tileloadd tmm0, [{}]", in(reg) 64_usize) },
        _ => (),
    }
}

#[test]
fn what_is_no_tile_instruction_ends_the_process_as_it_would_have() {
    if !tiles() {
        return;
    }
    assert_eq!(end("none of them").code(), Some(0));
    for (name, _, _) in CASES {
        assert_eq!(end(name).signal(), Some(libc::SIGILL), "{name}");
    }
    assert_eq!(end("a signal from outside").signal(), Some(libc::SIGILL));
    assert_eq!(end("a handler that was there").code(), Some(HANDLED));
    assert_eq!(end("rows that are not there").signal(), Some(libc::SIGSEGV));
}

#[test]
fn wrong_configurations_end_the_process() {
    if !tiles() {
        return;
    }
    for (name, _, _) in CONFIGURATIONS {
        // The processor's own tiles: SIGSEGV.
        let signal = end(name).signal();
        assert!(matches!(signal, Some(libc::SIGILL | libc::SIGSEGV)), "{name}: {signal:?}");
    }
}
