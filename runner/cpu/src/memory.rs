//! Memory aligned as machine code expects it.

use nt_device::{Buffer, Bytes, Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// What machine code may assume of every buffer's address.
pub const ALIGNMENT: usize = 64;

/// Owned bytes at a multiple of [`ALIGNMENT`].
pub struct Aligned {
    at: NonNull<u8>,
    size: usize,
}

// SAFETY: owns its memory, as a Vec does.
unsafe impl Send for Aligned {}
// SAFETY: as above; writing takes a unique reference, or a caller of `at` who vouches for it.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// Zeros.
    pub fn new(size: usize) -> Result<Aligned> {
        if size == 0 {
            return Ok(Aligned { at: NonNull::<Block>::dangling().cast(), size });
        }
        let layout = layout(size).ok_or_else(|| too_large(size))?;
        // SAFETY: the size is not zero.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(|| too_large(size))?;
        Ok(Aligned { at, size })
    }

    pub fn copy_of(bytes: &[u8]) -> Result<Aligned> {
        let mut copy = Aligned::new(bytes.len())?;
        copy.bytes_mut().copy_from_slice(bytes);
        Ok(copy)
    }

    pub fn at(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is owned, and was zeroed when it was allocated.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.size) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the reference is unique.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.size) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        if let Some(layout) = layout(self.size).filter(|layout| layout.size() > 0) {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.at.as_ptr(), layout) }
        }
    }
}

#[repr(align(64))]
struct Block;

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size, ALIGNMENT).ok()
}

fn too_large(size: usize) -> Error {
    Error::Memory(format!("{size} bytes are not to be had"))
}

/// A tensor's bytes.
pub enum Data {
    Owned(Aligned),
    /// Someone else's, aligned.
    Shared(Bytes),
}

impl Data {
    pub fn holding(bytes: Bytes) -> Result<Data> {
        if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Ok(Data::Shared(bytes));
        }
        Aligned::copy_of(&bytes).map(Data::Owned)
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::Owned(owned) => owned.bytes(),
            Data::Shared(bytes) => bytes,
        }
    }
}

/// An empty vector with room for so many elements.
pub fn scratch<T>(elements: usize) -> Result<Vec<T>> {
    let mut empty = Vec::new();
    empty.try_reserve_exact(elements).map_err(|_| too_large(elements.saturating_mul(size_of::<T>())))?;
    Ok(empty)
}

/// This device's part of a buffer.
pub fn of(buffer: &Buffer) -> Result<&Data> {
    buffer.data().ok_or_else(|| Error::Argument("a tensor is on another device".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_zero() {
        for size in [0, 1, 63, 64, 1000] {
            let memory = Aligned::new(size).unwrap();
            assert_eq!(memory.at().addr() % ALIGNMENT, 0);
            assert_eq!(memory.bytes(), vec![0; size]);
        }
        assert!(matches!(Aligned::new(isize::MAX as usize), Err(Error::Memory(_))));
        assert!(matches!(Aligned::new(usize::MAX), Err(Error::Memory(_))));
    }

    #[test]
    fn bytes_are_shared_where_they_are_aligned() {
        let whole = Bytes::new(Holder(Aligned::copy_of(&[7; 128]).unwrap()));
        assert!(matches!(Data::holding(whole.slice(64..128).unwrap()).unwrap(), Data::Shared(_)));
        let moved = Data::holding(whole.slice(1..100).unwrap()).unwrap();
        assert!(matches!(moved, Data::Owned(_)));
        assert_eq!(moved.bytes(), [7; 99]);
    }

    struct Holder(Aligned);

    impl AsRef<[u8]> for Holder {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }
}
