//! Tensors in, tensors out: programs without a task of their own.

use super::option;
use crate::output::Printer;
use crate::{shown, size};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use nt_bundle::{Argument, Entry};
use nt_tasks::{Array, Call, Error, Outputs, Problem, READABLE, Session};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub fn declare(command: Command) -> Command {
    command
        .about("Runs an entry point on tensors")
        // Only to say what is to be written instead.
        .arg(Arg::new("ARGUMENT").num_args(0..).hide(true).value_parser(value_parser!(OsString)))
        .arg(option("entry").value_name("NAME").help("The entry point to run, where there are several"))
        .arg(
            option("input")
                .value_name("NAME=VALUE")
                .help(
                    "An input: a number, a list in brackets, or a file (.npy, .npz, .safetensors). A .npz or \
                     .safetensors file alone gives every input that it holds by name. May be repeated",
                )
                .action(ArgAction::Append)
                .value_parser(value_parser!(OsString)),
        )
        .arg(
            option("output")
                .value_name("PATH")
                .help("Write the outputs to a .npz or .safetensors file, or as .npy files into a directory")
                .value_parser(value_parser!(PathBuf)),
        )
}

pub fn run(task: &Call, matches: &mut ArgMatches, session: &mut Session<'_>, printer: &Printer) -> Result<(), Error> {
    if let Some(argument) = matches.remove_many::<OsString>("ARGUMENT").and_then(|mut all| all.next()) {
        let (model, argument) = (&printer.model, argument.display());
        return Err(Error::Usage(format!(
            "{model} takes tensors, not arguments: write --input NAME={argument} for what it is"
        )));
    }
    let manifest = session.bundle().manifest();
    let entry = task.choose(manifest, matches.remove_one::<String>("entry").as_deref())?;
    let output: Option<PathBuf> = matches.remove_one("output");
    if let Some(output) = &output {
        check_output(output)?;
    }
    let arrays = inputs(entry, matches.remove_many("input").into_iter().flatten())?;
    let found = task.run(session, entry, arrays)?;
    let written = output.map(|output| nt_tasks::write(&output, &found.tensors)).transpose()?;
    if printer.json {
        return printer.document("call", found.to_json());
    }
    printer.print(&text(&found, written.as_deref()))
}

fn check_output(output: &Path) -> Result<(), Error> {
    if nt_tasks::has_suffix(output, ".npz") || nt_tasks::has_suffix(output, ".safetensors") {
        return super::check_parent(output, "--output");
    }
    if output.is_dir() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "--output {}: neither a directory that exists, nor a .npz or .safetensors file to write",
        output.display()
    )))
}

/// Values of all inputs that were given, by name.
fn inputs(entry: &Entry, given: impl Iterator<Item = OsString>) -> Result<BTreeMap<String, Array>, Error> {
    let inputs = nt_tasks::inputs(entry);
    let mut found = BTreeMap::new();
    for text in given {
        let bytes = text.as_bytes();
        let (name, value) = bytes
            .iter()
            .position(|&byte| byte == b'=')
            .map_or((bytes, None), |at| (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))));
        let input = inputs.iter().find(|input| input.name.as_bytes() == name);
        let arrays = match (input, value) {
            (Some(input), Some(value)) => vec![(input.name.clone(), one(entry, input, value)?)],
            _ => all(entry, &inputs, &text)?,
        };
        for (name, array) in arrays {
            if found.contains_key(&name) {
                return Err(Error::Usage(format!("input '{name}' is given twice")));
            }
            found.insert(name, array);
        }
    }
    match inputs.iter().find(|input| !found.contains_key(&input.name)) {
        None => Ok(found),
        Some(input) => {
            let described = nt_tasks::describe(&input.axes, &input.spec());
            Err(Error::Usage(format!("{} needs --input {}=..., {described}", entry.name, input.name)))
        }
    }
}

/// One input's value: written down, or in a file.
fn one(entry: &Entry, input: &Argument, value: &OsStr) -> Result<Array, Error> {
    let (name, shown) = (&input.name, value.display());
    if !READABLE.iter().any(|suffix| value.as_bytes().ends_with(suffix.as_bytes())) {
        let parsed = value.to_str().ok_or(Problem::Syntax).and_then(nt_tasks::parse_array);
        return parsed.map_err(|problem| match problem {
            Problem::Syntax => Error::Usage(format!(
                "--input {name}={shown}: give a file ({}), a number or a list in brackets",
                READABLE.join(", ")
            )),
            Problem::Ragged => Error::Input(format!("{}: input '{name}' is not an array of numbers", entry.name)),
        });
    }
    let arrays = nt_tasks::stored(Path::new(value))?;
    let named = arrays.iter().find(|(found, _)| found == name);
    let array = match (named, arrays.as_slice()) {
        (Some((_, array)), _) | (None, [(_, array)]) => array,
        (None, []) => return Err(Error::Input(format!("{shown}: holds no array"))),
        (None, several) => {
            let names: Vec<&str> = several.iter().take(5).map(|(name, _)| name.as_str()).collect();
            return Err(Error::Input(format!("{shown}: holds {}, and nothing called '{name}'", names.join(", "))));
        }
    };
    nt_tasks::check_shape(&shown.to_string(), entry, input, &array.layout.shape)?;
    array.read()
}

/// Inputs from a file that holds them by name.
fn all(entry: &Entry, inputs: &[&Argument], text: &OsStr) -> Result<Vec<(String, Array)>, Error> {
    let shown = text.display();
    let names = inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
    let path = Path::new(text);
    if !path.is_file() {
        let shown = shown.to_string();
        let name = shown.split('=').next().unwrap_or_default();
        return Err(Error::Usage(format!(
            "--input {shown}: there is no input '{name}' and no such file: there are {names}"
        )));
    }
    let mut found = Vec::new();
    for (name, array) in nt_tasks::stored(path)? {
        let Some(input) = inputs.iter().find(|input| input.name == name) else {
            let what = if name.is_empty() { "one array" } else { &name };
            return Err(Error::Input(format!("{shown}: holds '{what}'; the inputs are {names}")));
        };
        nt_tasks::check_shape(&shown.to_string(), entry, input, &array.layout.shape)?;
        found.push((name, array.read()?));
    }
    Ok(found)
}

/// As `namedtensor run` prints it.
fn text(found: &Outputs, written: Option<&[PathBuf]>) -> String {
    let mut text = String::new();
    for (name, tensor) in &found.tensors {
        text += &format!("{name} {}\n", nt_tasks::describe(&tensor.axes, &tensor.spec));
        if written.is_none() {
            shown::array(tensor).lines().for_each(|line| text += &format!("  {line}\n"));
        }
    }
    for path in written.into_iter().flatten() {
        let bytes = std::fs::metadata(path).map_or(0, |found| found.len());
        text += &format!("wrote {} ({})\n", path.display(), size::bytes(bytes));
    }
    text
}
