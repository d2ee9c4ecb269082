//! Many rows, in either layout: panels of outputs meet blocks of rows.
//!
//! One operand gives vectors (its columns), the other single values that meet them (its rows). A panel is a pair of vectors of
//! columns, in the order in which they are used, as f32; a piece of it small enough for the first-level cache stays there while a
//! chunk of rows, small enough for the second, passes by in tiles whose sums stay in registers. Which operand is which is a matter
//! of sizes: what is brought into panels is the smaller one, so results may have to be turned as they are written.
//!
//! Each output is summed in the order of k, so the division of work does not change a result.

use crate::dot::{Dot, Layout, Out, Shared};
use crate::element::{DType, Element};
use crate::pool;
use crate::scratch::{PACKED, with_scratch};
use std::ops::Range;

mod pack;
mod tile;
pub use pack::panel;
pub use tile::block;

/// Rows from which on panels pay.
const LEAST_ROWS: usize = 24;

/// Pair of the widest vectors.
const MAX_PAIR: usize = 32;

/// Most rows of a tile; chunks are multiples, so that only the last one has a remainder.
const TILE: usize = 12;

/// Values along k that a panel has in the first-level cache.
const DEPTH: usize = 768;

/// Rows that a task takes at most, and at least where they are divided for the sake of threads.
const ROWS: Range<usize> = 4 * TILE..40 * TILE;

/// Tasks for each thread where the work is divided for their sake.
const TASKS: usize = 16;

/// Fewest products that such a task computes.
const TASK: usize = 1 << 20;

/// f32 values that are packed at a time.
const AT_ONCE: usize = 1 << 20;

/// Most values of a matrix that lies in the right order already and is small enough to be used as it is.
const DIRECT: usize = 16 << 10;

/// Contractions of fewer products than this are not worth waking another thread for.
const ALONE: usize = 1 << 18;

/// Whether panels are the better way.
pub fn suit(sizes: &Dot) -> bool {
    sizes.m >= LEAST_ROWS && sizes.n >= 8
}

/// One member of the batch: rows `[r, k]` with columns, `[c, k]` or `[k, c]`.
#[derive(Clone, Copy)]
pub struct Product<T> {
    pub rows: *const f32,
    pub columns: *const T,
    pub layout: Layout,
    pub out: Out,
    pub r: usize,
    pub c: usize,
    pub k: usize,
    /// Whether the result is `[c, r]` and not `[r, c]`.
    pub turned: bool,
}

/// Adds to the outputs of rows and of one panel's columns the products of values along k; see [`block`].
pub type Block<T> = unsafe fn(&Product<T>, Panel, Range<usize>, Range<usize>, Range<usize>);

/// What an instruction set offers for columns of elements `T`.
pub struct Kernels<T> {
    /// f32 values in a pair of vectors.
    pub pair: usize,
    /// Whether a pair of vectors holds its elements in another order than memory does.
    pub shuffled: bool,
    pub panel: unsafe fn(&Product<T>, Range<usize>, Range<usize>, *mut f32),
    pub block: Block<T>,
}

/// Columns as the kernels read them: `stride` values from one k to the next.
#[derive(Clone, Copy)]
pub struct Panel {
    pub at: *const f32,
    pub stride: usize,
}

/// Contracts `x`, `[batch, m, k]` in f32, with `w` into `out`.
///
/// The caller has checked lengths and that the processor has the instructions of `kernels`.
pub fn dot<T: Element>(sizes: &Dot, x: *const f32, w: *const T, out: Out, kernels: &Kernels<T>) {
    let Dot { batch, m, n, k, layout } = *sizes;
    let shared = Shared((x, w, out));
    let product = |index: usize| {
        let &(x, w, out) = shared.get();
        let (rows, columns) = (x.wrapping_add(index * m * k), w.wrapping_add(index * n * k));
        let straight = Product { rows, columns, layout, out: out.offset(index * m * n), r: m, c: n, k, turned: false };
        // Rows of f32 weights can take the part of the rows as they lie.
        if layout == Layout::Nk && T::DTYPE == DType::F32 && out.f32s(0).is_some() && m < 2 * n {
            let (rows, columns) = (columns.cast(), rows.cast());
            return Product { rows, columns, r: n, c: m, turned: true, ..straight };
        }
        straight
    };
    if batch * m * n * k < ALONE {
        (0..batch).for_each(|index| contract(&product(index), kernels, false));
    } else if batch >= 2 * pool::threads() {
        pool::for_each(batch, |index| contract(&product(index), kernels, false));
    } else {
        (0..batch).for_each(|index| contract(&product(index), kernels, true));
    }
}

/// Contracts one member of the batch, with all threads if they are `many`.
fn contract<T: Element>(product: &Product<T>, kernels: &Kernels<T>, many: bool) {
    let each = |count: usize, task: &(dyn Fn(usize) + Sync)| {
        if many { pool::for_each(count, task) } else { (0..count).for_each(task) }
    };
    let Product { r, c, k, .. } = *product;
    let pair = kernels.pair;
    // Only sums that are written as they are can be read back and added to.
    let whole = kernels.shuffled || product.out.f32s(0).is_none();
    let depth = if whole { k.max(1) } else { k.div_ceil(k.div_ceil(DEPTH).max(1)).max(1).next_multiple_of(16) };
    let depths = k.div_ceil(depth).max(1);
    let piece = |index: usize| index * depth..((index + 1) * depth).min(k);
    let shared = Shared(*product);
    // Columns `first` to `last` by panels that lie at `at`, each behind the other or side by side.
    let blocks = |columns: Range<usize>, at: *const f32, stride: usize| {
        let panels = columns.len().div_ceil(pair);
        let wanted = if many { 4 * pool::threads() } else { 1 };
        let chunks = r.div_ceil(ROWS.start).min(wanted).max(r.div_ceil(ROWS.end));
        let rows = r.div_ceil(chunks).next_multiple_of(TILE);
        let chunks = r.div_ceil(rows);
        // Small enough that no thread waits long for the last one, and large enough to be worth fetching.
        let least = (TASK / (rows * pair * k).max(1)).max(1);
        let wanted = if many { TASKS * pool::threads() } else { 1 };
        let groups = wanted.div_ceil(chunks).min(panels.div_ceil(least));
        let width = panels.div_ceil(groups);
        let groups = panels.div_ceil(width);
        let at = Shared(at);
        each(chunks * groups, &|index| {
            let rows = index / groups * rows..((index / groups + 1) * rows).min(r);
            for depth in 0..depths {
                for panel in index % groups * width..((index % groups + 1) * width).min(panels) {
                    let ks = piece(depth);
                    let offset =
                        if stride == pair { (panel * k + ks.start) * pair } else { ks.start * stride + panel * pair };
                    let first = columns.start + panel * pair;
                    let panel = Panel { at: at.get().wrapping_add(offset), stride };
                    // SAFETY: the caller of `dot` vouches for the operands; each output belongs to one call of this closure.
                    unsafe {
                        (kernels.block)(shared.get(), panel, rows.clone(), first..columns.end.min(first + pair), ks)
                    };
                }
            }
        });
    };
    let lies_right = T::DTYPE == DType::F32 && product.layout == Layout::Kn && c.is_multiple_of(pair);
    if lies_right && c * k <= DIRECT {
        return blocks(0..c, product.columns.cast(), c);
    }
    let width = (AT_ONCE / (k.max(1) * pair)).max(1) * pair;
    with_scratch(&PACKED, width.min(c.next_multiple_of(pair)) * k, |scratch| {
        let to = Shared(scratch);
        for first in (0..c).step_by(width) {
            let columns = first..c.min(first + width);
            let panels = columns.len().div_ceil(pair);
            each(panels * depths, &|index| {
                // Neighbours along a row of memory one after the other.
                let (panel, ks) = (index % panels, piece(index / panels));
                let first = columns.start + panel * pair;
                let to = to.get().wrapping_add((panel * k + ks.start) * pair);
                // SAFETY: as above; there is room for all panels of these columns, and each piece has its own.
                unsafe { (kernels.panel)(shared.get(), first..columns.end.min(first + pair), ks, to) };
            });
            blocks(columns, scratch, pair);
        }
    });
}
