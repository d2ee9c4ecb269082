//! Contractions against a plain f64 reference, on every instruction set of this processor.

use half::{bf16, f16};
use nt_kernels::{Contract, Dot, Element, Isa, Layout, ShapeError, dot, dot_int8, dot_with};

const ISAS: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];
const LAYOUTS: [Layout; 2] = [Layout::Nk, Layout::Kn];

/// A fixed sequence of values that look random.
struct Values(u64);

impl Values {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn float<T: Element>(&mut self) -> T {
        T::from_f32(self.next() as f32 / (1_u32 << 30) as f32 - 1.0)
    }

    fn int8(&mut self) -> i8 {
        self.next() as i8
    }
}

fn isas() -> impl Iterator<Item = Isa> {
    ISAS.into_iter().filter(|isa| isa.available())
}

fn w_index(sizes: &Dot, b: usize, n: usize, k: usize) -> usize {
    match sizes.layout {
        Layout::Nk => (b * sizes.n + n) * sizes.k + k,
        Layout::Kn => (b * sizes.k + k) * sizes.n + n,
    }
}

/// Every output's exact value and the sum of its products' magnitudes, which bounds the rounding error.
fn reference(sizes: &Dot, x: &[f64], w: &[f64]) -> Vec<(f64, f64)> {
    let mut results = Vec::new();
    for b in 0..sizes.batch {
        for m in 0..sizes.m {
            for n in 0..sizes.n {
                let products = (0..sizes.k).map(|k| x[(b * sizes.m + m) * sizes.k + k] * w[w_index(sizes, b, n, k)]);
                results.push(products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs())));
            }
        }
    }
    results
}

fn agrees<T: Contract, O: Element>(isa: Isa, sizes: Dot) {
    let mut values = Values(7);
    let x: Vec<T> = (0..sizes.batch * sizes.m * sizes.k).map(|_| values.float()).collect();
    let w: Vec<T> = (0..sizes.batch * sizes.n * sizes.k).map(|_| values.float()).collect();
    let mut out = vec![O::from_f32(f32::NAN); sizes.batch * sizes.m * sizes.n];
    dot_with(isa, &sizes, &x, &w, &mut out).unwrap();
    let wide = |v: &[T]| v.iter().map(|v| f64::from(v.to_f32())).collect::<Vec<_>>();
    let rounding = f64::from(f32::EPSILON) * (2.0 + sizes.k as f64)
        + match size_of::<O>() {
            4 => 0.0,
            _ => f64::from(bf16::EPSILON.to_f32()),
        };
    for (i, (value, (exact, size))) in out.iter().zip(reference(&sizes, &wide(&x), &wide(&w))).enumerate() {
        let error = (f64::from(value.to_f32()) - exact).abs();
        // `<=` is false for a NaN, which an output that was not written still is.
        assert!(error <= rounding * size + 1e-7, "{sizes:?} {isa:?} output {i}: {} for {exact}", value.to_f32());
    }
}

fn float_shapes() -> impl Iterator<Item = Dot> {
    let ks = [1, 7, 16, 31, 32, 33, 64, 100];
    let ns = [1, 2, 5, 8, 15, 24, 33, 63, 64, 65, 130];
    let all = LAYOUTS.into_iter().flat_map(move |layout| {
        (1..=33).flat_map(move |m| {
            // A different pair of sizes for each m, and all pairs over the range.
            (0..6).map(move |i| Dot {
                batch: 1 + (m + i) % 2,
                m,
                n: ns[(m * 5 + i * 3) % ns.len()],
                k: ks[(m + i) % ks.len()],
                layout,
            })
        })
    });
    // Miri interprets, and has time for small ones only.
    all.filter(|sizes| !cfg!(miri) || sizes.batch * sizes.m * sizes.k < 40 && sizes.n < 40)
}

#[test]
fn bf16_agrees_with_exact_arithmetic() {
    for isa in isas() {
        for sizes in float_shapes() {
            agrees::<bf16, f32>(isa, sizes);
            agrees::<bf16, bf16>(isa, sizes);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri minutes")]
fn f16_agrees_with_exact_arithmetic() {
    for isa in isas() {
        for sizes in float_shapes() {
            agrees::<f16, f32>(isa, sizes);
            agrees::<f16, f16>(isa, sizes);
        }
    }
}

#[test]
fn f32_agrees_with_exact_arithmetic() {
    for isa in isas() {
        for sizes in float_shapes() {
            agrees::<f32, f32>(isa, sizes);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri minutes")]
fn sizes_that_several_threads_share_agree_too() {
    for isa in isas() {
        for layout in LAYOUTS {
            for m in [1, 3, 9] {
                agrees::<bf16, f32>(isa, Dot { batch: 1, m, n: 1037, k: 259, layout });
                agrees::<f32, f32>(isa, Dot { batch: 3, m, n: 77, k: 515, layout });
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri minutes")]
fn many_rows_of_few_outputs_are_divided_by_rows() {
    for isa in isas() {
        for layout in LAYOUTS {
            for (m, n, k) in [(420, 33, 40), (401, 8, 33), (25, 9, 0)] {
                agrees::<f32, f32>(isa, Dot { batch: 1, m, n, k, layout });
                agrees::<bf16, f32>(isa, Dot { batch: 2, m, n, k, layout });
                agrees::<f16, f16>(isa, Dot { batch: 1, m, n, k, layout });
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri minutes")]
fn large_products_are_summed_piece_by_piece() {
    for isa in isas() {
        for layout in LAYOUTS {
            // Either side the smaller one; several pieces along k, with a rest; columns used as they lie; a batch of many.
            let sizes = [(1, 29, 101, 530), (1, 101, 29, 530), (1, 37, 96, 48), (9, 26, 20, 70), (2, 24, 40, 300)];
            for (batch, m, n, k) in sizes {
                agrees::<f32, f32>(isa, Dot { batch, m, n, k, layout });
                agrees::<bf16, f32>(isa, Dot { batch, m, n, k, layout });
                agrees::<f16, f16>(isa, Dot { batch, m, n, k, layout });
                agrees::<f32, bf16>(isa, Dot { batch, m, n, k, layout });
            }
        }
    }
    // More columns than are packed at a time.
    agrees::<f32, f32>(Isa::best(), Dot { batch: 1, m: 24, n: 70, k: 33_000, layout: Layout::Kn });
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri minutes")]
fn longer_rows_than_are_packed_at_a_time_are_summed_piece_by_piece() {
    let mut values = Values(5);
    for isa in isas() {
        for layout in LAYOUTS {
            agrees::<bf16, f32>(isa, Dot { batch: 1, m: 33, n: 35, k: 2100, layout });
            agrees::<f32, f32>(isa, Dot { batch: 1, m: 97, n: 17, k: 2048, layout });
            int8_agrees(isa, Dot { batch: 1, m: 33, n: 35, k: 4150, layout }, &mut values);
        }
    }
}

fn int8_agrees(isa: Isa, sizes: Dot, values: &mut Values) {
    let mut operand = |rows| (0..sizes.batch * rows * sizes.k).map(|_| values.int8()).collect::<Vec<_>>();
    let (mut x, mut w) = (operand(sizes.m), operand(sizes.n));
    // The extremes overflow 16 bits soonest.
    x.iter_mut().take(sizes.k).for_each(|x| *x = -128);
    w.iter_mut().take(sizes.k).for_each(|w| *w = -128);
    let mut out = vec![i32::MIN; sizes.batch * sizes.m * sizes.n];
    dot_int8(isa, &sizes, &x, &w, &mut out).unwrap();
    let wide = |v: &[i8]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    for (&value, (exact, _)) in out.iter().zip(reference(&sizes, &wide(&x), &wide(&w))) {
        assert_eq!(f64::from(value), exact, "{sizes:?} {isa:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri minutes")]
fn int8_is_exact() {
    let mut values = Values(3);
    let ks = [1, 3, 4, 15, 16, 63, 64, 65, 130, 515];
    let ns = [1, 3, 4, 15, 17, 63, 64, 65, 130, 515];
    for isa in isas() {
        for layout in LAYOUTS {
            for m in 1..=33 {
                for i in 0..4 {
                    let sizes = Dot {
                        batch: 1 + (m + i) % 2,
                        m,
                        n: ns[(m + 3 * i) % ns.len()],
                        k: ks[(m * 7 + i) % ks.len()],
                        layout,
                    };
                    int8_agrees(isa, sizes, &mut values);
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri minutes")]
fn a_row_does_not_depend_on_its_neighbours() {
    let (n, k) = (131, 203);
    // Instructions for bf16 take over at some number of rows, and add up in another order.
    for isa in isas().filter(|&isa| isa < Isa::Avx512Bf16) {
        for layout in LAYOUTS {
            let mut values = Values(11);
            let x: Vec<bf16> = (0..17 * k).map(|_| values.float()).collect();
            let w: Vec<bf16> = (0..n * k).map(|_| values.float()).collect();
            let mut all = vec![0.0_f32; 17 * n];
            dot_with(isa, &Dot { batch: 1, m: 17, n, k, layout }, &x, &w, &mut all).unwrap();
            for m in 1..17 {
                let mut some = vec![0.0_f32; m * n];
                dot_with(isa, &Dot { batch: 1, m, n, k, layout }, &x[..m * k], &w, &mut some).unwrap();
                assert_eq!(some, all[..m * n], "{m} rows, {layout:?}, {isa:?}");
            }
        }
    }
}

#[test]
fn infinities_and_nans_stay_where_they_belong() {
    // Widths that are no multiple of a vector: padding must not turn an infinity into a NaN.
    for isa in isas() {
        for layout in LAYOUTS {
            let sizes = Dot { batch: 1, m: 2, n: 3, k: 5, layout };
            let mut w = vec![bf16::ONE; 15];
            w[w_index(&sizes, 0, 1, 4)] = bf16::INFINITY;
            w[w_index(&sizes, 0, 2, 0)] = bf16::NAN;
            let mut out = [0.0_f32; 6];
            dot_with(isa, &sizes, &[bf16::ONE; 10], &w, &mut out).unwrap();
            for row in out.chunks(3) {
                assert_eq!(row[..2], [5.0, f32::INFINITY]);
                assert!(row[2].is_nan());
            }
        }
    }
}

#[test]
fn empty_dimensions_give_zeros_or_nothing() {
    for isa in isas() {
        for layout in LAYOUTS {
            for (batch, m, n, k) in [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)] {
                let sizes = Dot { batch, m, n, k, layout };
                let (x, w) = (vec![1.0_f32; batch * m * k], vec![1.0_f32; batch * n * k]);
                let mut out = vec![f32::NAN; batch * m * n];
                dot_with(isa, &sizes, &x, &w, &mut out).unwrap();
                assert!(out.iter().all(|&value| value == 0.0));
                let mut out = vec![1; batch * m * n];
                dot_int8(isa, &sizes, &vec![1; batch * m * k], &vec![1; batch * n * k], &mut out).unwrap();
                assert!(out.iter().all(|&value| value == 0));
            }
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let sizes = Dot { batch: 1, m: 1, n: 2, k: 3, layout: Layout::Nk };
    let error = dot::<f32, f32>(&sizes, &[0.0; 3], &[0.0; 5], &mut [0.0; 2]).unwrap_err();
    assert_eq!(error, ShapeError::Length { operand: "right operand", found: 5, wanted: 6 });
    let huge = Dot { batch: usize::MAX, m: 2, n: 2, k: 2, layout: Layout::Nk };
    let error = dot::<f32, f32>(&huge, &[], &[], &mut []).unwrap_err();
    assert_eq!(error, ShapeError::Overflow { operand: "left operand" });
}
