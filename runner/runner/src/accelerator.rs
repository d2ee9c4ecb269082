//! An accelerator: the archive's plugin for it, and the executables that fit, or that are compiled on the spot.

use crate::kept::Executables;
use crate::output;
use crate::quiet::Quiet;
use crate::target::fits;
use nt_bundle::{Bundle, Plugin as Packed, Target, Variant};
use nt_device::{Bytes, Device, Executable};
use nt_pjrt::{Client, Plugin, Setting};
use nt_tasks::{Backend, Result};
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// Runs an archive's programs on the first accelerator that its plugin finds.
pub struct Accelerator<'a> {
    bundle: &'a Bundle,
    client: Client,
    chip: Chip,
    /// Whose executables fit; None where the programs are compiled on the spot.
    target: Option<&'a Target>,
    /// Whether no other executables will do.
    only: bool,
    /// What tells the plugin from all others.
    plugin: String,
    settings: Vec<(String, String)>,
    cache: Executables,
}

/// What the plugin says of the device.
struct Chip {
    kind: String,
    architecture: Option<String>,
}

impl<'a> Accelerator<'a> {
    /// Starts the accelerator of this platform, to run the executables of `only` or whatever fits best.
    ///
    /// # Errors
    /// Why that is not possible on this machine, for a person.
    pub fn start(
        bundle: &'a Bundle,
        platform: &str,
        only: Option<&'a Target>,
        outside: Option<&Path>,
    ) -> std::result::Result<Accelerator<'a>, String> {
        let packed = &bundle.manifest().plugins[platform];
        let _quiet = Quiet::new();
        let library = prepare(bundle, platform, packed, outside)?;
        // SAFETY: it is the archive's own plugin, whose digest was checked, or the one that the user names.
        let plugin = unsafe { Plugin::load(&library) }.map_err(|error| error.to_string())?;
        let client = Client::new(&plugin, &[]).map_err(|error| error.to_string())?;
        let chip = Chip::of(&client, platform);
        let target = match only {
            Some(only) if !chip.runs(only, platform) => {
                let wanted = only.architecture.as_deref().unwrap_or("another chip");
                return Err(format!("{} is for {wanted}; here is {}", only.name, chip.shown()));
            }
            Some(only) => Some(only),
            None => chip.best(&bundle.manifest().targets, platform),
        };
        let (_, version) = client.platform().map_err(|error| error.to_string())?;
        let release: Vec<String> = packed.releases.iter().map(|(name, release)| format!("{name} {release}")).collect();
        let digest = packed.library.as_ref().filter(|_| outside.is_none()).map(|path| &bundle.manifest().files[path]);
        let plugin = digest.map_or_else(
            || format!("{} {version} {}", library.display(), modified(&library)),
            |file| format!("{} {version} {}", file.sha256, release.join(", ")),
        );
        Ok(Accelerator {
            bundle,
            client,
            chip,
            target,
            only: only.is_some(),
            plugin,
            settings: settings(bundle, platform, packed)?,
            cache: Executables::new(),
        })
    }

    /// Compiles a portable program, unless that was done before.
    fn compile(&self, variant: &Variant) -> Result<Box<dyn Executable>> {
        let file = &self.bundle.manifest().files[&variant.program];
        let settings: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let key = Executables::key(&[
            &self.plugin,
            &self.chip.kind,
            self.chip.architecture.as_deref().unwrap_or(""),
            &file.sha256,
            &settings.join(" "),
        ]);
        if let Some(kept) = self.cache.get(&key)
            && let Ok(executable) = self.client.load(Bytes::from(kept), &variant.signature())
        {
            return Ok(executable);
        }
        let code = self.bundle.read(&variant.program)?;
        if output::is_terminal() {
            output::note(&format!("compiling {} for {} ...", variant.name, self.chip.kind));
        }
        let _quiet = Quiet::new();
        let (executable, serialized) = self.client.compile(&code, &self.settings, &variant.signature())?;
        if let Some(serialized) = serialized {
            self.cache.put(&key, &serialized);
        }
        Ok(executable)
    }
}

impl Backend for Accelerator<'_> {
    fn device(&self) -> &dyn Device {
        &self.client
    }

    fn prepare(&self, variant: &Variant) -> Result<Box<dyn Executable>> {
        let Some(target) = self.target else { return self.compile(variant) };
        let executable = self.bundle.read(&target.executables[&variant.name])?;
        let loaded = {
            let _quiet = Quiet::new();
            self.client.load(executable, &variant.signature())
        };
        match loaded {
            Ok(executable) => Ok(executable),
            Err(nt_device::Error::Load(why)) if !self.only => {
                output::note(&format!("{}: {} is refused ({why}); compiling it here", target.name, variant.name));
                self.compile(variant)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Checks what the plugin needs of the machine, loads the libraries that it is packed with, and says where it is.
fn prepare(
    bundle: &Bundle,
    platform: &str,
    packed: &Packed,
    outside: Option<&Path>,
) -> std::result::Result<PathBuf, String> {
    if let Some(needed) = &packed.glibc {
        // SAFETY: the function has no preconditions, and gives a constant.
        let found = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy();
        if release(&found) < release(needed) {
            return Err(format!("its plugin needs glibc {needed}, and here is {found}"));
        }
    }
    if outside.is_none() && packed.library.is_none() {
        return Err("the archive has no plugin for it; --plugin says where one is".into());
    }
    for name in &packed.host {
        // SAFETY: the driver's libraries, which the plugin loads in any case.
        unsafe { Plugin::preload(name.as_ref()) }
            .map_err(|error| format!("the driver's {name} cannot be loaded ({error})"))?;
    }
    for path in &packed.libraries {
        let library = bundle.locate(path).map_err(|error| error.to_string())?;
        // SAFETY: it is the archive's own, whose digest was checked.
        unsafe { Plugin::preload(&library) }.map_err(|error| format!("{path} cannot be loaded ({error})"))?;
    }
    match (outside, &packed.library) {
        (Some(outside), _) => std::path::absolute(outside).map_err(|error| format!("{}: {error}", outside.display())),
        (None, Some(path)) => bundle.locate(path).map_err(|error| error.to_string()),
        (None, None) => Err(format!("the archive has no plugin for {platform}")),
    }
}

/// What the compiler is told: where the tools lie that it runs, each of them checked.
fn settings(bundle: &Bundle, platform: &str, packed: &Packed) -> std::result::Result<Vec<(String, String)>, String> {
    let Some(data) = packed.data.as_ref().filter(|_| platform == "cuda") else { return Ok(Vec::new()) };
    for path in bundle.manifest().files_in(data) {
        bundle.locate(path).map_err(|error| error.to_string())?;
    }
    let place = bundle.directory().join(data).display().to_string();
    Ok(vec![("xla_gpu_cuda_data_dir".into(), place)])
}

impl Chip {
    fn of(client: &Client, platform: &str) -> Chip {
        let kind = client.kind().to_string();
        let architecture = match platform {
            "tpu" => generation(&kind).map(String::from),
            _ => match client.attribute("compute_capability") {
                Some(Setting::Text(capability)) => Some(capability.clone()),
                _ => None,
            },
        };
        Chip { kind, architecture }
    }

    fn runs(&self, target: &Target, platform: &str) -> bool {
        self.architecture.as_ref().is_some_and(|architecture| fits(target, platform, architecture))
    }

    /// The target of this very chip, or of one of the same architecture: an H200 runs what was made for an H100. Of a
    /// TPU the one for a single chip, which is what a program runs on.
    fn best<'a>(&self, targets: &'a [Target], platform: &str) -> Option<&'a Target> {
        let kind = self.kind.to_lowercase();
        let named = |target: &Target| {
            let chip = target.parts().1;
            kind.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == chip) || chip.ends_with("-1")
        };
        let fitting = targets.iter().filter(|target| self.runs(target, platform));
        // The first of the best.
        fitting.rev().max_by_key(|target| named(target))
    }

    fn shown(&self) -> String {
        let architecture = self.architecture.as_ref().map_or_else(String::new, |found| format!(" ({found})"));
        format!("{}{architecture}", self.kind)
    }
}

/// The generation of a TPU as targets have it, from the name that its plugin gives.
fn generation(kind: &str) -> Option<&'static str> {
    let known = [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5e", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU v6e", "v6e"),
    ];
    known.iter().find(|known| known.0 == kind).map(|known| known.1)
}

/// A release such as 2.28, to compare.
fn release(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn modified(path: &Path) -> String {
    let found = std::fs::metadata(path).and_then(|found| Ok((found.len(), found.modified()?)));
    found.map_or_else(|_| String::new(), |found| format!("{found:?}"))
}
