//! The shell scripts of both packagers, of `dist/` and of the gate.
//!
//! Owns which files those are: whatever git knows and begins as a script does.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Bench, Verdict, tracked};

/// shellcheck finds nothing in them.
pub(super) fn scripts(bench: &Bench) -> Verdict {
    let is_script = |path: &PathBuf| {
        let text = fs::read(path).unwrap_or_default();
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        first.starts_with("#!") && (first.ends_with("sh") || first.contains("sh "))
    };
    let found: Vec<PathBuf> = tracked(&bench.root)?
        .iter()
        .map(|name| bench.root.join(name))
        .filter(is_script)
        .collect();
    let mut check = Command::new("shellcheck");
    let output = check.args(["--format", "gcc"]).args(&found).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings = said.lines().map(str::to_owned).collect();
    Ok((format!("{} scripts", found.len()), findings))
}
