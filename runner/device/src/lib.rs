//! The seam between tasks and the devices that run their programs.
//!
//! A [`Device`] loads executables and holds tensors; an [`Executable`] takes tensors in the order of the lowered
//! program's arguments and gives its results. What a buffer is, only its own device knows.

mod bytes;
mod tensor;

pub use bytes::Bytes;
pub use tensor::{DType, TensorSpec};

use std::any::Any;
use std::fmt;

/// Why a device refuses or fails, in one line for a person.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// The executable is damaged, of another version, or not for this device.
    #[error("the executable cannot be loaded: {0}")]
    Load(String),
    /// An argument does not fit the program.
    #[error("{0}")]
    Argument(String),
    /// The program was started and failed.
    #[error("the program failed: {0}")]
    Run(String),
    /// The device has no room.
    #[error("out of memory: {0}")]
    Memory(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// A tensor on a device.
pub struct Buffer {
    spec: TensorSpec,
    data: Box<dyn Any + Send + Sync>,
}

impl Buffer {
    /// For devices: wraps what they keep for a tensor.
    pub fn new(spec: TensorSpec, data: impl Any + Send + Sync) -> Buffer {
        Buffer { spec, data: Box::new(data) }
    }

    pub fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    /// For devices: what they keep, unless the buffer is another device's.
    pub fn data<T: Any>(&self) -> Option<&T> {
        self.data.downcast_ref()
    }

    /// For devices: gives up the buffer for what they keep.
    ///
    /// # Errors
    /// The buffer as it was, where it is another device's.
    pub fn into_data<T: Any>(self) -> std::result::Result<(TensorSpec, T), Buffer> {
        let Buffer { spec, data } = self;
        match data.downcast() {
            Ok(data) => Ok((spec, *data)),
            Err(data) => Err(Buffer { spec, data }),
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({})", self.spec)
    }
}

/// An argument of a call.
#[derive(Debug)]
pub enum Arg<'a> {
    /// Read, and left as it is.
    Borrow(&'a Buffer),
    /// Given up: the result that aliases this argument takes over its memory.
    Donate(Buffer),
}

impl Arg<'_> {
    pub fn buffer(&self) -> &Buffer {
        match self {
            Arg::Borrow(buffer) => buffer,
            Arg::Donate(buffer) => buffer,
        }
    }
}

/// One result of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultSpec {
    pub spec: TensorSpec,
    /// Argument whose memory the result takes over where that is donated.
    pub aliases: Option<usize>,
}

/// Arguments and results of a program, in order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Signature {
    pub arguments: Vec<TensorSpec>,
    pub results: Vec<ResultSpec>,
}

impl Signature {
    /// Checks a call's arguments.
    ///
    /// # Errors
    /// [`Error::Argument`] where their number, a type or a shape differs.
    pub fn check(&self, args: &[Arg<'_>]) -> Result<()> {
        if args.len() != self.arguments.len() {
            let (wanted, found) = (self.arguments.len(), args.len());
            return Err(Error::Argument(format!("the program takes {wanted} arguments, not {found}")));
        }
        for (index, (arg, wanted)) in args.iter().zip(&self.arguments).enumerate() {
            let found = arg.buffer().spec();
            if found != wanted {
                return Err(Error::Argument(format!("argument {index} must be {wanted}, not {found}")));
            }
        }
        Ok(())
    }
}

/// What loads programs and holds tensors.
pub trait Device: Send + Sync {
    /// Prepares an executable that was compiled for this device, and that must have this signature.
    ///
    /// # Errors
    /// [`Error::Load`] where the executable is damaged, for another device, or for another program.
    fn load(&self, executable: Bytes, signature: &Signature) -> Result<Box<dyn Executable>>;

    /// Puts a tensor onto the device; elements lie in row-major order, little-endian.
    ///
    /// # Errors
    /// [`Error::Argument`] where the number of bytes is not the spec's, [`Error::Memory`].
    fn upload(&self, spec: &TensorSpec, bytes: Bytes) -> Result<Buffer>;

    /// A tensor of zeros on the device.
    ///
    /// # Errors
    /// [`Error::Memory`].
    fn zeros(&self, spec: &TensorSpec) -> Result<Buffer> {
        let bytes = spec.bytes().ok_or_else(|| Error::Memory(format!("{spec} is larger than memory")))?;
        self.upload(spec, Bytes::from(vec![0; bytes]))
    }

    /// Copies a tensor from the device.
    ///
    /// # Errors
    /// [`Error::Argument`] where the buffer is another device's; what the device reports.
    fn download(&self, buffer: &Buffer) -> Result<Vec<u8>>;
}

/// A program that is ready to run.
pub trait Executable: Send + Sync {
    fn signature(&self) -> &Signature;

    /// Runs the program; returns its results in order.
    ///
    /// # Errors
    /// [`Error::Argument`] where arguments do not fit the signature, [`Error::Run`] where the program fails.
    fn run(&self, args: Vec<Arg<'_>>) -> Result<Vec<Buffer>>;
}
