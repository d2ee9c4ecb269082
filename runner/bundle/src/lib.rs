//! An unpacked archive (docs/archive-format.md): `bundle.json`, and files that are checked before anything uses them.
//!
//! A file is read only where `bundle.json` lists it, through no link, in full, and only if it has the size and the SHA-256
//! digest that stand there.

mod manifest;
mod weights;

pub use manifest::{Argument, Entry, File, Kind, Manifest, Output, Plugin, Target, VERSION, Variant};

use memmap2::Mmap;
use nt_device::Bytes;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use weights::{WeightFile, dtype};

/// The name of the file that describes an archive.
pub const MANIFEST: &str = "bundle.json";

/// A program of many thousand weights and buckets takes a few megabytes.
const LARGEST_MANIFEST: u64 = 1 << 26;

/// Why an archive is refused, in one line for a person.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Error {
    #[error("{MANIFEST}: {0}")]
    Manifest(String),
    #[error("{0}")]
    File(String),
    #[error("the weights: {0}")]
    Weights(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// An unpacked archive.
#[derive(Debug)]
pub struct Bundle {
    directory: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    /// Opens the archive that was unpacked into `directory`: reads its `bundle.json`, and nothing else yet.
    ///
    /// # Errors
    /// [`Error::File`] where there is none, [`Error::Manifest`] where it is damaged or of another version.
    pub fn open(directory: &Path) -> Result<Bundle> {
        let path = directory.join(MANIFEST);
        let mut text = Vec::new();
        let file = open(&path)?;
        file.take(LARGEST_MANIFEST + 1).read_to_end(&mut text).map_err(|error| failed(&path, &error))?;
        if text.len() as u64 > LARGEST_MANIFEST {
            return Err(Error::Manifest(format!("it is larger than {LARGEST_MANIFEST} bytes")));
        }
        Ok(Bundle { directory: directory.into(), manifest: Manifest::parse(&text)? })
    }

    /// Where the archive lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The contents of a file that `bundle.json` lists.
    ///
    /// # Errors
    /// [`Error::File`] where it is missing, a link, or does not have its size and digest.
    pub fn read(&self, path: &str) -> Result<Bytes> {
        Ok(self.verified(path)?.1)
    }

    /// Where a file that `bundle.json` lists lies, for what can only be given a path.
    ///
    /// # Errors
    /// As for [`Bundle::read`]: the file was checked.
    pub fn locate(&self, path: &str) -> Result<PathBuf> {
        self.verified(path)?;
        Ok(self.directory.join(path))
    }

    /// A file that `bundle.json` lists, opened: the very one that was checked.
    ///
    /// # Errors
    /// As for [`Bundle::read`].
    pub fn open_file(&self, path: &str) -> Result<fs::File> {
        Ok(self.verified(path)?.0)
    }

    fn verified(&self, path: &str) -> Result<(fs::File, Bytes)> {
        let Some(expected) = self.manifest.files.get(path) else {
            return Err(Error::Manifest(format!("{path:?} is not among its files")));
        };
        let mut place = self.directory.clone();
        for part in path.split('/') {
            place.push(part);
            // Directories may not be links either; the last part is also opened without following one.
            match fs::symlink_metadata(&place) {
                Ok(found) if found.is_symlink() => {
                    return Err(Error::File(format!("{}: it is a link", place.display())));
                }
                Ok(_) => {}
                Err(error) => return Err(failed(&place, &error)),
            }
        }
        verified(&place, expected)
    }

    /// The weights: those in the archive, or the file at `outside`, which must be the very one it was built with.
    ///
    /// # Errors
    /// [`Error::Weights`] where they are outside and no path was given, or are not in the safetensors format;
    /// [`Error::File`] as for [`Bundle::read`].
    pub fn weights(&self, outside: Option<&Path>) -> Result<WeightFile> {
        let listed = &self.manifest.weights;
        let data = match (outside, &listed.file) {
            (Some(path), _) => verified(path, &listed.as_file())?.1,
            (None, Some(path)) => self.read(path)?,
            (None, None) => return Err(Error::Weights("the archive has none; say where they are".into())),
        };
        WeightFile::new(data, listed.aliases.clone())
    }
}

fn open(path: &Path) -> Result<fs::File> {
    // Opening a pipe must not wait for a writer.
    let options = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(options).open(path).map_err(|e| failed(path, &e))?;
    let found = file.metadata().map_err(|error| failed(path, &error))?;
    if !found.is_file() {
        return Err(Error::File(format!("{}: it is not a file", path.display())));
    }
    Ok(file)
}

/// Opens and maps a file, and checks its size and digest.
fn verified(path: &Path, expected: &File) -> Result<(fs::File, Bytes)> {
    let file = open(path)?;
    let bytes = file.metadata().map_err(|error| failed(path, &error))?.len();
    let shown = path.display();
    if bytes != expected.bytes {
        let wanted = expected.bytes;
        return Err(Error::File(format!("{shown}: it has {bytes} bytes, not {wanted}; unpack the archive again")));
    }
    let data = if bytes == 0 {
        Bytes::from(Vec::new())
    } else {
        // SAFETY: the mapping is private and only read. Whoever may change an archive's files while its program runs
        // may change the program as well.
        Bytes::new(unsafe { Mmap::map(&file) }.map_err(|error| failed(path, &error))?)
    };
    let digest: String = Sha256::digest(&*data).iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != expected.sha256 {
        return Err(Error::File(format!("{shown}: it is damaged, its digest is another; unpack the archive again")));
    }
    Ok((file, data))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    if error.raw_os_error() == Some(libc::ELOOP) {
        return Error::File(format!("{}: it is a link", path.display()));
    }
    Error::File(format!("{}: {}", path.display(), reason(error)))
}

/// The system's words for an error, without its number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_string())
}
