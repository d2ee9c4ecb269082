//! Plugins write a log to stderr, whatever they are told; what matters of it comes back as an error besides.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Whoever sets this wants to read the log.
const ASKED_FOR: &str = "TF_CPP_MIN_LOG_LEVEL";

/// While this lives, nothing that is written to stderr arrives.
pub struct Quiet(Option<OwnedFd>);

impl Quiet {
    pub fn new() -> Quiet {
        if std::env::var_os(ASKED_FOR).is_some() {
            return Quiet(None);
        }
        let Ok(nothing) = std::fs::OpenOptions::new().write(true).open("/dev/null") else { return Quiet(None) };
        // SAFETY: the descriptor is stderr's, or there is none and the call fails.
        let saved = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, 3) };
        if saved < 0 {
            return Quiet(None);
        }
        // SAFETY: both descriptors are open.
        unsafe { libc::dup2(nothing.as_raw_fd(), libc::STDERR_FILENO) };
        // SAFETY: it was made above, and belongs to nobody else.
        Quiet(Some(unsafe { OwnedFd::from_raw_fd(saved) }))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            // SAFETY: both descriptors are open.
            unsafe { libc::dup2(saved.as_raw_fd(), libc::STDERR_FILENO) };
        }
    }
}
