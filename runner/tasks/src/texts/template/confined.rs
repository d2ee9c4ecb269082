//! Work that is not trusted, in a process of its own: when its time or memory is used up, only that process ends.

use crate::{Error, Result};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::time::Instant;

/// A text, or why there is none.
pub type Answer = std::result::Result<String, String>;

/// Bytes of memory, beside what this process has already.
const MEMORY: libc::rlim_t = 512 << 20;
/// Seconds of computing.
const SECONDS: libc::rlim_t = 5;
/// Milliseconds to wait for an answer, from a process that may wait for something itself.
const PATIENCE: libc::c_int = 20_000;

/// What `work` returns, from a copy of this process with little memory and time.
///
/// # Errors
/// [`Error::Input`] where it used up either; [`nt_device::Error::Run`] where there can be no other process.
pub fn confined(work: impl FnOnce() -> Answer) -> Result<Answer> {
    let failed = |error: std::io::Error| {
        Error::Device(nt_device::Error::Run(format!("the chat template could not be run ({error})")))
    };
    let (reader, writer) = pipe().map_err(failed)?;
    // SAFETY: the copy runs `work`, whose memory is its own, answers through the pipe, and ends without returning.
    match unsafe { libc::fork() } {
        -1 => Err(failed(std::io::Error::last_os_error())),
        0 => answer(writer, work),
        child => {
            drop(writer);
            received(reader, child).ok_or_else(|| Error::Input("the chat template used up its time or memory".into()))
        }
    }
}

fn answer(mut writer: PipeWriter, work: impl FnOnce() -> Answer) -> ! {
    limit();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let mut status = 1;
    if let Ok(found) = found {
        let (mark, text) = match &found {
            Ok(text) => (b"+", text),
            Err(problem) => (b"-", problem),
        };
        if writer.write_all(mark).and_then(|()| writer.write_all(text.as_bytes())).is_ok() {
            status = 0;
        }
    }
    // SAFETY: ends this process, the copy, and runs nothing that the original has registered for its end.
    unsafe { libc::_exit(status) }
}

fn limit() {
    let set = |what, most| {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the limit is read, and not kept. Where it cannot be lowered, what there is holds.
        unsafe { libc::setrlimit(what, &limit) }
    };
    // Private memory; mapped weights are none.
    set(libc::RLIMIT_DATA, private().saturating_add(MEMORY));
    set(libc::RLIMIT_CPU, SECONDS);
    set(libc::RLIMIT_CORE, 0);
    // SAFETY: closes what Rust's library writes to when memory ends; nothing else has this descriptor.
    unsafe { libc::close(libc::STDERR_FILENO) };
}

/// Bytes of private memory that this process has, as far as the system says.
fn private() -> libc::rlim_t {
    let told = std::fs::read_to_string("/proc/self/statm").ok();
    let pages: Option<libc::rlim_t> = told.and_then(|all| all.split(' ').nth(5)?.parse().ok());
    // SAFETY: has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0).saturating_mul(libc::rlim_t::try_from(size).unwrap_or(0))
}

/// The answer, unless the process ended without one.
fn received(mut reader: PipeReader, child: libc::pid_t) -> Option<Answer> {
    let mut bytes = Vec::new();
    let read = wait(&reader).and_then(|()| reader.read_to_end(&mut bytes));
    if read.is_err() {
        // SAFETY: ends the process that was started above, which nothing has waited for yet.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    let mut status = 0;
    let ended = loop {
        // SAFETY: waits for the process that was started above.
        let ended = unsafe { libc::waitpid(child, &mut status, 0) };
        if ended == child || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            break ended;
        }
    };
    read.ok()?;
    if ended != child || !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        return None;
    }
    let (mark, text) = bytes.split_first()?;
    let text = String::from_utf8(text.into()).ok()?;
    Some(if *mark == b'+' { Ok(text) } else { Err(text) })
}

/// Waits until there is something to read. Whoever begins to answer does nothing but answer.
fn wait(reader: &PipeReader) -> std::io::Result<()> {
    let began = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(began.elapsed().as_millis().try_into().unwrap_or(libc::c_int::MAX));
        let mut polled = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: is told of one descriptor, which the reader keeps open.
        match unsafe { libc::poll(&mut polled, 1, left.max(0)) } {
            0 => return Err(std::io::ErrorKind::TimedOut.into()),
            -1 if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
            -1 => return Err(std::io::Error::last_os_error()),
            _ => return Ok(()),
        }
    }
}
