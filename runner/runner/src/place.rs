//! Where this program lies, and its archive with it.

use nt_tasks::Error;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The variable by which the static program tells the one that it starts in its place where the archive is.
pub const ARCHIVE: &str = "NAMEDTENSOR_ARCHIVE";

/// For tests: a directory to look for hardware in, instead of the machine's own /dev, /proc and /sys.
const MACHINE: &str = "NAMEDTENSOR_MACHINE_ROOT";

/// The directory of the archive: the one that this program's file is in, whatever links led to it.
pub fn directory() -> Result<PathBuf, Error> {
    if cfg!(target_env = "gnu") {
        // This is plugins/runner of an archive, unless the other one says more.
        if let Some(archive) = std::env::var_os(ARCHIVE) {
            return Ok(archive.into());
        }
    }
    let program = std::env::current_exe().ok().or_else(started_as);
    let up = if cfg!(target_env = "gnu") { 2 } else { 1 };
    let directory = program.as_deref().and_then(|program| program.ancestors().nth(up)).map(Path::to_path_buf);
    directory.ok_or_else(|| Error::Archive("it cannot be told where this program lies".into()))
}

/// Where the kernel shows the machine's hardware.
pub fn machine() -> PathBuf {
    std::env::var_os(MACHINE).map_or_else(|| "/".into(), PathBuf::from)
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
