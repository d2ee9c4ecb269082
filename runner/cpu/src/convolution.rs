//! Convolutions over one to three axes.
//!
//! Two ways: where every channel has a kernel of its own (depthwise), sums run along the channels, directly. All others gather
//! the windows of many places into the rows of a matrix, and contract that with the kernel.

use crate::dot::matrix;
use crate::memory::scratch;
use crate::plan::{Convolution, Volume, Window};
use half::{bf16, f16};
use nt_device::{DType, Result};
use nt_kernels::{Contract, Layout, for_each};
use std::borrow::Cow;
use std::slice;

/// Convolves.
///
/// # Safety
/// The pointers are to the operands and the result that the checked `plan` describes.
pub unsafe fn convolution(plan: &Convolution, x: *const u8, kernel: *const u8, out: *mut u8) -> Result<()> {
    if plan.out.count() == 0 {
        return Ok(());
    }
    // SAFETY: handed on to the caller; every arm names the operands' own type.
    unsafe {
        match plan.dtype {
            DType::BF16 => run::<bf16>(plan, x.cast(), kernel.cast(), out.cast()),
            DType::F16 => run::<f16>(plan, x.cast(), kernel.cast(), out.cast()),
            _ => run::<f32>(plan, x.cast(), kernel.cast(), out.cast()),
        }
    }
}

/// Sizes or strides of the spatial axes: three, of which those that are not there have size 1.
type Spatial = [usize; 3];

/// An operand with three spatial axes; strides in elements.
#[derive(Clone, Copy)]
struct Array<T> {
    at: *mut T,
    /// Strides of batch and channels, or of outputs and channels.
    outer: usize,
    inner: usize,
    sizes: Spatial,
    strides: Spatial,
}

// SAFETY: threads read shared places, and write different ones.
unsafe impl<T> Sync for Array<T> {}

impl<T> Array<T> {
    fn new(at: *mut T, volume: &Volume) -> Array<T> {
        let spatial = |from: &[usize], missing: usize| {
            let mut all = [missing; 3];
            all[3 - (from.len() - 2)..].copy_from_slice(&from[2..]);
            all
        };
        Array {
            at,
            outer: volume.strides[0],
            inner: volume.strides[1],
            sizes: spatial(&volume.sizes, 1),
            strides: spatial(&volume.strides, 0),
        }
    }

    /// The element at a place, as its address.
    fn address(&self, outer: usize, inner: usize, place: Spatial) -> *mut T {
        let spatial: usize = place.iter().zip(self.strides).map(|(&index, stride)| index * stride).sum();
        self.at.wrapping_add(outer * self.outer + inner * self.inner + spatial)
    }

    fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Whether spatial places follow each other in the order of axes, `channels` elements apart.
    fn rows_of(&self, channels: usize) -> bool {
        let mut step = channels;
        for (size, stride) in self.sizes.into_iter().zip(self.strides).rev() {
            if size > 1 && stride != step {
                return false;
            }
            step *= size;
        }
        channels <= 1 || self.inner == 1
    }
}

/// The place with this number, where places are numbered in the order of axes.
fn place(number: usize, sizes: Spatial) -> Spatial {
    [number / (sizes[1] * sizes[2]), number / sizes[2] % sizes[1], number % sizes[2]]
}

/// One convolution, all sizes known.
struct Job<'a, T> {
    x: Array<T>,
    kernel: Array<T>,
    out: Array<T>,
    window: [Window; 3],
    batch: usize,
    groups: usize,
    /// Channels and outputs of one group.
    channels: usize,
    outputs: usize,
    plan: &'a Convolution,
    sources: [Sources; 3],
}

/// Where along one axis each element of the window reads, for every output: offsets into x, or `PADDING`.
struct Sources {
    taps: usize,
    offsets: Vec<usize>,
}

/// What is read beside x, which is zero.
const PADDING: usize = usize::MAX;

impl Sources {
    fn new(outputs: usize, taps: usize, size: usize, stride: usize, window: Window) -> Sources {
        let Window { stride: step, padding, dilation, base_dilation } = window;
        let offset = |index: usize, tap: usize| {
            // Numbers below 2^31 each, as was checked.
            let at = usize::try_from((index * step + tap * dilation) as isize - padding).ok()?;
            (at % base_dilation == 0 && at / base_dilation < size).then(|| at / base_dilation * stride)
        };
        let all = (0..outputs).flat_map(|index| (0..taps).map(move |tap| offset(index, tap).unwrap_or(PADDING)));
        Sources { taps, offsets: all.collect() }
    }

    /// Offsets for one output, by tap.
    #[inline(always)]
    fn of(&self, output: usize) -> &[usize] {
        &self.offsets[output * self.taps..(output + 1) * self.taps]
    }
}

/// # Safety
/// As for [`convolution`].
unsafe fn run<T: Contract>(plan: &Convolution, x: *const T, kernel: *const T, out: *mut T) -> Result<()> {
    let alone = Window { stride: 1, padding: 0, dilation: 1, base_dilation: 1 };
    let mut window = [alone; 3];
    window[3 - plan.window.len()..].copy_from_slice(&plan.window);
    let (x, kernel) = (Array::new(x.cast_mut(), &plan.x), Array::new(kernel.cast_mut(), &plan.kernel));
    let out = Array::new(out, &plan.out);
    let axis = |i: usize| Sources::new(out.sizes[i], kernel.sizes[i], x.sizes[i], x.strides[i], window[i]);
    let job = Job {
        x,
        kernel,
        out,
        sources: [axis(0), axis(1), axis(2)],
        window,
        batch: plan.x.sizes[0],
        groups: plan.groups,
        channels: plan.kernel.sizes[1],
        outputs: plan.out.sizes[1] / plan.groups,
        plan,
    };
    // SAFETY: handed on to the caller.
    unsafe { if job.depthwise_suits() { job.depthwise() } else { job.gathered() } }
}

impl<T: Contract> Job<'_, T> {
    fn depthwise_suits(&self) -> bool {
        self.channels == 1
            && self.outputs == 1
            && self.groups > 1
            && [self.x.inner, self.kernel.outer, self.out.inner] == [1; 3]
    }

    /// # Safety
    /// As for [`convolution`].
    unsafe fn depthwise(&self) -> Result<()> {
        let rows = self.out.sizes[0] * self.out.sizes[1];
        for_each(self.batch * rows, |row| {
            let (image, row) = (row / rows, row % rows);
            // SAFETY: handed on to the caller; the processor was asked.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx512f") {
                    return self.row_avx512(image, row);
                } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    return self.row_avx2(image, row);
                }
                self.row(image, row);
            }
        });
        Ok(())
    }

    /// # Safety
    /// As for [`convolution`], and the processor has these extensions.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn row_avx512(&self, image: usize, row: usize) {
        // SAFETY: handed on to the caller.
        unsafe { self.row(image, row) }
    }

    /// # Safety
    /// As for [`convolution`], and the processor has these extensions.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn row_avx2(&self, image: usize, row: usize) {
        // SAFETY: handed on to the caller.
        unsafe { self.row(image, row) }
    }

    /// One row of outputs of a depthwise convolution.
    ///
    /// # Safety
    /// As for [`convolution`].
    #[inline(always)]
    unsafe fn row(&self, image: usize, row: usize) {
        let [depth, height, width] = self.kernel.strides;
        let at = [row / self.out.sizes[1], row % self.out.sizes[1]];
        // Offsets into x and into the kernel of the rows of the window that are not in the padding, and of their elements.
        let mut lines = Vec::new();
        for (d, &x) in self.sources[0].of(at[0]).iter().enumerate() {
            for (h, &y) in self.sources[1].of(at[1]).iter().enumerate() {
                if x != PADDING && y != PADDING {
                    lines.push((image * self.x.outer + x + y, d * depth + h * height));
                }
            }
        }
        let mut taps = Vec::with_capacity(lines.len() * self.kernel.sizes[2]);
        for column in 0..self.out.sizes[2] {
            taps.clear();
            for &(x, kernel) in &lines {
                let elements = self.sources[2].of(column).iter().enumerate().filter(|&(_, &offset)| offset != PADDING);
                taps.extend(elements.map(|(w, &offset)| (x + offset, kernel + w * width)));
            }
            let to = self.out.address(image, 0, [at[0], at[1], column]);
            // SAFETY: handed on to the caller; the taps are places in x and in the kernel.
            unsafe {
                let mut first = 0;
                first = self.channels::<32>(&taps, to, first);
                first = self.channels::<16>(&taps, to, first);
                first = self.channels::<8>(&taps, to, first);
                self.channels::<1>(&taps, to, first);
            }
        }
    }

    /// Outputs of one place: `LANES` channels at a time from `first` on, while there are as many. Returns: the first that
    /// is left.
    ///
    /// # Safety
    /// As for [`convolution`]; `taps` are offsets of places in x and in the kernel, `to` is a place in the result.
    #[inline(always)]
    unsafe fn channels<const LANES: usize>(&self, taps: &[(usize, usize)], to: *mut T, mut first: usize) -> usize {
        while first + LANES <= self.groups {
            let mut sums = [0_f32; LANES];
            for &(x, kernel) in taps {
                // SAFETY: channels `first..first + LANES` of a place in x and of one in the kernel.
                let (x, kernel) = unsafe {
                    (
                        &*self.x.at.wrapping_add(x + first).cast::<[T; LANES]>(),
                        &*self.kernel.at.wrapping_add(kernel + first).cast::<[T; LANES]>(),
                    )
                };
                for lane in 0..LANES {
                    sums[lane] += x[lane].to_f32() * kernel[lane].to_f32();
                }
            }
            // SAFETY: channels of a place in the result, which no other thread writes.
            unsafe { *to.wrapping_add(first).cast::<[T; LANES]>() = sums.map(T::from_f32) };
            first += LANES;
        }
        first
    }

    /// # Safety
    /// As for [`convolution`].
    unsafe fn gathered(&self) -> Result<()> {
        let k = self.kernel.count() * self.channels;
        let places = self.out.count();
        // Enough rows to be worth reading the kernel for, few enough to stay near the processor.
        let chunk = places.min((1 << 18) / k.max(1)).max(places.min(64));
        // SAFETY: handed on to the caller.
        let kernels = (0..self.groups).map(|group| unsafe { self.kernel_of(group) }).collect::<Result<Vec<_>>>()?;
        let direct = self.is_matrix();
        let written = self.groups == 1 && self.out.rows_of(self.outputs);
        let mut rows = scratch::<T>(if direct { 0 } else { chunk * k })?;
        rows.resize(rows.capacity().min(if direct { 0 } else { chunk * k }), T::ZERO);
        let mut result = scratch::<T>(if written { 0 } else { chunk * self.outputs })?;
        result.resize(if written { 0 } else { chunk * self.outputs }, T::ZERO);
        for image in 0..self.batch {
            for (group, (layout, kernel)) in kernels.iter().enumerate() {
                for first in (0..places).step_by(chunk) {
                    let m = chunk.min(places - first);
                    // SAFETY: rows of x that follow each other, or those that were gathered; places that no one else writes.
                    unsafe {
                        let x = if direct {
                            let at = self.x.address(image, 0, place(first, self.out.sizes));
                            slice::from_raw_parts(at.cast_const(), m * k)
                        } else {
                            self.gather(image, group, first, &mut rows[..m * k]);
                            &rows[..m * k]
                        };
                        let to = if written {
                            let at = self.out.address(image, 0, place(first, self.out.sizes));
                            slice::from_raw_parts_mut(at, m * self.outputs)
                        } else {
                            &mut result[..m * self.outputs]
                        };
                        matrix([m, self.outputs, k], *layout, x, kernel, to)?;
                        if !written {
                            self.scatter(image, group, first, &result[..m * self.outputs]);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether x, as it is, is the matrix that gathering its windows would give.
    fn is_matrix(&self) -> bool {
        let plain = |w: &Window| (w.stride, w.padding, w.base_dilation) == (1, 0, 1);
        self.groups == 1
            && self.kernel.count() == 1
            && self.window.iter().all(plain)
            && self.x.sizes == self.out.sizes
            && self.x.rows_of(self.channels)
    }

    /// A group's kernel as a matrix with an axis for the elements of a window, tap by tap, and one for the outputs.
    ///
    /// # Safety
    /// As for [`convolution`].
    unsafe fn kernel_of(&self, group: usize) -> Result<(Layout, Cow<'_, [T]>)> {
        let (taps, count) = (self.kernel.count(), self.plan.kernel.count());
        let lines = self.channels <= 1 || self.kernel.inner == self.outputs;
        if self.groups == 1 && (self.outputs <= 1 || self.kernel.outer == 1) && lines {
            let mut as_rows = self.kernel;
            as_rows.inner = 1;
            if as_rows.rows_of(self.channels * self.outputs) {
                // SAFETY: all of the kernel's elements, in this order.
                let whole = unsafe { slice::from_raw_parts(self.kernel.at.cast_const(), count) };
                return Ok((Layout::Kn, Cow::Borrowed(whole)));
            }
        }
        let mut packed = scratch(self.outputs * taps * self.channels)?;
        for output in group * self.outputs..(group + 1) * self.outputs {
            for tap in 0..taps {
                let tap = place(tap, self.kernel.sizes);
                // SAFETY: an element of the kernel.
                packed.extend((0..self.channels).map(|channel| unsafe { *self.kernel.address(output, channel, tap) }));
            }
        }
        Ok((Layout::Nk, Cow::Owned(packed)))
    }

    /// Fills `rows` with the windows of the places from `first` on, those in the padding with zeros.
    ///
    /// # Safety
    /// As for [`convolution`].
    unsafe fn gather(&self, image: usize, group: usize, first: usize, rows: &mut [T]) {
        let k = self.kernel.count() * self.channels;
        let to = Array { at: rows.as_mut_ptr(), outer: k, inner: 1, sizes: [1; 3], strides: [0; 3] };
        let base = image * self.x.outer + group * self.channels * self.x.inner;
        let width = self.out.sizes[2];
        let count = rows.len() / k.max(1);
        // Elements that follow each other in a window's line as they do in x.
        let line = self.channels * self.kernel.sizes[2];
        let lines = self.x.inner == 1 && self.x.strides[2] == self.channels && self.window[2].dilation == 1;
        let lines = lines && self.window[2].base_dilation == 1;
        for_each(count.div_ceil(width), |part| {
            for row in part * width..count.min((part + 1) * width) {
                let at = place(first + row, self.out.sizes);
                let [depths, heights, widths] = [0, 1, 2].map(|axis| self.sources[axis].of(at[axis]));
                let whole = lines && !widths.contains(&PADDING);
                let mut to = to.address(row, 0, [0; 3]);
                for (&depth, &height) in depths.iter().flat_map(|d| heights.iter().map(move |h| (d, h))) {
                    let inside = depth != PADDING && height != PADDING;
                    // SAFETY: the part of a row of `rows` that a line of the window fills, which no other thread writes, and
                    // places in x.
                    unsafe {
                        if inside && whole {
                            let from = self.x.at.wrapping_add(base + depth + height + widths[0]);
                            to.copy_from_nonoverlapping(from, line);
                        } else {
                            for (i, &offset) in widths.iter().enumerate() {
                                let to = slice::from_raw_parts_mut(to.add(i * self.channels), self.channels);
                                if !inside || offset == PADDING {
                                    to.fill(T::ZERO);
                                    continue;
                                }
                                let from = self.x.at.wrapping_add(base + depth + height + offset);
                                to.iter_mut()
                                    .enumerate()
                                    .for_each(|(c, to)| *to = *from.wrapping_add(c * self.x.inner));
                            }
                        }
                        to = to.add(line);
                    }
                }
            }
        });
    }

    /// Writes a group's outputs at the places from `first` on.
    ///
    /// # Safety
    /// As for [`convolution`].
    unsafe fn scatter(&self, image: usize, group: usize, first: usize, values: &[T]) {
        for (row, values) in values.chunks_exact(self.outputs).enumerate() {
            let to = self.out.address(image, group * self.outputs, place(first + row, self.out.sizes));
            for (output, &value) in values.iter().enumerate() {
                // SAFETY: an element of the result.
                unsafe { *to.wrapping_add(output * self.out.inner) = value };
            }
        }
    }
}

#[cfg(test)]
mod tests;
