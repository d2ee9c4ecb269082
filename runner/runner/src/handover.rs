//! From the static program, which cannot load plugins, to the one that can: started in its place, with its arguments.

use crate::place::ARCHIVE;
use nt_bundle::Bundle;
use std::ffi::{CString, OsString};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The program that can load plugins, in every archive with targets for accelerators.
const PROGRAM: &str = "plugins/runner";

/// Starts it; returns only where that is not possible, with the reason.
pub fn start(bundle: &Bundle) -> String {
    // The file that was checked is the one that is started, whatever lies at its path by then.
    let file = match bundle.open_file(PROGRAM) {
        Ok(file) => file,
        Err(error) => return error.to_string(),
    };
    let directory = std::path::absolute(bundle.directory()).unwrap_or_else(|_| bundle.directory().into());
    let arguments = strings(std::env::args_os());
    let environment = strings(environment(&directory));
    let (Some(arguments), Some(environment)) = (arguments, environment) else {
        return "an argument holds a zero byte".into();
    };
    let pointers = |strings: &[CString]| {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (arguments_at, environment_at) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both lists end with a null pointer, and their strings outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments_at.as_ptr(),
            environment_at.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        // The program was read just now; what is missing is what the kernel starts it with.
        Some(libc::ENOENT) => "the C library (glibc 2.28 or later) that plugins need is not on this machine".into(),
        _ => format!("{PROGRAM} cannot be started: {error}"),
    }
}

fn environment(directory: &Path) -> impl Iterator<Item = OsString> {
    let kept = std::env::vars_os().filter(|(name, _)| name != ARCHIVE);
    kept.chain([(ARCHIVE.into(), directory.into())]).map(|(name, value): (OsString, OsString)| {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        pair
    })
}

fn strings(values: impl Iterator<Item = OsString>) -> Option<Vec<CString>> {
    values.map(|value| CString::new(value.into_vec()).ok()).collect()
}
