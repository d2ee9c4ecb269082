//! Writes the list of crates that the program is made of, which `src/crates.rs` puts into it.
//!
//! In the form that cargo-auditable gives it: JSON, compressed with zlib, in a section called `.dep-v0`, where scanners for known
//! vulnerabilities look for it; with one more field, the crate's license.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::Command;

/// A crate's name and version.
type Key = (String, String);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../Cargo.lock");
    let listed = json!({ "packages": packages(&tree()) }).to_string();
    let compressed = miniz_oxide::deflate::compress_to_vec_zlib(listed.as_bytes(), 9);
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("dep-v0"), compressed).expect("the output directory can be written");
}

/// What goes into the program, and only that, with the features that it is built with: a line for each crate, with its
/// depth below the first. A crate's own dependencies follow it where it stands first.
fn tree() -> String {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let features = env::vars().filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_ascii_lowercase()));
    let features = features.collect::<Vec<_>>().join(",");
    let found = Command::new(variable("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,no-proc-macro", "--prefix", "depth"])
        .args(["--format", "{p}|{l}", "--package", &variable("CARGO_PKG_NAME"), "--target", &variable("TARGET")])
        .args(["--no-default-features", "--features", &features])
        .args(["--manifest-path", &format!("{}/Cargo.toml", variable("CARGO_MANIFEST_DIR"))])
        .output()
        .expect("cargo can be run");
    assert!(found.status.success(), "cargo tree: {}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8(found.stdout).expect("cargo writes UTF-8")
}

/// The packages, sorted by name and version, each with the places of those that it uses.
fn packages(tree: &str) -> Vec<Value> {
    let mut found: BTreeMap<Key, (Value, Vec<Key>)> = BTreeMap::new();
    let mut above: Vec<Key> = Vec::new();
    for line in tree.lines() {
        let (package, license) = line.split_once('|').expect("the format has a bar");
        let digits = package.find(|c: char| !c.is_ascii_digit()).expect("a name follows the depth");
        let depth: usize = package[..digits].parse().expect("a depth is a number");
        let mut parts = package[digits..].split_whitespace();
        let name = parts.next().expect("a package has a name").to_owned();
        let version = parts.next().and_then(|part| part.strip_prefix('v')).expect("and a version").to_owned();
        // A path follows for crates of this workspace.
        let source = if parts.next().is_some() { "local" } else { "crates.io" };
        let key = (name, version);
        let entry = json!({
            "name": key.0,
            "version": key.1,
            "source": source,
            "license": license.trim_end_matches(" (*)"),
            "root": depth == 0,
        });
        found.entry(key.clone()).or_insert((entry, Vec::new()));
        above.truncate(depth);
        if let Some(parent) = above.last() {
            let uses = &mut found.get_mut(parent).expect("a parent stands above").1;
            if !uses.contains(&key) {
                uses.push(key.clone());
            }
        }
        above.push(key);
    }
    let places: BTreeMap<_, _> = found.keys().cloned().enumerate().map(|(place, key)| (key, place)).collect();
    found
        .into_values()
        .map(|(mut entry, uses)| {
            let mut uses: Vec<usize> = uses.iter().map(|key| places[key]).collect();
            uses.sort_unstable();
            entry["dependencies"] = json!(uses);
            entry
        })
        .collect()
}
