use super::*;
use crate::plan::Slice;

/// Numbers below `limit`, from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

/// An array whose axes lie in a random order.
fn volume(sizes: Vec<usize>, random: &mut Random) -> Volume {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    if random.below(2) == 0 {
        order.sort_by_key(|_| random.below(100));
    } else {
        // Channels last, as compilers prefer it.
        order.swap_remove(1);
        order[1..].sort_unstable();
        order.push(1);
    }
    let (mut strides, mut step) = (vec![0; sizes.len()], 1);
    for &axis in order.iter().rev() {
        strides[axis] = step;
        step *= sizes[axis];
    }
    Volume { at: Slice { allocation: 0, offset: 0, size: 0 }, sizes, strides }
}

/// Calls `each` with every index of an array.
fn indices(sizes: &[usize], mut each: impl FnMut(&[usize])) {
    let count: usize = sizes.iter().product();
    for mut number in 0..count {
        let mut index = vec![0; sizes.len()];
        for axis in (0..sizes.len()).rev() {
            index[axis] = number % sizes[axis];
            number /= sizes[axis];
        }
        each(&index);
    }
}

fn offset(volume: &Volume, index: &[usize]) -> usize {
    volume.strides.iter().zip(index).map(|(stride, index)| stride * index).sum()
}

/// The definition, element by element.
fn expected(plan: &Convolution, x: &[f32], kernel: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; plan.out.count()];
    let per_group = plan.out.sizes[1] / plan.groups;
    indices(&plan.out.sizes.clone(), |at| {
        let mut sum = 0.0;
        indices(&plan.kernel.sizes[1..], |tap| {
            let mut from = vec![at[0], at[1] / per_group * plan.kernel.sizes[1] + tap[0]];
            for (axis, window) in plan.window.iter().enumerate() {
                let place = (at[axis + 2] * window.stride + tap[axis + 1] * window.dilation) as isize - window.padding;
                let step = window.base_dilation as isize;
                if place < 0 || place % step != 0 || place / step >= plan.x.sizes[axis + 2] as isize {
                    return;
                }
                from.push((place / step) as usize);
            }
            let tap: Vec<usize> = [at[1]].into_iter().chain(tap.iter().copied()).collect();
            sum += x[offset(&plan.x, &from)] * kernel[offset(&plan.kernel, &tap)];
        });
        out[offset(&plan.out, at)] = sum;
    });
    out
}

fn random_plan(random: &mut Random) -> Convolution {
    let rank = 1 + random.below(3);
    let groups = [1, 1, 2, 3, 40][random.below(5)];
    let (channels, outputs) = if random.below(2) == 0 { (1, 1) } else { (1 + random.below(5), 1 + random.below(5)) };
    let batch = 1 + random.below(2);
    let (mut x, mut kernel) = (vec![batch, channels * groups], vec![outputs * groups, channels]);
    let mut out = vec![batch, outputs * groups];
    let mut window = Vec::new();
    for _ in 0..rank {
        x.push(1 + random.below(7));
        kernel.push(1 + random.below(3));
        out.push(1 + random.below(6));
        window.push(if random.below(3) == 0 {
            Window { stride: 1, padding: 0, dilation: 1, base_dilation: 1 }
        } else {
            Window {
                stride: 1 + random.below(3),
                padding: random.below(5) as isize - 2,
                dilation: 1 + random.below(2),
                base_dilation: 1 + random.below(2),
            }
        });
    }
    if random.below(4) == 0 {
        kernel[2..].fill(1);
        out[2..].copy_from_slice(&x[2..]);
        window.fill(Window { stride: 1, padding: 0, dilation: 1, base_dilation: 1 });
    }
    let [x, kernel, out] = [x, kernel, out].map(|sizes| volume(sizes, random));
    Convolution { dtype: DType::F32, groups, x, kernel, out, window }
}

#[test]
fn random_convolutions_are_what_the_definition_says() {
    let mut random = Random(1);
    for _ in 0..if cfg!(miri) { 20 } else { 600 } {
        let plan = random_plan(&mut random);
        // Miri interprets, and has time for small ones only.
        if cfg!(miri) && plan.out.count() * plan.kernel.count() > 200 {
            continue;
        }
        // Small whole numbers: sums are exact.
        let [x, kernel] =
            [&plan.x, &plan.kernel].map(|v| (0..v.count()).map(|_| random.below(9) as f32 - 4.0).collect::<Vec<_>>());
        let mut out = vec![f32::NAN; plan.out.count()];
        // SAFETY: arrays of these sizes and strides.
        unsafe { convolution(&plan, x.as_ptr().cast(), kernel.as_ptr().cast(), out.as_mut_ptr().cast()).unwrap() };
        assert_eq!(out, expected(&plan, &x, &kernel), "{plan:?}");
        half_types_agree::<bf16>(DType::BF16, &plan, &x, &kernel, &out);
        half_types_agree::<f16>(DType::F16, &plan, &x, &kernel, &out);
    }
}

fn half_types_agree<T: Contract>(dtype: DType, plan: &Convolution, x: &[f32], kernel: &[f32], wanted: &[f32]) {
    let copy = |v: &Volume| Volume { at: v.at, sizes: v.sizes.clone(), strides: v.strides.clone() };
    let (px, pk, po) = (copy(&plan.x), copy(&plan.kernel), copy(&plan.out));
    let plan = Convolution { dtype, groups: plan.groups, x: px, kernel: pk, out: po, window: plan.window.clone() };
    let [x, kernel] = [x, kernel].map(|values| values.iter().map(|&v| T::from_f32(v)).collect::<Vec<T>>());
    let mut out = vec![T::ZERO; wanted.len()];
    // SAFETY: arrays of these sizes and strides.
    unsafe { convolution(&plan, x.as_ptr().cast(), kernel.as_ptr().cast(), out.as_mut_ptr().cast()).unwrap() };
    for (found, &wanted) in out.iter().zip(wanted) {
        assert_eq!(found.to_f32(), T::from_f32(wanted).to_f32());
    }
}
