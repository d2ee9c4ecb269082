//! Device two: accelerators, through plugins of the PJRT C API.
//!
//! A [`Plugin`] is a shared library (CUDA's, ROCm's or libtpu); a [`Client`] is the accelerator that it found, and an
//! [`nt_device::Device`]. A [`Topology`] compiles for an accelerator that is not there. Everything keeps what it came
//! from alive, so buffers and executables may be dropped in any order.

mod abi;
mod client;
mod compile;
mod error;
mod executable;
mod plugin;

pub use client::{Client, Kept};
pub use compile::{Topology, is_portable};
pub use error::{Error, Result};
pub use plugin::{Plugin, Setting};
