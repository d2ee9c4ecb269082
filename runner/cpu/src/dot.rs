//! Contractions in whatever layout the compiler chose, brought to one that the kernels take.

use crate::memory::scratch;
use crate::plan::Dot;
use half::{bf16, f16};
use nt_device::{DType, Error, Result};
use nt_kernels::{Contract, Element, Isa, Layout, dot_int8};
use std::borrow::Cow;
use std::ops::{AddAssign, Mul};
use std::slice;

/// Contracts.
///
/// # Safety
/// The pointers are to the operands and the result that the checked `plan` describes.
pub unsafe fn dot(plan: &Dot, lhs: *const u8, rhs: *const u8, out: *mut u8) -> Result<()> {
    let &Dot { batch, m, n, k, .. } = plan;
    if batch == 0 || m == 0 || n == 0 {
        return Ok(());
    }
    let x = View { at: lhs, sizes: [batch, m, k], strides: plan.lhs.strides };
    let [wb, wk, wn] = plan.rhs.strides;
    let w = View { at: rhs, sizes: [batch, n, k], strides: [wb, wn, wk] };
    let y = View { at: out.cast_const(), sizes: [batch, m, n], strides: plan.out.strides };
    // A result with one row or one column lies in both orders; then the larger operand is taken for the weights, as it is.
    let turn = y.turned().contiguous() && (n < m || !y.contiguous());
    let (x, w, y) = if turn { (w, x, y.turned()) } else { (x, w, y) };
    // SAFETY: handed on to the caller; every arm names the operands' own types.
    unsafe {
        match (plan.dtype, plan.out_dtype) {
            (DType::F32, _) => kernels::<f32, f32>(x, w, y, nt_kernels::dot),
            (DType::BF16, DType::BF16) => kernels::<bf16, bf16>(x, w, y, nt_kernels::dot),
            (DType::BF16, _) => kernels::<bf16, f32>(x, w, y, nt_kernels::dot),
            (DType::F16, DType::F16) => kernels::<f16, f16>(x, w, y, nt_kernels::dot),
            (DType::F16, _) => kernels::<f16, f32>(x, w, y, nt_kernels::dot),
            (DType::I8, _) => kernels::<i8, i32>(x, w, y, |sizes, x, w, out| dot_int8(Isa::best(), sizes, x, w, out)),
            (DType::F64, _) => plain(x, w, y, 0_f64, |x, w| x * w),
            _ => plain(x, w, y, Wrapping(0), |x: Wrapping, w| x * w),
        }
    }
}

/// A matrix for each member of a batch; strides in elements.
#[derive(Clone, Copy)]
struct View {
    at: *const u8,
    sizes: [usize; 3],
    strides: [usize; 3],
}

impl View {
    fn turned(self) -> View {
        let ([b, r, c], [sb, sr, sc]) = (self.sizes, self.strides);
        View { at: self.at, sizes: [b, c, r], strides: [sb, sc, sr] }
    }

    /// Whether its elements follow each other in the order of its axes.
    fn contiguous(self) -> bool {
        let mut step = 1;
        for (size, stride) in self.sizes.into_iter().zip(self.strides).rev() {
            if size > 1 && stride != step {
                return false;
            }
            step *= size.max(1);
        }
        true
    }

    fn elements(self) -> usize {
        self.sizes.iter().product()
    }

    /// Its elements, copied unless they are contiguous.
    ///
    /// # Safety
    /// It describes elements of type `T` that stay as they are for `'a`.
    unsafe fn packed<'a, T: Clone + Copy + 'a>(self) -> Result<Cow<'a, [T]>> {
        let at = self.at.cast::<T>();
        if self.contiguous() {
            // SAFETY: handed on to the caller.
            return Ok(Cow::Borrowed(unsafe { slice::from_raw_parts(at, self.elements()) }));
        }
        let mut copy = scratch(self.elements())?;
        let [batch, rows, columns] = self.sizes;
        for b in 0..batch {
            for r in 0..rows {
                let row = at.wrapping_add(b * self.strides[0] + r * self.strides[1]);
                // SAFETY: handed on to the caller.
                copy.extend((0..columns).map(|c| unsafe { *row.wrapping_add(c * self.strides[2]) }));
            }
        }
        Ok(Cow::Owned(copy))
    }
}

type Kernel<T, O> = fn(&nt_kernels::Dot, &[T], &[T], &mut [O]) -> std::result::Result<(), nt_kernels::ShapeError>;

/// x `[batch, m, k]` with w `[batch, n, k]` gives y `[batch, m, n]`.
///
/// # Safety
/// The views describe elements of these types; `y` can be written and overlaps neither of the others.
unsafe fn kernels<T: Copy, O: Copy + Default>(x: View, w: View, y: View, kernel: Kernel<T, O>) -> Result<()> {
    let ([batch, m, k], [_, n, _]) = (x.sizes, w.sizes);
    let layout = if w.turned().contiguous() && !w.contiguous() { Layout::Kn } else { Layout::Nk };
    let sizes = nt_kernels::Dot { batch, m, n, k, layout };
    // SAFETY: handed on to the caller.
    let (x, w) = unsafe { (x.packed::<T>()?, if layout == Layout::Kn { w.turned() } else { w }.packed::<T>()?) };
    let run =
        |out: &mut [O]| kernel(&sizes, &x, &w, out).map_err(|error| Error::Run(format!("a contraction: {error}")));
    let at = y.at.cast_mut().cast::<O>();
    if y.contiguous() {
        // SAFETY: handed on to the caller.
        return run(unsafe { slice::from_raw_parts_mut(at, y.elements()) });
    }
    let mut result = scratch(y.elements())?;
    result.resize(y.elements(), O::default());
    run(&mut result)?;
    for (index, &value) in result.iter().enumerate() {
        let (b, r, c) = (index / (m * n), index / n % m, index % n);
        // SAFETY: handed on to the caller.
        unsafe { *at.wrapping_add(b * y.strides[0] + r * y.strides[1] + c * y.strides[2]) = value };
    }
    Ok(())
}

/// For types that nothing is fast for.
///
/// # Safety
/// As for [`kernels`].
unsafe fn plain<T: Copy + AddAssign>(x: View, w: View, y: View, zero: T, times: fn(T, T) -> T) -> Result<()> {
    let ([batch, m, k], [_, n, _]) = (x.sizes, w.sizes);
    // SAFETY: handed on to the caller.
    let (xs, ws) = unsafe { (x.packed::<T>()?, w.packed::<T>()?) };
    let at = y.at.cast_mut().cast::<T>();
    for b in 0..batch {
        for r in 0..m {
            for c in 0..n {
                let (x, w) = (&xs[(b * m + r) * k..][..k], &ws[(b * n + c) * k..][..k]);
                let mut sum = zero;
                x.iter().zip(w).for_each(|(&x, &w)| sum += times(x, w));
                // SAFETY: handed on to the caller.
                unsafe { *at.wrapping_add(b * y.strides[0] + r * y.strides[1] + c * y.strides[2]) = sum };
            }
        }
    }
    Ok(())
}

/// i32 modulo 2^32.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Wrapping(i32);

impl AddAssign for Wrapping {
    fn add_assign(&mut self, other: Wrapping) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl Mul for Wrapping {
    type Output = Wrapping;

    fn mul(self, other: Wrapping) -> Wrapping {
        Wrapping(self.0.wrapping_mul(other.0))
    }
}

/// Matrices of one image's convolution: rows `[m, k]` with weights in `layout` into `out` `[m, n]`.
pub fn matrix<T: Contract, O: Element>(
    [m, n, k]: [usize; 3],
    layout: Layout,
    x: &[T],
    w: &[T],
    out: &mut [O],
) -> Result<()> {
    let sizes = nt_kernels::Dot { batch: 1, m, n, k, layout };
    nt_kernels::dot(&sizes, x, w, out).map_err(|error| Error::Run(format!("a convolution: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Matrix, Slice};

    /// Strides of `[batch, rows, columns]` that lie in this order of axes.
    fn strides(sizes: [usize; 3], order: [usize; 3]) -> [usize; 3] {
        let (mut found, mut step) = ([0; 3], 1);
        for axis in order.into_iter().rev() {
            found[axis] = step;
            step *= sizes[axis];
        }
        found
    }

    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

    fn every_layout<T: Copy + Default, O: Copy + Default + PartialEq + std::fmt::Debug>(
        dtypes: (DType, DType),
        value: fn(usize) -> T,
        product: fn(T, T) -> f64,
        result: fn(f64) -> O,
    ) {
        for [batch, m, n, k] in [[2, 3, 4, 5], [1, 1, 7, 3], [3, 4, 1, 2], [1, 2, 2, 0], [0, 2, 2, 2]] {
            let orders = ORDERS.iter().flat_map(|a| ORDERS.map(|b| (a, b, ORDERS[(a[0] + 2 * b[1]) % 6])));
            // Miri interprets, and has time for a few.
            for (a, b, c) in orders.step_by(if cfg!(miri) { 36 } else { 1 }) {
                let [ls, rs, os] =
                    [([batch, m, k], *a), ([batch, k, n], b), ([batch, m, n], c)].map(|(s, o)| strides(s, o));
                let [x, w] = [batch * m * k, batch * k * n].map(|count| (0..count).map(value).collect::<Vec<T>>());
                let mut out = vec![O::default(); batch * m * n];
                let at = Slice { allocation: 0, offset: 0, size: 0 };
                let [lhs, rhs, y] = [ls, rs, os].map(|strides| Matrix { at, strides });
                let plan = Dot { dtype: dtypes.0, out_dtype: dtypes.1, batch, m, n, k, lhs, rhs, out: y };
                // SAFETY: arrays of these sizes and strides.
                unsafe { dot(&plan, x.as_ptr().cast(), w.as_ptr().cast(), out.as_mut_ptr().cast()).unwrap() };
                for (b, r, c) in (0..batch).flat_map(|b| (0..m).flat_map(move |r| (0..n).map(move |c| (b, r, c)))) {
                    let sum = (0..k)
                        .map(|i| product(x[b * ls[0] + r * ls[1] + i * ls[2]], w[b * rs[0] + i * rs[1] + c * rs[2]]));
                    let wanted = result(sum.sum());
                    assert_eq!(out[b * os[0] + r * os[1] + c * os[2]], wanted, "{plan:?} at {b} {r} {c}");
                }
            }
        }
    }

    #[test]
    fn every_layout_of_every_type_gives_the_products() {
        // Small whole numbers: sums are exact in every type.
        fn number(i: usize) -> f32 {
            (i * 7 % 11) as f32 - 5.0
        }
        every_layout((DType::F32, DType::F32), number, |x, w| f64::from(x * w), |sum| sum as f32);
        every_layout((DType::F64, DType::F64), |i| f64::from(number(i)), |x, w| x * w, |sum| sum);
        every_layout((DType::I32, DType::I32), |i| number(i) as i32, |x, w| f64::from(x * w), |sum| sum as i32);
        every_layout(
            (DType::I8, DType::I32),
            |i| number(i) as i8,
            |x, w| f64::from(x) * f64::from(w),
            |sum| sum as i32,
        );
        let half = |i: usize| bf16::from_f32(number(i));
        every_layout((DType::BF16, DType::F32), half, |x, w| f64::from(x.to_f32() * w.to_f32()), |sum| sum as f32);
        every_layout((DType::BF16, DType::BF16), half, |x, w| f64::from(x.to_f32() * w.to_f32()), bf16::from_f64);
        let half = |i: usize| f16::from_f32(number(i));
        every_layout((DType::F16, DType::F32), half, |x, w| f64::from(x.to_f32() * w.to_f32()), |sum| sum as f32);
        every_layout((DType::F16, DType::F16), half, |x, w| f64::from(x.to_f32() * w.to_f32()), f16::from_f64);
    }
}
