//! Vectors of f32, and how elements become them.
//!
//! Kernels are generic over [`Simd`] and inline into functions that enable the instructions (`dot.rs`), so one
//! text serves every instruction set.

use crate::element::Element;
use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// A vector of f32 of one instruction set.
///
/// # Safety
/// Every function may be called only where the processor has the instruction set; pointers must be valid for
/// [`Simd::LANES`] elements and need no alignment.
pub trait Simd: Copy + 'static {
    /// f32 values in a vector.
    const LANES: usize;
    /// Whether there are 32 vector registers; without, 16.
    const WIDE: bool;
    type V: Copy;
    unsafe fn zero() -> Self::V;
    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, value: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Sum of the lanes, in an order fixed by the instruction set.
    unsafe fn sum(a: Self::V) -> f32;
    /// The first `count` values, and zeros; `from` is valid for those.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V;
    /// Stores the first `count` values; `to` is valid for those.
    unsafe fn store_first(to: *mut f32, value: Self::V, count: usize);
    /// Turns the square of [`Simd::LANES`] vectors at `rows`.
    unsafe fn transpose(rows: *mut Self::V);
    /// For up to `steps` values of twelve rows of x, `x_stride` apart, writes to `sums` the sums of their products with pairs of
    /// vectors of w, `w_stride` values apart. Returns: how many steps it took; none, and `sums` are as they were, where there is
    /// nothing better than what the compiler makes.
    #[inline(always)]
    unsafe fn twelve_rows(
        _x: *const f32,
        _x_stride: usize,
        _w: *const f32,
        _w_stride: usize,
        _steps: usize,
        _sums: *mut [Self::V; 2],
    ) -> usize {
        0
    }
    /// Asks for the cache line at an address that need not be valid.
    unsafe fn prefetch(from: *const u8);
}

/// Elements that become vectors, a pair of vectors at a time.
pub trait Load<T: Element>: Simd {
    /// Whether a pair holds the elements of even and of odd position, and not the first and the second half.
    const EVEN_ODD: bool;
    /// # Safety
    /// As for [`Simd`], with `from` valid for two vectors.
    unsafe fn load_pair(from: *const T) -> (Self::V, Self::V);
}

/// Where element `i` of a pair lies when its vectors are stored one after the other.
pub fn place<S: Load<T>, T: Element>(i: usize) -> usize {
    if S::EVEN_ODD { (i % 2) * S::LANES + i / 2 } else { i }
}

/// Plain Rust that the compiler turns into the vectors of the target.
#[derive(Clone, Copy)]
pub struct Portable;

const PORTABLE_LANES: usize = 8;

#[inline(always)]
fn map2(a: [f32; PORTABLE_LANES], b: [f32; PORTABLE_LANES], f: impl Fn(f32, f32) -> f32) -> [f32; PORTABLE_LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    const LANES: usize = PORTABLE_LANES;
    const WIDE: bool = false;
    type V = [f32; PORTABLE_LANES];
    #[inline(always)]
    unsafe fn zero() -> Self::V {
        [0.0; PORTABLE_LANES]
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        [value; PORTABLE_LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for LANES readable elements.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::V) {
        // SAFETY: the caller vouches for LANES writable elements.
        unsafe { to.cast::<Self::V>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Where the target has no such instruction, `mul_add` is a slow call into the mathematical library.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::V) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V {
        // SAFETY: the caller vouches for `count` readable elements.
        std::array::from_fn(|i| if i < count { unsafe { *from.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, value: Self::V, count: usize) {
        // SAFETY: the caller vouches for `count` writable elements.
        value.iter().take(count).enumerate().for_each(|(i, &value)| unsafe { to.add(i).write(value) });
    }
    #[inline(always)]
    unsafe fn transpose(rows: *mut Self::V) {
        // SAFETY: the caller vouches for the square.
        let rows = unsafe { &mut *rows.cast::<[Self::V; PORTABLE_LANES]>() };
        *rows = std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]));
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

macro_rules! portable_load {
    ($($element:ty),*) => {$(
        impl Load<$element> for Portable {
            const EVEN_ODD: bool = false;
            #[inline(always)]
            unsafe fn load_pair(from: *const $element) -> (Self::V, Self::V) {
                // SAFETY: the caller vouches for two vectors' worth of readable elements.
                let v: [$element; 2 * PORTABLE_LANES] = unsafe { from.cast::<[$element; 2 * PORTABLE_LANES]>().read_unaligned() };
                (std::array::from_fn(|i| Element::to_f32(v[i])), std::array::from_fn(|i| Element::to_f32(v[PORTABLE_LANES + i])))
            }
        }
    )*};
}
portable_load!(f32, bf16, f16);
