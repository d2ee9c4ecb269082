//! Which of an archive's targets this machine can run, and which of those is the best.

use crate::machine::{self, Found};
use nt_bundle::{Manifest, Target};
use nt_tasks::Error;

pub const CPU: &str = "cpu";

/// What to run, as far as it can be told without the libraries of an accelerator's vendor.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// The executables of this target.
    Cpu(&'a Target),
    /// The accelerator that the plugin finds: the executables of the target that was asked for, or of any that fits,
    /// or the portable programs, compiled on the spot.
    Accelerator { platform: &'a str, only: Option<&'a Target> },
}

/// What could run here, the best first: the target or the platform named `wanted`, or all that the machine shows.
pub fn choices<'a>(
    manifest: &'a Manifest,
    accelerators: &[Found],
    wanted: Option<&'a str>,
) -> Result<Vec<Choice<'a>>, Error> {
    if let Some(wanted) = wanted {
        return named(manifest, wanted).map(|choice| vec![choice]);
    }
    let mut choices = ranked(manifest, accelerators);
    choices.extend(best_cpu(manifest).map(Choice::Cpu));
    if choices.is_empty() {
        let why: Vec<String> = manifest
            .targets
            .iter()
            .map(|target| format!("{} ({})", target.name, unfit(target, accelerators)))
            .collect();
        let text = format!("this machine runs none of its targets: {}", why.join(", "));
        return Err(Error::Device(nt_device::Error::Load(text)));
    }
    Ok(choices)
}

fn named<'a>(manifest: &'a Manifest, wanted: &'a str) -> Result<Choice<'a>, Error> {
    let refuse = || {
        let names = manifest.targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ");
        Error::Usage(format!("the archive has nothing for {wanted}; it has {names}"))
    };
    if wanted == CPU {
        return best_cpu(manifest).map(Choice::Cpu).ok_or_else(refuse);
    }
    if let Some((platform, _)) = manifest.plugins.get_key_value(wanted) {
        return Ok(Choice::Accelerator { platform, only: None });
    }
    let target = manifest.targets.iter().find(|target| target.name == wanted).ok_or_else(refuse)?;
    Ok(match target.parts().0 {
        CPU => Choice::Cpu(target),
        platform => Choice::Accelerator { platform, only: Some(target) },
    })
}

/// Platforms whose hardware is here: first those of which an executable is for this very chip, as far as that shows.
fn ranked<'a>(manifest: &'a Manifest, accelerators: &[Found]) -> Vec<Choice<'a>> {
    let mut platforms: Vec<(bool, &str)> = Vec::new();
    for platform in manifest.plugins.keys() {
        let Some(found) = accelerators.iter().find(|found| found.platform == platform) else { continue };
        let fits = manifest
            .targets
            .iter()
            .any(|target| found.architecture.as_ref().is_some_and(|architecture| fits(target, platform, architecture)));
        platforms.push((fits, platform));
    }
    platforms.sort_by_key(|(fits, _)| !fits);
    platforms.into_iter().map(|(_, platform)| Choice::Accelerator { platform, only: None }).collect()
}

/// Whether a target's executables are for this architecture: a compute capability ("9.0"), the name of AMD's
/// instruction set ("gfx942") or a generation of TPUs ("v5e").
pub fn fits(target: &Target, platform: &str, architecture: &str) -> bool {
    let Some(wanted) = target.architecture.as_deref().filter(|_| target.parts().0 == platform) else { return false };
    match platform {
        // 9.0a is compute capability 9.0, with instructions that no other has.
        "cuda" => wanted.trim_end_matches('a') == architecture,
        // What follows the name are features, as in gfx942:sramecc+:xnack-.
        "rocm" => wanted.split(':').next() == architecture.split(':').next(),
        _ => wanted == architecture,
    }
}

/// The highest level that this processor has.
fn best_cpu(manifest: &Manifest) -> Option<&Target> {
    let runnable = manifest.targets.iter().filter_map(|target| Some((level(target)?, target)));
    runnable.max_by_key(|(level, _)| *level).map(|(_, target)| target)
}

/// One line for each target: its name, and whether it runs here or why not.
pub fn listing(manifest: &Manifest, accelerators: &[Found]) -> String {
    let best = choices(manifest, accelerators, None).ok().and_then(|choices| choices.first().copied());
    let width = manifest.targets.iter().map(|target| target.name.chars().count()).max().unwrap_or(0);
    let lines = manifest.targets.iter().map(|target| {
        let chosen = match best {
            Some(Choice::Cpu(best)) => best.name == target.name,
            _ => false,
        };
        let told = match unfit(target, accelerators) {
            "" if chosen => "runs here, and is chosen",
            "" => "runs here",
            why => why,
        };
        format!("{:<width$}  {told}\n", target.name)
    });
    lines.collect()
}

/// Why a target does not run here; empty where it does, or where only its plugin could tell.
fn unfit(target: &Target, accelerators: &[Found]) -> &'static str {
    match target.parts().0 {
        CPU if level(target).is_some() => "",
        CPU => "this processor lacks its instructions",
        platform => match accelerators.iter().find(|found| found.platform == platform) {
            None => machine::missing(platform),
            Some(Found { architecture: Some(found), .. }) if !fits(target, platform, found) => {
                "another chip is here: the program would be compiled on the spot"
            }
            Some(_) => "",
        },
    }
}

/// The larger the better; None where this processor cannot run it.
fn level(target: &Target) -> Option<usize> {
    match target.parts() {
        // Made for one machine: taken where nothing else fits, and refused by the device on another.
        (CPU, "native") => Some(0),
        (CPU, level) => {
            LEVELS.iter().position(|known| known.0 == level).filter(|&at| (LEVELS[at].1)()).map(|at| at + 1)
        }
        _ => None,
    }
}

/// An instruction level, and whether this processor has it.
type Level = (&'static str, fn() -> bool);

/// The instruction levels of the x86-64 psABI, from the lowest.
#[cfg(target_arch = "x86_64")]
const LEVELS: [Level; 3] = [
    ("x86-64-v2", || is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("popcnt")),
    ("x86-64-v3", || {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("movbe")
    }),
    ("x86-64-v4", || {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }),
];

#[cfg(not(target_arch = "x86_64"))]
const LEVELS: [Level; 0] = [];
