//! What is shipped stays small: sixteen direct dependencies, no async runtime, no second TLS.

use std::collections::BTreeSet;
use std::error::Error;
use std::process::Command;

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
    let direct: Vec<String> = tree(&["--depth", "1"])?.into_iter().skip(1).collect();
    assert!(
        (1..=MOST).contains(&direct.len()),
        "{} of them: {direct:?}",
        direct.len()
    );
    Ok(())
}

#[test]
fn no_async_runtime_and_one_tls() -> Result<(), Box<dyn Error>> {
    let all: BTreeSet<String> = tree(&[])?.into_iter().collect();
    assert!(
        all.contains("rustls") && all.contains("rusqlite"),
        "the tree was misread: {all:?}"
    );
    let found: Vec<_> = UNWANTED
        .iter()
        .filter(|name| all.contains(**name))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}

/// The names in `cargo tree`, for the device's kind of machine.
fn tree(more: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "edgerepl",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args([
            "--format",
            "{lib}",
            "--target",
            "aarch64-unknown-linux-gnu",
            "--offline",
        ])
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
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
