//! Types and shapes of tensors.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Element type, named as in the archive's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DType {
    /// Truth values, one byte each: 0 or 1.
    #[serde(rename = "bool")]
    Pred,
    #[serde(rename = "int8")]
    I8,
    #[serde(rename = "uint8")]
    U8,
    #[serde(rename = "int16")]
    I16,
    #[serde(rename = "uint16")]
    U16,
    #[serde(rename = "int32")]
    I32,
    #[serde(rename = "uint32")]
    U32,
    #[serde(rename = "int64")]
    I64,
    #[serde(rename = "uint64")]
    U64,
    #[serde(rename = "float16")]
    F16,
    #[serde(rename = "bfloat16")]
    BF16,
    #[serde(rename = "float32")]
    F32,
    #[serde(rename = "float64")]
    F64,
}

impl DType {
    pub const ALL: [DType; 13] = [
        DType::Pred,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::Pred | DType::I8 | DType::U8 => 1,
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::I64 | DType::U64 | DType::F64 => 8,
        }
    }

    /// The name that numpy and the archive's files use.
    pub fn name(self) -> &'static str {
        match self {
            DType::Pred => "bool",
            DType::I8 => "int8",
            DType::U8 => "uint8",
            DType::I16 => "int16",
            DType::U16 => "uint16",
            DType::I32 => "int32",
            DType::U32 => "uint32",
            DType::I64 => "int64",
            DType::U64 => "uint64",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::F32 => "float32",
            DType::F64 => "float64",
        }
    }

    /// The type with this name.
    pub fn named(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Type and shape of a tensor whose elements lie in row-major order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl TensorSpec {
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> TensorSpec {
        TensorSpec { dtype, shape: shape.into() }
    }

    /// Number of elements; `None` where it exceeds what memory can hold.
    pub fn elements(&self) -> Option<usize> {
        self.bytes().map(|bytes| bytes / self.dtype.size())
    }

    /// Number of bytes; `None` where it exceeds what memory can hold.
    pub fn bytes(&self) -> Option<usize> {
        // An axis of size 0 must not hide that the others overflow.
        let bound = self.shape.iter().try_fold(self.dtype.size(), |all, &size| all.checked_mul(size.max(1)))?;
        isize::try_from(bound).ok()?;
        Some(if self.shape.contains(&0) { 0 } else { bound })
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_overflow_are_none() {
        assert_eq!(TensorSpec::new(DType::F32, [2, 3]).bytes(), Some(24));
        assert_eq!(TensorSpec::new(DType::F64, []).bytes(), Some(8));
        assert_eq!(TensorSpec::new(DType::F64, [0, 5]).elements(), Some(0));
        assert_eq!(TensorSpec::new(DType::F32, [usize::MAX, 2]).bytes(), None);
        assert_eq!(TensorSpec::new(DType::F32, [usize::MAX, 2, 0]).bytes(), None);
        assert_eq!(TensorSpec::new(DType::I8, [isize::MAX as usize + 1]).bytes(), None);
    }

    #[test]
    fn every_type_is_found_by_its_name() {
        for dtype in DType::ALL {
            assert_eq!(DType::named(dtype.name()), Some(dtype));
        }
        assert_eq!(DType::named("float8"), None);
    }
}
