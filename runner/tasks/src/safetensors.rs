//! The safetensors format: the length of a header, the header as JSON, and the elements.

use crate::array::{Element, Layout, reason};
use nt_device::{DType, TensorSpec};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, View};
use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// As the format has it.
const LONGEST: u64 = 100_000_000;

/// Names of the tensors in a file, sorted, how their elements lie, and where they start.
///
/// # Errors
/// What is wrong with the file.
pub fn header(file: &File, length: u64) -> Result<Vec<(String, Layout, u64)>, String> {
    let mut size = [0; 8];
    file.read_exact_at(&mut size, 0).map_err(|error| reason(&error))?;
    let size = u64::from_le_bytes(size);
    if size > LONGEST.min(length.saturating_sub(8)) {
        return Err(format!("its header has {size} bytes"));
    }
    let mut text = vec![0; size as usize];
    file.read_exact_at(&mut text, 8).map_err(|error| reason(&error))?;
    let header: Metadata = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let start = 8 + size;
    let mut found = Vec::new();
    let mut end = 0;
    for (name, info) in header.tensors() {
        let dtype = nt_bundle::dtype(info.dtype).ok_or_else(|| format!("{name:?} holds {:?} values", info.dtype))?;
        let layout =
            Layout { element: Element::Number(dtype), shape: info.shape.clone(), fortran: false, big_endian: false };
        let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if to.checked_sub(from) != layout.bytes().map(|bytes| bytes as u64) || to > length - start {
            return Err(format!("{name:?} lies where it cannot"));
        }
        end = end.max(to);
        found.push((name, layout, start + from));
    }
    if end != length - start {
        return Err("it is longer than its tensors".into());
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// A tensor to be written.
pub struct Written<'a> {
    pub spec: &'a TensorSpec,
    pub bytes: &'a [u8],
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        match self.spec.dtype {
            DType::Pred => Dtype::BOOL,
            DType::I8 => Dtype::I8,
            DType::U8 => Dtype::U8,
            DType::I16 => Dtype::I16,
            DType::U16 => Dtype::U16,
            DType::I32 => Dtype::I32,
            DType::U32 => Dtype::U32,
            DType::I64 => Dtype::I64,
            DType::U64 => Dtype::U64,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.spec.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
