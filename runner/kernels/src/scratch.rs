//! Room for what is packed, kept from one contraction to the next: new memory costs as much as filling it.

use std::cell::Cell;
use std::thread::LocalKey;

/// A line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Line(#[allow(dead_code)] [f32; 16]);

/// Room of one thread for one purpose.
pub type Room = Cell<Vec<Line>>;

thread_local! {
    /// For what all threads share.
    pub static PACKED: Room = const { Cell::new(Vec::new()) };
    /// For what a task has to itself.
    pub static PANEL: Room = const { Cell::new(Vec::new()) };
}

/// Calls `task` with room for so many values, which are anything.
pub fn with_scratch(room: &'static LocalKey<Room>, values: usize, task: impl FnOnce(*mut f32)) {
    let mut scratch = room.take();
    scratch.resize(scratch.len().max(values.div_ceil(16)), Line([0.0; 16]));
    task(scratch.as_mut_ptr().cast());
    room.set(scratch);
}
