//! What must hold of a plan before anything runs: every slice lies in its allocation, nothing is written that may not be,
//! and every size fits the memory that it is said to describe.
//!
//! The steps that this crate runs itself rely on this; what machine code does with its buffers is its own affair.

use crate::plan::{Allocation, Convolution, Copy, Dot, Matrix, Plan, Slice, Sort, Step, TopK, Volume};
use nt_device::{DType, Error, Result, TensorSpec};

/// Sizes, strides and the like are below this, so that sums of a few products of them do not overflow.
const LIMIT: usize = 1 << 31;

pub fn check(plan: &Plan, text: usize, constants: usize) -> Result<()> {
    let mut writable = Vec::with_capacity(plan.allocations.len());
    let mut seen = vec![false; plan.arguments.len()];
    for &allocation in &plan.allocations {
        writable.push(match allocation {
            Allocation::Argument { size, index } => {
                let spec =
                    plan.arguments.get(index).ok_or_else(|| bad("it refers to an argument that is not there"))?;
                if bytes(spec)? != size || std::mem::replace(&mut seen[index], true) {
                    return Err(bad("the memory of an argument is not the argument's"));
                }
                plan.results.iter().any(|result| result.aliases == Some(index))
            }
            Allocation::Constant { size, offset } => {
                if offset % crate::memory::ALIGNMENT != 0 || offset.checked_add(size).is_none_or(|end| end > constants)
                {
                    return Err(bad("a constant lies outside of its constants"));
                }
                false
            }
            Allocation::Result { .. } | Allocation::Temporary { .. } => true,
        });
    }
    for function in &plan.functions {
        if function.at >= text {
            return Err(bad(&format!("{:?} lies outside of its machine code", function.name)));
        }
    }
    let checker = Checker { plan, writable };
    for result in &plan.results {
        let spec = TensorSpec::new(result.dtype, result.shape.clone());
        checker.read(result.from)?;
        if bytes(&spec)? != result.from.size
            || result.aliases.is_some_and(|index| plan.arguments.get(index) != Some(&spec))
        {
            return Err(bad("a result is not what it says it is"));
        }
    }
    checker.steps(&plan.steps)
}

fn bytes(spec: &TensorSpec) -> Result<usize> {
    spec.bytes().ok_or_else(|| bad("a tensor is larger than memory"))
}

fn bad(what: &str) -> Error {
    Error::Load(what.into())
}

struct Checker<'a> {
    plan: &'a Plan,
    writable: Vec<bool>,
}

impl Checker<'_> {
    fn steps(&self, steps: &[Step]) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Kernel(kernel) => {
                self.function(kernel.function)?;
                // Results may list what a kernel only passes on, constants and arguments among it.
                kernel.arguments.iter().chain(&kernel.results).try_for_each(|&slice| self.read(slice))
            }
            Step::Copy(copy) => self.copy(copy),
            Step::While(step) => {
                self.exactly(step.predicate, 1, "the condition of a loop")?;
                self.steps(&step.condition)?;
                self.steps(&step.body)
            }
            Step::Conditional(step) => {
                self.read(step.index)?;
                let aligned = step.index.size == 1 || step.index.size == 4 && step.index.offset % 4 == 0;
                if !aligned || step.branches.is_empty() {
                    return Err(bad("a branch is chosen by what is no truth value and no index"));
                }
                step.branches.iter().try_for_each(|branch| self.steps(branch))
            }
            Step::Sort(sort) => self.sort(sort),
            Step::TopK(step) => self.top_k(step),
            Step::Dot(dot) => self.dot(dot),
            Step::Convolution(step) => self.convolution(step),
        }
    }

    fn function(&self, index: usize) -> Result<()> {
        if index >= self.plan.functions.len() {
            return Err(bad("a step calls a function that is not there"));
        }
        Ok(())
    }

    fn read(&self, slice: Slice) -> Result<()> {
        let allocation = self.plan.allocations.get(slice.allocation).ok_or_else(|| bad("a step uses no allocation"))?;
        if slice.offset.checked_add(slice.size).is_none_or(|end| end > allocation.size()) {
            return Err(bad("a step uses memory outside of its allocation"));
        }
        Ok(())
    }

    fn write(&self, slice: Slice) -> Result<()> {
        self.read(slice)?;
        if !self.writable[slice.allocation] {
            return Err(bad("a step writes to a constant or to an argument that it may not change"));
        }
        Ok(())
    }

    fn exactly(&self, slice: Slice, size: usize, what: &str) -> Result<()> {
        self.read(slice)?;
        if slice.size != size {
            return Err(bad(&format!("{what} has {} bytes, not {size}", slice.size)));
        }
        Ok(())
    }

    /// One of `slices` is written while the others are in use.
    fn apart(&self, written: Slice, others: &[Slice]) -> Result<()> {
        self.write(written)?;
        for other in others {
            self.read(*other)?;
            let overlap = written.offset < other.offset + other.size && other.offset < written.offset + written.size;
            if written.allocation == other.allocation && overlap {
                return Err(bad("a step writes to what it reads"));
            }
        }
        Ok(())
    }

    /// An array of elements with these sizes and strides lies within a slice, each element where its type may lie.
    fn array(&self, slice: Slice, width: usize, sizes: &[usize], strides: &[usize]) -> Result<()> {
        self.read(slice)?;
        if sizes.len() != strides.len() || sizes.iter().chain(strides).any(|&number| number >= LIMIT) {
            return Err(bad("an operand has sizes that cannot be"));
        }
        if !slice.offset.is_multiple_of(width) {
            return Err(bad("an operand is not aligned"));
        }
        // Its elements are counted too, so that the memory bounds the work that copying it takes.
        product(sizes)?;
        if sizes.contains(&0) {
            return Ok(());
        }
        let last =
            sizes.iter().zip(strides).try_fold(0_usize, |sum, (&size, &stride)| sum.checked_add((size - 1) * stride));
        if last.is_none_or(|last| last >= slice.size / width) {
            return Err(bad("an operand is larger than its memory"));
        }
        Ok(())
    }

    fn copy(&self, copy: &Copy) -> Result<()> {
        self.read(copy.from)?;
        self.write(copy.to)?;
        let Some(transposed) = &copy.transposed else {
            if copy.from.size != copy.to.size {
                return Err(bad("a copy is of another size than its source"));
            }
            return Ok(());
        };
        if !matches!(transposed.width, 1 | 2 | 4 | 8) {
            return Err(bad("a copy is of elements of no known size"));
        }
        self.apart(copy.to, &[copy.from])?;
        self.array(copy.from, transposed.width, &transposed.sizes, &transposed.strides)?;
        self.filled(copy.to, transposed.width, product(&transposed.sizes)?)
    }

    /// A slice holds exactly so many elements.
    fn filled(&self, slice: Slice, width: usize, elements: usize) -> Result<()> {
        if !slice.offset.is_multiple_of(width) || elements.checked_mul(width) != Some(slice.size) {
            return Err(bad("an operand does not fill its memory"));
        }
        Ok(())
    }

    fn sort(&self, sort: &Sort) -> Result<()> {
        self.function(sort.comparator)?;
        let elements = product(&[sort.outer, sort.length, sort.inner])?;
        if sort.inputs.is_empty() {
            return Err(bad("nothing is sorted"));
        }
        for (index, input) in sort.inputs.iter().enumerate() {
            if !matches!(input.width, 1 | 2 | 4 | 8) {
                return Err(bad("elements of no known size are sorted"));
            }
            let others: Vec<Slice> = sort.inputs[..index].iter().map(|other| other.at).collect();
            self.apart(input.at, &others)?;
            self.filled(input.at, input.width, elements)?;
        }
        Ok(())
    }

    fn top_k(&self, step: &TopK) -> Result<()> {
        if step.k > step.length || step.length >= LIMIT {
            return Err(bad("more of the largest elements are asked for than there are"));
        }
        self.apart(step.largest, &[step.values, step.indices])?;
        self.apart(step.indices, &[step.values])?;
        self.filled(step.values, 4, product(&[step.batch, step.length])?)?;
        let found = product(&[step.batch, step.k])?;
        self.filled(step.largest, 4, found)?;
        self.filled(step.indices, 4, found)
    }

    fn dot(&self, dot: &Dot) -> Result<()> {
        use DType::{BF16, F16, F32, F64, I8, I32};
        let (operand, result) = (dot.dtype, dot.out_dtype);
        let known = match operand {
            F16 | BF16 => result == operand || result == F32,
            F32 | F64 | I32 => result == operand,
            I8 => result == I32,
            _ => false,
        };
        if !known {
            return Err(bad(&format!("{operand} cannot be contracted to {result}")));
        }
        self.apart(dot.out.at, &[dot.lhs.at, dot.rhs.at])?;
        let of = |matrix: &Matrix, dtype: DType, sizes: [usize; 3]| {
            self.array(matrix.at, dtype.size(), &sizes, &matrix.strides)
        };
        let &Dot { batch, m, n, k, .. } = dot;
        of(&dot.lhs, operand, [batch, m, k])?;
        of(&dot.rhs, operand, [batch, k, n])?;
        of(&dot.out, result, [batch, m, n])?;
        distinct(&[batch, m, n], &dot.out.strides)
    }

    fn convolution(&self, step: &Convolution) -> Result<()> {
        if !matches!(step.dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(bad(&format!("{} cannot be convolved", step.dtype)));
        }
        let (x, kernel, out) = (&step.x, &step.kernel, &step.out);
        let rank = step.window.len();
        if !(1..=3).contains(&rank) || [x, kernel, out].iter().any(|volume| volume.sizes.len() != rank + 2) {
            return Err(bad("a convolution is over no known number of axes"));
        }
        self.apart(out.at, &[x.at, kernel.at])?;
        for volume in [x, kernel, out] {
            self.array(volume.at, step.dtype.size(), &volume.sizes, &volume.strides)?;
        }
        let fits = step.groups >= 1
            && x.sizes[0] == out.sizes[0]
            && kernel.sizes[0] == out.sizes[1]
            && kernel.sizes[1].checked_mul(step.groups) == Some(x.sizes[1])
            && out.sizes[1] % step.groups == 0;
        let counts = |number: usize| (1..LIMIT).contains(&number);
        let windows = step.window.iter().all(|window| {
            counts(window.stride)
                && counts(window.dilation)
                && counts(window.base_dilation)
                && window.padding.unsigned_abs() < LIMIT
        });
        if !fits || !windows {
            return Err(bad("the sizes of a convolution do not fit together"));
        }
        distinct(&out.sizes, &out.strides)
    }
}

fn product(sizes: &[usize]) -> Result<usize> {
    // As for tensors: no axis of size 0 hides that the others overflow.
    let bound = sizes.iter().try_fold(1_usize, |all, &size| all.checked_mul(size.max(1)));
    let bound = bound
        .filter(|&bound| bound <= isize::MAX as usize / 8)
        .ok_or_else(|| bad("an operand is larger than memory"))?;
    Ok(if sizes.contains(&0) { 0 } else { bound })
}

/// No two elements of an array share a place, so that threads may write them all at once.
fn distinct(sizes: &[usize], strides: &[usize]) -> Result<()> {
    let mut axes: Vec<(usize, usize)> =
        strides.iter().copied().zip(sizes.iter().copied()).filter(|axis| axis.1 > 1).collect();
    axes.sort_unstable();
    let mut reach = 0;
    for (stride, size) in axes {
        if stride <= reach {
            return Err(bad("two results have one place"));
        }
        reach += (size - 1) * stride;
    }
    Ok(())
}

impl Volume {
    /// The array's elements.
    pub fn count(&self) -> usize {
        self.sizes.iter().product()
    }
}
