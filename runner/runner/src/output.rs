//! What the program prints: results for people or as one JSON document, errors in one line, and exit codes.

use nt_bundle::MANIFEST;
use nt_tasks::Error;
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const BAD_INPUT: u8 = 3;
/// As the shell reports SIGPIPE.
const PIPE_CLOSED: i32 = 141;

/// Prints an error to stderr. Exit codes: 1 the archive or the machine failed; 2 wrong usage; 3 bad input.
pub fn report(error: &Error) -> ExitCode {
    let (code, text) = match error {
        Error::Usage(text) => (USAGE, format!("{text}; try --help")),
        Error::Input(text) => (BAD_INPUT, text.clone()),
        Error::Archive(text) => (FAILED, format!("{MANIFEST}: {text}")),
        other => (FAILED, other.to_string()),
    };
    complain(&text);
    ExitCode::from(code)
}

/// Whether a person watches stderr.
#[cfg(any(feature = "downloads", target_env = "gnu"))]
pub fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}

/// Has a panic, which only a fault of this program can cause, end it with one line.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |at| format!(" ({}:{})", at.file(), at.line()));
        complain(&format!("the program has a fault{place}"));
        std::process::exit(FAILED.into());
    }));
}

/// Tells something on stderr, in one line.
pub fn note(text: &str) {
    say(text);
}

/// Tells how far something has come, in a line that the next one replaces; for terminals. An empty text ends it.
#[cfg(feature = "downloads")]
pub fn progress(text: &str) {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let line = if text.is_empty() { String::new() } else { format!("{}: {text}", printable(&name)) };
    // Back to the line's start, and what was there is cleared.
    let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
}

fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn complain(text: &str) {
    say(&format!("error: {text}"));
}

fn say(text: &str) {
    // Names inside hostile files may hold anything; what reaches a terminal is printable.
    let clean = printable(text);
    let name = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{name}: {clean}");
}

/// Where results go.
pub struct Printer {
    pub model: String,
    /// Whether one JSON document is asked for, with every number.
    pub json: bool,
}

impl Printer {
    /// Prints a result as the JSON document that `namedtensor run --json` prints.
    pub fn document(&self, task: &str, result: Value) -> Result<(), Error> {
        let mut document = json!({"model": self.model, "task": task});
        if let (Value::Object(all), Value::Object(result)) = (&mut document, result) {
            all.extend(result);
        }
        self.print(&format!("{document}\n"))
    }

    /// Prints text, all of it at once.
    pub fn print(&self, text: &str) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(PIPE_CLOSED),
            Err(error) => Err(Error::Device(nt_device::Error::Run(format!("stdout cannot be written ({error})")))),
            Ok(()) => Ok(()),
        }
    }
}
