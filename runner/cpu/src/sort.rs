//! Sorting several arrays together along one axis, in the order that machine code gives.

use crate::kernel::Comparator;
use crate::plan::Sort;

/// Sorts in place, keeping the order of equals.
///
/// # Safety
/// `inputs` point to the arrays that the checked `plan` describes; `comparator` compares elements of them.
pub unsafe fn sort(plan: &Sort, inputs: &[*mut u8], comparator: Comparator) {
    let count = inputs.len();
    let mut columns: Vec<Vec<u8>> = plan.inputs.iter().map(|input| vec![0; plan.length * input.width]).collect();
    let mut order: Vec<usize> = vec![0; plan.length];
    let mut spare = order.clone();
    let mut operands = vec![std::ptr::null(); 2 * count];
    for outer in 0..plan.outer {
        for inner in 0..plan.inner {
            let place = |index: usize, width: usize| ((outer * plan.length + index) * plan.inner + inner) * width;
            for ((column, input), &data) in columns.iter_mut().zip(&plan.inputs).zip(inputs) {
                for (index, to) in column.chunks_exact_mut(input.width).enumerate() {
                    // SAFETY: within the array, as was checked.
                    unsafe { data.add(place(index, input.width)).copy_to_nonoverlapping(to.as_mut_ptr(), input.width) };
                }
            }
            order.iter_mut().enumerate().for_each(|(index, at)| *at = index);
            merge_sort(&mut order, &mut spare, |left, right| {
                for (i, (column, input)) in columns.iter().zip(&plan.inputs).enumerate() {
                    operands[2 * i] = column[left * input.width..].as_ptr();
                    operands[2 * i + 1] = column[right * input.width..].as_ptr();
                }
                // SAFETY: handed on to the caller.
                unsafe { comparator.less(&operands) }
            });
            for ((column, input), &data) in columns.iter().zip(&plan.inputs).zip(inputs) {
                for (index, &from) in order.iter().enumerate() {
                    let from = column[from * input.width..].as_ptr();
                    // SAFETY: within the array, as was checked.
                    unsafe { data.add(place(index, input.width)).copy_from_nonoverlapping(from, input.width) };
                }
            }
        }
    }
}

/// The standard library's sort may panic where an order contradicts itself, as one with NaNs can. This one ends regardless.
fn merge_sort(order: &mut Vec<usize>, spare: &mut Vec<usize>, mut less: impl FnMut(usize, usize) -> bool) {
    let length = order.len();
    let mut width = 1;
    while width < length {
        for start in (0..length).step_by(2 * width) {
            let (middle, end) = ((start + width).min(length), (start + 2 * width).min(length));
            let (mut left, mut right) = (start, middle);
            for to in &mut spare[start..end] {
                // Runs that already follow each other are copied with one comparison for each of their elements.
                let take_right = left == middle || (right < end && less(order[right], order[left]));
                let from = if take_right { &mut right } else { &mut left };
                *to = order[*from];
                *from += 1;
            }
        }
        std::mem::swap(order, spare);
        width *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(values: &[u32], less: impl Fn(u32, u32) -> bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        let mut spare = order.clone();
        merge_sort(&mut order, &mut spare, |a, b| less(values[a], values[b]));
        order
    }

    #[test]
    fn equals_keep_their_order() {
        for length in 0..40_u32 {
            let values: Vec<u32> = (0..length).map(|i| i * 7 % 5).collect();
            let mut expected: Vec<usize> = (0..values.len()).collect();
            expected.sort_by_key(|&i| values[i]);
            assert_eq!(sorted(&values, |a, b| a < b), expected);
        }
    }

    #[test]
    fn an_order_that_contradicts_itself_still_gives_a_permutation() {
        let values: Vec<u32> = (0..33).collect();
        for less in [|_, _| true, |_, _| false, |a: u32, b: u32| (a ^ b) & 1 == 1] {
            let mut order = sorted(&values, less);
            order.sort_unstable();
            assert_eq!(order, (0..33).collect::<Vec<_>>());
        }
    }

    #[test]
    fn arrays_are_sorted_together_along_an_inner_axis() {
        /// Ascending by the first input, an i32.
        unsafe extern "C" fn ascending(
            result: *mut u8,
            _: *const std::ffi::c_void,
            operands: *const *const u8,
            _: *const std::ffi::c_void,
            _: *const std::ffi::c_void,
            _: *const std::ffi::c_void,
        ) {
            // SAFETY: as `Comparator::less` calls it.
            unsafe {
                let [left, right] = [0, 1].map(|i| (*operands.add(i)).cast::<i32>().read_unaligned());
                *result = u8::from(left < right);
            }
        }
        let plan: Sort = serde_json::from_str(
            r#"{"comparator":0,"outer":1,"length":3,"inner":2,
                "inputs":[{"at":[0,0,24],"width":4},{"at":[1,0,6],"width":1}]}"#,
        )
        .unwrap();
        let mut keys = [3, 10, 1, 30, 2, 20_i32];
        let mut tags = *b"cAaCbB";
        // SAFETY: arrays as the plan describes them, and a comparator for them.
        unsafe {
            let comparator = Comparator::new(ascending as *const u8);
            sort(&plan, &[keys.as_mut_ptr().cast(), tags.as_mut_ptr()], comparator);
        }
        assert_eq!((keys, &tags), ([1, 10, 2, 20, 3, 30], b"aAbBcC"));
    }
}
