//! The repository's own programs, built when one is first asked for, so that nobody ever starts one
//! that is older than its source. Where cargo finds nothing to do, asking costs a moment, once in a
//! process.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};

use serde_json::Value;

use crate::{
    missing::{Missing, Result},
    workspace::{Workspace, show_progress_to_people},
};

/// edgerepl, as cargo builds it for tests, from what the shipped lock file names.
pub fn edgerepl() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<Vec<PathBuf>>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build(Workspace::Shipped, &["--bin", "edgerepl"]));
    named("edgerepl", built)
}

/// edgerepl as it ships: a release build, stripped.
pub fn edgerepl_as_shipped() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<Vec<PathBuf>>> = OnceLock::new();
    let what = ["--release", "--locked", "--bin", "edgerepl"];
    let built = BUILT.get_or_init(|| build(Workspace::Shipped, &what));
    named("edgerepl", built)
}

/// The `lab` command: `EDGEREPL_LAB_BIN`, or the one that cargo builds.
pub fn lab_command() -> Result<PathBuf> {
    match env::var_os("EDGEREPL_LAB_BIN") {
        Some(given) => Ok(given.into()),
        None => of_lab("lab"),
    }
}

/// The faulty PKCS#11 module.
pub fn faulty_module() -> Result<PathBuf> {
    of_lab("libfaulty_module.so")
}

/// The shim that makes a process take the lab's bus for its own.
pub fn i2c_shim() -> Result<PathBuf> {
    of_lab("libi2c_shim.so")
}

fn of_lab(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<Vec<PathBuf>>> = OnceLock::new();
    // At once: each on its own, they would have their dependencies built with other features.
    let packages = [
        "--package=edgerepl-lab",
        "--package=edgerepl-lab-faulty-module",
        "--package=edgerepl-lab-i2c-shim",
    ];
    let what = [&packages[..], &["--lib", "--bins"]].concat();
    named(name, BUILT.get_or_init(|| build(Workspace::Lab, &what)))
}

fn named(name: &str, built: &Result<Vec<PathBuf>>) -> Result<PathBuf> {
    let files = built.as_ref().map_err(Clone::clone)?;
    let found = files.iter().find(|file| file.ends_with(name));
    found
        .cloned()
        .ok_or_else(|| Missing::new(format!("cargo builds no {name}: look at its Cargo.toml")))
}

/// Builds this, and answers with all files that it consists of.
fn build(workspace: Workspace, what: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = workspace.cargo("build");
    cargo
        .args(["--message-format", "json-render-diagnostics"])
        .args(what);
    show_progress_to_people(&mut cargo);
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .map_err(|cause| Missing::new(format!("cargo can't be run: {cause}; install Rust")))?;
    if !output.status.success() {
        return Err(Missing::new(format!(
            "what is in {} can't be built: see cargo's errors above",
            workspace.folder().display()
        )));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages.lines().flat_map(files).collect())
}

/// The files that one of cargo's messages names.
fn files(message: &str) -> Vec<PathBuf> {
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    let names = message["filenames"].as_array().into_iter().flatten();
    let names = names.filter_map(Value::as_str).map(Path::new);
    names.map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_says_of_an_artifact() {
        let artifact = r#"{"reason":"compiler-artifact","filenames":["/t/debug/edgerepl"]}"#;
        assert_eq!(files(artifact), [Path::new("/t/debug/edgerepl")]);
        assert!(files(r#"{"reason":"build-finished","success":true}"#).is_empty());
        let built = Ok(files(artifact));
        assert!(named("edgerepl", &built).is_ok());
        assert!(
            named("lab", &built).is_err(),
            "another's name was taken for it"
        );
    }
}
