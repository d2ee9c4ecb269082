//! The file of the weights.

use crate::{Argument, Error, Result};
use nt_device::{Bytes, DType};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;

/// A safetensors file whose header was checked; tensors are parts of its mapping.
#[derive(Debug)]
pub struct WeightFile {
    data: Bytes,
    tensors: BTreeMap<String, Tensor>,
    aliases: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Tensor {
    dtype: Option<DType>,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl WeightFile {
    pub(crate) fn new(data: Bytes, aliases: BTreeMap<String, String>) -> Result<WeightFile> {
        let parsed = SafeTensors::deserialize(&data).map_err(|error| Error::Weights(error.to_string()))?;
        let start = data.as_ptr() as usize;
        let tensors = parsed.iter().map(|(name, view)| {
            let at = view.data().as_ptr() as usize - start;
            let range = at..at + view.data().len();
            (name.to_string(), Tensor { dtype: dtype(view.dtype()), shape: view.shape().to_vec(), range })
        });
        let tensors = tensors.collect();
        Ok(WeightFile { data, tensors, aliases })
    }

    /// The bytes of a weight.
    ///
    /// # Errors
    /// [`Error::Weights`] where there is no such tensor, or it has another type or shape.
    pub fn tensor(&self, argument: &Argument) -> Result<Bytes> {
        let name = self.aliases.get(&argument.name).unwrap_or(&argument.name);
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::Weights(format!("there is no tensor {name}")));
        };
        if tensor.dtype != Some(argument.dtype) || tensor.shape != argument.shape {
            let wanted = argument.spec();
            return Err(Error::Weights(format!("{name} is not {wanted}, as the program has it")));
        }
        self.data.slice(tensor.range.clone()).ok_or_else(|| Error::Weights(format!("{name} lies outside of the file")))
    }
}

/// The type of this name in the safetensors format; None where it is none of the archive's.
pub fn dtype(found: Dtype) -> Option<DType> {
    Some(match found {
        Dtype::BOOL => DType::Pred,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::I16 => DType::I16,
        Dtype::U16 => DType::U16,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::I64 => DType::I64,
        Dtype::U64 => DType::U64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        _ => return None,
    })
}
