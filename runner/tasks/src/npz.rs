//! numpy's .npz files: .npy files in a ZIP.

use crate::array::Layout;
use crate::npy;
use nt_device::TensorSpec;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, Write};
use std::rc::Rc;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

/// One array of a file.
pub struct Member {
    pub name: String,
    pub layout: Layout,
    archive: Rc<RefCell<ZipArchive<BufReader<File>>>>,
    index: usize,
    start: u64,
}

/// The arrays in a file; only their headers are read.
///
/// # Errors
/// What is wrong with the file.
pub fn members(file: File) -> Result<Vec<Member>, String> {
    let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| error.to_string())?;
    let archive = Rc::new(RefCell::new(archive));
    let count = archive.borrow().len();
    let mut found = Vec::new();
    for index in 0..count {
        let mut archive_now = archive.borrow_mut();
        let mut file = archive_now.by_index(index).map_err(|error| error.to_string())?;
        let name = file.name().map_err(|error| error.to_string())?.into_owned();
        let (layout, start) = npy::header(&mut file).map_err(|problem| format!("{name}: {problem}"))?;
        if layout.bytes().map(|bytes| start + bytes as u64) != Some(file.size()) {
            return Err(format!("{name} does not hold what its header says"));
        }
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_string();
        found.push(Member { name, layout, archive: Rc::clone(&archive), index, start });
    }
    Ok(found)
}

impl Member {
    /// Appends the elements, `length` bytes of them.
    pub fn read(&self, length: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut archive = self.archive.borrow_mut();
        let mut file = archive.by_index(self.index).map_err(io::Error::other)?;
        io::copy(&mut file.by_ref().take(self.start), &mut io::sink())?;
        file.by_ref().take(length as u64).read_to_end(bytes)?;
        // Past the last byte the checksum is looked at.
        let rest = file.read(&mut [0])?;
        if bytes.len() == length && rest == 0 { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

/// Writes tensors as numpy.savez does, not compressed.
pub fn write<'a>(
    out: impl Write + Seek,
    tensors: impl Iterator<Item = (&'a str, &'a TensorSpec, &'a [u8])>,
) -> io::Result<()> {
    let mut archive = ZipWriter::new(out);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(true);
    for (name, spec, bytes) in tensors {
        archive.start_file(format!("{name}.npy"), options).map_err(io::Error::other)?;
        npy::write(&mut archive, spec, bytes)?;
    }
    archive.finish().map_err(io::Error::other)?.flush()
}
