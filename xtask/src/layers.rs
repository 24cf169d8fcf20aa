//! `cargo xtask layers`: all of the Yocto layer and the Buildroot tree that can be judged without
//! OpenEmbedded's core and without Buildroot, which no package registry has.
//!
//! Owns the list of checks and how their outcome is shown. A check builds nothing for a device, and
//! changes nothing in the tree.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use edgerepl_tools::root;
use xtask::{Outcome, process, setup};

use crate::with_lab;

mod buildroot;
mod pins;
mod shell;
mod slots;
mod yocto;

/// What was found, a sentence each; none where all is well.
type Findings = Vec<String>;

/// A figure for people, and what was found.
type Verdict = Result<(String, Findings), Box<dyn Error>>;

/// A check: its name, and how it is made.
struct Check {
    name: &'static str,
    run: fn(&Bench) -> Verdict,
}

/// What a check finds ready.
struct Bench {
    /// The repository.
    root: PathBuf,
    /// The Python that knows the packages of the tools.
    python: PathBuf,
    /// A tree of Buildroot, where somebody has one.
    buildroot: Option<PathBuf>,
}

impl Bench {
    /// Not by the tools' own scripts: they name the folder that they were installed to, and a
    /// repository can be moved.
    fn python(&self) -> Command {
        Command::new(&self.python)
    }
}

const CHECKS: &[Check] = &[
    Check {
        name: "yocto: linted",
        run: yocto::linted,
    },
    Check {
        name: "yocto: parsed",
        run: yocto::parsed,
    },
    Check {
        name: "yocto: crates",
        run: yocto::crates,
    },
    Check {
        name: "yocto: installed",
        run: yocto::installed,
    },
    Check {
        name: "yocto: enabled",
        run: yocto::enabled,
    },
    Check {
        name: "yocto: appended",
        run: slots::appended,
    },
    Check {
        name: "yocto: kas",
        run: yocto::kas,
    },
    Check {
        name: "buildroot: options",
        run: buildroot::options,
    },
    Check {
        name: "buildroot: packages",
        run: buildroot::packages,
    },
    Check {
        name: "buildroot: style",
        run: buildroot::style,
    },
    Check {
        name: "buildroot: no systemd",
        run: without_systemd,
    },
    Check {
        name: "slots agree",
        run: slots::agree,
    },
    Check {
        name: "slots: tried",
        run: slots::enabled,
    },
    Check {
        name: "pins agree",
        run: pins::agree,
    },
    Check {
        name: "shell scripts",
        run: shell::scripts,
    },
];

/// `[--buildroot FOLDER]`. True where no check found anything.
pub(crate) fn layers(arguments: &[&str]) -> Outcome {
    let buildroot = match arguments {
        [] => None,
        ["--buildroot", folder] => Some(PathBuf::from(folder).canonicalize()?),
        _ => return Err("layers takes [--buildroot FOLDER]".into()),
    };
    let bench = Bench {
        root: root().canonicalize()?,
        python: setup::layers()?,
        buildroot,
    };
    let (mut passed, mut failed) = (0, 0);
    for check in CHECKS {
        let begun = Instant::now();
        let (figure, findings) = match (check.run)(&bench) {
            Ok(outcome) => outcome,
            Err(error) => {
                let said = error.to_string();
                (String::new(), vec![process::last_line(&said).to_owned()])
            }
        };
        let (name, seconds) = (check.name, begun.elapsed().as_secs_f32());
        if findings.is_empty() {
            passed += 1;
            println!("pass  {name:<22} {seconds:>5.1} s  {figure}");
            continue;
        }
        failed += 1;
        println!("FAIL  {name:<22} {seconds:>5.1} s");
        for finding in findings {
            println!("      {finding}");
        }
    }
    println!("\nlayers: {passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// edgerepl on a device without systemd, by Buildroot's supervisor: with the lab, and so by a program
/// of its own, which says what it found, or a figure.
fn without_systemd(_: &Bench) -> Verdict {
    setup::setup()?;
    let output = with_lab::command(&["supervised"])
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok((said.trim().to_owned(), Findings::new()));
    }
    let mut findings: Findings = said.lines().map(str::to_owned).collect();
    if findings.is_empty() {
        findings.push(format!("it came to no end ({}): see above", output.status));
    }
    Ok((String::new(), findings))
}

/// A part of this module's source that is not Rust.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/layers")
        .join(name)
}

/// The files below a folder that git knows, or would take.
fn tracked(folder: &Path) -> Result<Vec<String>, String> {
    let mut list = Command::new("git");
    list.current_dir(folder)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    Ok(process::output(&mut list)?
        .lines()
        .map(str::to_owned)
        .collect())
}
