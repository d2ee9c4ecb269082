//! Texts in, vectors out.

use super::option;
use crate::output::{Printer, note};
use clap::{Arg, ArgMatches, Command, value_parser};
use nt_device::{DType, TensorSpec};
use nt_tasks::{Embed, Embeddings, Error, Session};
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

const BAR: usize = 16;
const SHORT: usize = 40;

pub fn declare(command: Command) -> Command {
    command
        .about(
            "Turns texts into vectors. One text: its vector is printed. Several: the others are ranked by the cosine \
             of their angle to the first. A dash reads one text from each line of stdin",
        )
        .arg(Arg::new("TEXT").num_args(0..).value_parser(value_parser!(OsString)))
        .arg(
            option("vectors")
                .value_name("FILE.npy")
                .help("Write the vectors to FILE.npy, a row for each text")
                .value_parser(value_parser!(PathBuf)),
        )
}

pub fn run(task: &Embed, matches: &mut ArgMatches, session: &mut Session<'_>, printer: &Printer) -> Result<(), Error> {
    let given: Vec<OsString> = matches.remove_many("TEXT").into_iter().flatten().collect();
    if given.is_empty() {
        return Err(Error::Usage(format!(
            "{} embeds texts: give one for its vector, or several to rank the others by their likeness to the first; \
             - reads one from each line of stdin",
            printer.model
        )));
    }
    let output: Option<PathBuf> = matches.remove_one("vectors");
    if let Some(output) = &output {
        super::check_parent(output, "--vectors")?;
    }
    let found = task.run(session, texts(given)?)?;
    if let Some(output) = &output {
        let shape = [found.vectors.len(), found.vectors.first().map_or(0, Vec::len)];
        let bytes: Vec<u8> = found.vectors.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        nt_tasks::write_npy(output, &TensorSpec::new(DType::F32, shape), &bytes)?;
    }
    for ((text, tokens), truncated) in found.texts.iter().zip(&found.tokens).zip(&found.truncated) {
        if *truncated {
            note(&format!("warning: only the first {tokens} tokens were read of '{}'", short(text)));
        }
    }
    if printer.json {
        return printer.document("embed", found.to_json());
    }
    printer.print(&match output {
        Some(output) => {
            let width = found.vectors.first().map_or(0, Vec::len);
            format!("wrote {}: {} × {width} float32\n", output.display(), found.vectors.len())
        }
        None => text(&found),
    })
}

fn texts(given: Vec<OsString>) -> Result<Vec<String>, Error> {
    let mut texts = Vec::new();
    for argument in given {
        if argument != "-" {
            let place = texts.len() + 1;
            let text = argument.into_string();
            texts.push(text.map_err(|_| Error::Input(format!("text {place} is not valid Unicode")))?);
            continue;
        }
        let mut read = Vec::new();
        let problem = |problem: String| Error::Input(format!("stdin {problem}"));
        std::io::stdin().read_to_end(&mut read).map_err(|error| problem(format!("cannot be read ({error})")))?;
        let read = String::from_utf8(read)
            .map_err(|error| problem(format!("is not valid UTF-8 (at byte {})", error.utf8_error().valid_up_to())))?;
        texts.extend(read.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).map(String::from));
    }
    if texts.is_empty() {
        return Err(Error::Input("stdin holds no text".into()));
    }
    Ok(texts)
}

/// As `namedtensor run` prints it.
fn text(found: &Embeddings) -> String {
    if let [vector] = found.vectors.as_slice() {
        return vector.iter().map(|value| format!("{value:.6}")).collect::<Vec<_>>().join(" ") + "\n";
    }
    let mut text = format!("{}\n", found.texts[0]);
    for found in found.ranking() {
        let bar = "█".repeat((found.similarity.max(0.0) * BAR as f64).round_ties_even() as usize);
        text += &format!("  {:7.4}  {bar:<BAR$}  {}\n", found.similarity, found.text);
    }
    text
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHORT) {
        None => text.into(),
        Some(_) => format!("{}...", text.chars().take(SHORT - 3).collect::<String>()),
    }
}
