//! The program inside every archive: runs the model that lies beside it.

mod arguments;
mod commands;
mod output;
mod place;
mod target;

use nt_bundle::Bundle;
use nt_cpu::Cpu;
use nt_tasks::{Error, Session, Task};
use output::Printer;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    output::report_panics();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report(&error),
    }
}

fn run() -> Result<(), Error> {
    let bundle = Bundle::open(&place::directory()?)?;
    let task = Task::of(bundle.manifest())?;
    let Some((common, mut matches)) = arguments::parse(bundle.manifest(), &task)? else { return Ok(()) };
    let target = target::choose(bundle.manifest(), common.target.as_deref())?;
    let weights = bundle.weights(common.weights.as_deref().map(Path::new))?;
    let mut session = Session::new(&bundle, &Cpu, target, weights);
    let printer = Printer { model: bundle.manifest().name.clone(), json: common.json };
    commands::run(&task, &mut matches, &mut session, &printer)
}
