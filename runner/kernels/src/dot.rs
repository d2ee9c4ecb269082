//! The contraction: checks, choice of kernel, division among threads.

#[cfg(target_arch = "x86_64")]
use crate::amx;
#[cfg(target_arch = "x86_64")]
use crate::blocks::{self, tiles, vectors};
use crate::columns;
use crate::element::{DType, Element};
use crate::int8;
use crate::isa::Isa;
use crate::panels::{self, Panel, Product};
use crate::pool;
use crate::rows;
use crate::simd::Portable;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use half::{bf16, f16};
use std::ops::Range;

/// How a matrix of weights lies in memory, last axis contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, n, k]`: each output's weights lie together (PyTorch's `Linear.weight`).
    Nk,
    /// `[batch, k, n]`.
    Kn,
}

/// Sizes of a contraction: x `[batch, m, k]` with w in [`Layout`] gives `[batch, m, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dot {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub layout: Layout,
}

/// A buffer whose length is not what the sizes ask for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShapeError {
    #[error("the {operand} has {found} elements where its sizes ask for {wanted}")]
    Length { operand: &'static str, found: usize, wanted: usize },
    #[error("the sizes of the {operand} overflow")]
    Overflow { operand: &'static str },
    #[error("this processor lacks the instruction set that was asked for")]
    Isa,
}

impl Dot {
    fn check(&self, x: usize, w: usize, out: usize) -> Result<(), ShapeError> {
        for (operand, found, rows, columns) in
            [("left operand", x, self.m, self.k), ("right operand", w, self.n, self.k), ("result", out, self.m, self.n)]
        {
            let wanted = self.batch.checked_mul(rows).and_then(|size| size.checked_mul(columns));
            let wanted = wanted.ok_or(ShapeError::Overflow { operand })?;
            if found != wanted {
                return Err(ShapeError::Length { operand, found, wanted });
            }
        }
        Ok(())
    }
}

/// Where results go; shared by threads that write to different places.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    at: *mut u8,
    dtype: DType,
}

// SAFETY: threads write to different places; see `put`.
unsafe impl Sync for Out {}

impl Out {
    /// # Safety
    /// `index` lies within the buffer and no other thread touches it.
    #[inline(always)]
    pub(crate) unsafe fn put(self, index: usize, value: f32) {
        // SAFETY: the caller vouches for the place; `dtype` is the buffer's.
        unsafe {
            match self.dtype {
                DType::F32 => self.at.cast::<f32>().add(index).write(value),
                DType::Bf16 => self.at.cast::<bf16>().add(index).write(bf16::from_f32(value)),
                DType::F16 => self.at.cast::<f16>().add(index).write(f16::from_f32(value)),
                DType::I8 | DType::I32 => unreachable!("checked before the kernels start"),
            }
        }
    }

    /// Where element `index` is, if elements are f32.
    #[inline(always)]
    pub(crate) fn f32s(self, index: usize) -> Option<*mut f32> {
        (self.dtype == DType::F32).then(|| self.at.cast::<f32>().wrapping_add(index))
    }

    /// Writes sums that follow each other, in f32, or in i32 where results are.
    ///
    /// # Safety
    /// As for [`Out::put`], and `sums` is valid for so many.
    #[inline(always)]
    pub(crate) unsafe fn put_row(self, index: usize, sums: *const f32, count: usize) {
        // SAFETY: handed on to the caller; `dtype` is the buffer's.
        unsafe {
            match self.dtype {
                DType::F32 | DType::I32 => self.at.cast::<f32>().add(index).copy_from_nonoverlapping(sums, count),
                DType::Bf16 => {
                    let to = self.at.cast::<u16>().add(index);
                    for i in 0..count {
                        to.add(i).write(rounded((*sums.add(i)).to_bits()));
                    }
                }
                DType::F16 => (0..count).for_each(|i| self.put(index + i, *sums.add(i))),
                DType::I8 => unreachable!("no sum is an int8"),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn i32s(at: *mut i32) -> Out {
        Out { at: at.cast(), dtype: DType::I32 }
    }

    pub(crate) fn offset(self, elements: usize) -> Out {
        Out { at: self.at.wrapping_add(elements * self.dtype.size()), dtype: self.dtype }
    }
}

/// The bf16 next to an f32, without a branch, so that a row of them is done by vectors.
#[inline(always)]
fn rounded(bits: u32) -> u16 {
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    let quiet = bits | 1 << 22;
    let nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
    ((if nan { quiet } else { nearest }) >> 16) as u16
}

/// One member of the batch, as the kernels see it: `x` made ready by `pack`.
#[derive(Clone, Copy)]
pub(crate) struct Part<T> {
    pub x: *const f32,
    pub w: *const T,
    pub out: Out,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// What an instruction set offers for elements `T`.
pub(crate) struct Kernels<T> {
    /// f32 values in a pair of vectors; packed rows of x are padded to a multiple.
    pub pair: usize,
    pub pack: unsafe fn(&[T], usize, *mut f32),
    pub rows: unsafe fn(&Part<T>, Range<usize>),
    pub columns: unsafe fn(&Part<T>, Range<usize>),
    pub panels: panels::Kernels<T>,
}

/// Floating elements that the kernels are compiled for.
pub trait Contract: Element {
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn kernels(isa: Isa) -> Kernels<Self>;

    /// Computes the contraction with instructions for just this type, if there are any and they suit the sizes.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn special(_isa: Isa, _sizes: &Dot, _x: &[Self], _w: &[Self], _out: Out) -> bool {
        false
    }
}

macro_rules! entry_points {
    ($name:ident, $simd:ty $(, $features:literal)?) => {
        mod $name {
            use super::*;
            use crate::simd::Load;
            pub const PAIR: usize = 2 * <$simd as crate::simd::Simd>::LANES;
            /// # Safety
            /// The processor has the instruction set; the rest as `rows::pack` asks.
            $(#[target_feature(enable = $features)])?
            pub unsafe fn pack<T: Element>(x: &[T], k: usize, to: *mut f32) where $simd: Load<T> {
                // SAFETY: handed on to the caller.
                unsafe { rows::pack::<$simd, T>(x, k, to) }
            }
            /// # Safety
            /// The processor has the instruction set; the rest as `rows::chunk` asks.
            $(#[target_feature(enable = $features)])?
            pub unsafe fn rows<T: Element>(part: &Part<T>, range: Range<usize>) where $simd: Load<T> {
                // SAFETY: handed on to the caller.
                unsafe { rows::chunk::<$simd, T>(part, range) }
            }
            /// # Safety
            /// The processor has the instruction set; the rest as `columns::chunk` asks.
            $(#[target_feature(enable = $features)])?
            pub unsafe fn columns<T: Element>(part: &Part<T>, range: Range<usize>) where $simd: Load<T> {
                // SAFETY: handed on to the caller.
                unsafe { columns::chunk::<$simd, T>(part, range) }
            }
            /// # Safety
            /// The processor has the instruction set; the rest as `panels::panel` asks.
            $(#[target_feature(enable = $features)])?
            pub unsafe fn panel<T: Element>(
                product: &Product<T>,
                columns: Range<usize>,
                ks: Range<usize>,
                to: *mut f32,
            ) where $simd: Load<T> {
                // SAFETY: handed on to the caller.
                unsafe { panels::panel::<$simd, T>(product, columns, ks, to) }
            }
            /// # Safety
            /// The processor has the instruction set; the rest as `panels::block` asks.
            $(#[target_feature(enable = $features)])?
            pub unsafe fn block<T: Element>(
                product: &Product<T>,
                panel: Panel,
                rows: Range<usize>,
                columns: Range<usize>,
                ks: Range<usize>,
            ) where $simd: Load<T> {
                // SAFETY: handed on to the caller.
                unsafe { panels::block::<$simd, T>(product, panel, rows, columns, ks) }
            }
            pub fn kernels<T: Element>() -> Kernels<T> where $simd: Load<T> {
                let panels =
                    panels::Kernels { pair: PAIR, shuffled: <$simd as Load<T>>::EVEN_ODD, panel: panel::<T>, block: block::<T> };
                Kernels { pair: PAIR, pack: pack::<T>, rows: rows::<T>, columns: columns::<T>, panels }
            }
        }
    };
}

entry_points!(portable, Portable);
#[cfg(target_arch = "x86_64")]
entry_points!(avx2, Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
entry_points!(avx512, Avx512, "avx512f,avx512bw,avx2,fma,f16c");

macro_rules! contract {
    ($element:ty $(, $special:item)?) => {
        impl Contract for $element {
            #[allow(private_interfaces)]
            fn kernels(isa: Isa) -> Kernels<Self> {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => avx512::kernels(),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2::kernels(),
                    _ => portable::kernels(),
                }
            }
            $(#[allow(private_interfaces)] $special)?
        }
    };
}
contract!(
    f32,
    #[cfg(target_arch = "x86_64")]
    fn special(isa: Isa, sizes: &Dot, x: &[f32], w: &[f32], out: Out) -> bool {
        let suits = vectors::suit_singles(isa, sizes);
        if suits {
            // SAFETY: the lengths and the instruction set were checked.
            unsafe { blocks::dot::<vectors::Singles, _>(sizes, x.as_ptr(), w.as_ptr(), out) };
        }
        suits
    }
);
contract!(f16);
contract!(
    bf16,
    #[cfg(target_arch = "x86_64")]
    fn special(isa: Isa, sizes: &Dot, x: &[bf16], w: &[bf16], out: Out) -> bool {
        if tiles::suit(isa, sizes) {
            // SAFETY: the lengths and the instruction set were checked.
            unsafe { tiles::dot(sizes, x.as_ptr(), w.as_ptr(), out) };
        } else if amx::suits(isa, sizes) {
            // SAFETY: every result is written once, within the checked length.
            amx::dot(sizes, x, w, |index, sum| unsafe { out.put(index, sum) });
        } else if vectors::suit_pairs(isa, sizes) {
            // SAFETY: as above.
            unsafe { blocks::dot::<vectors::Pairs, _>(sizes, x.as_ptr(), w.as_ptr(), out) };
        } else {
            return false;
        }
        true
    }
);

/// Bytes of weights that one thread takes at a time.
const CHUNK: usize = 128 << 10;

/// Weights of less than this many bytes are not worth waking another thread for.
const ALONE: usize = 128 << 10;

/// Outputs that one thread takes at a time; depends on the sizes only.
fn outputs_per_chunk(sizes: &Dot, element: usize) -> usize {
    match sizes.layout {
        Layout::Nk => (CHUNK / (sizes.k * element).max(1)).max(1).next_multiple_of(rows::GRAIN),
        Layout::Kn => columns::width(sizes.m, sizes.n),
    }
}

/// Runs `task(batch index, outputs)` over all outputs of all members of the batch.
pub(crate) fn divide(sizes: &Dot, element: usize, task: impl Fn(usize, Range<usize>) + Sync) {
    let width = outputs_per_chunk(sizes, element);
    let chunks = sizes.n.div_ceil(width);
    let run = |index: usize| {
        let (batch, chunk) = (index / chunks, index % chunks);
        task(batch, chunk * width..((chunk + 1) * width).min(sizes.n));
    };
    let count = sizes.batch * chunks;
    if sizes.batch * sizes.n * sizes.k * element < ALONE {
        (0..count).for_each(run);
    } else {
        pool::for_each(count, run);
    }
}

/// Lets threads share what they only read, or write at different places.
pub(crate) struct Shared<T>(pub T);

impl<T> Shared<T> {
    /// The whole of it, so that closures do not take its parts one by one.
    pub(crate) fn get(&self) -> &T {
        &self.0
    }
}

// SAFETY: wraps pointers into buffers that outlive the call that shares them; see `divide`.
unsafe impl<T> Sync for Shared<T> {}

/// Contracts `x` `[batch, m, k]` with `w` into `out` `[batch, m, n]`, adding up in f32.
///
/// # Errors
/// [`ShapeError`] where a length is not what `sizes` asks for; `out` is untouched then.
pub fn dot<T: Contract, O: Element>(sizes: &Dot, x: &[T], w: &[T], out: &mut [O]) -> Result<(), ShapeError> {
    dot_with(Isa::best(), sizes, x, w, out)
}

/// As [`dot`], with the instruction set chosen by the caller.
///
/// # Errors
/// As for [`dot`], and where this processor lacks `isa`.
pub fn dot_with<T: Contract, O: Element>(
    isa: Isa,
    sizes: &Dot,
    x: &[T],
    w: &[T],
    out: &mut [O],
) -> Result<(), ShapeError> {
    if !isa.available() {
        return Err(ShapeError::Isa);
    }
    sizes.check(x.len(), w.len(), out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    let target = Out { at: out.as_mut_ptr().cast(), dtype: O::DTYPE };
    if T::special(isa, sizes, x, w, target) {
        return Ok(());
    }
    let kernels = T::kernels(isa);
    let Dot { m, n, k, layout, .. } = *sizes;
    if panels::suit(sizes) {
        let widened: Vec<f32>;
        let x = if T::DTYPE == DType::F32 {
            x.as_ptr().cast()
        } else {
            widened = x.iter().map(|value| value.to_f32()).collect();
            widened.as_ptr()
        };
        panels::dot(sizes, x, w.as_ptr(), target, &kernels.panels);
        return Ok(());
    }
    let padded = match layout {
        Layout::Nk => k.next_multiple_of(kernels.pair),
        Layout::Kn => k,
    };
    let mut packed = Vec::<f32>::with_capacity(sizes.batch * m * padded);
    match layout {
        // SAFETY: the instruction set was checked; there is room for every row, padded, and `pack` fills it.
        Layout::Nk => unsafe {
            (kernels.pack)(x, k, packed.as_mut_ptr());
            packed.set_len(sizes.batch * m * padded);
        },
        Layout::Kn => packed.extend(x.iter().map(|value| value.to_f32())),
    }
    let shared = Shared((packed.as_ptr(), w.as_ptr(), target));
    let kernel = match layout {
        Layout::Nk => kernels.rows,
        Layout::Kn => kernels.columns,
    };
    divide(sizes, size_of::<T>(), |batch, outputs| {
        let &(x, w, out) = shared.get();
        let part = Part {
            x: x.wrapping_add(batch * m * padded),
            w: w.wrapping_add(batch * n * k),
            out: out.offset(batch * m * n),
            m,
            n,
            k,
        };
        // SAFETY: lengths and instruction set were checked, and every output belongs to one call of this closure.
        unsafe { kernel(&part, outputs) }
    });
    Ok(())
}

/// Contracts int8 operands, adding up in i32 (modulo 2^32).
///
/// # Errors
/// As for [`dot_with`].
pub fn dot_int8(isa: Isa, sizes: &Dot, x: &[i8], w: &[i8], out: &mut [i32]) -> Result<(), ShapeError> {
    if !isa.available() {
        return Err(ShapeError::Isa);
    }
    sizes.check(x.len(), w.len(), out.len())?;
    if !out.is_empty() {
        int8::dot(isa, sizes, x, w, out);
    }
    Ok(())
}
