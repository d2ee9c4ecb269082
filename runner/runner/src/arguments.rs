//! The command line: the task's own arguments, and what every archive has.

use crate::commands::{self, option};
use clap::error::ErrorKind;
use clap::{ArgAction, ArgMatches, Command, value_parser};
use nt_bundle::Manifest;
use nt_tasks::{Error, Task};
use std::ffi::OsString;

/// What every task has.
pub struct Common {
    pub json: bool,
    pub target: Option<String>,
    /// Whether the targets are to be listed, and nothing run.
    pub targets: bool,
    pub weights: Option<OsString>,
    #[cfg_attr(not(target_env = "gnu"), expect(dead_code, reason = "the program that loads plugins reads it"))]
    pub plugin: Option<OsString>,
}

/// Reads the command line; None where it asked for help, which is printed then. The task's own arguments are left in
/// the matches.
pub fn parse(manifest: &Manifest, task: &Task) -> Result<Option<(Common, ArgMatches)>, Error> {
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
        targets: matches.get_flag("targets"),
        weights: matches.remove_one("weights"),
        plugin: matches.remove_one("plugin"),
    };
    Ok(Some((common, matches)))
}

fn command(manifest: &Manifest, task: &Task) -> Command {
    let command = Command::new(manifest.name.clone())
        .disable_version_flag(true)
        .arg(option("json").help("Print one JSON document, with every number").action(ArgAction::SetTrue))
        .arg(
            option("target")
                .value_name("NAME")
                .help(format!("Run the executables of this target, or the best of a platform [{}]", targets(manifest))),
        )
        .arg(
            option("targets")
                .help("List the targets, and which of them this machine runs")
                .action(ArgAction::SetTrue)
                .exclusive(true),
        )
        .arg(
            option("weights")
                .value_name(if cfg!(feature = "downloads") { "FILE|URL" } else { "FILE" })
                .help(match cfg!(feature = "downloads") {
                    true => "Weights that are kept outside of the archive: a file, or where to download it",
                    false => "A file to read the weights from, instead of the archive's own",
                })
                .value_parser(value_parser!(OsString)),
        );
    let command = if manifest.plugins.is_empty() {
        command.arg(option("plugin").value_parser(value_parser!(OsString)).hide(true))
    } else {
        command.arg(
            option("plugin")
                .value_name("FILE")
                .help("A PJRT plugin to run accelerators with, instead of the archive's own")
                .value_parser(value_parser!(OsString)),
        )
    };
    commands::declare(command, task)
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
