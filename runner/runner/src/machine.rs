//! Which accelerators this machine has, as far as the kernel shows it: no library of a vendor is needed to look.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Accelerators of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub platform: &'static str,
    /// As targets have it, where it can be told without the vendor's library: `gfx942`, `v5e`.
    pub architecture: Option<String>,
    pub count: usize,
}

/// Entries of one directory that are looked at, and bytes of a file.
const MOST: usize = 1024;
const LARGEST: u64 = 1 << 16;

/// What to look for where a platform's accelerators are not found, for people.
pub fn missing(platform: &str) -> &'static str {
    match platform {
        "cuda" => "there is no NVIDIA GPU with its driver here (no /dev/nvidiactl)",
        "rocm" => "there is no AMD GPU with its driver here (none in /sys/class/kfd)",
        "tpu" => "there is no TPU here (none among the PCI devices)",
        _ => "this program knows no such hardware",
    }
}

/// The accelerators of the machine whose file systems are at `root`.
pub fn accelerators(root: &Path) -> Vec<Found> {
    [cuda(root), rocm(root), tpu(root)].into_iter().flatten().collect()
}

fn cuda(root: &Path) -> Option<Found> {
    if !root.join("dev/nvidiactl").exists() && !root.join("proc/driver/nvidia/version").exists() {
        return None;
    }
    let count = entries(&root.join("proc/driver/nvidia/gpus")).len().max(1);
    Some(Found { platform: "cuda", architecture: None, count })
}

fn rocm(root: &Path) -> Option<Found> {
    let nodes = entries(&root.join("sys/class/kfd/kfd/topology/nodes"));
    // Nodes of processors have version 0.
    let versions = nodes.iter().filter_map(|node| {
        let text = text(&root.join("sys/class/kfd/kfd/topology/nodes").join(node).join("properties"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("gfx_target_version "))?;
        version.trim().parse::<u32>().ok().filter(|&version| version > 0)
    });
    let versions: Vec<u32> = versions.collect();
    // 90402 is gfx942, 90010 is gfx90a.
    let first = versions.first()?;
    let architecture = format!("gfx{}{:x}{:x}", first / 10_000, first / 100 % 100, first % 100);
    Some(Found { platform: "rocm", architecture: Some(architecture), count: versions.len() })
}

/// Google's TPUs by their PCI numbers.
const GENERATIONS: [(&str, &str); 4] = [("0x005e", "v4"), ("0x0062", "v5p"), ("0x0063", "v5e"), ("0x006f", "v6e")];

fn tpu(root: &Path) -> Option<Found> {
    let devices = root.join("sys/bus/pci/devices");
    let id = |device: &String, name: &str| text(&devices.join(device).join(name));
    let chips = entries(&devices).into_iter().filter(|it| id(it, "vendor").is_some_and(|id| id.trim() == "0x1ae0"));
    let kinds: Vec<&str> = chips
        .filter_map(|chip| {
            let id = id(&chip, "device")?;
            GENERATIONS.iter().find(|known| known.0 == id.trim()).map(|known| known.1)
        })
        .collect();
    let generation = kinds.first()?;
    Some(Found { platform: "tpu", architecture: Some((*generation).into()), count: kinds.len() })
}

/// Names in a directory, in order.
fn entries(directory: &Path) -> Vec<String> {
    let Ok(found) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = found.flatten().take(MOST).filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LARGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A machine's file systems, made up.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, files: &[(&str, &str)]) -> Machine {
            let root = std::env::temp_dir().join(format!("nt-machine-{}-{name}", std::process::id()));
            std::fs::create_dir(&root).unwrap();
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Machine(root)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_machine_without_any_has_none() {
        assert_eq!(accelerators(&Machine::new("none", &[]).0), []);
        // A processor's node, and a PCI device of another maker.
        let other = [
            ("sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 64\ngfx_target_version 0\n"),
            ("sys/bus/pci/devices/0000:00:01.0/vendor", "0x8086\n"),
            ("sys/bus/pci/devices/0000:00:01.0/device", "0x0063\n"),
        ];
        assert_eq!(accelerators(&Machine::new("other", &other).0), []);
    }

    #[test]
    fn gpus_of_nvidia_are_seen_by_their_driver() {
        let files =
            [("dev/nvidiactl", ""), ("proc/driver/nvidia/gpus/0000:1b:00.0/information", "Model: NVIDIA H100\n")];
        let found = Found { platform: "cuda", architecture: None, count: 1 };
        assert_eq!(accelerators(&Machine::new("cuda", &files).0), [found]);
    }

    #[test]
    fn gpus_of_amd_say_their_architecture() {
        for (version, architecture) in [("90402", "gfx942"), ("90010", "gfx90a"), ("110001", "gfx1101")] {
            let properties = format!("simd_count 304\ngfx_target_version {version}\n");
            let files = [
                ("sys/class/kfd/kfd/topology/nodes/0/properties", "gfx_target_version 0\n"),
                ("sys/class/kfd/kfd/topology/nodes/1/properties", &properties),
                ("sys/class/kfd/kfd/topology/nodes/2/properties", &properties),
            ];
            let found = Found { platform: "rocm", architecture: Some(architecture.into()), count: 2 };
            assert_eq!(accelerators(&Machine::new(version, &files).0), [found]);
        }
    }

    #[test]
    fn tpus_are_seen_on_the_bus() {
        let files = [
            ("sys/bus/pci/devices/0000:00:04.0/vendor", "0x1ae0\n"),
            ("sys/bus/pci/devices/0000:00:04.0/device", "0x0063\n"),
            ("sys/bus/pci/devices/0000:00:05.0/vendor", "0x1ae0\n"),
            ("sys/bus/pci/devices/0000:00:05.0/device", "0x0042\n"),
        ];
        let found = Found { platform: "tpu", architecture: Some("v5e".into()), count: 1 };
        assert_eq!(accelerators(&Machine::new("tpu", &files).0), [found]);
    }
}
