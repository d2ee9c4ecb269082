//! What plugins say when they fail, in one line.

use crate::abi::{self, Args, Function, Opaque, View};
use crate::plugin::Plugin;

/// Why a plugin cannot be used, or what it reports, in one line for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub message: String,
    /// The device's memory does not suffice.
    pub memory: bool,
}

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), memory: false }
    }

    /// The same, with what was being done in front.
    pub(crate) fn during(mut self, what: &str) -> Error {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same, with more behind it.
    pub(crate) fn and(mut self, more: &str) -> Error {
        self.message = format!("{}{more}", self.message.trim_end_matches('.'));
        self
    }

    pub(crate) fn load(self) -> nt_device::Error {
        if self.memory { nt_device::Error::Memory(self.message) } else { nt_device::Error::Load(self.message) }
    }

    pub(crate) fn run(self) -> nt_device::Error {
        if self.memory { nt_device::Error::Memory(self.message) } else { nt_device::Error::Run(self.message) }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

impl Plugin {
    /// What a call returned: nothing, or an error of the plugin's, which is read and freed here.
    pub(crate) fn outcome(&self, error: Opaque) -> Result<()> {
        if error.is_null() {
            return Ok(());
        }
        let mut text = Args::new(abi::OneToText { it: error, text: View::EMPTY });
        // SAFETY: these are the function's arguments.
        unsafe { self.call_void(Function::ErrorMessage, &mut text) };
        // SAFETY: the text lives as long as the error, which is freed below.
        let message = one_line(unsafe { text.fields.text.bytes() });
        let mut code = Args::new(abi::ErrorCode { error, code: 0 });
        // SAFETY: these are the function's arguments.
        let failed = unsafe { self.call_raw(Function::ErrorGetCode, &mut code) };
        let memory = failed.is_null() && code.fields.code == abi::RESOURCE_EXHAUSTED;
        for error in [error, failed] {
            if !error.is_null() {
                // SAFETY: these are the function's arguments; the error is not used any more.
                unsafe { self.call_void(Function::ErrorDestroy, &mut Args::new(abi::One { it: error })) };
            }
        }
        Err(Error { message, memory })
    }
}

const MOST_CHARACTERS: usize = 400;

/// The first paragraph of a message (stack traces and notes follow after an empty line) without what no line can hold.
pub(crate) fn one_line(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let first = text.trim().split("\n\n").next().unwrap_or("");
    let mut line = String::new();
    for word in first.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if let Some((end, _)) = line.char_indices().nth(MOST_CHARACTERS) {
        line.truncate(end);
        line.push('…');
    }
    if line.is_empty() { "the plugin reports an error without saying which".into() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_one_line() {
        assert_eq!(one_line(b"no\n  device\there\x1b\n\nStack trace:\n  0x1"), "no device here");
        assert_eq!(one_line(b"\xff"), "\u{fffd}");
        assert_eq!(one_line(b" \n"), "the plugin reports an error without saying which");
        assert_eq!(one_line("é".repeat(1000).as_bytes()).chars().count(), MOST_CHARACTERS + 1);
    }
}
