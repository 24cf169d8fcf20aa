//! The Yocto layer, as the linter of recipes and bitbake's own parser read it.
//!
//! Owns what must be true of recipes. What bitbake makes of them `parse.py` says, over `core/`, which
//! stands in for OpenEmbedded's core: names only, so that nothing here shows that a recipe builds.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Bench, Findings, Verdict, source};
use xtask::process;

/// The releases of Yocto that the layer is for.
const SERIES: [&str; 2] = ["scarthgap", "wrynose"];

/// The devices' processors, by OpenEmbedded's names, and what a user sets for each of them.
const MACHINES: [(&str, &[&str]); 3] = [("aarch64", &[]), ("armv7a", &[DIGEST]), ("x86_64", &[])];

/// Any will do where nothing is downloaded.
const DIGEST: &str =
    "LITESTREAM_SHA256_ARMV7=0000000000000000000000000000000000000000000000000000000000000000";

pub(super) fn layer(bench: &Bench) -> PathBuf {
    bench.root.join("meta-edgerepl")
}

/// The linter finds nothing; what is not to be heeded is said in the recipe, with the reason.
pub(super) fn linted(bench: &Bench) -> Verdict {
    let layer = layer(bench);
    let recipes = files(&layer, &["bb", "bbappend", "inc", "bbclass"])?;
    let mut findings = Findings::new();
    for series in SERIES {
        let mut lint = bench.python();
        lint.args([
            "-m",
            "oelint_adv",
            "--mode",
            "all",
            "--relpaths",
            "--jobs",
            "1",
            "--quiet",
        ]);
        lint.args(["--release", series])
            .args(&recipes)
            .current_dir(&layer);
        let output = lint.output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if !output.status.success() {
            findings.extend(said.lines().map(|line| format!("{series}: {line}")));
        }
    }
    Ok((
        format!("{} files, {} releases", recipes.len(), SERIES.len()),
        findings,
    ))
}

/// Every recipe parses for every release and processor, and what it fetches is pinned and there.
pub(super) fn parsed(bench: &Bench) -> Verdict {
    let mut findings = Findings::new();
    let mut recipes = 0;
    for series in SERIES {
        for (machine, settings) in MACHINES {
            // Every choice that changes what is parsed.
            for choice in ["EDGEREPL_SLOTS=", "EDGEREPL_SLOTS=rauc"] {
                let settings = [settings, &[choice]].concat();
                let document = parse(bench, series, machine, &settings)?;
                for recipe in list(&document["recipes"]) {
                    recipes += 1;
                    let found = of_recipe(recipe).into_iter();
                    findings.extend(found.map(|finding| format!("{series}, {machine}: {finding}")));
                }
            }
        }
        findings.extend(unset_digest(bench, series)?);
    }
    Ok((
        format!("{recipes} recipes, each for a release and a processor"),
        findings,
    ))
}

/// What is wrong with a recipe.
fn of_recipe(recipe: &Value) -> Findings {
    let name = recipe["file"].as_str().unwrap_or_default();
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    let mut findings = Findings::new();
    let mut find = |what: String| findings.push(format!("{name}: {what}"));
    for said in list(&recipe["said"]) {
        find(format!(
            "bitbake says: {}",
            said.as_str().unwrap_or_default()
        ));
    }
    if let Some(reason) = recipe["skipped"].as_str() {
        find(format!("it is skipped: {reason}"));
    }
    for variable in ["SUMMARY", "DESCRIPTION", "LICENSE"] {
        if recipe["variables"][variable]
            .as_str()
            .unwrap_or_default()
            .is_empty()
        {
            find(format!("it has no {variable}"));
        }
    }
    for source in list(&recipe["sources"]) {
        let url = source["url"].as_str().unwrap_or_default();
        let pinned = match source["kind"].as_str().unwrap_or_default() {
            "file" => source["found"] == true,
            "git" | "gitsm" => is_hex(&source["revision"], 40),
            _ => is_hex(&source["sha256"], 64),
        };
        if !pinned {
            find(format!("{url} is not there, or not pinned"));
        }
    }
    findings
}

/// Where upstream's digest is not known, the recipe says which variable is to be set.
fn unset_digest(bench: &Bench, series: &str) -> Result<Findings, Box<dyn Error>> {
    let document = parse(bench, series, "armv7a", &[])?;
    let litestream = named(&document, "litestream")?;
    let reason = litestream["skipped"].as_str().unwrap_or_default();
    Ok(if reason.contains("LITESTREAM_SHA256_ARMV7") {
        Findings::new()
    } else {
        vec![format!(
            "{series}: litestream for arm without a digest is not refused: {reason:?}"
        )]
    })
}

/// The class yields every crate of Cargo.lock, with its checksum, and nothing else.
pub(super) fn crates(bench: &Bench) -> Verdict {
    let lock = fs::read_to_string(bench.root.join("Cargo.lock"))?;
    let locked = locked(&lock);
    let mut findings = Findings::new();
    for series in SERIES {
        let document = parse(bench, series, "aarch64", &[])?;
        let edgerepl = named(&document, "edgerepl")?;
        let yielded: BTreeSet<(String, String)> = list(&edgerepl["sources"])
            .iter()
            .filter(|source| source["kind"] == "crate")
            .map(|source| {
                let file = source["local"].as_str().unwrap_or_default();
                let file = file.rsplit_once('/').map_or(file, |(_, file)| file);
                let sha256 = source["sha256"].as_str().unwrap_or_default();
                (file.to_owned(), sha256.to_owned())
            })
            .collect();
        let odd = |what: &str, (file, _): &(String, String)| format!("{series}: {file} {what}");
        let missing = locked.difference(&yielded);
        findings.extend(missing.map(|one| odd("is missing, or has another checksum", one)));
        findings.extend(
            yielded
                .difference(&locked)
                .map(|one| odd("is not in Cargo.lock", one)),
        );
    }
    if locked.is_empty() {
        findings.push("Cargo.lock names no crate".to_owned());
    }
    Ok((format!("{} crates", locked.len()), findings))
}

/// The crates that Cargo.lock has a checksum of: the file's name and the checksum.
fn locked(lock: &str) -> BTreeSet<(String, String)> {
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|package| {
            let file = format!(
                "{}-{}.crate",
                value(package, "name")?,
                value(package, "version")?
            );
            Some((file, value(package, "checksum")?))
        })
        .collect()
}

/// What the recipe's own do_install puts into an image is what `dist/install.sh` puts there, and
/// with every choice made nothing of that is lost.
pub(super) fn installed(bench: &Bench) -> Verdict {
    let scratch = bench.root.join("target/layers/installed");
    let _ = fs::remove_dir_all(&scratch);
    let by_dist = scratch.join("dist");
    // As if cargo had built it.
    let program = scratch.join("build/target/release/edgerepl");
    fs::create_dir_all(scratch.join("build/target/release"))?;
    fs::write(&program, "#!/bin/sh\n")?;
    let mut install = Command::new(bench.root.join("dist/install.sh"));
    install
        .arg("image")
        .env("DESTDIR", &by_dist)
        .env("BINARY", &program);
    process::output(&mut install)?;
    let mut unpack = Command::new("cp");
    unpack.arg("-rT").arg(bench.root.join("dist"));
    fs::create_dir_all(scratch.join("source"))?;
    process::output(unpack.arg(scratch.join("source/dist")))?;
    let mut unpack = Command::new("cp");
    unpack
        .arg("-rT")
        .arg(layer(bench).join("recipes-core/edgerepl/files"));
    process::output(unpack.arg(scratch.join("files")))?;

    let wanted = tree(&by_dist)?;
    let plain = tree(&install_by_recipe(bench, &scratch, &[])?)?;
    let bus = [
        "PACKAGECONFIG=cryptoauthlib restore softhsm supervisor-systemd",
        BUS,
    ];
    let all_chosen = install_by_recipe(bench, &scratch, &bus)?;
    let everything = tree(&all_chosen)?;

    let mut findings = Findings::new();
    let missing = wanted.difference(&plain);
    findings.extend(missing.map(|line| format!("not installed: {line}")));
    let strange = plain.difference(&wanted);
    findings.extend(strange.map(|line| format!("not of dist/: {line}")));
    let lost = plain.difference(&everything);
    findings.extend(lost.map(|line| format!("lost where more is chosen: {line}")));
    for unit in ["edgerepl.service", "edgerepl-restore.service"] {
        let drop_in = format!("usr/lib/systemd/system/{unit}.d/i2c.conf");
        let drop_in = fs::read_to_string(all_chosen.join(drop_in))?;
        if !drop_in.contains("\nDeviceAllow=/dev/char/89:10 rw\n") {
            findings.push(format!("{unit} is not allowed the bus that was set"));
        }
    }
    let (few, many) = (plain.len(), everything.len());
    Ok((format!("{few} files, {many} with every choice"), findings))
}

/// The restore is enabled by those who choose it, and by nobody else.
pub(super) fn enabled(bench: &Bench) -> Verdict {
    let mut findings = Findings::new();
    for (chosen, wanted) in [
        ("", &["edgerepl.service"][..]),
        ("restore", &["edgerepl.service", "edgerepl-restore.service"]),
    ] {
        let setting = format!("PACKAGECONFIG={chosen}");
        let document = parse(bench, "wrynose", "aarch64", &[&setting])?;
        let enabled = &named(&document, "edgerepl")?["variables"]["SYSTEMD_SERVICE:edgerepl"];
        let enabled = enabled.as_str().unwrap_or_default();
        if !enabled.split_whitespace().eq(wanted.iter().copied()) {
            findings.push(format!("with {setting:?} these are enabled: {enabled}"));
        }
    }
    Ok(("with and without the restore".to_owned(), findings))
}

/// A bus that no default names.
const BUS: &str = "CRYPTOAUTHLIB_I2C_BUS=10";

/// Runs the recipe's do_install as bitbake would, and answers with the folder that it filled.
fn install_by_recipe(
    bench: &Bench,
    scratch: &Path,
    chosen: &[&str],
) -> Result<PathBuf, Box<dyn Error>> {
    let into = scratch.join(format!("recipe-{}", chosen.len()));
    let set = |name: &str, path: &Path| format!("{name}={}", path.display());
    let folders = [
        set("D", &into),
        set("S", &scratch.join("source")),
        set("B", &scratch.join("build")),
        set("UNPACKDIR", &scratch.join("files")),
        "CARGO_TARGET_SUBDIR=release".to_owned(),
    ];
    let settings: Vec<&str> = folders.iter().map(String::as_str).collect();
    let settings = [&settings, chosen].concat();
    let document = parse(bench, "wrynose", "aarch64", &settings)?;
    let text = named(&document, "edgerepl")?["do_install"].clone();
    let script = scratch.join("do_install");
    let text = text.as_str().unwrap_or_default();
    fs::write(&script, format!("set -e\n{text}\ndo_install\n"))?;
    process::output(Command::new("sh").arg(&script))?;
    Ok(into)
}

/// The kas files are what kas's own schema allows.
pub(super) fn kas(bench: &Bench) -> Verdict {
    let found = files(&layer(bench).join("kas"), &["yml"])?;
    let mut validate = bench.python();
    validate.arg(source("kas_files.py")).args(&found);
    let said = process::output(&mut validate)?;
    let findings = said.lines().map(str::to_owned).collect();
    Ok((format!("{} files", found.len()), findings))
}

/// What bitbake makes of the layer.
pub(super) fn parse(
    bench: &Bench,
    series: &str,
    machine: &str,
    settings: &[&str],
) -> Result<Value, Box<dyn Error>> {
    let mut parse = bench.python();
    parse
        .arg(source("parse.py"))
        .arg(source("core"))
        .arg(layer(bench));
    let said = process::output(parse.args([series, machine]).args(settings))?;
    Ok(serde_json::from_str(&said)?)
}

/// The recipe of that name, with nothing appended.
pub(super) fn named<'a>(document: &'a Value, name: &str) -> Result<&'a Value, String> {
    let recipes = list(&document["recipes"]);
    let found = recipes
        .iter()
        .find(|recipe| recipe["variables"]["PN"] == name && recipe["appended"] == false);
    found.ok_or_else(|| format!("the layer has no recipe {name}"))
}

/// The files below a folder that end so, in order.
fn files(folder: &Path, ends: &[&str]) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, ends)?);
        } else if path
            .extension()
            .is_some_and(|end| ends.iter().any(|e| end == *e))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_hex(value: &Value, length: usize) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What lies in a folder: kind, mode, size and path, and where a link leads.
fn tree(folder: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut find = Command::new("find");
    find.arg(folder).args([
        "-mindepth",
        "1",
        "!",
        "-type",
        "d",
        "-printf",
        "%y %m %s /%P %l\\n",
    ]);
    Ok(process::output(&mut find)?
        .lines()
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::locked;

    #[test]
    fn crates_are_those_with_a_checksum() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n\
                    source = \"registry+x\"\nchecksum = \"abc\"\n\n[[package]]\nname = \"own\"\n\
                    version = \"0.1.0\"\n";
        let expected = ("a-1.2.3.crate".to_owned(), "abc".to_owned());
        assert_eq!(locked(lock).into_iter().collect::<Vec<_>>(), [expected]);
    }
}
