//! The native CPU device: runs what XLA:CPU compiled ahead of time, with no XLA in the process.
//!
//! An executable is a `.ntx` file (docs/ntx-format.md): linked machine code, constants, and a plan of steps. Most steps call
//! a function of the machine code; contractions, sorting and loops are this crate's own. A file is checked in full, every
//! offset and size of it, before anything of it runs.

mod check;
mod convolution;
mod copy;
mod dot;
mod execute;
mod features;
mod file;
mod image;
mod imports;
mod kernel;
mod load;
mod memory;
mod plan;
mod sort;
mod top_k;
#[cfg(feature = "trace")]
mod trace;

use memory::{Aligned, Data};
use nt_device::{Buffer, Bytes, Device, Error, Executable, Result, Signature, TensorSpec};

/// The processor that this program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Device for Cpu {
    fn load(&self, executable: Bytes, signature: &Signature) -> Result<Box<dyn Executable>> {
        let program = load::load(&executable)?;
        if program.signature() != signature {
            return Err(Error::Load("it has other arguments or results than it should have".into()));
        }
        Ok(Box::new(program))
    }

    /// Bytes that lie at a multiple of 64, as those of a mapped file can, are used where they are.
    fn upload(&self, spec: &TensorSpec, bytes: Bytes) -> Result<Buffer> {
        if spec.bytes() != Some(bytes.len()) {
            return Err(Error::Argument(format!("{spec} does not have {} bytes", bytes.len())));
        }
        Ok(Buffer::new(spec.clone(), Data::holding(bytes)?))
    }

    /// Memory that the system zeroes when it is first touched.
    fn zeros(&self, spec: &TensorSpec) -> Result<Buffer> {
        let bytes = spec.bytes().ok_or_else(|| Error::Memory(format!("{spec} is larger than memory")))?;
        Ok(Buffer::new(spec.clone(), Data::Owned(Aligned::new(bytes)?)))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        Ok(memory::of(buffer)?.bytes().to_vec())
    }
}

impl Cpu {
    /// As [`Device::load`], taking the file's own word for what its arguments and results are.
    ///
    /// # Errors
    /// [`Error::Load`] where the file is damaged or needs another processor.
    pub fn open(&self, executable: &Bytes) -> Result<Box<dyn Executable>> {
        Ok(Box::new(load::load(executable)?))
    }
}
