//! Many rows, on the instructions of AVX-512 and of matrix tiles.
//!
//! What these instructions multiply are words of four bytes: an f32, or two bf16 or four int8 that follow each other along k. All rows of x
//! are packed first, in tiles of a few rows; then each task packs a panel of weights, no more of it along k than the second-level
//! cache holds, and passes all its tiles of x by. [`vectors`] has the instructions of AVX-512, [`tiles`] those for matrix tiles.
//!
//! Each output is summed in the order of k, so the division of work does not change a result.

use crate::dot::{Dot, Layout, Out, Shared};
use crate::pool;
use crate::scratch::{PACKED, PANEL, with_scratch};
use std::ops::Range;

mod pack;
pub mod tiles;
pub mod vectors;
mod write;

/// Bytes of a word.
const WORD: usize = 4;

/// Outputs of a panel.
const COLUMNS: usize = 32;

/// Words along k that a panel has at most: 128 KiB, half of a small second-level cache.
const DEPTH: usize = 1024;

/// Words along k that are packed at a time, where a task has several panels; a multiple of every [`Blocks::STEP`].
const CHUNK: usize = 16;

/// Panels that a task takes at most.
const WIDE: usize = 4;

/// Rows of x that a task takes at most where it keeps sums for them.
const ROWS: usize = 240;

/// Tasks for each thread where rows are divided for their sake.
const TASKS: usize = 8;

/// Contractions of fewer products than this are not worth waking another thread for.
const ALONE: usize = 1 << 18;

/// Instructions that multiply words of elements `T`, and the order in which they take them.
pub trait Blocks<T> {
    /// Rows of x in a tile.
    const ROWS: usize;
    /// Words along k in one step.
    const STEP: usize;
    /// Prepares the processor; what is returned undoes that when dropped.
    ///
    /// # Safety
    /// The processor has the instructions; so for the other functions.
    unsafe fn begin() -> impl Sized;

    /// Packs up to [`Blocks::ROWS`] rows of `k` elements, zeros beyond them and up to a multiple of [`Blocks::STEP`] words.
    ///
    /// # Safety
    /// `x` is valid for so many rows; `to` has room for a tile.
    unsafe fn pack_rows(x: *const T, k: usize, rows: usize, to: *mut u32);

    /// Packs the words `words` of the outputs `columns`, zeros beyond the last output and the last word.
    ///
    /// # Safety
    /// The ranges begin within the weights of `part`, `columns` ends there; `to` has room for a panel.
    unsafe fn pack_columns(part: &Part<T>, columns: Range<usize>, words: Range<usize>, to: *mut u32);

    /// Writes the sums of products of `words` words to `sums`, or adds them to what is there; in what order is its own affair.
    ///
    /// # Safety
    /// A tile, a panel and sums for [`Blocks::ROWS`] times [`COLUMNS`] outputs lie there; `words` is a multiple of
    /// [`Blocks::STEP`]; what `begin` returned lives.
    unsafe fn multiply(rows: *const u32, columns: *const u32, words: usize, add: bool, sums: *mut f32);

    /// Writes a tile's sums to `out`: as many rows, of as many outputs, `stride` results apart.
    ///
    /// # Safety
    /// Sums lie there, and the results lie in the buffer.
    unsafe fn write(sums: *const f32, rows: usize, columns: usize, out: Out, stride: usize);
}

/// One member of the batch.
#[derive(Clone, Copy)]
pub struct Part<T> {
    pub w: *const T,
    pub layout: Layout,
    pub n: usize,
    pub k: usize,
}

/// Contracts operands whose lengths were checked into `out`, which holds f32, or i32 for int8, or bf16.
///
/// # Safety
/// The processor has the instructions of `B`; the operands are what `sizes` says, and so is `out`, to which nobody else writes.
pub unsafe fn dot<B: Blocks<T>, T>(sizes: &Dot, x: *const T, w: *const T, out: Out) {
    let Dot { batch, m, n, k, layout } = *sizes;
    let words = (k * size_of::<T>()).div_ceil(WORD).next_multiple_of(B::STEP);
    let tile = words * B::ROWS;
    let tiles = m.div_ceil(B::ROWS);
    // Weights that lie side by side are fetched in longer pieces.
    let wide =
        if layout == Layout::Kn { COLUMNS * (n / COLUMNS / (WIDE * pool::threads())).clamp(1, WIDE) } else { COLUMNS };
    let panels = n.div_ceil(wide);
    let many = batch * m * n * k >= ALONE;
    // Each chunk of tiles packs the weights anew. There are several where sums have to be kept, or for the threads' sake.
    let least = if words > DEPTH / (wide / COLUMNS) { tiles.div_ceil(ROWS / B::ROWS) } else { 1 };
    let wanted = if many { (TASKS * pool::threads()).div_ceil(batch * panels) } else { 1 };
    let chunk = tiles.div_ceil(wanted.clamp(least, least.max(tiles)));
    let chunks = tiles.div_ceil(chunk);
    let each = |count: usize, task: &(dyn Fn(usize) + Sync)| {
        if many { pool::for_each(count, task) } else { (0..count).for_each(task) }
    };
    let shared = Shared((x, w, out));
    with_scratch(&PACKED, batch * tiles * tile, |packed| {
        let packed = Shared(packed.cast::<u32>());
        each(batch * tiles, &|index| {
            let (member, first) = (index / tiles, index % tiles * B::ROWS);
            let x = shared.get().0.wrapping_add((member * m + first) * k);
            // SAFETY: these rows exist, and each tile has room of its own.
            unsafe { B::pack_rows(x, k, B::ROWS.min(m - first), packed.get().wrapping_add(index * tile)) };
        });
        each(batch * chunks * panels, &|index| {
            let (member, first) = (index / panels / chunks, index / panels % chunks * chunk);
            let columns = index % panels * wide..n.min((index % panels + 1) * wide);
            let part = Part { w: shared.get().1.wrapping_add(member * n * k), layout, n, k };
            let rows = Rows {
                at: packed.get().wrapping_add((member * tiles + first) * tile),
                tiles: chunk.min(tiles - first),
                count: m - first * B::ROWS,
                words,
            };
            let out = shared.get().2.offset((member * m + first * B::ROWS) * n + columns.start);
            // SAFETY: handed on to the caller; every output belongs to one call of this closure.
            unsafe { task::<B, T>(&part, rows, columns, out) };
        });
    });
}

/// Packed rows of x, and how many there are from the first one on.
struct Rows {
    at: *const u32,
    tiles: usize,
    count: usize,
    words: usize,
}

/// Computes the outputs of some panels for some tiles of x.
///
/// # Safety
/// As for [`dot`]; `out` is where the first of these outputs goes.
unsafe fn task<B: Blocks<T>, T>(part: &Part<T>, rows: Rows, columns: Range<usize>, out: Out) {
    let panels = columns.len().div_ceil(COLUMNS);
    let columns = |panel: usize| {
        let first = columns.start + panel * COLUMNS;
        first..columns.end.min(first + COLUMNS)
    };
    let depth = rows.words.min(DEPTH / panels / CHUNK * CHUNK);
    let sums = B::ROWS * COLUMNS;
    // Where one step takes all of k, sums are written at once.
    let kept = if depth < rows.words { rows.tiles } else { 0 };
    with_scratch(&PANEL, panels * (depth * COLUMNS + kept.max(1) * sums), |room| {
        let packed = |panel: usize| room.cast::<u32>().wrapping_add(panel * depth * COLUMNS);
        let all = room.wrapping_add(panels * depth * COLUMNS);
        // SAFETY: there is room for the panels and all sums; the rest is the caller's promise.
        unsafe {
            let _begun = B::begin();
            // Once, and with zeros for sums, where there is nothing along k.
            for start in (0..rows.words.max(1)).step_by(depth.max(1)) {
                let words = start..rows.words.min(start + depth);
                // Neighbours along a row of memory one after the other.
                for first in words.clone().step_by(CHUNK) {
                    let chunk = first..words.end.min(first + CHUNK);
                    for panel in 0..panels {
                        let to = packed(panel).add((first - start) * COLUMNS);
                        B::pack_columns(part, columns(panel), chunk.clone(), to);
                    }
                }
                let last = words.end == rows.words;
                for (panel, tile) in (0..panels).flat_map(|panel| (0..rows.tiles).map(move |tile| (panel, tile))) {
                    let sums = all.add((panel * kept + tile.min(kept.saturating_sub(1))) * sums);
                    let x = rows.at.add((tile * rows.words + start) * B::ROWS);
                    B::multiply(x, packed(panel), words.len(), start > 0, sums);
                    if last {
                        let first = tile * B::ROWS;
                        let out = out.offset(first * part.n + panel * COLUMNS);
                        B::write(sums, B::ROWS.min(rows.count - first), columns(panel).len(), out, part.n);
                    }
                }
            }
        }
    });
}
