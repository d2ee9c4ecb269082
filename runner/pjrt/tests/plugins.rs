//! As far as plugins go without their chip: they load, say who they are, compile for a chip that is not there, and say
//! in one line that it is not there.
//!
//! Skipped where there is no plugin: `NT_PJRT_PLUGIN` names one, or `namedtensor compile` has left it in its cache.

use nt_pjrt::{Client, Plugin, Setting, Topology};
use std::path::PathBuf;
use std::process::Command;

const PROGRAM: &str = "module @m { func.func public @main(%x: tensor<128xf32>) -> tensor<128xf32> {
    %0 = stablehlo.add %x, %x : tensor<128xf32>
    return %0 : tensor<128xf32>
} }";

/// XLA's GpuTargetConfigProto of an H100.
const H100: &str = "gpu_device_info {
    block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 clock_rate_ghz: 1.98
    core_count: 132 device_memory_size: 84942979072 fpus_per_core: 128 l2_cache_size: 52428800
    memory_bandwidth: 3352320000000 registers_per_block_limit: 65536 registers_per_core_limit: 65536
    shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
    thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64 threads_per_block_limit: 1024
    threads_per_core_limit: 2048 threads_per_warp: 32
    cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
    driver_version: \"13.0.0\" runtime_version: \"13.0.0\" compile_time_toolkit_version: \"13.0.0\" dnn_version: \"9.12.0\"
}
platform_name: \"CUDA\" dnn_version_info { major: 9 minor: 12 } device_description_str: \"NVIDIA H100 80GB HBM3\"";

/// The plugin's library: the one that is named, if it is of this platform, or the one in the cache.
fn found(file: &str, platform: &str) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("NT_PJRT_PLUGIN").map(PathBuf::from) {
        return named.ends_with(PathBuf::from(file).file_name()?).then_some(named);
    }
    let cache = std::env::var_os("NAMEDTENSOR_CACHE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Some(home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?.join("namedtensor"))
    })?;
    let entries = std::fs::read_dir(cache.join("plugins")).ok()?.flatten();
    let mut paths = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{platform}-")))
        .map(|entry| entry.path().join(file));
    paths.find(|path| path.is_file())
}

/// Runs one step in a process of its own: a plugin can only be started once, writes where it likes, and may not return.
fn step(step: &str, file: &str, platform: &str) -> Option<String> {
    let Some(library) = found(file, platform) else {
        eprintln!(
            "skipped: no {platform} plugin; set NT_PJRT_PLUGIN, or run namedtensor compile --target {platform}:…"
        );
        return None;
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env("NT_PJRT_STEP", step).env("NT_PJRT_LIBRARY", library).env("TPU_SKIP_MDS_QUERY", "1");
    // No chip is held here, so several processes may have libtpu at a time.
    command.env("ALLOW_MULTIPLE_LIBTPU_LOAD", "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (said, errors) = (text.split("<<<").nth(1), String::from_utf8_lossy(&output.stderr));
    let said = said.and_then(|rest| rest.split(">>>").next());
    Some(said.unwrap_or_else(|| panic!("{step}: {:?} {text} {errors}", output.status)).to_string())
}

/// What `step` runs; alone, it does nothing.
#[test]
fn child() {
    let (Ok(step), Some(library)) = (std::env::var("NT_PJRT_STEP"), std::env::var_os("NT_PJRT_LIBRARY")) else {
        return;
    };
    // SAFETY: it is a plugin, of which this process expects nothing else.
    let plugin = unsafe { Plugin::load(library.as_ref()) }.map_err(|error| error.to_string());
    let said = plugin.and_then(|plugin| perform(&step, &plugin)).unwrap_or_else(|error| format!("error: {error}"));
    println!("<<<{said}>>>");
    // Not through the plugin's destructors.
    use std::io::Write as _;
    std::io::stdout().flush().unwrap();
    std::process::exit(0);
}

fn perform(step: &str, plugin: &std::sync::Arc<Plugin>) -> Result<String, String> {
    let gpu = [("target_config", H100), ("topology", "1x1x1")];
    let gpu = gpu.map(|(name, value)| (name.to_string(), Setting::Text(value.into())));
    let tpu = [("chips_per_host_bounds".to_string(), Setting::Ints(vec![1, 1, 1]))];
    match step {
        "about" => {
            let attributes = plugin.attributes().map_err(|error| error.to_string())?;
            Ok(format!("{:?} {attributes:?}", plugin.version()))
        }
        "client" => {
            Client::new(plugin, &[]).map(|client| format!("a chip: {}", client.kind())).map_err(|e| e.to_string())
        }
        "h100" => compiled(Topology::new(plugin, "h100", &gpu)),
        "v5e" => compiled(Topology::new(plugin, "v5e:1x1", &tpu)),
        "damaged" => Topology::new(plugin, "h100", &gpu)
            .and_then(|topology| topology.compile(b"module { nothing }"))
            .map(|_| "compiled".into())
            .map_err(|error| error.to_string()),
        _ => panic!("no step {step}"),
    }
}

fn compiled(topology: nt_pjrt::Result<Topology>) -> Result<String, String> {
    let topology = topology.map_err(|error| error.to_string())?;
    let devices = topology.devices().map_err(|error| error.to_string())?;
    let attributes = topology.attributes().map_err(|error| error.to_string())?;
    let capability = attributes[0].iter().find(|attribute| attribute.0 == "compute_capability");
    let capability = match capability.map(|attribute| &attribute.1) {
        Some(Setting::Text(capability)) => capability,
        _ => "-",
    };
    let bytes = topology.compile(PROGRAM.as_bytes()).map_err(|error| error.to_string())?;
    Ok(format!("{devices:?} {capability} {}", bytes.len()))
}

const CUDA: &str = "jax_plugins/xla_cuda13/xla_cuda_plugin.so";
const ROCM: &str = "jax_plugins/xla_rocm7/xla_rocm_plugin.so";
const TPU: &str = "libtpu/libtpu.so";

#[test]
fn plugins_say_who_they_are() {
    for (file, platform) in [(CUDA, "cuda"), (TPU, "tpu")] {
        let Some(said) = step("about", file, platform) else { continue };
        assert!(said.starts_with("(0, "), "{said}");
        assert!(said.contains("(\"stablehlo_current_version\", Ints(["), "{said}");
    }
}

#[test]
fn programs_are_compiled_for_a_chip_that_is_not_there() {
    for (name, file, platform, kind, capability) in
        [("h100", CUDA, "cuda", "NVIDIA H100 80GB HBM3", "9.0"), ("v5e", TPU, "tpu", "TPU v5 lite", "-")]
    {
        let Some(said) = step(name, file, platform) else { continue };
        let bytes = said.strip_prefix(&format!("[{kind:?}] {capability} ")).unwrap_or_else(|| panic!("{said}"));
        assert!(bytes.parse::<usize>().unwrap() > 1000, "{said}");
    }
}

#[test]
fn a_missing_chip_is_told_in_one_line() {
    for (file, platform) in [(CUDA, "cuda"), (TPU, "tpu")] {
        let Some(said) = step("client", file, platform) else { continue };
        let refused = said.strip_prefix("error: the plugin finds no accelerator that it can use: ");
        // A machine that has one is as good.
        assert!(said.starts_with("a chip: ") || refused.is_some_and(|why| why.len() > 10), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_damaged_program_is_told_in_one_line() {
    let Some(said) = step("damaged", CUDA, "cuda") else { return };
    assert!(said.starts_with("error: ") && said.contains("nothing") && !said.contains('\n'), "{said}");
}

#[test]
fn a_plugin_whose_libraries_are_missing_says_which() {
    let Some(said) = step("about", ROCM, "rocm") else { return };
    // Where ROCm is installed it loads.
    assert!(said.starts_with("(0, ") || said.contains(".so"), "{said}");
    assert!(!said.contains('\n'), "{said}");
}
