//! A prompt in, text out as it becomes known.

use super::{check_parent, option};
use crate::output::Printer;
use crate::terminal;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use nt_tasks::{Error, Generate, Generation, Message, Prompt, Sampling, Session, Settings, write_npy};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::Instant;

const MAX_TOKENS: u64 = 256;

pub fn declare(command: Command, task: &Generate) -> Command {
    let Sampling { temperature, top_k, top_p, min_p, repetition_penalty } = task.sampling;
    let text = |name, value, help| {
        let option = option(name).value_name(value).help(help).allow_hyphen_values(true);
        option.value_parser(value_parser!(OsString))
    };
    let number = |name, default: f64, help| {
        let option = option(name).value_name("X").help(format!("{help} [{default}]")).allow_hyphen_values(true);
        option.value_parser(value_parser!(f64))
    };
    command
        .about("Continues a prompt")
        .arg(Arg::new("ARGUMENT").num_args(0..).hide(true).value_parser(value_parser!(OsString)))
        .arg(text("prompt", "TEXT", "The text to continue; - reads stdin"))
        .arg(
            option("chat")
                .help("Put the prompt into the model's chat template, as the user's")
                .action(ArgAction::SetTrue),
        )
        .arg(text("system", "TEXT", "What the chat's system message says; implies --chat"))
        .arg(text("prompt-ids", "IDS", "The prompt as token ids: 5,17,3; needs no tokenizer"))
        .arg(
            option("max-tokens")
                .value_name("N")
                .help(format!("The longest answer [{MAX_TOKENS}]"))
                .value_parser(value_parser!(u64))
                .allow_hyphen_values(true),
        )
        .arg(
            option("seed")
                .value_name("N")
                .help("One seed gives one answer [0]")
                .value_parser(value_parser!(u32))
                .allow_hyphen_values(true),
        )
        .arg(number("temperature", temperature, "0 takes the likeliest token, 1 draws with the model's probabilities"))
        .arg(
            option("top-k")
                .value_name("N")
                .help(format!("Draw from the N likeliest tokens; 0: all [{top_k}]"))
                .value_parser(value_parser!(i32).range(0..))
                .allow_hyphen_values(true),
        )
        .arg(number("top-p", top_p, "Draw from the likeliest tokens that have this probability together"))
        .arg(number("min-p", min_p, "Draw from tokens at least this many times as likely as the likeliest"))
        .arg(number("repetition-penalty", repetition_penalty, "Above 1, tokens that occurred become less likely"))
        .arg(text("stop", "TEXT", "End before this text; may be repeated").action(ArgAction::Append))
        .arg(
            option("logits")
                .value_name("FILE.npy")
                .help("Also write the prompt's logits, a row for each position; with --max-tokens 0, do only that")
                .value_parser(value_parser!(PathBuf)),
        )
}

pub fn run(
    task: &Generate,
    matches: &mut ArgMatches,
    session: &mut Session<'_>,
    printer: &Printer,
) -> Result<(), Error> {
    let prompt = prompt(matches, &printer.model)?;
    let sampling = sampling(task, matches)?;
    let logits: Option<PathBuf> = matches.remove_one("logits");
    if let Some(path) = &logits {
        check_parent(path, "--logits")?;
    }
    let max_tokens = matches.remove_one::<u64>("max-tokens").unwrap_or(MAX_TOKENS);
    let max_tokens = usize::try_from(max_tokens).unwrap_or(usize::MAX);
    if max_tokens == 0 && logits.is_none() {
        return Err(Error::Usage("--max-tokens 0 leaves nothing to do without --logits".into()));
    }
    let stop = matches.remove_many::<OsString>("stop").into_iter().flatten();
    let stop = stop.map(|text| utf8("--stop", text)).collect::<Result<Vec<_>, _>>()?;
    let settings =
        Settings { max_tokens: Some(max_tokens), seed: matches.remove_one("seed").unwrap_or(0), stop, sampling };
    let tokens = task.read(session.bundle(), &prompt)?;

    let mut seconds = serde_json::Map::new();
    let mut written = serde_json::Map::new();
    if max_tokens > 0 {
        timed(&mut seconds, "start", || task.prepare(session, &tokens, max_tokens))?;
    }
    if let Some(path) = &logits {
        let found = timed(&mut seconds, "score", || task.score(session, &tokens))?;
        write_npy(path, &found.spec, &found.bytes)?;
        let file = path.to_string_lossy();
        written.insert("logits".into(), json!({"file": file, "shape": found.spec.shape, "dtype": "float32"}));
        if max_tokens == 0 {
            if printer.json {
                return document(printer, json!({"prompt_ids": tokens.ids}), written, seconds);
            }
            let [rows, columns] = [found.spec.shape[0], found.spec.shape[1]];
            return printer.print(&format!("wrote {file}: {rows} × {columns} float32\n"));
        }
    }
    let (mut ended, clean) = (true, std::io::stdout().is_terminal());
    let found = timed(&mut seconds, "run", || {
        task.run(session, &tokens, &settings, &mut |piece| {
            if printer.json {
                return Ok(());
            }
            ended = piece.ends_with('\n');
            if clean { printer.print(&terminal::printable(piece)) } else { printer.print(piece) }
        })
    })?;
    if printer.json {
        return document(printer, found.to_json(), written, seconds);
    }
    if found.text.is_none() {
        let ids: Vec<String> = found.ids.iter().map(u32::to_string).collect();
        printer.print(&format!("{}\n", ids.join(",")))?;
    } else if !ended {
        printer.print("\n")?;
    }
    if std::io::stderr().is_terminal() {
        // Nobody to tell where stderr is closed.
        let _ = writeln!(std::io::stderr(), "\x1b[2m{}\x1b[0m", summary(&found));
    }
    Ok(())
}

/// The one prompt that was given.
fn prompt(matches: &mut ArgMatches, model: &str) -> Result<Prompt, Error> {
    let usage = |problem: String| Err(Error::Usage(problem));
    if let Some(argument) = matches.remove_many::<OsString>("ARGUMENT").and_then(|mut all| all.next()) {
        let argument = argument.to_string_lossy();
        let short = match argument.char_indices().nth(30) {
            Some(_) => argument.chars().take(27).chain("...".chars()).collect(),
            None => argument.into_owned(),
        };
        return usage(format!("{model} takes its prompt as an option: --prompt \"{short}\""));
    }
    let system: Option<OsString> = matches.remove_one("system");
    let chat = matches.get_flag("chat") || system.is_some();
    let text = match (matches.remove_one::<OsString>("prompt"), matches.remove_one::<OsString>("prompt-ids")) {
        (Some(_), Some(_)) => return usage("give --prompt or --prompt-ids, not both".into()),
        (None, None) => {
            return usage(format!("{model} continues a prompt: give --prompt TEXT or --prompt-ids 5,17,3"));
        }
        (None, Some(_)) if chat => {
            return usage("--chat and --system go with --prompt: ids are taken as they are".into());
        }
        (None, Some(ids)) => return Ok(Prompt::Ids(numbers(&ids.to_string_lossy())?)),
        (Some(text), None) if text == "-" => stdin()?,
        (Some(text), None) => utf8("--prompt", text)?,
    };
    if !chat {
        return Ok(Prompt::Text(text));
    }
    let mut messages = Vec::new();
    if let Some(system) = system {
        messages.push(Message { role: "system".into(), content: utf8("--system", system)? });
    }
    messages.push(Message { role: "user".into(), content: text });
    Ok(Prompt::Messages(messages))
}

fn numbers(text: &str) -> Result<Vec<i64>, Error> {
    let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    parts
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Usage(format!("--prompt-ids {text}: write whole numbers with commas between them: 5,17,3")))
}

fn utf8(option: &str, text: OsString) -> Result<String, Error> {
    text.into_string().map_err(|_| Error::Input(format!("{option}: the text is not valid UTF-8")))
}

/// All of stdin, every end of a line as a line feed.
fn stdin() -> Result<String, Error> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Input(format!("stdin cannot be read ({error})")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::Input(format!("stdin is not valid UTF-8 (at byte {})", error.utf8_error().valid_up_to()))
    })?;
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn sampling(task: &Generate, matches: &mut ArgMatches) -> Result<Sampling, Error> {
    let mut number = |name, default| matches.remove_one::<f64>(name).unwrap_or(default);
    let sampling = Sampling {
        temperature: number("temperature", task.sampling.temperature),
        top_p: number("top-p", task.sampling.top_p),
        min_p: number("min-p", task.sampling.min_p),
        repetition_penalty: number("repetition-penalty", task.sampling.repetition_penalty),
        top_k: matches.remove_one("top-k").unwrap_or(task.sampling.top_k),
    };
    match sampling.problem() {
        Some((name, problem)) => Err(Error::Usage(format!("--{} {problem}", name.replace('_', "-")))),
        None => Ok(sampling),
    }
}

fn timed<T>(
    seconds: &mut serde_json::Map<String, Value>,
    what: &str,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let began = Instant::now();
    let done = work()?;
    seconds.insert(what.into(), began.elapsed().as_secs_f64().into());
    Ok(done)
}

fn document(
    printer: &Printer,
    mut result: Value,
    written: serde_json::Map<String, Value>,
    seconds: serde_json::Map<String, Value>,
) -> Result<(), Error> {
    if let Value::Object(result) = &mut result {
        result.extend(written);
        result.insert("timing".into(), seconds.into());
    }
    printer.document("generate", result)
}

fn summary(found: &Generation) -> String {
    let first = terminal::seconds(found.first_token_seconds);
    let rate = found.tokens_per_second().map_or_else(String::new, |rate| format!(", {rate:.1} tokens/s"));
    let (prompt, answer) = (found.prompt_ids.len(), found.ids.len());
    let reason = found.finish_reason.name();
    format!("{prompt} + {answer} tokens, the first after {first}{rate}; ended by {reason}")
}
