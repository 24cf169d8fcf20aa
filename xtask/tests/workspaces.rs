//! What the two workspaces have to have in common, which no manifest can take from the other's.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;

use edgerepl_tools::Workspace;
use toml::{Table, Value};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[test]
fn both_are_of_one_version_and_under_the_same_rules() -> Outcome {
    let shipped = read(Workspace::Shipped, "Cargo.toml")?;
    let lab = read(Workspace::Lab, "Cargo.toml")?;
    let package = &lab["workspace"]["package"];
    for key in ["version", "edition", "license", "publish"] {
        assert_eq!(shipped["package"][key], package[key], "package.{key}");
    }
    assert_eq!(shipped["lints"], lab["workspace"]["lints"], "lints");
    // With another profile dependencies would be built twice.
    for key in ["debug", "opt-level"] {
        let of = |manifest: &Table| manifest["profile"]["dev"][key].clone();
        assert_eq!(of(&shipped), of(&lab), "profile.dev.{key}");
    }
    Ok(())
}

/// Tests call edgerepl's library as their own lock file resolves it, and start the program as its lock
/// file does: they have to be the same.
#[test]
fn what_ships_is_what_is_tested() -> Outcome {
    let (shipped, lab) = (locked(Workspace::Shipped)?, locked(Workspace::Lab)?);
    assert!(shipped.len() > 50, "it was misread: {shipped:?}");
    let other: Vec<_> = shipped.difference(&lab).collect();
    assert!(
        other.is_empty(),
        "lab/Cargo.lock has other versions of these: {other:?}; there, `cargo update --precise`"
    );
    Ok(())
}

/// Each crate that is fetched, with its version and checksum.
fn locked(workspace: Workspace) -> Outcome<BTreeSet<(String, String, String)>> {
    let lock = read(workspace, "Cargo.lock")?;
    let packages = lock["package"].as_array().ok_or("no packages")?;
    let text = |package: &Value, key| Some(package.get(key)?.as_str()?.to_owned());
    let fetched = packages.iter().filter_map(|package| {
        let checksum = text(package, "checksum")?;
        Some((text(package, "name")?, text(package, "version")?, checksum))
    });
    Ok(fetched.collect())
}

fn read(workspace: Workspace, file: &str) -> Outcome<Table> {
    let text = fs::read_to_string(workspace.folder().join(file))?;
    Ok(text.parse()?)
}
