//! What the program does for each task: its arguments, as `namedtensor run` takes them, and what it prints.

mod classify;

use crate::output::Printer;
use clap::{Arg, ArgMatches, Command};
use nt_tasks::{Error, Session, Task};

/// Adds the task's own arguments.
pub fn declare(command: Command, task: &Task) -> Command {
    match task {
        Task::Classify(task) => classify::declare(command, task),
    }
}

/// Does what the arguments ask for.
pub fn run(task: &Task, matches: &mut ArgMatches, session: &mut Session<'_>, printer: &Printer) -> Result<(), Error> {
    match task {
        Task::Classify(task) => classify::run(task, matches, session, printer),
    }
}

/// An option with two dashes.
pub fn option(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}
