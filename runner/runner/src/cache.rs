//! Where things are that are worth keeping from one run to the next.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// `NAMEDTENSOR_CACHE`, which `off` turns off, or the user's cache directory; None where there is neither.
pub fn directory() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    if let Some(directory) = named("NAMEDTENSOR_CACHE") {
        return (directory != Path::new("off")).then_some(directory);
    }
    let home = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    home.map(|home| home.join("namedtensor"))
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
