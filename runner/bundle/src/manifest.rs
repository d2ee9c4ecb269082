//! `bundle.json`: what an archive holds (docs/archive-format.md).

use crate::{Error, Result};
use nt_device::{DType, ResultSpec, Signature, TensorSpec};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The version of the format that this program reads.
pub const VERSION: u64 = 1;

/// The contents of `bundle.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u64,
    pub name: String,
    /// The release of the compiler that made the executables.
    pub compiler: BTreeMap<String, String>,
    /// What the program does for its user; read by who runs the task.
    pub task: serde_json::Map<String, serde_json::Value>,
    pub entries: Vec<Entry>,
    pub targets: Vec<Target>,
    /// By platform, what runs the executables of its targets; every platform but `cpu` has one.
    pub plugins: BTreeMap<String, Plugin>,
    pub weights: Weights,
    pub files: BTreeMap<String, File>,
}

/// An entry point of the program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    /// Sizes that the entry point was compiled for, by axis.
    pub buckets: BTreeMap<String, Vec<usize>>,
    pub variants: Vec<Variant>,
}

/// An entry point at one choice of its buckets: one executable for each target.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub name: String,
    pub sizes: BTreeMap<String, usize>,
    /// Portable StableHLO.
    pub program: String,
    /// In the order of the program.
    pub arguments: Vec<Argument>,
    /// In the order of the program.
    pub results: Vec<Output>,
}

/// Where an argument comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Weight,
    /// Given up by the caller: a result takes its memory.
    State,
    Input,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argument {
    pub kind: Kind,
    pub name: String,
    pub axes: Vec<String>,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl Argument {
    pub fn spec(&self) -> TensorSpec {
        TensorSpec::new(self.dtype, self.shape.clone())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    pub name: String,
    pub axes: Vec<String>,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// The argument whose memory this result takes.
    pub aliases: Option<usize>,
}

impl Output {
    pub fn spec(&self) -> TensorSpec {
        TensorSpec::new(self.dtype, self.shape.clone())
    }
}

impl Variant {
    /// What a device must find in the executable.
    pub fn signature(&self) -> Signature {
        let results = self.results.iter().map(|result| ResultSpec { spec: result.spec(), aliases: result.aliases });
        Signature { arguments: self.arguments.iter().map(Argument::spec).collect(), results: results.collect() }
    }
}

/// A kind of hardware that the archive has executables for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `cpu:x86-64-v3`, `cuda:h100`.
    pub name: String,
    /// Which accelerators run the executables: a compute capability ("9.0a"), the name of AMD's instruction set with
    /// features ("gfx942:xnack-"), or a generation of TPUs ("v5e"). None for a CPU.
    pub architecture: Option<String>,
    /// File of each variant's executable.
    pub executables: BTreeMap<String, String>,
    /// Libraries of the vendor that the executables call.
    pub libraries: Vec<String>,
}

impl Target {
    /// `cpu` and `x86-64-v3` of `cpu:x86-64-v3`.
    pub fn parts(&self) -> (&str, &str) {
        self.name.split_once(':').unwrap_or((&self.name, ""))
    }
}

/// A PJRT plugin, with what it needs to run these programs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The releases that it was packed from, by package.
    pub releases: BTreeMap<String, String>,
    /// None where the plugin is outside of the archive.
    pub library: Option<String>,
    /// Shared libraries to load before the plugin, in this order.
    pub libraries: Vec<String>,
    /// The directory with what the plugin needs to compile on the spot (CUDA's: `xla_gpu_cuda_data_dir`).
    pub data: Option<String>,
    /// Shared libraries that the machine must have, beyond those of glibc.
    pub host: Vec<String>,
    /// The oldest glibc that has all that the plugin and the libraries call; None where they are outside.
    pub glibc: Option<String>,
    /// What was left out, and why: for people.
    pub left_out: BTreeMap<String, String>,
}

/// The file with the weights.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Within the archive; None where they are kept outside of it.
    pub file: Option<String>,
    pub bytes: u64,
    pub sha256: String,
    /// Weights that are another's tensor, and its name.
    pub aliases: BTreeMap<String, String>,
}

impl Weights {
    /// Size and digest of the file, wherever it is.
    pub fn as_file(&self) -> File {
        File { bytes: self.bytes, sha256: self.sha256.clone() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub bytes: u64,
    pub sha256: String,
}

/// Only what says how to read the rest.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

impl Manifest {
    /// Reads and checks the text of a `bundle.json`.
    ///
    /// # Errors
    /// [`Error::Manifest`] where it is no such file, of another version, or contradicts itself.
    pub fn parse(text: &[u8]) -> Result<Manifest> {
        let version: Version = serde_json::from_slice(text).map_err(invalid)?;
        if version.version != VERSION {
            let found = version.version;
            return Err(Error::Manifest(format!(
                "it has version {found} of the format, where this program reads {VERSION}"
            )));
        }
        let manifest: Manifest = serde_json::from_slice(text).map_err(invalid)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The entry point of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Paths of the files that lie in a directory of the archive.
    pub fn files_in<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a str> {
        let within = move |path: &&str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        self.files.keys().map(String::as_str).filter(within)
    }

    fn check(&self) -> Result<()> {
        if self.name.is_empty() || !self.name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(Error::Manifest(format!("{:?} is no name for a model", self.name)));
        }
        for (path, file) in &self.files {
            check_path(path)?;
            check_digest(&file.sha256, path)?;
        }
        check_digest(&self.weights.sha256, "the weights")?;
        if let Some(path) = &self.weights.file {
            let file = self.listed(path)?;
            if file.bytes != self.weights.bytes || file.sha256 != self.weights.sha256 {
                return Err(Error::Manifest(format!("{path} has two digests")));
            }
        }
        let mut names = BTreeSet::new();
        for entry in &self.entries {
            if entry.variants.is_empty() {
                return Err(Error::Manifest(format!("entry point {} has no variant", entry.name)));
            }
            for variant in &entry.variants {
                if !names.insert(variant.name.as_str()) {
                    return Err(Error::Manifest(format!("there are two variants {}", variant.name)));
                }
                self.listed(&variant.program)?;
                check_variant(variant)?;
            }
        }
        for target in &self.targets {
            for path in target.executables.values() {
                self.listed(path)?;
            }
            if let Some(name) = names.iter().find(|&&name| !target.executables.contains_key(name)) {
                return Err(Error::Manifest(format!("{} has no executable for {name}", target.name)));
            }
            let platform = target.parts().0;
            if platform != "cpu" && !self.plugins.contains_key(platform) {
                return Err(Error::Manifest(format!("there is no plugin for {}", target.name)));
            }
        }
        for (platform, plugin) in &self.plugins {
            for path in plugin.library.iter().chain(&plugin.libraries) {
                self.listed(path)?;
            }
            if let Some(data) = &plugin.data
                && self.files_in(data).next().is_none()
            {
                return Err(Error::Manifest(format!("{platform}: there are no files in {data:?}")));
            }
        }
        Ok(())
    }

    fn listed(&self, path: &str) -> Result<&File> {
        self.files.get(path).ok_or_else(|| Error::Manifest(format!("{path:?} is not among its files")))
    }
}

fn invalid(error: serde_json::Error) -> Error {
    Error::Manifest(error.to_string())
}

/// A path within the archive: plain names, none of which leads upwards or hides.
fn check_path(path: &str) -> Result<()> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.len() < 256
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
    };
    if path.len() < 4096 && path.split('/').all(plain) {
        return Ok(());
    }
    Err(Error::Manifest(format!("{path:?} is no path within an archive")))
}

fn check_digest(digest: &str, of: &str) -> Result<()> {
    if digest.len() == 64 && digest.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Error::Manifest(format!("{of}: {digest:?} is no SHA-256 digest")))
}

fn check_variant(variant: &Variant) -> Result<()> {
    let refuse = |what: String| Err(Error::Manifest(format!("{}: {what}", variant.name)));
    let arguments = variant.arguments.iter().map(|a| (&a.name, &a.axes, a.spec()));
    let results = variant.results.iter().map(|r| (&r.name, &r.axes, r.spec()));
    for (name, axes, spec) in arguments.chain(results) {
        if axes.len() != spec.shape.len() {
            return refuse(format!("{name} has {} axes and {} sizes", axes.len(), spec.shape.len()));
        }
        if spec.bytes().is_none() {
            return refuse(format!("{name} is larger than memory"));
        }
    }
    for result in &variant.results {
        let Some(index) = result.aliases else { continue };
        match variant.arguments.get(index) {
            Some(argument) if argument.kind == Kind::State && argument.spec() == result.spec() => {}
            _ => return refuse(format!("{} cannot take the memory of argument {index}", result.name)),
        }
    }
    Ok(())
}
