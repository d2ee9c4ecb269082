//! Tile instructions as bytes: a VEX prefix of three, opcode, ModRM, and where they address memory, SIB and displacement
//! (Intel's Software Developer's Manual, volume 2, sections 2.3 and 3.1.1).

/// An instruction, its operands resolved.
#[derive(Clone, Copy)]
pub enum Operation {
    LoadConfiguration(u64),
    StoreConfiguration(u64),
    Release,
    Zero(usize),
    Load(usize, Rows),
    Store(usize, Rows),
    /// The sums, the left and the right factor.
    MultiplyBf16([usize; 3]),
    MultiplyInt8([usize; 3]),
}

/// Rows of a tile in memory.
#[derive(Clone, Copy)]
pub struct Rows {
    pub first: u64,
    pub stride: u64,
}

/// The legacy prefix that the two lowest bits of a VEX prefix stand for.
const NONE: u8 = 0;
const OPERAND_SIZE: u8 = 1;
const REP: u8 = 2;
const REPNE: u8 = 3;

/// The tile instruction that `byte` gives the bytes of and that lies at `rip`, and its length; nothing if it is another one.
pub fn decode(rip: u64, registers: &[u64; 16], byte: impl Fn(usize) -> u8) -> Option<(Operation, u64)> {
    // Each byte is only asked for when those before it leave no other choice.
    if byte(0) != 0xC4 {
        return None;
    }
    // Registers' highest bits are kept inverted.
    let extended = !byte(1) >> 5;
    if byte(1) & 0x1F != 2 {
        return None;
    }
    let (long, third, prefix) = (byte(2) & 0x84 != 0, usize::from(!byte(2) >> 3 & 0xF), byte(2) & 3);
    let opcode = byte(3);
    if long || !matches!(opcode, 0x49 | 0x4B | 0x5C | 0x5E) {
        return None;
    }
    let modrm = byte(4);
    let (in_memory, register, last) = (modrm >> 6 != 3, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    // There are eight tiles; what an instruction leaves unused is zero.
    let (r, b) = (extended & 4 != 0, extended & 1 != 0);
    if r || b && !in_memory || third > 7 || third > 0 && matches!(opcode, 0x49 | 0x4B) {
        return None;
    }
    if !in_memory {
        let operation = match (opcode, prefix) {
            (0x49, NONE) if register == 0 && last == 0 => Operation::Release,
            (0x49, REPNE) if last == 0 => Operation::Zero(register),
            (0x5C, REP) => Operation::MultiplyBf16([register, last, third]),
            (0x5E, REPNE) => Operation::MultiplyInt8([register, last, third]),
            _ => return None,
        };
        return Some((operation, 5));
    }
    let with_sib = last == 4;
    let operation: fn(usize, Rows) -> Operation = match (opcode, prefix) {
        (0x49, NONE) if register == 0 => |_, at| Operation::LoadConfiguration(at.first.wrapping_add(at.stride)),
        (0x49, OPERAND_SIZE) if register == 0 => {
            |_, at| Operation::StoreConfiguration(at.first.wrapping_add(at.stride))
        }
        // The latter hints that the data will not be needed again.
        (0x4B, REPNE | OPERAND_SIZE) if with_sib => Operation::Load,
        (0x4B, REP) if with_sib => Operation::Store,
        _ => return None,
    };
    let (rows, length) = memory(rip, registers, modrm, extended, byte);
    Some((operation(register, rows), length))
}

/// What the ModRM byte, and those behind it, address, and the length of the instruction.
fn memory(rip: u64, registers: &[u64; 16], modrm: u8, extended: u8, byte: impl Fn(usize) -> u8) -> (Rows, u64) {
    let high = |bit: u8| usize::from(extended >> bit & 1) << 3;
    let (mode, last) = (modrm >> 6, modrm & 7);
    let mut length = 5;
    let (mut base, mut stride) = (usize::from(last), 0);
    if last == 4 {
        let sib = byte(length);
        length += 1;
        base = usize::from(sib & 7);
        let index = usize::from(sib >> 3 & 7) | high(1);
        if index != 4 {
            stride = registers[index] << (sib >> 6);
        }
    }
    // Where others have no displacement, this one has nothing else.
    let without_base = mode == 0 && base == 5;
    let (displacement, size) = match mode {
        0 if !without_base => (0, 0),
        1 => (i64::from(byte(length).cast_signed()), 1),
        _ => (i64::from(i32::from_le_bytes([0, 1, 2, 3].map(|i| byte(length + i)))), 4),
    };
    length += size;
    let from = match without_base {
        false => registers[base | high(0)],
        true if last == 4 => 0,
        true => rip.wrapping_add(length as u64),
    };
    (Rows { first: from.wrapping_add_signed(displacement), stride }, length as u64)
}
