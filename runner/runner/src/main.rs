//! The program inside every archive: runs the model that lies beside it.

mod arguments;
mod output;
mod place;
mod target;

use arguments::{Arguments, Parsed};
use nt_bundle::Bundle;
use nt_cpu::Cpu;
use nt_tasks::{Error, Session, Task};
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
    let Parsed { common, arguments } = match arguments::parse(bundle.manifest(), &task)? {
        Some(parsed) => parsed,
        None => return Ok(()),
    };
    let target = target::choose(bundle.manifest(), common.target.as_deref())?;
    let weights = bundle.weights(common.weights.as_deref().map(Path::new))?;
    let mut session = Session::new(&bundle, &Cpu, target, weights);
    match (task, arguments) {
        (Task::Classify(task), Arguments::Classify { files, top }) => {
            let found = task.run(&mut session, &files, top)?;
            output::classification(&bundle.manifest().name, &found, common.json)
        }
    }
}
