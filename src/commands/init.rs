//! `edgerepl init`: asks for what the configuration lacks, writes it, and checks it.
//!
//! Owns the questions, and the file: the main one where there is none, else a layer beside it. Never
//! overwrites a file, and never judges a value: the configuration does.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, IsTerminal, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{check, output};
use crate::config::{DEFAULT_PATH, Required, RuntimeDirectory, Settings, layers_beside};
use crate::system::file;

/// The layer beside a main file that is there, as a package installs it.
const LAYER: &str = "10-init.toml";

/// What was given for a key on the command line.
pub(crate) type Given<'a> = &'a dyn Fn(&Required) -> Option<String>;

/// The command: 0 once the configuration is written, whatever its check says; 1 if it is not.
pub(crate) fn init(config: &Path, runtime: &RuntimeDirectory, given: Given<'_>) -> ExitCode {
    match written(config, given) {
        Ok(path) => {
            output::tell(format_args!("{} is written\n\n", path.display()));
            let passes = check::check(config, runtime, true, false) == ExitCode::SUCCESS;
            output::tell(format_args!("\n{}\n", next(passes, config)));
            ExitCode::SUCCESS
        }
        Err(cause) => {
            output::tell(format_args!("edgerepl: {cause}\n"));
            ExitCode::FAILURE
        }
    }
}

/// The operator's next step.
fn next(passes: bool, config: &Path) -> String {
    let is_usual = config == Path::new(DEFAULT_PATH);
    let option = match is_usual {
        true => String::new(),
        false => format!(" --config {}", config.display()),
    };
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    match passes {
        false => {
            format!(
                "Next: follow the steps above, then run `edgerepl check --online{option}` again"
            )
        }
        true if has_systemd && is_usual => "Next: systemctl enable --now edgerepl".to_owned(),
        true => format!("Next: edgerepl run{option}"),
    }
}

fn written(config: &Path, given: Given<'_>) -> Result<PathBuf, String> {
    let missing = Settings::missing(config).map_err(|cause| cause.to_string())?;
    let is_wanted = |required: &&Required| missing.contains(required) || given(required).is_some();
    let wanted: Vec<&Required> = Required::ALL.iter().filter(is_wanted).collect();
    if missing.is_empty() {
        let name = config.display();
        return Err(format!(
            "{name} has all that it needs; change it with an editor"
        ));
    }
    let path = match config.exists() {
        false => config.to_owned(),
        true => layers_beside(config).join(LAYER),
    };
    if path.exists() {
        let name = path.display();
        return Err(format!(
            "{name} is there, and is never overwritten; complete it with an editor, or remove it"
        ));
    }
    let text = text(&answers(&wanted, given)?);
    write(&path, &text).map_err(|e| format!("{} can't be written: {e}", path.display()))?;
    Ok(path)
}

/// A value for each; those that were not given are asked for.
fn answers<'a>(
    wanted: &[&'a Required],
    given: Given<'_>,
) -> Result<Vec<(&'a Required, String)>, String> {
    let mut answers: Vec<(&Required, String)> = Vec::new();
    let can_ask = io::stdin().is_terminal();
    let lacking: Vec<String> = wanted
        .iter()
        .filter(|required| given(required).is_none())
        .map(|required| format!("--{}", required.option))
        .collect();
    if !can_ask && !lacking.is_empty() {
        return Err(format!(
            "give {} as well, or run it on a terminal, where it asks",
            lacking.join(" ")
        ));
    }
    for required in wanted {
        let value = match given(required) {
            Some(value) => required.parse(&value).map(|()| value)?,
            None => ask(required, &answers)?,
        };
        answers.push((required, value));
    }
    Ok(answers)
}

/// Asks until the answer can work.
fn ask(required: &Required, answers: &[(&Required, String)]) -> Result<String, String> {
    let default = suggested(required, answers);
    loop {
        let shown = default
            .as_ref()
            .map_or(String::new(), |default| format!(" [{default}]"));
        output::tell(format_args!("{}{shown}: ", required.question));
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        if read.map_err(|e| format!("no answer can be read: {e}"))? == 0 {
            return Err("no more answers can be read, and nothing is written".to_owned());
        }
        let value = match (line.trim(), &default) {
            ("", Some(default)) => default.clone(),
            (line, _) => line.to_owned(),
        };
        match required.parse(&value) {
            Ok(()) => return Ok(value),
            Err(cause) => output::tell(format_args!("  {cause}\n")),
        }
    }
}

/// What most devices answer, or what follows from an earlier answer.
fn suggested(required: &Required, answers: &[(&Required, String)]) -> Option<String> {
    let of_endpoint = || {
        let (_, endpoint) = answers.iter().find(|(r, _)| r.option == "endpoint")?;
        let (_, rest) = endpoint.split_once(".credentials.iot.")?;
        let (region, _) = rest.split_once(".amazonaws.com")?;
        Some(region.to_owned())
    };
    match required.option {
        "region" => of_endpoint(),
        _ => required.usual.map(str::to_owned),
    }
}

/// The answers as TOML.
fn text(answers: &[(&Required, String)]) -> String {
    let mut text = "# Written by `edgerepl init`.\n".to_owned();
    let mut section = "";
    for (required, value) in answers {
        if section != required.section {
            section = required.section;
            let _ = write!(text, "\n[{section}]\n");
        }
        // A string of JSON's is one of TOML's.
        let value = serde_json::Value::from(value.as_str());
        let _ = writeln!(text, "{} = {value}", required.key);
    }
    text
}

/// Writes a file that is not there, for the daemon's user to read.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        file::make_folder(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file
        .set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // The half of one would not be overwritten by the next try.
        let _ = fs::remove_file(path);
    }
    written
}
