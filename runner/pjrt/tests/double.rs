//! The whole life of a program on a device, against the plugin of `examples/double.rs`.

use nt_device::{Arg, Buffer, Bytes, DType, Device, Error, ResultSpec, Signature, TensorSpec};
use nt_pjrt::{Client, Plugin, Setting};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Cargo builds examples along with the tests, beside their directory.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/libdouble.so");
    assert!(path.is_file(), "{} is missing: cargo test builds it, cargo test --test alone does not", path.display());
    path
}

/// The plugin, for one test at a time: they count what is alive in it.
fn plugin() -> (MutexGuard<'static, ()>, Arc<Plugin>) {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // SAFETY: the library is the test double.
    (guard, unsafe { Plugin::load(&library()) }.unwrap())
}

fn alive(plugin: &Plugin) -> Setting {
    plugin.attributes().unwrap().into_iter().find(|(name, _)| name == "alive").unwrap().1
}

/// Everything that the plugin has given out comes back to it, its transfers' threads included.
fn all_returned(plugin: &Plugin) {
    let end = Instant::now() + Duration::from_secs(10);
    while alive(plugin) != Setting::Int(0) {
        assert!(Instant::now() < end, "still alive: {:?}", alive(plugin));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pair() -> TensorSpec {
    TensorSpec::new(DType::F32, [2])
}

fn signature(count: usize) -> Signature {
    let result = |index| ResultSpec { spec: pair(), aliases: (index == 0).then_some(0) };
    Signature { arguments: vec![pair(); count], results: (0..count).map(result).collect() }
}

fn upload(client: &Client, values: [f32; 2]) -> Buffer {
    client.upload(&pair(), Bytes::from(values.map(f32::to_le_bytes).concat())).unwrap()
}

fn values(client: &Client, buffer: &Buffer) -> Vec<f32> {
    let bytes = client.download(buffer).unwrap();
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn program(text: &[u8]) -> Bytes {
    Bytes::from(text.to_vec())
}

#[test]
fn a_program_takes_tensors_and_gives_tensors() {
    let (_guard, plugin) = plugin();
    let client = Client::new(&plugin, &[]).unwrap();
    assert_eq!(client.kind(), "double");
    assert_eq!(client.platform().unwrap(), ("double".into(), "double".into()));
    // With the header that jax writes in front of what the plugin serialized.
    let executable = client.load(program(b"\x0d\x08\x03\x12\x09pjrt_ifrtDOUBLE 2"), &signature(2)).unwrap();
    let (a, b) = (upload(&client, [1.0, 2.0]), upload(&client, [3.0, 4.0]));
    let results = executable.run(vec![Arg::Borrow(&a), Arg::Borrow(&b)]).unwrap();
    assert_eq!(values(&client, &results[0]), [2.0, 3.0]);
    assert_eq!(values(&client, &results[1]), [4.0, 5.0]);
    // In any order: what is left keeps what it needs.
    drop(client);
    let again = executable.run(vec![Arg::Borrow(&results[0]), Arg::Borrow(&b)]).unwrap();
    drop((executable, a, b, results, again));
    all_returned(&plugin);
}

#[test]
fn borrowed_arguments_stay_and_donated_ones_are_taken() {
    let (_guard, plugin) = plugin();
    let client = Client::new(&plugin, &[]).unwrap();
    let executable = client.load(program(b"DOUBLE 1"), &signature(1)).unwrap();
    let state = upload(&client, [0.0, 10.0]);
    // The program could take argument 0 over, and must not.
    executable.run(vec![Arg::Borrow(&state)]).unwrap();
    assert_eq!(values(&client, &state), [0.0, 10.0]);
    let mut state = state;
    for _ in 0..5 {
        state = executable.run(vec![Arg::Donate(state)]).unwrap().pop().unwrap();
    }
    assert_eq!(values(&client, &state), [5.0, 15.0]);
    drop((executable, state, client));
    all_returned(&plugin);
}

/// Host memory that says when it goes, and is spoiled then.
struct Watched(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.fill(0xff);
        self.1.store(true, Ordering::SeqCst);
    }
}

#[test]
fn host_memory_is_kept_until_it_was_read_and_no_longer() {
    let (_guard, plugin) = plugin();
    let client = Client::new(&plugin, &[]).unwrap();
    let gone = Arc::new(AtomicBool::new(false));
    let bytes = [7.0_f32, 8.0].map(f32::to_le_bytes).concat();
    let buffer = client.upload(&pair(), Bytes::new(Watched(bytes, Arc::clone(&gone)))).unwrap();
    assert!(!gone.load(Ordering::SeqCst), "upload returns before the transfer is done");
    assert_eq!(values(&client, &buffer), [7.0, 8.0]);
    drop((buffer, client));
    all_returned(&plugin);
    let end = Instant::now() + Duration::from_secs(10);
    while !gone.load(Ordering::SeqCst) {
        assert!(Instant::now() < end, "the memory is never released");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn portable_programs_are_compiled_and_can_be_kept() {
    let (_guard, plugin) = plugin();
    let client = Client::new(&plugin, &[]).unwrap();
    let executable = client.load(program(b"ML\xefRDOUBLE 1"), &signature(1)).unwrap();
    let results = executable.run(vec![Arg::Donate(upload(&client, [1.0, 1.0]))]).unwrap();
    assert_eq!(values(&client, &results[0]), [2.0, 2.0]);
    let (compiled, kept) = client.compile(b"ML\xefRDOUBLE 1", &[], &signature(1)).unwrap();
    assert_eq!(kept.as_deref(), Some(&b"DOUBLE 1"[..]));
    drop((compiled, executable, results, client));
    all_returned(&plugin);
}

#[test]
fn executables_of_another_program_are_refused() {
    let (_guard, plugin) = plugin();
    let client = Client::new(&plugin, &[]).unwrap();
    let refusal = |text: &[u8], signature: &Signature| client.load(program(text), signature).err().unwrap().to_string();
    assert_eq!(
        refusal(b"DOUBLE 3", &signature(2)),
        "the executable cannot be loaded: it is of another program: it has 3 results, not 2"
    );
    let mut other = signature(1);
    other.results[0].spec = TensorSpec::new(DType::BF16, [2]);
    assert_eq!(
        refusal(b"DOUBLE 1", &other),
        "the executable cannot be loaded: it is of another program: result 0 is float32[2], not bfloat16[2]"
    );
    assert_eq!(refusal(b"garbage", &signature(1)), "the executable cannot be loaded: not an executable of this plugin");
    drop(client);
    all_returned(&plugin);
}

#[test]
fn failures_are_told_in_one_line_and_leave_nothing_behind() {
    let (_guard, plugin) = plugin();
    let client = Client::new(&plugin, &[]).unwrap();
    let refused = client.load(program(b"REFUSE 1"), &signature(1)).unwrap();
    let argument = upload(&client, [0.0, 0.0]);
    assert_eq!(refused.run(vec![Arg::Borrow(&argument)]).unwrap_err(), Error::Run("refused".into()));
    // What fails on the device is known when its result is wanted.
    let failing = client.load(program(b"FAIL 1"), &signature(1)).unwrap();
    let results = failing.run(vec![Arg::Borrow(&argument)]).unwrap();
    assert_eq!(client.download(&results[0]).unwrap_err(), Error::Run("the chip fell over".into()));
    let large = TensorSpec::new(DType::F32, [1024]);
    let error = client.upload(&large, Bytes::from(vec![0; 4096])).unwrap_err();
    assert_eq!(error, Error::Memory("4096 bytes of memory".into()));
    drop((refused, failing, argument, results, client));
    all_returned(&plugin);
}

#[test]
fn arguments_are_held_against_the_signature() {
    let (_guard, plugin) = plugin();
    let client = Client::new(&plugin, &[]).unwrap();
    let executable = client.load(program(b"DOUBLE 1"), &signature(1)).unwrap();
    let message = executable.run(Vec::new()).unwrap_err().to_string();
    assert_eq!(message, "the program takes 1 arguments, not 0");
    let wrong = client.upload(&TensorSpec::new(DType::I32, [2]), Bytes::from(vec![0; 8])).unwrap();
    let message = executable.run(vec![Arg::Borrow(&wrong)]).unwrap_err().to_string();
    assert_eq!(message, "argument 0 must be float32[2], not int32[2]");
    let other = Client::new(&plugin, &[]).unwrap();
    let foreign = upload(&other, [0.0, 0.0]);
    let message = executable.run(vec![Arg::Borrow(&foreign)]).unwrap_err().to_string();
    assert_eq!(message, "Buffer(float32[2]) is on another device");
    assert!(client.download(&foreign).is_err());
    let message = client.upload(&pair(), Bytes::from(vec![0; 7])).unwrap_err().to_string();
    assert_eq!(message, "7 bytes are no float32[2]");
    drop((executable, wrong, foreign, other, client));
    all_returned(&plugin);
}

#[test]
fn a_client_that_cannot_start_says_why() {
    let (_guard, plugin) = plugin();
    let settings = [("broken".to_string(), Setting::Bool(true))];
    let error = Client::new(&plugin, &settings).err().unwrap().to_string();
    let wanted = "the plugin finds no accelerator that it can use: no such chip: the driver is missing";
    assert!(error.starts_with(wanted), "{error}");
    assert!(!error.contains("Stack") && !error.contains('\n'), "{error}");
    all_returned(&plugin);
}

#[test]
fn libraries_that_are_no_plugin_are_refused() {
    // SAFETY: there is no such file; and the C library's code runs already.
    let (missing, other) = unsafe { (Plugin::load("/no/such.so".as_ref()), Plugin::load("libc.so.6".as_ref())) };
    let message = missing.err().unwrap().to_string();
    assert!(message.starts_with("the plugin cannot be loaded: /no/such.so: cannot open"), "{message}");
    assert_eq!(other.err().unwrap().to_string(), "libc.so.6 is no PJRT plugin: it has no GetPjrtApi");
}

/// The double takes its version from the environment, which must be set before a process has threads.
#[test]
fn plugins_of_other_versions_are_refused() {
    if std::env::var_os("NT_PJRT_DOUBLE").is_some() {
        // SAFETY: the library is the test double.
        println!("<{}>", unsafe { Plugin::load(&library()) }.err().unwrap());
        return;
    }
    let name = "plugins_of_other_versions_are_refused";
    for (version, wanted) in [
        ("old", "speaks version 0.30 of the PJRT C API; 0.54 and later minor versions are understood>"),
        ("major", "speaks version 1.0 of the PJRT C API; 0.54 and later minor versions are understood>"),
        ("short", "table of functions has 200 bytes where version 0.60 has 776 or more>"),
        ("empty", "table of functions has 8 bytes, too few for a version>"),
        ("null", "the plugin gives no table of functions>"),
    ] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env("NT_PJRT_DOUBLE", version);
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(output.contains(wanted), "{version}: {output}");
    }
}
