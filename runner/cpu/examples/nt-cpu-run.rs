//! Runs a `.ntx` file on arguments in files, for tests and measurements.
//!
//! `nt-cpu-run FILE.ntx DIRECTORY [REPEATS]` reads each argument's bytes from `DIRECTORY/arg<i>`, donates those that a result
//! takes over, and writes each result's bytes to `DIRECTORY/out<i>`. With REPEATS it runs as often and prints the seconds of
//! each run.

use nt_cpu::Cpu;
use nt_device::{Arg, Buffer, Bytes, Device, Executable};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<(), Box<dyn Error>> {
    let (file, directory, repeats) = match &arguments[..] {
        [file, directory] => (file, PathBuf::from(directory), 1),
        [file, directory, repeats] => (file, PathBuf::from(directory), repeats.parse()?),
        _ => return Err("usage: nt-cpu-run FILE.ntx DIRECTORY [REPEATS]".into()),
    };
    let program = Cpu.open(&Bytes::from(std::fs::read(file)?))?;
    let given = upload(&*program, &directory)?;
    let mut results = Vec::new();
    for _ in 0..repeats {
        let aliased = |index| program.signature().results.iter().any(|result| result.aliases == Some(index));
        let args = given.iter().enumerate().map(|(index, buffer)| {
            if !aliased(index) {
                return Ok(Arg::Borrow(buffer));
            }
            let bytes = Cpu.download(buffer)?;
            Ok(Arg::Donate(Cpu.upload(buffer.spec(), bytes.into())?))
        });
        let args = args.collect::<Result<Vec<_>, nt_device::Error>>()?;
        let began = Instant::now();
        results = program.run(args)?;
        if repeats > 1 {
            println!("{}", began.elapsed().as_secs_f64());
        }
    }
    for (index, result) in results.iter().enumerate() {
        std::fs::write(directory.join(format!("out{index}")), Cpu.download(result)?)?;
    }
    Ok(())
}

fn upload(program: &dyn Executable, directory: &Path) -> Result<Vec<Buffer>, Box<dyn Error>> {
    let specs = program.signature().arguments.iter().enumerate();
    specs.map(|(i, spec)| Ok(Cpu.upload(spec, std::fs::read(directory.join(format!("arg{i}")))?.into())?)).collect()
}
