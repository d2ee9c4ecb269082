//! Whole files, with machine code written by hand: what runs, and what is refused.

use nt_cpu::Cpu;
use nt_device::{Arg, Buffer, Bytes, DType, Device, Error, ResultSpec, Signature, TensorSpec};

/// `out[i] = a[i] + b[i]` for f32; arguments a, b, out.
const ADD: &[u8] = &[
    0x48, 0x8b, 0x47, 0x18, // mov rax, [rdi + 24]
    0x48, 0x8b, 0x08, // mov rcx, [rax]
    0x48, 0x8b, 0x50, 0x10, // mov rdx, [rax + 16]
    0x48, 0x8b, 0x70, 0x20, // mov rsi, [rax + 32]
    0x4c, 0x8b, 0x40, 0x08, // mov r8, [rax + 8]
    0x45, 0x31, 0xc9, // xor r9d, r9d
    0x4d, 0x39, 0xc1, // cmp r9, r8
    0x73, 0x18, // jae +24
    0xf3, 0x42, 0x0f, 0x10, 0x04, 0x09, // movss xmm0, [rcx + r9]
    0xf3, 0x42, 0x0f, 0x58, 0x04, 0x0a, // addss xmm0, [rdx + r9]
    0xf3, 0x42, 0x0f, 0x11, 0x04, 0x0e, // movss [rsi + r9], xmm0
    0x49, 0x83, 0xc1, 0x04, // add r9, 4
    0xeb, 0xe3, // jmp -29
    0x31, 0xc0, 0xc3, // xor eax, eax; ret
];

/// Reports an error.
const FAIL: &[u8] = &[0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3];

fn file(plan: &str) -> Bytes {
    let mut image = vec![0xcc; 4096];
    image[..ADD.len()].copy_from_slice(ADD);
    image[128..128 + FAIL.len()].copy_from_slice(FAIL);
    let constants = [1.0_f32, 2.0, 3.0].map(f32::to_le_bytes).concat();
    let mut file = b"\x89NTX\r\n\x1a\n\x01\0\0\0\x03\0\0\0".to_vec();
    file.resize(64, 0);
    for (index, section) in [plan.as_bytes(), &image, &constants].into_iter().enumerate() {
        file.resize(file.len().next_multiple_of(64), 0);
        let place = [file.len() as u64, section.len() as u64].map(u64::to_le_bytes).concat();
        file[16 + 16 * index..32 + 16 * index].copy_from_slice(&place);
        file.extend_from_slice(section);
    }
    file.into()
}

/// A plan with two arguments of three f32 (allocations 0 and 1), a result (2), a constant (3), a temporary (4), and a flag.
fn plan(steps: &str, aliases: &str, from: &str) -> String {
    format!(
        r#"{{"requires":[],"level":"x86-64","arguments":[{{"dtype":"float32","shape":[3]}},{{"dtype":"float32","shape":[3]}},
        {{"dtype":"bool","shape":[]}},{{"dtype":"int32","shape":[]}}],
        "results":[{{"dtype":"float32","shape":[3],"aliases":{aliases},"from":{from}}}],
        "allocations":[{{"kind":"argument","index":0,"size":12}},{{"kind":"argument","index":1,"size":12}},
        {{"kind":"result","size":12}},{{"kind":"constant","offset":0,"size":12}},{{"kind":"temporary","size":64}},
        {{"kind":"argument","index":2,"size":1}},{{"kind":"argument","index":3,"size":4}}],
        "image":{{"text":4096,"rebase":[],"imports":[]}},"functions":[{{"name":"add","at":0}},{{"name":"fail","at":128}}],
        "steps":[{steps}]}}"#
    )
}

fn add(a: &str, b: &str, out: &str) -> String {
    format!(r#"{{"step":"kernel","function":0,"workgroups":[1,1,1],"arguments":[{a},{b}],"results":[{out}]}}"#)
}

const A: &str = "[0,0,12]";
const B: &str = "[1,0,12]";
const OUT: &str = "[2,0,12]";
const CONSTANT: &str = "[3,0,12]";
const SPARE: &str = "[4,16,12]";

fn floats(values: [f32; 3]) -> Buffer {
    let bytes = values.map(f32::to_le_bytes).concat();
    Cpu.upload(&TensorSpec::new(DType::F32, [3]), bytes.into()).unwrap()
}

fn values(buffer: &Buffer) -> Vec<f32> {
    let bytes = Cpu.download(buffer).unwrap();
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn run(plan: &str, flag: bool, index: i32) -> nt_device::Result<Vec<f32>> {
    let program = Cpu.open(&file(plan))?;
    let flag = Cpu.upload(&TensorSpec::new(DType::Pred, []), vec![u8::from(flag)].into())?;
    let index = Cpu.upload(&TensorSpec::new(DType::I32, []), index.to_le_bytes().to_vec().into())?;
    let (a, b) = (floats([1.0, 2.0, 3.0]), floats([10.0, 20.0, 30.0]));
    let results = program.run(vec![Arg::Borrow(&a), Arg::Borrow(&b), Arg::Borrow(&flag), Arg::Borrow(&index)])?;
    assert_eq!(
        (values(&a), values(&b)),
        (vec![1.0, 2.0, 3.0], vec![10.0, 20.0, 30.0]),
        "borrowed arguments stay as they are"
    );
    Ok(values(&results[0]))
}

#[test]
fn kernels_run_one_after_the_other() {
    let steps = [add(A, B, SPARE), add(SPARE, CONSTANT, OUT)].join(",");
    assert_eq!(run(&plan(&steps, "null", OUT), true, 0).unwrap(), [12.0, 24.0, 36.0]);
}

#[test]
fn a_result_in_the_memory_of_an_argument_takes_it_over_only_if_it_is_given_up() {
    let program = Cpu.open(&file(&plan(&add(A, B, A), "0", A))).unwrap();
    let flag = Cpu.upload(&TensorSpec::new(DType::Pred, []), vec![1].into()).unwrap();
    let index = Cpu.upload(&TensorSpec::new(DType::I32, []), vec![0; 4].into()).unwrap();
    let b = floats([1.0, 1.0, 1.0]);
    let mut state = floats([0.0, 1.0, 2.0]);
    for step in 1..4 {
        let args = vec![Arg::Donate(state), Arg::Borrow(&b), Arg::Borrow(&flag), Arg::Borrow(&index)];
        state = program.run(args).unwrap().remove(0);
        assert_eq!(values(&state), [0.0, 1.0, 2.0].map(|value| value + step as f32));
    }
    let args = vec![Arg::Borrow(&state), Arg::Borrow(&b), Arg::Borrow(&flag), Arg::Borrow(&index)];
    assert_eq!(values(&program.run(args).unwrap()[0]), [4.0, 5.0, 6.0]);
    assert_eq!(values(&state), [3.0, 4.0, 5.0]);
}

#[test]
fn loops_and_branches_are_followed() {
    let copy = format!(r#"{{"step":"copy","from":{A},"to":{OUT}}}"#);
    let body = add(OUT, B, OUT);
    let turns = format!(r#"{copy},{{"step":"while","trips":4,"predicate":[5,0,1],"condition":[],"body":[{body}]}}"#);
    assert_eq!(run(&plan(&turns, "null", OUT), true, 0).unwrap(), [41.0, 82.0, 123.0]);
    let never = format!(r#"{copy},{{"step":"while","trips":null,"predicate":[5,0,1],"condition":[],"body":[{body}]}}"#);
    assert_eq!(run(&plan(&never, "null", OUT), false, 0).unwrap(), [1.0, 2.0, 3.0]);
    let branches = format!("[{}],[{}]", add(A, B, OUT), add(A, A, OUT));
    let chosen = |index: &str| {
        plan(&format!(r#"{{"step":"conditional","index":{index},"branches":[{branches}]}}"#), "null", OUT)
    };
    let ([sum, double], by_flag, by_index) =
        ([[11.0, 22.0, 33.0], [2.0, 4.0, 6.0]], chosen("[5,0,1]"), chosen("[6,0,4]"));
    assert_eq!(run(&by_flag, true, 0).unwrap(), sum);
    assert_eq!(run(&by_flag, false, 0).unwrap(), double);
    for (index, wanted) in [(0, sum), (1, double), (2, double), (-1, double), (i32::MIN, double)] {
        assert_eq!(run(&by_index, true, index).unwrap(), wanted);
    }
}

#[test]
fn errors_of_kernels_reach_the_caller() {
    let steps = add(A, B, OUT).replace(r#""function":0"#, r#""function":1"#);
    assert!(matches!(run(&plan(&steps, "null", OUT), true, 0), Err(Error::Run(_))));
}

#[test]
fn arguments_are_checked() {
    let good = file(&plan(&add(A, B, OUT), "null", OUT));
    let program = Cpu.open(&good).unwrap();
    assert!(matches!(program.run(vec![]), Err(Error::Argument(_))));
    let short = Cpu.upload(&TensorSpec::new(DType::F32, [2]), vec![0; 8].into()).unwrap();
    let found = program.run((0..4).map(|_| Arg::Borrow(&short)).collect()).unwrap_err();
    assert_eq!(found, Error::Argument("argument 0 must be float32[3], not float32[2]".into()));
    assert!(matches!(Cpu.upload(&TensorSpec::new(DType::F32, [2]), vec![0; 7].into()), Err(Error::Argument(_))));
    let spec = TensorSpec::new(DType::F32, [3]);
    let other = Signature { arguments: vec![spec.clone()], results: vec![ResultSpec { spec, aliases: None }] };
    assert!(matches!(Cpu.load(good, &other), Err(Error::Load(_))));
}

/// Plans that a builder would never write, each with a part of what is said about it.
#[test]
fn plans_that_reach_beyond_their_memory_are_refused() {
    let dot = |lhs: &str, m: usize, strides: &str, out: &str| {
        format!(
            r#"{{"step":"dot","dtype":"float32","out_dtype":"float32","batch":1,"m":{m},"n":1,"k":3,
            "lhs":{{"at":{lhs},"strides":{strides}}},"rhs":{{"at":{B},"strides":[0,1,0]}},"out":{{"at":{out},"strides":[0,1,0]}}}}"#
        )
    };
    assert_eq!(run(&plan(&dot(A, 1, "[0,3,1]", OUT), "null", OUT), true, 0).unwrap()[0], 140.0);
    let sort = |inputs: &str| {
        format!(r#"{{"step":"sort","comparator":0,"outer":1,"length":3,"inner":1,"inputs":[{inputs}]}}"#)
    };
    let top = |k: usize, into: &str| {
        format!(r#"{{"step":"top-k","batch":1,"length":3,"k":{k},"values":{A},"largest":{into},"indices":[4,32,12]}}"#)
    };
    for (steps, said) in [
        (add("[0,4,12]", B, OUT), "outside of its allocation"),
        (add("[0,18446744073709551615,2]", B, OUT), "outside of its allocation"),
        (add("[9,0,1]", B, OUT), "no allocation"),
        (add(A, B, OUT).replace(r#""function":0"#, r#""function":2"#), "not there"),
        (format!(r#"{{"step":"copy","from":{A},"to":{CONSTANT}}}"#), "may not change"),
        (format!(r#"{{"step":"copy","from":{A},"to":{B}}}"#), "may not change"),
        (r#"{"step":"copy","from":[0,0,8],"to":[2,0,12]}"#.into(), "another size"),
        (dot(A, 2, "[0,3,1]", OUT), "larger than its memory"),
        (dot(A, 1, "[0,3,2]", OUT), "larger than its memory"),
        (dot(A, 1, "[0,4294967296,4294967296]", OUT), "cannot be"),
        (dot(A, 2, "[0,0,1]", "[4,0,12]").replace("[0,1,0]", "[0,0,0]"), "one place"),
        (dot("[2,0,12]", 1, "[0,3,1]", OUT), "writes to what it reads"),
        (dot("[0,1,8]", 1, "[0,3,1]", OUT), "not aligned"),
        (dot(A, 18446744073709551615, "[0,0,1]", OUT), "cannot be"),
        (sort(r#"{"at":[0,0,12],"width":4}"#), "may not change"),
        (sort(r#"{"at":[2,0,12],"width":4},{"at":[2,0,12],"width":4}"#), "writes to what it reads"),
        (sort(r#"{"at":[2,0,12],"width":3}"#), "no known size"),
        (sort(""), "nothing"),
        (top(4, "[2,0,12]"), "than there are"),
        (top(3, "[4,40,12]"), "writes to what it reads"),
        (top(2, "[2,0,12]"), "does not fill"),
        (r#"{"step":"conditional","index":[5,0,1],"branches":[]}"#.into(), "no truth value"),
        (r#"{"step":"conditional","index":[0,0,2],"branches":[[]]}"#.into(), "no truth value"),
        (
            r#"{"step":"while","trips":null,"predicate":[0,0,4],"condition":[],"body":[]}"#.into(),
            "the condition of a loop",
        ),
        (r#"{"step":"dance"}"#.into(), "unknown variant"),
        (r#"{"step":"while","trips":1,"predicate":[5,0,1],"condition":[],"body":["#.repeat(5000), "recursion limit"),
    ] {
        let error = run(&plan(&steps, "null", OUT), true, 0).unwrap_err();
        assert!(matches!(error, Error::Load(_)) && error.to_string().contains(said), "{error}\nfor {steps}");
    }
    for (aliases, from, said) in
        [("7", A, "not what it says"), ("2", A, "not what it says"), ("null", "[2,0,8]", "not what it says")]
    {
        let error = run(&plan(&add(A, B, OUT), aliases, from), true, 0).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn processors_without_what_the_code_needs_are_told_so() {
    let wanted = plan(&add(A, B, OUT), "null", OUT).replace(r#""requires":[]"#, r#""requires":["quantum"]"#);
    assert!(run(&wanted, true, 0).unwrap_err().to_string().contains("quantum"));
}

/// Whatever a byte of the frame or of the plan is changed to, loading ends, with a program or with an error.
#[test]
fn changed_files_are_loaded_or_refused() {
    let text = plan(&[add(A, B, SPARE), add(SPARE, CONSTANT, OUT)].join(","), "null", OUT);
    let original = file(&text).to_vec();
    let mut refused = 0;
    for at in 0..64 + text.len() {
        for value in [0, b'0', b'9', b'-', b'"', b']', original[at] ^ 1, original[at] ^ 0x80] {
            let mut changed = original.clone();
            changed[at] = value;
            match Cpu.open(&changed.into()) {
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(error, Error::Load(_) | Error::Memory(_)), "{error}");
                    assert!(!error.to_string().contains('\n'), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 4000, "{refused}");
    for length in 0..original.len() {
        assert!(Cpu.open(&original[..length].to_vec().into()).is_err());
    }
}
