//! Archives that are damaged, or made to mislead: each is refused, and nothing outside of them is read.

use nt_bundle::{Bundle, Error, MANIFEST, Manifest};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A directory of its own for each test, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("nt-bundle-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn write(&self, path: &str, data: &[u8]) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }

    fn bundle(&self, manifest: &Value) -> Result<Bundle, Error> {
        self.write(MANIFEST, manifest.to_string().as_bytes());
        Bundle::open(&self.0)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn weights() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  "#;
    let mut file = Vec::from((header.len() as u64).to_le_bytes());
    file.extend(header);
    file.extend([0, 0, 128, 63, 0, 0, 0, 64]);
    file
}

/// What lies in the archive, and the `bundle.json` that describes it.
fn sound(directory: &Directory) -> Value {
    let weights = weights();
    directory.write("weights/model.safetensors", &weights);
    directory.write("programs/run.mlirbc", b"portable");
    directory.write("targets/cpu-x86-64-v3/run.ntx", b"machine code");
    let file = |data: &[u8]| json!({"bytes": data.len(), "sha256": digest(data)});
    json!({
        "version": 1,
        "name": "model",
        "compiler": {"jaxlib": "0.11.2"},
        "task": {"task": "call"},
        "entries": [{"name": "run", "buckets": {}, "variants": [{
            "name": "run",
            "sizes": {},
            "program": "programs/run.mlirbc",
            "arguments": [
                {"kind": "weight", "name": "w", "axes": ["d"], "dtype": "float32", "shape": [2]},
                {"kind": "state", "name": "s", "axes": ["d"], "dtype": "float32", "shape": [2]},
            ],
            "results": [{"name": "s", "axes": ["d"], "dtype": "float32", "shape": [2], "aliases": 1}],
        }]}],
        "targets": [{
            "name": "cpu:x86-64-v3",
            "architecture": null,
            "executables": {"run": "targets/cpu-x86-64-v3/run.ntx"},
            "libraries": [],
        }, {
            "name": "cuda:h100",
            "architecture": "9.0a",
            "executables": {"run": "targets/cuda-h100/run.executable"},
            "libraries": [],
        }],
        "plugins": {"cuda": {
            "releases": {"plugin": "1.0"},
            "library": "plugins/cuda/plugin.so",
            "libraries": ["plugins/cuda/library.so.1"],
            "data": "plugins/cuda/data",
            "host": ["libcuda.so.1"],
            "glibc": "2.27",
            "left_out": {"libcudnn.so.9": "no executable calls it"},
        }},
        "weights": {
            "file": "weights/model.safetensors", "bytes": weights.len(), "sha256": digest(&weights), "aliases": {},
        },
        "files": {
            "weights/model.safetensors": file(&weights),
            "programs/run.mlirbc": file(b"portable"),
            "targets/cpu-x86-64-v3/run.ntx": file(b"machine code"),
            "targets/cuda-h100/run.executable": file(b"device code"),
            "plugins/cuda/plugin.so": file(b"plugin"),
            "plugins/cuda/library.so.1": file(b"library"),
            "plugins/cuda/data/bin/ptxas": file(b"assembler"),
        },
    })
}

fn changed(mut manifest: Value, pointer: &str, value: Value) -> Value {
    *manifest.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    manifest
}

#[test]
fn a_sound_archive_gives_its_files_and_weights() {
    let directory = Directory::new();
    let bundle = directory.bundle(&sound(&directory)).unwrap();
    assert_eq!(&*bundle.read("targets/cpu-x86-64-v3/run.ntx").unwrap(), b"machine code");
    let argument = &bundle.manifest().entries[0].variants[0].arguments[0];
    assert_eq!(&*bundle.weights(None).unwrap().tensor(argument).unwrap(), [0, 0, 128, 63, 0, 0, 0, 64]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let directory = Directory::new();
    let sound = sound(&directory);
    let variant = "/entries/0/variants/0";
    for (pointer, value, told) in [
        ("/version".to_string(), json!(2), "version 2"),
        ("/version".into(), json!("1"), "invalid type"),
        ("/name".into(), json!("../model"), "no name for a model"),
        ("/name".into(), json!(""), "no name for a model"),
        ("/entries/0/variants".into(), json!([]), "no variant"),
        (format!("{variant}/program"), json!("programs/other"), "not among its files"),
        (format!("{variant}/arguments/0/shape"), json!([2, 2]), "1 axes and 2 sizes"),
        (format!("{variant}/arguments/0/shape"), json!([-1]), "invalid value"),
        (format!("{variant}/arguments/0/shape"), json!([u64::MAX]), "larger than memory"),
        (format!("{variant}/arguments/0/dtype"), json!("float8"), "unknown variant"),
        (format!("{variant}/results/0/aliases"), json!(0), "cannot take the memory"),
        (format!("{variant}/results/0/aliases"), json!(7), "cannot take the memory"),
        ("/targets/0/executables/run".into(), json!("/etc/passwd"), "not among its files"),
        ("/targets/0/executables".into(), json!({}), "no executable for run"),
        ("/targets/1/name".into(), json!("rocm:mi300x"), "no plugin for rocm:mi300x"),
        ("/plugins".into(), json!({}), "no plugin for cuda:h100"),
        ("/plugins/cuda/library".into(), json!("/usr/lib/plugin.so"), "not among its files"),
        ("/plugins/cuda/libraries/0".into(), json!("plugins/cuda/../library.so.1"), "not among its files"),
        ("/plugins/cuda/data".into(), json!("plugins/cuda/dat"), "no files in"),
        ("/plugins/cuda/data".into(), json!("/usr/local/cuda"), "no files in"),
        ("/weights/sha256".into(), json!("0".repeat(64)), "two digests"),
        ("/weights/sha256".into(), json!("short"), "no SHA-256 digest"),
        ("/files/programs~1run.mlirbc/bytes".into(), json!(-1), "invalid value"),
    ] {
        let error = directory.bundle(&changed(sound.clone(), &pointer, value)).unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains('\n'), "{pointer}: {error}");
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let directory = Directory::new();
    let sound = sound(&directory);
    for path in ["../outside", "/etc/passwd", "a//b", "a/./b", "a/../../b", "", ".hidden", "a\\b", "a b", "a\n", "a/"] {
        let mut manifest = sound.clone();
        manifest["files"][path] = json!({"bytes": 1, "sha256": "0".repeat(64)});
        let error = directory.bundle(&manifest).unwrap_err().to_string();
        assert!(error.contains("no path within an archive"), "{path:?}: {error}");
    }
}

#[test]
fn files_that_changed_or_are_missing_are_refused() {
    let directory = Directory::new();
    let bundle = directory.bundle(&sound(&directory)).unwrap();
    let executable = "targets/cpu-x86-64-v3/run.ntx";
    for (data, told) in [(&b"machine cope"[..], "damaged"), (b"machine cod", "11 bytes, not 12"), (b"", "0 bytes")] {
        directory.write(executable, data);
        assert!(bundle.read(executable).unwrap_err().to_string().contains(told));
    }
    fs::remove_file(directory.0.join(executable)).unwrap();
    assert!(matches!(bundle.read(executable), Err(Error::File(_))));
    assert!(matches!(bundle.read("bundle.json"), Err(Error::Manifest(_))));
}

#[test]
fn links_are_not_followed() {
    let (directory, other) = (Directory::new(), Directory::new());
    let bundle = directory.bundle(&sound(&directory)).unwrap();
    let executable = "targets/cpu-x86-64-v3/run.ntx";
    other.write("run.ntx", b"machine code");
    fs::remove_file(directory.0.join(executable)).unwrap();
    symlink(other.0.join("run.ntx"), directory.0.join(executable)).unwrap();
    assert!(bundle.read(executable).unwrap_err().to_string().contains("link"));
    fs::remove_dir_all(directory.0.join("targets/cpu-x86-64-v3")).unwrap();
    symlink(&other.0, directory.0.join("targets/cpu-x86-64-v3")).unwrap();
    assert!(bundle.read(executable).unwrap_err().to_string().contains("link"));
    fs::remove_file(directory.0.join(MANIFEST)).unwrap();
    symlink("/etc/passwd", directory.0.join(MANIFEST)).unwrap();
    assert!(Bundle::open(&directory.0).unwrap_err().to_string().contains("link"));
}

#[test]
fn weights_outside_are_only_those_it_was_built_with() {
    let (directory, other) = (Directory::new(), Directory::new());
    let manifest = changed(sound(&directory), "/weights/file", Value::Null);
    let bundle = directory.bundle(&manifest).unwrap();
    assert!(bundle.weights(None).unwrap_err().to_string().contains("say where they are"));
    other.write("w", &weights());
    bundle.weights(Some(&other.0.join("w"))).unwrap();
    let mut data = weights();
    *data.last_mut().unwrap() ^= 1;
    other.write("w", &data);
    assert!(bundle.weights(Some(&other.0.join("w"))).unwrap_err().to_string().contains("damaged"));
    assert!(bundle.weights(Some(Path::new("/dev/zero"))).unwrap_err().to_string().contains("not a file"));
}

#[test]
fn weights_that_are_not_the_programs_are_refused() {
    let directory = Directory::new();
    let bundle = directory.bundle(&sound(&directory)).unwrap();
    let file = bundle.weights(None).unwrap();
    let mut argument = bundle.manifest().entries[0].variants[0].arguments[0].clone();
    argument.shape = vec![3];
    assert!(file.tensor(&argument).unwrap_err().to_string().contains("not float32[3]"));
    argument.name = "v".into();
    assert!(file.tensor(&argument).unwrap_err().to_string().contains("no tensor v"));
}

#[test]
fn mutated_manifests_are_read_or_refused_and_nothing_else() {
    let directory = Directory::new();
    let text = sound(&directory).to_string().into_bytes();
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..10_000 {
        let mut mutated = text.clone();
        match random(4) {
            0 => mutated.truncate(random(text.len())),
            1 => {
                let (from, to) = (random(text.len()), random(text.len()));
                mutated.splice(from..from, text[to..(to + 20).min(text.len())].iter().copied());
            }
            _ => {}
        }
        for _ in 0..random(3) + 1 {
            if !mutated.is_empty() {
                let at = random(mutated.len());
                mutated[at] ^= 1 << random(8);
            }
        }
        if let Err(error) = Manifest::parse(&mutated) {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
