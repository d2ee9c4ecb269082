//! The plan as the file has it. What its numbers may be, `check` says.

use nt_device::{DType, TensorSpec};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Extensions that the processor must have, by LLVM's names.
    pub requires: Vec<String>,
    /// What they are together, for messages.
    pub level: String,
    pub arguments: Vec<TensorSpec>,
    pub results: Vec<ResultPlan>,
    pub allocations: Vec<Allocation>,
    pub image: ImagePlan,
    pub functions: Vec<Function>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultPlan {
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Argument whose memory it takes over.
    pub aliases: Option<usize>,
    pub from: Slice,
}

/// A part of an allocation.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "(usize, usize, usize)")]
pub struct Slice {
    pub allocation: usize,
    pub offset: usize,
    pub size: usize,
}

impl From<(usize, usize, usize)> for Slice {
    fn from((allocation, offset, size): (usize, usize, usize)) -> Slice {
        Slice { allocation, offset, size }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Allocation {
    Argument { size: usize, index: usize },
    Constant { size: usize, offset: usize },
    Result { size: usize },
    Temporary { size: usize },
}

impl Allocation {
    pub fn size(self) -> usize {
        match self {
            Allocation::Argument { size, .. }
            | Allocation::Constant { size, .. }
            | Allocation::Result { size }
            | Allocation::Temporary { size } => size,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePlan {
    /// Bytes of code.
    pub text: usize,
    pub rebase: Vec<usize>,
    pub imports: Vec<Import>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    pub name: String,
    pub at: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    pub name: String,
    pub at: usize,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    Kernel(Kernel),
    Copy(Copy),
    While(While),
    Conditional(Conditional),
    Sort(Sort),
    TopK(TopK),
    Dot(Dot),
    Convolution(Convolution),
}

#[derive(Debug, Deserialize)]
pub struct Kernel {
    pub function: usize,
    pub workgroups: [u64; 3],
    pub arguments: Vec<Slice>,
    pub results: Vec<Slice>,
}

#[derive(Debug, Deserialize)]
pub struct Copy {
    pub from: Slice,
    pub to: Slice,
    pub transposed: Option<Transposed>,
}

/// A copy into another order of axes: elements of the target follow each other, those of the source lie `strides` apart.
#[derive(Debug, Deserialize)]
pub struct Transposed {
    pub width: usize,
    pub sizes: Vec<usize>,
    pub strides: Vec<usize>,
}

#[derive(Debug, Deserialize)]
pub struct While {
    /// How often the body runs, where that was known.
    pub trips: Option<u64>,
    pub predicate: Slice,
    pub condition: Vec<Step>,
    pub body: Vec<Step>,
}

#[derive(Debug, Deserialize)]
pub struct Conditional {
    pub index: Slice,
    pub branches: Vec<Vec<Step>>,
}

#[derive(Debug, Deserialize)]
pub struct Sort {
    pub comparator: usize,
    pub inputs: Vec<SortInput>,
    pub outer: usize,
    pub length: usize,
    pub inner: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SortInput {
    pub at: Slice,
    pub width: usize,
}

#[derive(Debug, Deserialize)]
pub struct TopK {
    pub batch: usize,
    pub length: usize,
    pub k: usize,
    pub values: Slice,
    pub largest: Slice,
    pub indices: Slice,
}

/// `out[b, m, n] = sum over k of lhs[b, m, k] * rhs[b, k, n]`.
#[derive(Debug, Deserialize)]
pub struct Dot {
    pub dtype: DType,
    pub out_dtype: DType,
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub lhs: Matrix,
    pub rhs: Matrix,
    pub out: Matrix,
}

/// An operand of a dot: strides of its axes in elements.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    pub at: Slice,
    pub strides: [usize; 3],
}

#[derive(Debug, Deserialize)]
pub struct Convolution {
    pub dtype: DType,
    pub groups: usize,
    /// Axes: batch, channels, spatial.
    pub x: Volume,
    /// Axes: outputs, channels of a group, spatial.
    pub kernel: Volume,
    /// Axes: batch, outputs, spatial.
    pub out: Volume,
    pub window: Vec<Window>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub at: Slice,
    pub sizes: Vec<usize>,
    pub strides: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub stride: usize,
    /// Before the first element; negative where it cuts some off.
    pub padding: isize,
    pub dilation: usize,
    pub base_dilation: usize,
}
