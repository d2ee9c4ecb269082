//! Copies between slices of memory.

use crate::plan::Transposed;

/// Copies into another order of axes.
///
/// # Safety
/// `from` and `to` point to memory that the checked `plan` covers, and that does not overlap.
pub unsafe fn transposed(plan: &Transposed, from: *const u8, to: *mut u8) {
    let count = plan.sizes.iter().product();
    let mut index = vec![0; plan.sizes.len()];
    let mut source = 0;
    for target in 0..count {
        // SAFETY: handed on to the caller.
        unsafe { from.add(source * plan.width).copy_to_nonoverlapping(to.add(target * plan.width), plan.width) };
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            source += plan.strides[axis];
            if index[axis] < plan.sizes[axis] {
                break;
            }
            source -= plan.sizes[axis] * plan.strides[axis];
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_change_places() {
        let from: Vec<u16> = (0..6).collect();
        let mut to = [0_u16; 6];
        let plan = Transposed { width: 2, sizes: vec![3, 2], strides: vec![1, 3] };
        // SAFETY: both hold six elements of two bytes.
        unsafe { transposed(&plan, from.as_ptr().cast(), to.as_mut_ptr().cast()) };
        assert_eq!(to, [0, 3, 1, 4, 2, 5]);
    }
}
