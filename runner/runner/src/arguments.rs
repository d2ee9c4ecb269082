//! The command line: the task's own arguments, as `namedtensor run` takes them, and what every archive has.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use nt_bundle::Manifest;
use nt_tasks::{Error, Task};
use std::ffi::OsString;

/// What was given, for the archive's task.
pub enum Arguments {
    Classify { files: Vec<OsString>, top: Option<usize> },
}

/// What every task has.
pub struct Common {
    pub json: bool,
    pub target: Option<String>,
    pub weights: Option<OsString>,
}

pub struct Parsed {
    pub common: Common,
    pub arguments: Arguments,
}

/// Reads the command line; None where it asked for help, which is printed then.
pub fn parse(manifest: &Manifest, task: &Task) -> Result<Option<Parsed>, Error> {
    let mut matches = match command(manifest, task).try_get_matches() {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            print!("{error}");
            return Ok(None);
        }
        Err(error) => return Err(Error::Usage(line(&error))),
    };
    let common = Common {
        json: matches.get_flag("json"),
        target: matches.remove_one("target"),
        weights: matches.remove_one("weights"),
    };
    Ok(Some(Parsed { common, arguments: arguments(&mut matches, task) }))
}

fn command(manifest: &Manifest, task: &Task) -> Command {
    let command = Command::new(manifest.name.clone())
        .disable_version_flag(true)
        .arg(flag("json").help("Print one JSON document, with every number").action(ArgAction::SetTrue))
        .arg(
            flag("target")
                .value_name("NAME")
                .help(format!("Run the executable of this target [{}]", targets(manifest))),
        )
        .arg(
            flag("weights")
                .value_name("FILE")
                .help("Weights that are kept outside of the archive")
                .value_parser(value_parser!(OsString)),
        );
    match task {
        Task::Classify(task) => command
            .about("Labels image files (PNG, JPEG)")
            .arg(Arg::new("IMAGE").required(true).num_args(1..).value_parser(value_parser!(OsString)))
            .arg(
                flag("top")
                    .value_name("N")
                    .help(format!("How many labels to show for each image [{}]", task.top))
                    .value_parser(value_parser!(u32).range(1..)),
            ),
    }
}

fn arguments(matches: &mut ArgMatches, task: &Task) -> Arguments {
    match task {
        Task::Classify(_) => Arguments::Classify {
            files: matches.remove_many("IMAGE").into_iter().flatten().collect(),
            top: matches.remove_one::<u32>("top").map(|top| top as usize),
        },
    }
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}

fn targets(manifest: &Manifest) -> String {
    manifest.targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The first paragraph of what clap has to say, in one line.
fn line(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let told = text.split("\n\n").next().unwrap_or_default();
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}
