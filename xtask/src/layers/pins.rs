//! One version, one digest: wherever the same thing is named, it is the same.
//!
//! Owns the comparison between the Yocto layer, the Buildroot tree and what the tests run.

use std::error::Error;

use super::{Bench, Findings, Verdict, buildroot, yocto};
use xtask::setup;

/// Litestream, cryptoauthlib and edgerepl are the same by either packager, and as tested.
pub(super) fn agree(bench: &Bench) -> Verdict {
    let mut findings = Findings::new();
    let mut same = |what: &str, one: &str, other: &str| {
        if one != other || one.is_empty() {
            findings.push(format!("{what}: {one:?} here, {other:?} there"));
        }
    };
    let packages = buildroot::parse(&buildroot::tree(bench), &["BR2_aarch64=y"])?;
    let package = |name: &str, variable: &str| {
        let value = packages.get(name).and_then(|package| package.get(variable));
        value.cloned().unwrap_or_default()
    };
    let document = yocto::parse(bench, "wrynose", "aarch64", &[])?;
    let text = |recipe: &str, variable: &str| -> Result<String, Box<dyn Error>> {
        let recipe = yocto::named(&document, recipe)?;
        let value = &recipe["variables"][variable];
        Ok(value.as_str().unwrap_or_default().to_owned())
    };
    let version = env!("CARGO_PKG_VERSION");
    same("edgerepl in Yocto", &text("edgerepl", "PV")?, version);
    same(
        "edgerepl in Buildroot",
        &package("edgerepl", "VERSION"),
        version,
    );
    let litestream = text("litestream", "PV")?;
    same(
        "Litestream by the two packagers",
        &litestream,
        &package("litestream", "VERSION"),
    );
    same(
        "Litestream as packaged and as tested",
        &litestream,
        setup::LITESTREAM,
    );
    let revision = text("cryptoauthlib", "SRCREV")?;
    same(
        "cryptoauthlib",
        &revision,
        &package("cryptoauthlib", "VERSION"),
    );

    let hashes = buildroot::tree(bench).join("package/litestream/litestream.hash");
    let hashes = buildroot::hashes_in(&hashes)?;
    for machine in ["aarch64", "x86_64"] {
        let document = yocto::parse(bench, "wrynose", machine, &[])?;
        let sources = &yocto::named(&document, "litestream")?["sources"];
        let archive = sources
            .as_array()
            .and_then(|sources| sources.iter().find(|source| source["kind"] == "https"));
        let field = |key: &str| archive.and_then(|a| a[key].as_str()).unwrap_or_default();
        let file = field("local").rsplit('/').next().unwrap_or_default();
        let there = hashes.iter().find(|(name, _)| name == file);
        let there = there.map(|(_, digest)| digest.as_str()).unwrap_or_default();
        same(file, field("sha256"), there);
    }
    Ok((
        format!("edgerepl {version}, Litestream {litestream}"),
        findings,
    ))
}
