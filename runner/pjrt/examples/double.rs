#![allow(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)] // every struct is the caller's, by contract
//! A plugin whose device is the host's memory, for the tests: a test double with the whole life of buffers, donation,
//! transfers that take time, and errors. Its program `DOUBLE n` gives each of its n float32[2] arguments plus one;
//! argument 0 may be taken over by result 0. `FAIL` is a program that fails on the device, `REFUSE` one to execute not.
//! `COPY 1x3 3` gives its last argument, float32 of any shape, once for each of these shapes.
//!
//! `NT_PJRT_DOUBLE_CHIP` names the chip that it stands for, and the compute capability: `NVIDIA H100,9.0`.
//!
//! Structs are read by offset, in words of eight bytes: nothing is shared with the code that is tested.

use std::ffi::c_void;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

type Word = *mut c_void;
type Failure = Option<(i32, String)>;

/// Clients, buffers, executables, events and errors that exist.
static ALIVE: AtomicI64 = AtomicI64::new(0);

struct Counted<T>(T);

fn give<T>(value: T) -> Word {
    ALIVE.fetch_add(1, Ordering::SeqCst);
    Box::into_raw(Box::new(Counted(value))).cast()
}

unsafe fn take<T>(word: Word) {
    // SAFETY: made by `give` of the same type.
    drop(unsafe { Box::from_raw(word.cast::<Counted<T>>()) });
    ALIVE.fetch_sub(1, Ordering::SeqCst);
}

unsafe fn look<'a, T>(word: Word) -> &'a T {
    // SAFETY: made by `give` of the same type, and not taken back.
    &unsafe { &*word.cast::<Counted<T>>() }.0
}

/// Words of an argument struct: 0 is its size, 1 its extensions, then its fields.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Fields(*mut Word);

impl Fields {
    fn get(self, index: usize) -> Word {
        // SAFETY: the tests pass structs that are long enough.
        unsafe { *self.0.add(index) }
    }

    fn set(self, index: usize, word: Word) {
        // SAFETY: as in `get`.
        unsafe { *self.0.add(index) = word }
    }

    fn number(self, index: usize, number: usize) {
        self.set(index, std::ptr::without_provenance_mut(number));
    }
}

fn error(code: i32, text: &str) -> Word {
    give((code, text.to_string()))
}

const OK: Word = std::ptr::null_mut();

/// Something that is done later, well or not.
#[derive(Default)]
struct Ready(Mutex<Option<Failure>>, Condvar);

impl Ready {
    fn set(&self, outcome: Failure) {
        *self.0.lock().unwrap() = Some(outcome);
        self.1.notify_all();
    }

    fn wait(&self) -> Failure {
        let mut state = self.0.lock().unwrap();
        while state.is_none() {
            state = self.1.wait(state).unwrap();
        }
        state.clone().unwrap()
    }
}

fn later(ready: &Arc<Ready>, work: impl FnOnce() -> Failure + Send + 'static) {
    let ready = Arc::clone(ready);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        ready.set(work());
    });
}

struct Tensor {
    data: Arc<Mutex<Vec<u8>>>,
    ready: Arc<Ready>,
    donated: Mutex<bool>,
}

#[derive(Clone)]
struct Program {
    name: String,
    /// Shapes of the results.
    results: Vec<Vec<i64>>,
}

impl Program {
    fn count(&self) -> usize {
        self.results.len()
    }
}

struct Moved(*mut u8);
// SAFETY: the caller keeps the memory as long as the API says.
unsafe impl Send for Moved {}
struct Callback(unsafe extern "C" fn(Word, Word), Word);
// SAFETY: callbacks may come from any thread.
unsafe impl Send for Callback {}

type Function = unsafe extern "C" fn(Fields) -> Word;

unsafe extern "C" fn error_destroy(args: Fields) -> Word {
    unsafe { take::<(i32, String)>(args.get(2)) };
    OK
}

unsafe extern "C" fn error_message(args: Fields) -> Word {
    let (_, text) = unsafe { look::<(i32, String)>(args.get(2)) };
    args.set(3, text.as_ptr().cast_mut().cast());
    args.number(4, text.len());
    OK
}

unsafe extern "C" fn error_code(args: Fields) -> Word {
    let (code, _) = unsafe { look::<(i32, String)>(args.get(2)) };
    args.number(3, *code as usize);
    OK
}

unsafe extern "C" fn nothing(_: Fields) -> Word {
    OK
}

#[repr(C)]
struct Attribute([usize; 7]);

unsafe extern "C" fn attributes(args: Fields) -> Word {
    // size, extensions, name and its length, kind 1 (an integer), value, length
    let alive = ALIVE.load(Ordering::SeqCst) as usize;
    let list = [Attribute([56, 0, c"alive".as_ptr().addr(), 5, 1, alive, 1])];
    args.set(2, Box::leak(Box::new(list)).as_mut_ptr().cast());
    args.number(3, 1);
    OK
}

unsafe extern "C" fn event_destroy(args: Fields) -> Word {
    unsafe { take::<Arc<Ready>>(args.get(2)) };
    OK
}

fn failed(outcome: Failure) -> Word {
    outcome.map_or(OK, |(code, text)| error(code, &text))
}

unsafe extern "C" fn event_await(args: Fields) -> Word {
    failed(unsafe { look::<Arc<Ready>>(args.get(2)) }.wait())
}

unsafe extern "C" fn event_on_ready(args: Fields) -> Word {
    let ready = Arc::clone(unsafe { look::<Arc<Ready>>(args.get(2)) });
    let callback =
        Callback(unsafe { std::mem::transmute::<Word, unsafe extern "C" fn(Word, Word)>(args.get(3)) }, args.get(4));
    std::thread::spawn(move || {
        let Callback(function, user) = { callback };
        unsafe { function(failed(ready.wait()), user) };
    });
    OK
}

unsafe extern "C" fn client_create(args: Fields) -> Word {
    if args.get(3).addr() != 0 {
        return error(14, "no such chip:\n  the driver is missing\n\nStack trace: 0x0");
    }
    args.set(8, give(()));
    OK
}

unsafe extern "C" fn client_destroy(args: Fields) -> Word {
    unsafe { take::<()>(args.get(2)) };
    OK
}

unsafe extern "C" fn text(args: Fields) -> Word {
    args.set(3, c"double".as_ptr().cast_mut().cast());
    args.number(4, 6);
    OK
}

/// Name and compute capability of the chip.
fn chip() -> Option<(String, String)> {
    let chip = std::env::var("NT_PJRT_DOUBLE_CHIP").ok()?;
    chip.split_once(',').map(|(kind, capability)| (kind.into(), capability.into()))
}

unsafe extern "C" fn kind(args: Fields) -> Word {
    let kind = chip().map_or_else(|| "double".to_string(), |chip| chip.0).leak();
    args.set(3, kind.as_mut_ptr().cast());
    args.number(4, kind.len());
    OK
}

unsafe extern "C" fn device_attributes(args: Fields) -> Word {
    let Some((_, capability)) = chip() else { return OK };
    let capability = capability.leak();
    // size, extensions, name and its length, kind 0 (text), value, length
    let name = "compute_capability";
    let list = [Attribute([56, 0, name.as_ptr().addr(), name.len(), 0, capability.as_ptr().addr(), capability.len()])];
    args.number(3, 1);
    args.set(4, Box::leak(Box::new(list)).as_mut_ptr().cast());
    OK
}

unsafe extern "C" fn devices(args: Fields) -> Word {
    args.set(3, Box::leak(Box::new([args.get(2)])).as_mut_ptr().cast());
    args.number(4, 1);
    OK
}

unsafe extern "C" fn same(args: Fields) -> Word {
    args.set(3, args.get(2));
    OK
}

unsafe fn bytes<'a>(at: Word, len: Word) -> &'a [u8] {
    unsafe { std::slice::from_raw_parts(at.cast(), len.addr()) }
}

fn load(text: &[u8]) -> Result<Word, Word> {
    let text = String::from_utf8_lossy(text);
    let damaged = || error(3, "damaged executable");
    let (name, rest) = text.split_once(' ').ok_or_else(|| error(3, "not an executable of this plugin"))?;
    let results = if name == "COPY" {
        let shapes = rest.split_whitespace().map(|shape| shape.split('x').map(str::parse).collect());
        shapes.collect::<Result<_, std::num::ParseIntError>>().map_err(|_| damaged())?
    } else {
        vec![vec![2]; rest.parse().map_err(|_| damaged())?]
    };
    Ok(give(Program { name: name.into(), results }))
}

unsafe extern "C" fn compile(args: Fields) -> Word {
    let program = Fields(args.get(3).cast());
    let format = unsafe { bytes(program.get(4), program.get(5)) };
    let code = unsafe { bytes(program.get(2), program.get(3)) };
    if format != b"mlir" || args.get(5).addr() == 0 {
        return error(3, "not a program, or no options");
    }
    match load(code.strip_prefix(b"ML\xefR").unwrap_or(code)) {
        Ok(program) => args.set(6, program),
        Err(error) => return error,
    }
    OK
}

unsafe extern "C" fn deserialize(args: Fields) -> Word {
    match load(unsafe { bytes(args.get(3), args.get(4)) }) {
        Ok(program) => args.set(5, program),
        Err(error) => return error,
    }
    OK
}

unsafe extern "C" fn program_destroy(args: Fields) -> Word {
    unsafe { take::<Program>(args.get(2)) };
    OK
}

unsafe extern "C" fn get_executable(args: Fields) -> Word {
    let program = unsafe { look::<Program>(args.get(2)) };
    args.set(3, give(program.clone()));
    OK
}

unsafe extern "C" fn serialize(args: Fields) -> Word {
    unsafe extern "C" fn free(owner: Word) {
        unsafe { take::<String>(owner) };
    }
    let program = unsafe { look::<Program>(args.get(2)) };
    let shape = |shape: &Vec<i64>| shape.iter().map(i64::to_string).collect::<Vec<_>>().join("x");
    let rest = match program.name.as_str() {
        "COPY" => program.results.iter().map(shape).collect::<Vec<_>>().join(" "),
        _ => program.count().to_string(),
    };
    let owner = give(format!("{} {rest}", program.name));
    let text = unsafe { look::<String>(owner) };
    args.set(3, text.as_ptr().cast_mut().cast());
    args.number(4, text.len());
    args.set(5, owner);
    args.set(6, free as *mut c_void);
    OK
}

unsafe extern "C" fn num_outputs(args: Fields) -> Word {
    args.number(3, unsafe { look::<Program>(args.get(2)) }.count());
    OK
}

unsafe extern "C" fn output_types(args: Fields) -> Word {
    let count = unsafe { look::<Program>(args.get(2)) }.count();
    args.set(3, vec![11_i32; count].leak().as_mut_ptr().cast());
    args.number(4, count);
    OK
}

unsafe extern "C" fn output_dims(args: Fields) -> Word {
    let results = &unsafe { look::<Program>(args.get(2)) }.results;
    args.number(3, results.len());
    args.set(4, results.concat().leak().as_mut_ptr().cast());
    args.set(5, results.iter().map(Vec::len).collect::<Vec<usize>>().leak().as_mut_ptr().cast());
    OK
}

unsafe extern "C" fn from_host(args: Fields) -> Word {
    let shape = unsafe { std::slice::from_raw_parts(args.get(5).cast::<i64>(), args.get(6).addr()) };
    // As a chip would answer whose memory is small.
    let Some(size) =
        shape.iter().try_fold(4_usize, |all, &size| all.checked_mul(size as usize)).filter(|&all| all < 4096)
    else {
        return error(8, "4096 bytes of memory");
    };
    let data = Arc::new(Mutex::new(Vec::new()));
    let ready = Arc::new(Ready::default());
    let (source, target) = (Moved(args.get(3).cast()), Arc::clone(&data));
    // Reads the host's memory late, as a transfer does.
    later(&ready, move || {
        let Moved(source) = { source };
        *target.lock().unwrap() = unsafe { std::slice::from_raw_parts(source, size) }.to_vec();
        None
    });
    args.set(13, give(Arc::clone(&ready)));
    args.set(14, give(Tensor { data, ready, donated: Mutex::new(false) }));
    OK
}

unsafe extern "C" fn buffer_destroy(args: Fields) -> Word {
    unsafe { take::<Tensor>(args.get(2)) };
    OK
}

unsafe extern "C" fn to_host(args: Fields) -> Word {
    let tensor = unsafe { look::<Tensor>(args.get(2)) };
    if *tensor.donated.lock().unwrap() {
        return error(3, "the buffer was donated");
    }
    let (source, inputs) = (Arc::clone(&tensor.data), Arc::clone(&tensor.ready));
    let (target, len) = (Moved(args.get(4).cast()), args.get(5).addr());
    let ready = Arc::new(Ready::default());
    later(&ready, move || {
        let Moved(target) = { target };
        let outcome = inputs.wait();
        let data = source.lock().unwrap();
        if outcome.is_none() && data.len() == len {
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), target, len) };
        }
        outcome
    });
    args.set(6, give(ready));
    OK
}

unsafe extern "C" fn execute(args: Fields) -> Word {
    let program = unsafe { look::<Program>(args.get(2)) };
    let options = Fields(args.get(3).cast());
    let copies = program.name == "COPY";
    let given = args.get(6).addr();
    if program.name == "REFUSE" || given == 0 || (!copies && given != program.count()) {
        return error(3, "refused");
    }
    let kept = match options.get(8).addr() {
        0 => &[],
        len => unsafe { std::slice::from_raw_parts(options.get(7).cast::<i64>(), len) },
    };
    let inputs = Fields(unsafe { *args.get(4).cast() });
    let outputs = Fields(unsafe { *args.get(7).cast() });
    for index in 0..program.count() {
        let tensor = unsafe { look::<Tensor>(inputs.get(if copies { given - 1 } else { index })) };
        if *tensor.donated.lock().unwrap() {
            return error(3, "an argument was donated before");
        }
        *tensor.donated.lock().unwrap() = !copies && index == 0 && !kept.contains(&0);
        let (source, before) = (Arc::clone(&tensor.data), Arc::clone(&tensor.ready));
        let (data, ready) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Ready::default()));
        let (target, fails) = (Arc::clone(&data), program.name == "FAIL");
        later(&ready, move || {
            before.wait();
            let more = if copies { 0.0 } else { 1.0 };
            let plus = |bytes: &[u8]| (f32::from_le_bytes(bytes.try_into().unwrap()) + more).to_le_bytes();
            *target.lock().unwrap() = source.lock().unwrap().chunks_exact(4).flat_map(plus).collect();
            fails.then(|| (13, "the chip\nfell over".into()))
        });
        outputs.set(index, give(Tensor { data, ready, donated: Mutex::new(false) }));
    }
    OK
}

#[repr(C)]
struct Table {
    size: usize,
    extensions: usize,
    version_size: usize,
    version_extensions: usize,
    version: [i32; 2],
    functions: [Option<Function>; 92],
}

/// What a plugin exports.
#[unsafe(no_mangle)]
pub extern "C" fn GetPjrtApi() -> *const c_void {
    let functions: [(usize, Function); 29] = [
        (0, error_destroy),
        (1, error_message),
        (2, error_code),
        (3, nothing),
        (4, attributes),
        (5, event_destroy),
        (8, event_await),
        (9, event_on_ready),
        (10, client_create),
        (11, client_destroy),
        (12, text),
        (14, text),
        (16, devices),
        (20, compile),
        (22, from_host),
        (25, device_attributes),
        (26, kind),
        (29, same),
        (40, program_destroy),
        (44, num_outputs),
        (49, serialize),
        (50, program_destroy),
        (51, get_executable),
        (55, execute),
        (56, deserialize),
        (58, buffer_destroy),
        (70, to_host),
        (90, output_types),
        (91, output_dims),
    ];
    let mut table = Table {
        size: size_of::<Table>(),
        extensions: 0,
        version_size: 24,
        version_extensions: 0,
        version: [0, 60],
        functions: [None; 92],
    };
    for (index, function) in functions {
        table.functions[index] = Some(function);
    }
    // Plugins of other versions, and damaged ones: what the loader must refuse.
    match std::env::var("NT_PJRT_DOUBLE").as_deref() {
        Ok("old") => table.version = [0, 30],
        Ok("major") => table.version = [1, 0],
        Ok("short") => table.size = 200,
        Ok("empty") => table.size = 8,
        Ok("null") => return std::ptr::null(),
        _ => {}
    }
    Box::leak(Box::new(table)) as *const Table as *const c_void
}
