//! What the program does for each task: its arguments, as `namedtensor run` takes them, and what it prints.

mod call;
mod classify;
#[cfg(feature = "texts")]
mod embed;
#[cfg(feature = "texts")]
mod generate;

use crate::output::Printer;
use clap::{Arg, ArgMatches, Command};
use nt_tasks::{Error, Session, Task};
use std::path::Path;

/// Adds the task's own arguments.
pub fn declare(command: Command, task: &Task) -> Command {
    match task {
        Task::Call(_) => call::declare(command),
        Task::Classify(task) => classify::declare(command, task),
        #[cfg(feature = "texts")]
        Task::Embed(_) => embed::declare(command),
        #[cfg(feature = "texts")]
        Task::Generate(task) => generate::declare(command, task),
    }
}

/// Does what the arguments ask for.
pub fn run(task: &Task, matches: &mut ArgMatches, session: &mut Session<'_>, printer: &Printer) -> Result<(), Error> {
    match task {
        Task::Call(task) => call::run(task, matches, session, printer),
        Task::Classify(task) => classify::run(task, matches, session, printer),
        #[cfg(feature = "texts")]
        Task::Embed(task) => embed::run(task, matches, session, printer),
        #[cfg(feature = "texts")]
        Task::Generate(task) => generate::run(task, matches, session, printer),
    }
}

/// An option with two dashes.
pub fn option(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}

/// Refuses a path to write to before any work is done for it.
fn check_parent(path: &Path, option: &str) -> Result<(), Error> {
    let shown = path.display();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(Error::Usage(format!("{option} {shown}: there is no directory {}", parent.display())));
    }
    if path.is_dir() {
        return Err(Error::Usage(format!("{option} {shown}: that is a directory")));
    }
    Ok(())
}
