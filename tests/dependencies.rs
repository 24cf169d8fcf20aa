//! What is shipped stays small: sixteen direct dependencies, no async runtime, no second TLS; and what a
//! recipe fetches, which is all that the lock file names, is what that takes.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;

use edgerepl_lab::tools::Workspace;

/// What Cargo.toml may name for the shipped crate.
const MOST: usize = 16;

/// What must not come in by any door.
const UNWANTED: [&str; 8] = [
    "async-std",
    "aws-lc-rs",
    "mio",
    "native-tls",
    "openssl-sys",
    "smol",
    "tokio",
    "webpki-roots",
];

#[test]
fn sixteen_direct_dependencies() -> Result<(), Box<dyn Error>> {
    // The first line is the crate itself.
    let direct: Vec<String> = tree(&["--edges", "normal", "--depth", "1"])?
        .into_iter()
        .skip(1)
        .collect();
    assert!(
        (1..=MOST).contains(&direct.len()),
        "{} of them: {direct:?}",
        direct.len()
    );
    Ok(())
}

#[test]
fn no_async_runtime_and_one_tls() -> Result<(), Box<dyn Error>> {
    let all: BTreeSet<String> = tree(&["--edges", "normal"])?.into_iter().collect();
    assert!(
        all.contains("rustls") && all.contains("rusqlite"),
        "the tree was misread: {all:?}"
    );
    assert_none_unwanted(&all);
    Ok(())
}

#[test]
fn nothing_is_fetched_that_only_a_test_needs() -> Result<(), Box<dyn Error>> {
    let for_tests: Vec<String> = tree(&["--edges", "dev"])?.into_iter().skip(1).collect();
    assert!(
        for_tests.is_empty(),
        "{for_tests:?}: what a test needs belongs to tests/Cargo.toml"
    );
    let lock = fs::read_to_string(Workspace::Shipped.folder().join("Cargo.lock"))?;
    let names = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let locked: BTreeSet<String> = names.map(str::to_owned).collect();
    assert!(locked.contains("rusqlite"), "it was misread: {locked:?}");
    assert_none_unwanted(&locked);
    Ok(())
}

fn assert_none_unwanted(names: &BTreeSet<String>) {
    let found: Vec<_> = UNWANTED
        .iter()
        .filter(|name| names.contains(**name))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

/// The names in `cargo tree`, for the device's kind of machine.
fn tree(more: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    let output = Workspace::Shipped
        .cargo("tree")
        .args(["--offline", "--prefix", "none", "--format", "{lib}"])
        .args(["--target", "aarch64-unknown-linux-gnu"])
        .args(more)
        .output()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout)?;
    Ok(names
        .lines()
        .filter(|n| !n.is_empty())
        .map(|n| n.replace('_', "-"))
        .collect())
}
