//! Executables that were compiled on the spot. The cache may be read-only or missing: then they are made again.

use crate::cache::{directory, hexadecimal};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

/// A program for a large accelerator takes a hundred megabytes.
const LARGEST: u64 = 1 << 32;

/// Kept executables begin with this, and with the digest of what follows.
const MAGIC: &[u8; 8] = b"nt-exec\n";

/// Executables that were compiled here, by what they were compiled from and for.
pub struct Executables(Option<PathBuf>);

impl Executables {
    pub fn new() -> Executables {
        Executables(directory().map(|cache| cache.join("executables")))
    }

    /// A key for all of these together.
    pub fn key(parts: &[&str]) -> String {
        let mut all = Sha256::new();
        for part in parts {
            all.update((part.len() as u64).to_le_bytes());
            all.update(part);
        }
        hexadecimal(&all.finalize())
    }

    /// What was kept under this key, unless it is damaged.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut kept = Vec::new();
        let file = fs::File::open(self.0.as_ref()?.join(key)).ok()?;
        file.take(LARGEST).read_to_end(&mut kept).ok()?;
        let (digest, executable) = kept.strip_prefix(MAGIC)?.split_at_checked(32)?;
        (digest == Sha256::digest(executable).as_slice()).then(|| executable.to_vec())
    }

    /// Keeps an executable, where that is possible.
    pub fn put(&self, key: &str, executable: &[u8]) {
        let Some(directory) = &self.0 else { return };
        let partial = directory.join(format!(".{key}.{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(directory)?;
            let mut file = fs::File::create_new(&partial)?;
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(executable))?;
            file.write_all(executable)?;
            fs::rename(&partial, directory.join(key))
        };
        if write().is_err() {
            // Next time it is compiled again.
            let _ = fs::remove_file(&partial);
        }
    }
}
