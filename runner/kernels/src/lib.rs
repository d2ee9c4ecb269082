//! Contractions: of a few rows with a large matrix, at the speed the memory allows; of many rows, at the processor's.
//!
//! A decode step multiplies one row, or a handful, with every weight of the model, so its speed is that of reading
//! the weights. [`dot`] reads them once, in the type they are stored in, for all rows together, and accumulates
//! in f32 (int8: in i32). Many rows go through panels of weights that were made ready once. [`ffi`] offers it to XLA:CPU
//! as the typed-FFI custom call `nt.dot`.
//!
//! A result depends on the operands and on the instruction set, never on the number of threads.

#[cfg(target_arch = "x86_64")]
mod amx;
mod bandwidth;
#[cfg(target_arch = "x86_64")]
mod blocks;
mod columns;
mod dot;
mod element;
pub mod ffi;
mod int8;
mod isa;
mod panels;
mod pool;
mod rows;
mod scratch;
mod simd;

pub use bandwidth::read_all;
pub use dot::{Contract, Dot, Layout, ShapeError, dot, dot_int8, dot_with};
pub use element::{DType, Element};
pub use isa::Isa;
pub use pool::{Awake, awake, for_each, threads};
