//! Image files in, labels out.

use super::option;
use crate::output::Printer;
use clap::{Arg, ArgMatches, Command, value_parser};
use nt_tasks::{Classification, Classify, Error, Session};
use std::ffi::OsString;

const BAR: f32 = 24.0;

pub fn declare(command: Command, task: &Classify) -> Command {
    command
        .about("Labels image files (PNG, JPEG)")
        .arg(Arg::new("IMAGE").required(true).num_args(1..).value_parser(value_parser!(OsString)))
        .arg(
            option("top")
                .value_name("N")
                .help(format!("How many labels to show for each image [{}]", task.top))
                .value_parser(value_parser!(u32).range(1..)),
        )
}

pub fn run(
    task: &Classify,
    matches: &mut ArgMatches,
    session: &mut Session<'_>,
    printer: &Printer,
) -> Result<(), Error> {
    let files: Vec<OsString> = matches.remove_many("IMAGE").into_iter().flatten().collect();
    let top = matches.remove_one::<u32>("top").map(|top| top as usize);
    let found = task.run(session, &files, top)?;
    if printer.json { printer.document("classify", found.to_json()) } else { printer.print(&text(&found)) }
}

/// As `namedtensor run` prints it.
fn text(found: &Classification) -> String {
    let mut text = String::new();
    for (at, image) in found.images.iter().enumerate() {
        let width = image.labels.iter().map(|found| found.label.chars().count()).max().unwrap_or(0);
        text += if at > 0 { "\n" } else { "" };
        text += &format!("{}\n", image.file);
        for label in &image.labels {
            let bar = "█".repeat((label.probability * BAR).round_ties_even() as usize);
            let share = f64::from(label.probability) * 100.0;
            let row = format!("  {:<width$}  {share:5.1}%  {bar}", label.label);
            text += &format!("{}\n", row.trim_end());
        }
    }
    text
}
