//! Where this program lies, and its archive with it.

use nt_tasks::Error;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The directory of the archive: the one that this program's file is in, whatever links led to it.
pub fn directory() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().ok().or_else(started_as);
    let directory = program.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    directory.ok_or_else(|| Error::Archive("it cannot be told where this program lies".into()))
}

/// The path that the kernel was given to start this program. Without /proc nothing else says where that was.
fn started_as() -> Option<PathBuf> {
    // SAFETY: getauxval has no preconditions.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    if address == 0 {
        return None;
    }
    // SAFETY: the kernel put a string there, which lives as long as the process.
    let path = unsafe { CStr::from_ptr(address as *const libc::c_char) };
    std::fs::canonicalize(OsStr::from_bytes(path.to_bytes())).ok()
}
