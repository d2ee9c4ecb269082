//! The program inside every archive: runs the model that lies beside it.
//!
//! It is built twice. The static one, under the model's name, runs on CPUs and needs nothing but a kernel. For an
//! accelerator it starts the other in its place, which is linked against glibc and can load plugins. Of the static one
//! there is a smaller kind, without the features that most archives have no use for (see Cargo.toml).

#[cfg(target_env = "gnu")]
mod accelerator;
mod address;
mod arguments;
#[cfg(any(feature = "downloads", target_env = "gnu"))]
mod cache;
mod commands;
mod crates;
#[cfg(feature = "downloads")]
mod download;
#[cfg(not(target_env = "gnu"))]
mod handover;
#[cfg(target_env = "gnu")]
mod kept;
mod machine;
mod output;
mod place;
#[cfg(target_env = "gnu")]
mod quiet;
mod shown;
mod size;
mod target;
#[cfg(feature = "texts")]
mod terminal;

use arguments::Common;
use machine::Found;
use nt_bundle::Bundle;
use nt_cpu::Cpu;
use nt_tasks::{Backend, Compiled, Error, Session, Task, Weights};
use output::Printer;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use target::Choice;

fn main() -> ExitCode {
    output::report_panics();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report(&error),
    }
}

fn run() -> Result<(), Error> {
    let bundle = Arc::new(Bundle::open(&place::directory()?)?);
    let task = Task::of(bundle.manifest())?;
    let Some((common, mut matches)) = arguments::parse(bundle.manifest(), &task)? else { return Ok(()) };
    let printer = Printer { model: bundle.manifest().name.clone(), json: common.json };
    let accelerators = machine::accelerators(&place::machine());
    if common.targets {
        return printer.print(&target::listing(bundle.manifest(), &accelerators));
    }
    if let Some(url) = common.weights.as_ref().and_then(|weights| weights.to_str()) {
        address::check(url)?;
    }
    let choices = target::choices(bundle.manifest(), &accelerators, common.target.as_deref())?;
    let mut weights = None;
    let backend = start(&bundle, &choices, &accelerators, &common, &mut weights)?;
    let weights = weights.unwrap_or_else(|| open_weights(&bundle, &common));
    let mut session = Session::new(&bundle, &*backend, weights);
    commands::run(&task, &mut matches, &mut session, &printer)
}

/// Begins to read the weights. Not before it is known which program does that: the one that is started in this one's
/// place begins anew.
fn open_weights(bundle: &Arc<Bundle>, common: &Common) -> Weights {
    let (bundle, outside) = (Arc::clone(bundle), common.weights.clone());
    Weights::open(move || {
        #[cfg(feature = "downloads")]
        if let Some(url) = outside.as_ref().and_then(|outside| outside.to_str()).filter(|it| address::is_url(it)) {
            return download::weights(&bundle, url);
        }
        Ok(bundle.weights(outside.as_ref().map(Path::new))?)
    })
}

/// The best of the choices that works; of every one before it one line says why it does not.
fn start<'a>(
    bundle: &'a Arc<Bundle>,
    choices: &[Choice<'a>],
    accelerators: &[Found],
    common: &Common,
    weights: &mut Option<Weights>,
) -> Result<Box<dyn Backend + 'a>, Error> {
    for (at, &choice) in choices.iter().enumerate() {
        let (platform, only) = match choice {
            Choice::Cpu(target) => return Ok(Box::new(Compiled::new(bundle, &Cpu, target))),
            Choice::Accelerator { platform, only } => (platform, only),
        };
        let name = only.map_or(platform, |target| &target.name);
        // Without a TPU libtpu looks for one elsewhere, for minutes.
        let absent = platform == "tpu" && !accelerators.iter().any(|found| found.platform == platform);
        let started = match absent {
            true => Err(machine::missing(platform).into()),
            false => accelerate(bundle, platform, only, common, weights),
        };
        let reason = match started {
            Ok(backend) => return Ok(backend),
            Err(reason) => reason,
        };
        match choices.get(at + 1) {
            None => return Err(Error::Device(nt_device::Error::Load(format!("{name} cannot be used here: {reason}")))),
            Some(Choice::Cpu(next)) => {
                output::note(&format!("{name} cannot be used ({reason}); running {}", next.name))
            }
            Some(Choice::Accelerator { platform: next, .. }) => {
                output::note(&format!("{name} cannot be used ({reason}); trying {next}"));
            }
        }
    }
    unreachable!("there is a choice at least, and the last one returns")
}

#[cfg(target_env = "gnu")]
fn accelerate<'a>(
    bundle: &'a Arc<Bundle>,
    platform: &str,
    only: Option<&'a nt_bundle::Target>,
    common: &Common,
    weights: &mut Option<Weights>,
) -> Result<Box<dyn Backend + 'a>, String> {
    // Plugins take seconds to start.
    weights.get_or_insert_with(|| open_weights(bundle, common));
    let outside = common.plugin.as_deref().map(Path::new);
    Ok(Box::new(accelerator::Accelerator::start(bundle, platform, only, outside)?))
}

/// Does not return where the program that can load plugins takes over.
#[cfg(not(target_env = "gnu"))]
fn accelerate<'a>(
    bundle: &'a Arc<Bundle>,
    _: &str,
    _: Option<&'a nt_bundle::Target>,
    _: &Common,
    _: &mut Option<Weights>,
) -> Result<Box<dyn Backend + 'a>, String> {
    Err(handover::start(bundle))
}
