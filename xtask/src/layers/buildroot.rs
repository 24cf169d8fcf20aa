//! The Buildroot tree, as kconfig and make read it.
//!
//! Owns what must be true of options, packages and their text. `buildroot.mk` and
//! `buildroot-options.txt` stand in for Buildroot; where its own tree is given, its own tools judge
//! too.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Bench, Findings, Verdict, source, tracked};
use xtask::process;

/// The devices' processors by Buildroot's options, with what a user sets for each of them.
const MACHINES: [(&str, &str); 3] = [
    ("BR2_aarch64=y", ""),
    ("BR2_x86_64=y", ""),
    // Any digest will do where nothing is downloaded.
    ("BR2_arm=y", "BR2_PACKAGE_LITESTREAM_ARMV7_SHA256=\"00\""),
];

pub(super) fn tree(bench: &Bench) -> PathBuf {
    bench.root.join("buildroot")
}

/// Every option is defined and explained, and every configuration sets options that there are.
pub(super) fn options(bench: &Bench) -> Verdict {
    let tree = tree(bench);
    let configurations: Vec<PathBuf> = fs::read_dir(tree.join("configs"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    let mut read = bench.python();
    read.arg(source("options.py")).arg(&tree);
    read.arg(source("buildroot-options.txt"))
        .args(&configurations);
    let said = process::output(&mut read)?;
    let mut findings: Findings = said.lines().map(str::to_owned).collect();
    for configuration in &configurations {
        let text = fs::read_to_string(configuration)?;
        if !text.contains("BR2_DOWNLOAD_FORCE_CHECK_HASHES=y\n") {
            let name = configuration.display();
            findings.push(format!(
                "{name} downloads without a hash where there is none"
            ));
        }
        if let Some(buildroot) = &bench.buildroot {
            findings.extend(survives(buildroot, &tree, configuration)?);
        }
    }
    Ok((format!("{} configurations", configurations.len()), findings))
}

/// Buildroot itself takes the configuration, and leaves out none of it.
fn survives(
    buildroot: &Path,
    tree: &Path,
    configuration: &Path,
) -> Result<Findings, Box<dyn Error>> {
    let name = configuration.file_name().unwrap_or_default();
    let output = edgerepl_tools::root().join("target/layers").join(name);
    fs::create_dir_all(&output)?;
    let output = output.canonicalize()?;
    let mut make = Command::new("make");
    make.arg("-C").arg(buildroot).arg(name);
    make.arg(format!("BR2_EXTERNAL={}", tree.display()));
    make.arg(format!("O={}", output.display()));
    process::output(&mut make)?;
    let mut check = Command::new("python3");
    check.arg(buildroot.join("support/scripts/check-dotconfig.py"));
    let checked = process::output(check.arg(output.join(".config")).arg(configuration));
    Ok(checked.err().into_iter().collect())
}

/// What packages fetch has a hash, and what they build is what lies beside the tree.
pub(super) fn packages(bench: &Bench) -> Verdict {
    let tree = tree(bench);
    let mut findings = Findings::new();
    let mut names = 0;
    for (machine, setting) in MACHINES {
        let packages = parse(&tree, &[machine, setting])?;
        names = packages.len();
        for (name, package) in &packages {
            let hashes = tree.join("package").join(name).join(format!("{name}.hash"));
            let hashes = hashes_in(&hashes)?;
            let has = |file: &str| hashes.iter().any(|(known, _)| known == file);
            for file in package["LICENSE_FILES"].split_whitespace() {
                if !has(file) {
                    findings.push(format!("{name}: {file} has no hash"));
                }
            }
            match package["SITE_METHOD"].as_str() {
                "local" => findings.extend(licences_differ(&bench.root, name, &hashes)?),
                "git" => {
                    let archive = format!("{name}-{}", package["VERSION"]);
                    if !hashes.iter().any(|(file, _)| file.starts_with(&archive)) {
                        findings.push(format!("{name}: {archive} has no hash"));
                    }
                }
                // Its hash is the user's to give.
                _ if machine == "BR2_arm=y" && name == "litestream" => {}
                _ if !has(&package["SOURCE"]) => {
                    findings.push(format!("{name}: {} has no hash", package["SOURCE"]));
                }
                _ => {}
            }
        }
    }
    match parse(&tree, &["BR2_arm=y"]) {
        Err(said)
            if said
                .to_string()
                .contains("BR2_PACKAGE_LITESTREAM_ARMV7_SHA256") => {}
        _ => findings.push("litestream for armv7 without a hash is not refused".to_owned()),
    }
    Ok((
        format!("{names} packages on {} processors", MACHINES.len()),
        findings,
    ))
}

/// The variables of each package.
pub(super) fn parse(
    tree: &Path,
    settings: &[&str],
) -> Result<BTreeMap<String, BTreeMap<String, String>>, Box<dyn Error>> {
    let mut make = Command::new("make");
    make.args(["--silent", "--no-print-directory", "--file"])
        .arg(source("buildroot.mk"));
    make.arg(format!("TREE={}", tree.display()));
    make.args(["BR_BUILDING=y", "BR2_INIT_SYSTEMD=y"]);
    for package in ["CRYPTOAUTHLIB", "EDGEREPL", "LITESTREAM"] {
        make.arg(format!("BR2_PACKAGE_{package}=y"));
    }
    let said = process::output(make.args(settings.iter().filter(|s| !s.is_empty())))?;
    let mut packages: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for line in said.lines() {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        if let (Some(package), Some(variable)) = (words.next(), words.next()) {
            let value = words.next().unwrap_or_default();
            packages.entry(package).or_default().insert(variable, value);
        }
    }
    Ok(packages)
}

/// The files and digests in a `.hash` file.
pub(super) fn hashes_in(path: &Path) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split("  ").collect::<Vec<_>>()[..] {
            ["sha256", digest, file] if digest.len() == 64 => {
                Ok((file.to_owned(), digest.to_owned()))
            }
            _ => Err(format!("{}: {line:?} is no sha256 of a file", path.display()).into()),
        })
        .collect()
}

/// A local package's licence files are those of this source.
fn licences_differ(
    root: &Path,
    name: &str,
    hashes: &[(String, String)],
) -> Result<Findings, Box<dyn Error>> {
    let mut findings = Findings::new();
    for (file, digest) in hashes {
        let mut sum = Command::new("sha256sum");
        let said = process::output(sum.arg(root.join(file)))?;
        if !said.starts_with(digest) {
            findings.push(format!(
                "{name}: the hash of {file} is not that of the file"
            ));
        }
    }
    Ok(findings)
}

/// The text is as Buildroot writes it; by its own check-package, where its tree is given.
pub(super) fn style(bench: &Bench) -> Verdict {
    let tree = tree(bench);
    let names = tracked(&tree)?;
    let mut findings = Findings::new();
    for name in &names {
        let text = fs::read_to_string(tree.join(name))?;
        findings.extend(of_text(name, &text));
    }
    let mut judge = "by our own rules";
    if let Some(buildroot) = &bench.buildroot {
        judge = "by check-package";
        let mut check = bench.python();
        check.arg(buildroot.join("utils/check-package"));
        check.current_dir(&tree).arg("-b").args(&names);
        findings.extend(process::output(&mut check).err());
    }
    Ok((format!("{} files {judge}", names.len()), findings))
}

/// The rules of check-package that a text without its tree can be held against.
fn of_text(name: &str, text: &str) -> Findings {
    let mut findings = Findings::new();
    let mut find = |number: usize, what: &str| {
        findings.push(format!("{name}:{number}: {what}"));
    };
    let lines: Vec<&str> = text.lines().collect();
    if !text.is_empty() && !text.ends_with('\n') {
        find(lines.len(), "the last line does not end");
    }
    let is = |end: &str| name.ends_with(end);
    let makefile = is(".mk") || is(".mk.in");
    let mut in_help = false;
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        if line.ends_with([' ', '\t']) {
            find(number, "blanks at the end of the line");
        }
        if line.is_empty() && index > 0 && lines[index - 1].is_empty() {
            find(number, "two empty lines");
        }
        if is("Config.in") {
            let text = line.strip_prefix("\t  ");
            in_help = match *line {
                "\thelp" => true,
                "" => in_help,
                _ => in_help && text.is_some(),
            };
            if in_help && text.is_some_and(|text| text.len() > 62 && text.contains(' ')) {
                find(number, "help is wider than 62 characters");
            }
            if line.starts_with(' ') {
                find(number, "indented by blanks, not by a tab");
            }
        }
        if makefile && line.starts_with(' ') {
            find(number, "indented by blanks, not by a tab");
        }
    }
    if makefile && name.starts_with("package/") {
        let package = name.split('/').nth(1).unwrap_or_default();
        let rule = "#".repeat(80);
        let head = [rule.as_str(), "#", &format!("# {package}"), "#", &rule, ""];
        if !lines.starts_with(&head) {
            find(1, "the header is not Buildroot's");
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::of_text;

    #[test]
    fn knows_the_rules_of_style() {
        let rule = "#".repeat(80);
        let good = format!("{rule}\n#\n# a\n#\n{rule}\n\nA_VERSION = 1\n");
        assert!(of_text("package/a/a.mk", &good).is_empty());
        assert_eq!(of_text("package/a/a.mk", "A_VERSION = 1 \n").len(), 2);
        let wide = format!("config A\n\tbool \"a\"\n\thelp\n\t  {} x\n", "w".repeat(63));
        assert_eq!(of_text("Config.in", &wide).len(), 1);
        assert_eq!(of_text("board/post-build.sh", "a\n\n\nb").len(), 2);
    }
}
