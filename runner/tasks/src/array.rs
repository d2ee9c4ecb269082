//! Arrays without axis names, and files of them: .npy, .npz and .safetensors. Shapes are known, and can be refused,
//! before data is read.

use crate::npz::Member;
use crate::tensor::Tensor;
use crate::{Error, Result, npy, npz, safetensors};
use nt_device::{DType, TensorSpec};
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What names of files end in that arrays are read from.
pub const READABLE: [&str; 3] = [".npy", ".npz", ".safetensors"];

/// Type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    Number(DType),
    /// So many bytes of what the file does not say: how numpy keeps bfloat16.
    Opaque(usize),
}

impl Element {
    pub fn size(self) -> usize {
        match self {
            Element::Number(dtype) => dtype.size(),
            Element::Opaque(size) => size,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Number(dtype) => write!(f, "{dtype}"),
            Element::Opaque(size) => write!(f, "void{}", 8 * size),
        }
    }
}

/// An array in row-major order, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub element: Element,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// How elements lie in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub element: Element,
    pub shape: Vec<usize>,
    /// The first axis runs fastest.
    pub fortran: bool,
    pub big_endian: bool,
}

impl Layout {
    /// Number of bytes; None where memory cannot hold them.
    pub fn bytes(&self) -> Option<usize> {
        let single = TensorSpec::new(DType::U8, self.shape.clone()).bytes()?;
        single.checked_mul(self.element.size()).filter(|&bytes| isize::try_from(bytes).is_ok())
    }

    /// The array whose elements lie so in `bytes`.
    fn array(&self, mut bytes: Vec<u8>) -> Array {
        if self.big_endian {
            bytes.chunks_exact_mut(self.element.size()).for_each(<[u8]>::reverse);
        }
        if self.fortran && self.shape.len() > 1 {
            bytes = self.transposed(bytes);
        }
        Array { element: self.element, shape: self.shape.clone(), bytes }
    }

    fn transposed(&self, bytes: Vec<u8>) -> Vec<u8> {
        // Only the size of an element matters to its order.
        let dtype = match self.element.size() {
            1 => DType::U8,
            2 => DType::U16,
            4 => DType::U32,
            _ => DType::U64,
        };
        let names: Vec<String> = (0..self.shape.len()).map(|axis| axis.to_string()).collect();
        let (axes, shape) = (names.iter().rev().cloned().collect(), self.shape.iter().rev().copied());
        let stored = Tensor { axes, spec: TensorSpec::new(dtype, shape.collect::<Vec<_>>()), bytes };
        stored.ordered(&names).expect("the same axes").bytes
    }
}

/// An array in a file, of which only the header was read.
pub struct Stored {
    pub layout: Layout,
    path: PathBuf,
    source: Source,
}

enum Source {
    File { file: Rc<File>, start: u64 },
    Member(Member),
}

impl Stored {
    /// The array.
    ///
    /// # Errors
    /// [`Error::Input`] where the file ends early, or is damaged.
    pub fn read(&self) -> Result<Array> {
        let length = self.layout.bytes().ok_or_else(|| refuse(&self.path, "it is larger than memory"))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| refuse(&self.path, "it is larger than memory"))?;
        let found = match &self.source {
            Source::File { file, start } => {
                bytes.resize(length, 0);
                file.read_exact_at(&mut bytes, *start)
            }
            Source::Member(member) => member.read(length, &mut bytes),
        };
        found.map_err(|error| refuse(&self.path, reason(&error)))?;
        Ok(self.layout.array(bytes))
    }
}

/// The arrays in a file by name; the one in a .npy file has the name "".
///
/// # Errors
/// [`Error::Input`] where there is no such file, it is damaged, or holds what is no array of numbers.
pub fn stored(path: &Path) -> Result<Vec<(String, Stored)>> {
    let shown = path.display();
    let Some(kind) = READABLE.into_iter().find(|&suffix| has_suffix(path, suffix)) else {
        return Err(Error::Input(format!("{shown}: arrays are read from {} files", READABLE.join(", "))));
    };
    // Opening what is no file, such as a pipe, could wait for ever.
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(Error::Input(format!("{shown}: that is not a file"))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::Input(format!("{shown}: there is no such file")));
        }
        Err(error) => return Err(refuse(path, reason(&error))),
    }
    let file = File::open(path).map_err(|error| refuse(path, reason(&error)))?;
    let length = file.metadata().map_err(|error| refuse(path, reason(&error)))?.len();
    if kind == ".npz" {
        let members = npz::members(file).map_err(|problem| refuse(path, problem))?;
        let stored = |member: Member| {
            let (name, layout) = (member.name.clone(), member.layout.clone());
            (name, Stored { layout, path: path.into(), source: Source::Member(member) })
        };
        return Ok(members.into_iter().map(stored).collect());
    }
    let found = if kind == ".npy" {
        npy::header(&mut &file).and_then(|(layout, start)| {
            let fits = layout.bytes().is_some_and(|bytes| start + bytes as u64 <= length);
            if fits { Ok(vec![(String::new(), layout, start)]) } else { Err("it ends early".into()) }
        })
    } else {
        safetensors::header(&file, length)
    };
    let file = Rc::new(file);
    let stored = |(name, layout, start)| {
        let source = Source::File { file: Rc::clone(&file), start };
        (name, Stored { layout, path: path.to_path_buf(), source })
    };
    Ok(found.map_err(|problem| refuse(path, problem))?.into_iter().map(stored).collect())
}

/// Whether a file's name has this ending, and more than that.
pub fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.extension().is_some_and(|found| found.as_encoded_bytes() == &suffix.as_bytes()[1..])
}

fn refuse(path: &Path, problem: impl fmt::Display) -> Error {
    let kind = path.extension().unwrap_or_default().to_string_lossy();
    Error::Input(format!("{}: not a .{kind} file that can be read ({problem})", path.display()))
}

/// The system's words for an error, without its number.
pub fn reason(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::UnexpectedEof {
        return "it ends early".into();
    }
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_string())
}
