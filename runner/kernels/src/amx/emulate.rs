//! Tiles for tests on processors without them: the kernels' own machine code runs, and every tile instruction in it is
//! computed by the handler of the SIGILL that it raises.
//!
//! What the processor would refuse ends the process as there, though always by SIGILL, where a wrong configuration would raise
//! SIGSEGV. A tile's rows that cannot be read or written end it by the SIGSEGV that the handler itself meets. Prefixes before
//! the instruction (segments, addresses of 32 bits) are refused too.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

mod decode;
mod tiles;
use decode::{Operation, decode};
use tiles::Tiles;

thread_local! {
    // Without a destructor: nothing is registered, or allocated, when a signal's handler is the first to look.
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::RELEASED) };
}

/// What SIGILL did before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Has tile instructions computed from here on, in all threads; says whether that worked. The processor must have AVX-512 F.
pub fn install() -> bool {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zeros are a valid `sigaction`, an empty mask among it, and the handler has the form that SA_SIGINFO asks for.
    unsafe {
        if libc::sigaction(libc::SIGILL, null(), before.as_mut_ptr()) != 0 {
            return false;
        }
        BEFORE.get_or_init(|| before.assume_init());
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
        (*action.as_mut_ptr()).sa_sigaction = handler as usize;
        (*action.as_mut_ptr()).sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGILL, action.as_ptr(), null_mut()) == 0
    }
}

/// Places of the general registers among those of a context, in the order in which instructions number them.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system calls this with a signal's description and the context that it interrupted.
    unsafe {
        // Those that another process or thread sent are of no instruction.
        let sent = (*info).si_code <= 0;
        if !sent && step(&mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs).is_some() {
            return;
        }
        // The instruction is met again and does what it would have done without this handler; who was sent the signal sends it on.
        libc::sigaction(signal, BEFORE.get().map_or(null(), |before| before), null_mut());
        if sent {
            libc::raise(signal);
        }
    }
}

/// Computes the instruction that a context stands at, and moves past it; nothing if that is no tile instruction, or the
/// processor would refuse it.
///
/// # Safety
/// The registers are those of this thread, at an instruction; what that reads and writes is its author's promise.
unsafe fn step(context: &mut [libc::greg_t; 23]) -> Option<()> {
    let registers = REGISTERS.map(|register| context[register as usize] as u64);
    let rip = context[libc::REG_RIP as usize] as u64;
    // SAFETY: `decode` asks for no byte past those of the instruction, which the processor has read.
    let (operation, length) = decode(rip, &registers, |at| unsafe { (rip as *const u8).wrapping_add(at).read() })?;
    TILES.with(|tiles| {
        // SAFETY: only this handler uses the tiles, and it does not interrupt itself; the rest is the caller's promise.
        unsafe {
            let tiles = &mut *tiles.get();
            match operation {
                Operation::LoadConfiguration(from) => tiles.configure(&(from as *const [u8; 64]).read_unaligned())?,
                Operation::StoreConfiguration(to) => (to as *mut [u8; 64]).write_unaligned(tiles.configuration()),
                Operation::Release => *tiles = Tiles::RELEASED,
                Operation::Zero(tile) => tiles.zero(tile)?,
                Operation::Load(tile, rows) => tiles.load(tile, rows.first as *const u8, rows.stride as usize)?,
                Operation::Store(tile, rows) => tiles.store(tile, rows.first as *mut u8, rows.stride as usize)?,
                Operation::MultiplyBf16(operands) => tiles.multiply(operands, tiles::multiply_bf16)?,
                Operation::MultiplyInt8(operands) => tiles.multiply(operands, tiles::multiply_int8)?,
            }
        }
        Some(())
    })?;
    context[libc::REG_RIP as usize] = rip.wrapping_add(length) as libc::greg_t;
    Some(())
}
