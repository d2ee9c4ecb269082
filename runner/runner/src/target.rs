//! Which of an archive's targets this machine can run, and which of those is the best.

use nt_bundle::{Manifest, Target};
use nt_tasks::Error;

/// The target named `wanted`, or the best of those that this machine can run.
pub fn choose<'a>(manifest: &'a Manifest, wanted: Option<&str>) -> Result<&'a Target, Error> {
    let names = || manifest.targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = wanted {
        let Some(target) = manifest.targets.iter().find(|target| target.name == wanted) else {
            return Err(Error::Usage(format!("the archive has nothing for {wanted}; it has {}", names())));
        };
        if target.parts().0 != "cpu" {
            return Err(Error::Usage(format!("{wanted}: this program runs cpu targets; the archive has {}", names())));
        }
        return Ok(target);
    }
    let runnable = manifest.targets.iter().filter_map(|target| Some((rank(target)?, target)));
    let best = runnable.max_by_key(|(rank, _)| *rank).map(|(_, target)| target);
    best.ok_or_else(|| {
        Error::Device(nt_device::Error::Load(format!("this machine runs none of its targets: {}", names())))
    })
}

/// The larger the better; None where this processor cannot run it.
fn rank(target: &Target) -> Option<usize> {
    match target.parts() {
        // Made for one machine: taken where nothing else fits, and refused by the device on another.
        ("cpu", "native") => Some(0),
        ("cpu", level) => {
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
