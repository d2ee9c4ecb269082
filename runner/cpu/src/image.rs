//! Machine code in memory: mapped, its addresses filled in, then never writable again.

use crate::imports;
use crate::plan::ImagePlan;
use nt_device::{Error, Result};
use std::ptr;

const PAGE: usize = 4096;

/// A mapped image.
pub struct Image {
    at: *mut u8,
    size: usize,
}

// SAFETY: once it is made, an image is only read and executed.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// Maps `bytes`, code first, and fills in the addresses that `plan` lists.
    pub fn map(bytes: &[u8], plan: &ImagePlan) -> Result<Image> {
        if plan.text > bytes.len() || !plan.text.is_multiple_of(PAGE) {
            return Err(Error::Load("its machine code does not end at a page within its image".into()));
        }
        if bytes.is_empty() {
            return Ok(Image { at: ptr::null_mut(), size: 0 });
        }
        let size = bytes.len().checked_next_multiple_of(PAGE).ok_or_else(|| Error::Memory("an image".into()))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: asks for new memory and touches no other.
        let at =
            unsafe { libc::mmap(ptr::null_mut(), size, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Error::Memory(format!("no {size} bytes for machine code")));
        }
        // From here on, dropping it unmaps it.
        let image = Image { at: at.cast(), size };
        // SAFETY: the mapping is new, writable, and at least as large.
        let target = unsafe { std::slice::from_raw_parts_mut(image.at, bytes.len()) };
        target.copy_from_slice(bytes);
        relocate(target, image.at.addr(), plan)?;
        image.protect(0, plan.text, libc::PROT_READ | libc::PROT_EXEC)?;
        image.protect(plan.text, size - plan.text, libc::PROT_READ)?;
        Ok(image)
    }

    fn protect(&self, offset: usize, size: usize, protection: i32) -> Result<()> {
        // SAFETY: whole pages of this mapping, to which no reference is left.
        let status = unsafe { libc::mprotect(self.at.wrapping_add(offset).cast(), size, protection) };
        if size > 0 && status != 0 {
            return Err(Error::Load(format!("the system refuses it: {}", std::io::Error::last_os_error())));
        }
        Ok(())
    }

    /// The address at `offset`, which the caller has checked.
    pub fn address(&self, offset: usize) -> *const u8 {
        self.at.wrapping_add(offset)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.size > 0 {
            // SAFETY: this mapping, which nothing uses any more.
            unsafe { libc::munmap(self.at.cast(), self.size) };
        }
    }
}

fn relocate(image: &mut [u8], base: usize, plan: &ImagePlan) -> Result<()> {
    let size = image.len();
    for &at in &plan.rebase {
        let word = word(image, at)?;
        let offset = usize::from_le_bytes(*word);
        if offset > size {
            return Err(Error::Load("its machine code refers to what is not in its image".into()));
        }
        *word = (base + offset).to_le_bytes();
    }
    for import in &plan.imports {
        let Some(address) = imports::address(&import.name) else {
            return Err(Error::Load(format!("its machine code calls {:?}, which is not known here", import.name)));
        };
        for &at in &import.at {
            let word = word(image, at)?;
            *word = address.wrapping_add(usize::from_le_bytes(*word)).to_le_bytes();
        }
    }
    Ok(())
}

fn word(image: &mut [u8], at: usize) -> Result<&mut [u8; 8]> {
    let end = at.checked_add(8);
    let word = end.and_then(|end| image.get_mut(at..end)).and_then(|word| word.try_into().ok());
    word.ok_or_else(|| Error::Load("an address of its machine code lies outside of its image".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Import;

    fn plan(text: usize, rebase: &[usize], imports: &[(&str, usize)]) -> ImagePlan {
        let imports = imports.iter().map(|&(name, at)| Import { name: name.into(), at: vec![at] }).collect();
        ImagePlan { text, rebase: rebase.to_vec(), imports }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no mprotect")]
    fn addresses_are_filled_in() {
        let mut bytes = vec![0; PAGE + 24];
        bytes[8..16].copy_from_slice(&(PAGE as u64 + 8).to_le_bytes());
        let image = Image::map(&bytes, &plan(PAGE, &[8], &[("memcpy", 16)])).unwrap();
        // SAFETY: within the image, which can be read.
        let found = unsafe { std::slice::from_raw_parts(image.address(0), 24) };
        assert_eq!(found[8..16], image.address(PAGE + 8).addr().to_le_bytes());
        assert_eq!(found[16..], imports::address("memcpy").unwrap().to_le_bytes());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no mprotect")]
    fn what_lies_outside_is_refused() {
        let bytes = vec![0; PAGE + 24];
        for bad in [PAGE + 17, PAGE + 24, usize::MAX, usize::MAX - 7] {
            assert!(Image::map(&bytes, &plan(PAGE, &[bad], &[])).is_err());
            assert!(Image::map(&bytes, &plan(PAGE, &[], &[("memcpy", bad)])).is_err());
        }
        for text in [1, 2 * PAGE, usize::MAX & !(PAGE - 1)] {
            assert!(Image::map(&bytes, &plan(text, &[], &[])).is_err());
        }
        assert!(Image::map(&bytes, &plan(PAGE, &[], &[("system", 0)])).is_err());
        let far = vec![0xff; PAGE];
        assert!(Image::map(&far, &plan(PAGE, &[0], &[])).is_err());
        assert!(Image::map(&[], &plan(0, &[], &[])).is_ok());
    }
}
