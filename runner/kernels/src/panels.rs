//! Kernel for many rows, in either layout: panels of outputs, made ready once, meet blocks of rows.
//!
//! A panel is a pair of vectors of outputs wide. Its weights lie in the order in which they are used, as f32, and stay in the
//! second-level cache while the rows of x pass by in blocks whose sums stay in registers. Each output is summed in the order
//! of k, so the division of work does not change a result.

use crate::dot::{Dot, Layout, Part, Shared};
use crate::element::Element;
use crate::pool;
use crate::simd::{Load, place};
use std::ops::Range;

/// Rows from which on making panels ready pays.
const LEAST_ROWS: usize = 24;

/// Rows that a task takes at least, where there are so few panels that rows must be divided too.
const ROWS: usize = 192;

/// Pair of the widest vectors.
const MAX_PAIR: usize = 32;

/// Contractions of fewer products than this are not worth waking another thread for.
const ALONE: usize = 1 << 18;

/// Whether panels are the better way.
pub fn suit(sizes: &Dot) -> bool {
    sizes.m >= LEAST_ROWS && sizes.n >= 8
}

/// Contracts `x`, `[batch, m, k]` in f32, by calls of `block`, which is [`block`] for the instruction set; `pair` is the
/// number of f32 values in a pair of its vectors. `part` says where the first of the batch is.
pub fn dot<T: Element>(
    sizes: &Dot,
    pair: usize,
    part: Part<T>,
    block: unsafe fn(&Part<T>, Layout, Range<usize>, Range<usize>),
) {
    let Dot { batch, m, n, k, layout } = *sizes;
    let panels = n.div_ceil(pair);
    // Several tasks for each thread, so that none waits long for the last one.
    let wanted = (4 * pool::threads()).div_ceil(batch * panels);
    let rows = m.div_ceil(wanted.min(m.div_ceil(ROWS)));
    let blocks = m.div_ceil(rows);
    let shared = Shared(part);
    let task = |index: usize| {
        let first = shared.get();
        let (rest, panel) = (index / panels, index % panels);
        let (batch, chunk) = (rest / blocks, rest % blocks);
        let part = Part {
            x: first.x.wrapping_add(batch * m * k),
            w: first.w.wrapping_add(batch * n * k),
            out: first.out.offset(batch * m * n),
            ..*first
        };
        let rows = chunk * rows..m.min((chunk + 1) * rows);
        // SAFETY: the caller of `dot` checked lengths and instruction set; each output belongs to one call of this closure.
        unsafe { block(&part, layout, rows, panel * pair..n.min((panel + 1) * pair)) };
    };
    let count = batch * blocks * panels;
    if batch * m * n * k < ALONE { (0..count).for_each(task) } else { pool::for_each(count, task) }
}

/// Computes the outputs `columns`, of one panel, of the rows `rows` of x.
///
/// # Safety
/// The processor has the instruction set of `S`; `part` describes valid buffers, `x` in f32; no other thread writes these
/// outputs; the ranges lie within `0..part.m` and `0..part.n`, and `columns` is no longer than a pair of vectors.
#[inline(always)]
pub unsafe fn block<S: Load<T>, T: Element>(part: &Part<T>, layout: Layout, rows: Range<usize>, columns: Range<usize>) {
    let pair = 2 * S::LANES;
    let mut panel = Vec::<f32>::with_capacity(part.k * pair);
    // SAFETY: handed on to the caller; there is room for the panel, and all of it is written.
    unsafe {
        match layout {
            Layout::Nk => from_rows::<S, T>(part, &columns, panel.as_mut_ptr()),
            Layout::Kn => from_columns::<S, T>(part, &columns, panel.as_mut_ptr()),
        }
        panel.set_len(part.k * pair);
        let (panel, mut m) = (panel.as_ptr(), rows.start);
        if S::WIDE {
            m = tiles::<S, T, 12>(part, panel, m..rows.end, &columns);
            m = tiles::<S, T, 4>(part, panel, m..rows.end, &columns);
        } else {
            m = tiles::<S, T, 6>(part, panel, m..rows.end, &columns);
            m = tiles::<S, T, 2>(part, panel, m..rows.end, &columns);
        }
        tiles::<S, T, 1>(part, panel, m..rows.end, &columns);
    }
}

/// Makes a panel of rows of weights.
///
/// # Safety
/// As for [`block`]; `to` has room for the panel.
#[inline(always)]
unsafe fn from_rows<S: Load<T>, T: Element>(part: &Part<T>, columns: &Range<usize>, to: *mut f32) {
    /// Weights of one output in a row that is read at once: a line of the cache, or a half.
    const RUN: usize = 16;
    let pair = 2 * S::LANES;
    // SAFETY: see above; what lies right of the last output is zero.
    unsafe {
        for start in (0..part.k).step_by(RUN) {
            let run = RUN.min(part.k - start);
            for column in 0..pair {
                let to = to.add(start * pair + place::<S, T>(column));
                if column >= columns.len() {
                    (0..run).for_each(|i| to.add(i * pair).write(0.0));
                    continue;
                }
                let from = part.w.add((columns.start + column) * part.k + start);
                if run == RUN {
                    (0..RUN).for_each(|i| to.add(i * pair).write((*from.add(i)).to_f32()));
                } else {
                    (0..run).for_each(|i| to.add(i * pair).write((*from.add(i)).to_f32()));
                }
            }
        }
    }
}

/// Makes a panel of columns of weights.
///
/// # Safety
/// As for [`block`]; `to` has room for the panel.
#[inline(always)]
unsafe fn from_columns<S: Load<T>, T: Element>(part: &Part<T>, columns: &Range<usize>, to: *mut f32) {
    let pair = 2 * S::LANES;
    let mut last = [T::ZERO; MAX_PAIR];
    // SAFETY: see above; a row that is no whole pair goes through a buffer that is one.
    unsafe {
        for k in 0..part.k {
            let mut from = part.w.add(k * part.n + columns.start);
            if columns.len() < pair {
                last.as_mut_ptr().copy_from_nonoverlapping(from, columns.len());
                from = last.as_ptr();
            }
            let (a, b) = S::load_pair(from);
            S::store(to.add(k * pair), a);
            S::store(to.add(k * pair + S::LANES), b);
        }
    }
}

/// Takes `M` rows at a time, while there are as many. Returns: the first row that is left.
///
/// # Safety
/// As for [`block`].
#[inline(always)]
unsafe fn tiles<S: Load<T>, T: Element, const M: usize>(
    part: &Part<T>,
    panel: *const f32,
    rows: Range<usize>,
    columns: &Range<usize>,
) -> usize {
    let mut m = rows.start;
    while m + M <= rows.end {
        // SAFETY: handed on to the caller.
        unsafe { tile::<S, T, M>(part, panel, m, columns) };
        m += M;
    }
    m
}

/// # Safety
/// As for [`block`]; rows `m..m + M` of x exist.
#[inline(always)]
unsafe fn tile<S: Load<T>, T: Element, const M: usize>(
    part: &Part<T>,
    panel: *const f32,
    m: usize,
    columns: &Range<usize>,
) {
    let pair = 2 * S::LANES;
    // SAFETY: see above.
    unsafe {
        let x = part.x.add(m * part.k);
        let mut sums = [(S::zero(), S::zero()); M];
        for k in 0..part.k {
            let (a, b) = (S::load(panel.add(k * pair)), S::load(panel.add(k * pair + S::LANES)));
            for (row, sum) in sums.iter_mut().enumerate() {
                let x = S::splat(*x.add(row * part.k + k));
                *sum = (S::fma(x, a, sum.0), S::fma(x, b, sum.1));
            }
        }
        for (row, &(a, b)) in sums.iter().enumerate() {
            let at = (m + row) * part.n + columns.start;
            match part.out.f32s(at) {
                Some(to) if columns.len() == pair && !S::EVEN_ODD => {
                    S::store(to, a);
                    S::store(to.add(S::LANES), b);
                }
                _ => {
                    let mut values = [0.0; MAX_PAIR];
                    S::store(values.as_mut_ptr(), a);
                    S::store(values.as_mut_ptr().add(S::LANES), b);
                    for i in 0..columns.len() {
                        part.out.put(at + i, values[place::<S, T>(i)]);
                    }
                }
            }
        }
    }
}
