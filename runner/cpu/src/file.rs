//! The frame of a `.ntx` file: its header, and the three sections that it names.

use nt_device::{Error, Result};

const MAGIC: &[u8; 8] = b"\x89NTX\r\n\x1a\n";
const VERSION: u32 = 1;
const HEADER: usize = 64;
const SECTIONS: u32 = 3;
const ALIGNMENT: usize = 64;

/// The sections of a file.
#[derive(Debug)]
pub struct Sections<'a> {
    /// JSON.
    pub plan: &'a [u8],
    /// Machine code, then read-only data.
    pub image: &'a [u8],
    pub constants: &'a [u8],
}

pub fn sections(file: &[u8]) -> Result<Sections<'_>> {
    let header = file.get(..HEADER).ok_or_else(|| damaged("it is shorter than its header"))?;
    if !header.starts_with(MAGIC) {
        return Err(damaged("it is no .ntx file"));
    }
    let version = word32(header, 8);
    if version != VERSION {
        return Err(damaged(&format!("it has version {version} of the format, where this program reads {VERSION}")));
    }
    if word32(header, 12) != SECTIONS {
        return Err(damaged("it has another number of sections than its version says"));
    }
    let mut end = HEADER;
    let mut found = [&file[..0]; SECTIONS as usize];
    for (index, section) in found.iter_mut().enumerate() {
        let [start, size] = [16 + 16 * index, 24 + 16 * index].map(|at| usize::try_from(word64(header, at)));
        let (Ok(start), Ok(size)) = (start, size) else {
            return Err(damaged("a section is larger than memory"));
        };
        // Sections follow each other, with nothing between them but what aligns them.
        if start != end.next_multiple_of(ALIGNMENT) {
            return Err(damaged("a section does not follow the one before it"));
        }
        end = start.checked_add(size).filter(|&end| end <= file.len()).ok_or_else(|| damaged("it is cut short"))?;
        *section = &file[start..end];
    }
    if end != file.len() {
        return Err(damaged("something follows its last section"));
    }
    let [plan, image, constants] = found;
    Ok(Sections { plan, image, constants })
}

fn damaged(what: &str) -> Error {
    Error::Load(what.into())
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut file = Vec::from(*MAGIC);
        file.extend(VERSION.to_le_bytes());
        file.extend(SECTIONS.to_le_bytes());
        for word in [64_u64, 2, 128, 3, 192, 1] {
            file.extend(word.to_le_bytes());
        }
        file.extend(b"{}");
        file.resize(128, 0);
        file.extend([1, 2, 3]);
        file.resize(192, 0);
        file.push(9);
        file
    }

    #[test]
    fn sections_are_found() {
        let file = file();
        let found = sections(&file).unwrap();
        assert_eq!((found.plan, found.image, found.constants), (&b"{}"[..], &[1, 2, 3][..], &[9][..]));
    }

    #[test]
    fn every_cut_is_refused() {
        let file = file();
        for length in 0..file.len() {
            assert!(sections(&file[..length]).is_err(), "{length}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(sections(&longer).is_err());
    }

    #[test]
    fn changed_headers_are_refused_or_still_name_parts_of_the_file() {
        // Sizes of all but the last section: they may grow into what aligns the next one.
        let sizes = [24..32, 40..48];
        for (at, bit) in (0..HEADER).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut file = file();
            file[at] ^= 1 << bit;
            match sections(&file) {
                Err(error) => assert!(matches!(error, Error::Load(_))),
                Ok(_) => assert!(sizes.iter().any(|size| size.contains(&at)), "bit {bit} of byte {at}"),
            }
        }
    }
}
