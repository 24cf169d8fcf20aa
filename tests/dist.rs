//! What `dist/` installs: where, with which modes, and whether systemd, edgerepl and the calendar
//! agree with it.
//!
//! systemd reads a staged root here, and starts nothing: what the units do under a real one is for
//! the image's tests to show.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use edgerepl_lab::tools;
use nix::unistd::{Gid, Uid};
use serde_json::Value;
use tempfile::TempDir;
use x509_cert::der::{DecodePem, Encode};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const UNITS: &str = "usr/lib/systemd/system";
const PRESETS: &str = "usr/lib/systemd/system-preset";

/// `systemd-analyze security` of each service, in tenths, at the most. A figure here only ever goes
/// down.
const EXPOSURE: [(&str, u32); 5] = [
    ("edgerepl.service", 15),
    ("edgerepl-restore.service", 14),
    ("edgerepl-boot-check.service", 13),
    ("litestream.service", 14),
    ("edgerepl-litestream.service", 7),
];

/// Those that use the key, and what one I2C bus adds to each.
const WITH_KEY: [&str; 2] = ["edgerepl.service", "edgerepl-restore.service"];
const I2C: u32 = 2;

/// README's promise for SIGTERM.
const STOP_LIMIT: u32 = 45;

/// A root that is to leave the bundle is seen this long before.
const NOTICE: Duration = Duration::from_secs(366 * 86_400);

#[test]
fn each_file_is_in_its_place_with_its_mode() -> Outcome {
    for kind in ["image", "package"] {
        let stage = stage(kind)?;
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("dist/{kind}.txt"));
        assert_eq!(
            listing(stage.path())?,
            fs::read_to_string(&golden)?,
            "install.sh {kind} and {} differ",
            golden.display()
        );
    }
    Ok(())
}

#[test]
fn the_folders_of_systemd_may_be_elsewhere() -> Outcome {
    let stage = TempDir::new()?;
    let installed = installer(stage.path(), "image")?
        .env("UNITDIR", "/lib/systemd/system")
        .env("PRESETDIR", "/lib/systemd/system-preset")
        .env("SYSUSERSDIR", "/lib/sysusers.d")
        .env("TMPFILESDIR", "/lib/tmpfiles.d")
        .output()?;
    assert!(installed.status.success(), "{installed:?}");
    let listing = listing(stage.path())?;
    for path in [
        "/lib/systemd/system/litestream.service",
        "/lib/systemd/system-preset/99-edgerepl.preset",
        "/lib/sysusers.d/edgerepl.conf",
        "/lib/tmpfiles.d/edgerepl.conf",
    ] {
        assert!(listing.contains(&format!(" {path}\n")), "{listing}");
    }
    assert!(!listing.contains("/usr/lib/systemd"), "{listing}");
    Ok(())
}

#[test]
fn the_installer_refuses_what_it_does_not_know() -> Outcome {
    let stage = TempDir::new()?;
    let unknown = installer(stage.path(), "everything")?.output()?;
    assert_eq!(unknown.status.code(), Some(64), "{unknown:?}");
    let nowhere = installer(Path::new(""), "image")?.output()?;
    assert!(!nowhere.status.success(), "{nowhere:?}");
    assert_eq!(listing(stage.path())?, "");
    Ok(())
}

#[test]
fn systemd_has_no_word_to_say_about_the_units() -> Outcome {
    let stage = stage("image")?;
    for unit in WITH_KEY {
        drop_in(stage.path(), unit, "i2c.conf")?;
    }
    surroundings(stage.path())?;
    let verified = analyze(stage.path(), &["verify", "--man=no"])
        .args(units(stage.path())?)
        .output()?;
    assert_eq!(said(&verified), "", "{}", verified.status);
    assert!(verified.status.success());
    Ok(())
}

#[test]
fn the_exposure_of_the_services_only_goes_down() -> Outcome {
    let stage = stage("image")?;
    surroundings(stage.path())?;
    for (unit, most) in EXPOSURE {
        let found = exposure(stage.path(), unit)?;
        println!("{unit}: {}.{} of 10", found / 10, found % 10);
        assert!(found <= most, "{unit}: {found} tenths, over {most}");
    }
    let services = units(stage.path())?
        .into_iter()
        .filter(|unit| unit.ends_with(".service"));
    let judged = EXPOSURE.map(|(unit, _)| unit.to_owned());
    assert_eq!(
        services.collect::<BTreeSet<_>>(),
        BTreeSet::from(judged),
        "a service without a budget"
    );
    for unit in WITH_KEY {
        let without = exposure(stage.path(), unit)?;
        drop_in(stage.path(), unit, "i2c.conf")?;
        let found = exposure(stage.path(), unit)?;
        println!("{unit}, an I2C bus: {}.{} of 10", found / 10, found % 10);
        assert!(found > without, "{unit}: the drop-in opens nothing");
        assert!(found <= without + I2C, "{unit}: {found} tenths");
    }
    Ok(())
}

#[test]
fn a_restore_is_enabled_by_those_who_ask_for_it() -> Outcome {
    for kind in ["image", "package"] {
        let stage = stage(kind)?;
        surroundings(stage.path())?;
        // As Buildroot makes an image, and systemd at the first boot of one that has no machine-id.
        enable(stage.path(), &["preset-all"])?;
        let enabled = "/multi-user.target.wants/edgerepl.service";
        assert_eq!(links(stage.path())?, [enabled], "{kind}");
        enable(stage.path(), &["enable", "edgerepl-restore.service"])?;
        let asked_for = "/edgerepl.service.wants/edgerepl-restore.service";
        assert_eq!(links(stage.path())?, [asked_for, enabled], "{kind}");
    }
    Ok(())
}

#[test]
fn a_preset_of_the_images_own_has_it_enabled() -> Outcome {
    let stage = stage("image")?;
    surroundings(stage.path())?;
    // By the name that Yocto gives it.
    let preset = stage.path().join(PRESETS).join("98-edgerepl.preset");
    fs::write(preset, "enable edgerepl-restore.service\n")?;
    enable(stage.path(), &["preset-all"])?;
    let asked_for = "/edgerepl.service.wants/edgerepl-restore.service".to_owned();
    assert!(links(stage.path())?.contains(&asked_for));
    Ok(())
}

#[test]
fn a_stop_is_not_cut_short() -> Outcome {
    let unit = fs::read_to_string(dist().join("edgerepl.service"))?;
    let limit = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s'));
    let limit: u32 = limit.ok_or("no TimeoutStopSec= in seconds")?.parse()?;
    assert!(
        limit > STOP_LIMIT,
        "{limit} s for a promise of {STOP_LIMIT} s"
    );
    Ok(())
}

#[test]
fn users_and_folders_are_understood() -> Outcome {
    let stage = stage("image")?;
    let users = Command::new("systemd-sysusers")
        .arg(format!("--root={}", stage.path().display()))
        .args(["--dry-run", "edgerepl.conf"])
        .output()?;
    assert!(users.status.success(), "{}", said(&users));
    assert!(
        said(&users).contains("user 'edgerepl'"),
        "no such user is made: {}",
        said(&users)
    );
    // Whoever runs this stands for both root and edgerepl: nobody else may give a folder away.
    let (user, group) = (Uid::current(), Gid::current());
    fs::write(
        stage.path().join("etc/passwd"),
        format!("edgerepl:x:{user}:{group}::/:\n"),
    )?;
    fs::write(
        stage.path().join("etc/group"),
        format!("edgerepl:x:{group}:\n"),
    )?;
    let rules = stage.path().join("usr/lib/tmpfiles.d/edgerepl.conf");
    let for_one = fs::read_to_string(&rules)?.replace(" root ", " edgerepl ");
    fs::write(rules, for_one)?;
    let folders = Command::new("systemd-tmpfiles")
        .arg(format!("--root={}", stage.path().display()))
        .args(["--create", "edgerepl.conf"])
        .output()?;
    assert_eq!(said(&folders), "", "{}", folders.status);
    assert_eq!(
        listing(&stage.path().join("data"))?,
        "0750 /edgerepl/\n0750 /edgerepl/edgerepl.toml.d/\n0700 /edgerepl/state/\n"
    );
    Ok(())
}

#[test]
fn the_configuration_as_shipped_says_what_is_to_be_filled_in() -> Outcome {
    let checked = edgerepl_check(&dist().join("edgerepl.toml"))?;
    assert_eq!(checked.status.code(), Some(78), "{checked:?}");
    let report: Value = serde_json::from_slice(&checked.stdout)?;
    let text = report.to_string();
    assert!(text.contains("[identity] certificate is missing"), "{text}");
    Ok(())
}

#[test]
fn each_line_of_the_configuration_is_known_to_edgerepl() -> Outcome {
    // Litestream has a configuration of edgerepl's, or one of its own.
    let own = [
        "bucket ",
        "prefix ",
        "endpoint = \"https://s3",
        "retention ",
    ];
    for left_out in [&own[..], &["command "]] {
        is_known(left_out)?;
    }
    Ok(())
}

/// Shows that edgerepl knows all lines but those that begin so.
fn is_known(left_out: &[&str]) -> Outcome {
    let folder = TempDir::new()?;
    let config = folder.path().join("edgerepl.toml");
    let whole = uncommented()?;
    let is_left_out = |line: &&str| left_out.iter().any(|begin| line.starts_with(begin));
    let lines: Vec<&str> = whole.lines().filter(|line| !is_left_out(line)).collect();
    assert_eq!(lines.len() + left_out.len(), whole.lines().count());
    fs::write(&config, lines.join("\n"))?;
    let bundle = dist().join("aws-iot-ca.pem");
    let layer = folder.path().join("edgerepl.toml.d");
    fs::create_dir(&layer)?;
    fs::write(
        layer.join("here.toml"),
        format!("[credentials]\nca_file = {bundle:?}\n"),
    )?;
    let checked = edgerepl_check(&config)?;
    // There is no such device here, so that other checks fail.
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let report: Value = serde_json::from_slice(&checked.stdout)?;
    let result = |name: &str| {
        let checks = report["checks"].as_array().into_iter().flatten();
        checks.clone().find(|check| check["name"] == name).cloned()
    };
    let configuration = result("configuration").ok_or("not checked")?;
    assert_eq!(configuration["outcome"], "pass", "{configuration}");
    let roots = result("ca_bundle").ok_or("not checked")?;
    assert_eq!(roots["outcome"], "pass", "{roots}");
    assert!(roots.to_string().contains("5 roots"), "{roots}");
    Ok(())
}

#[test]
fn the_roots_are_what_their_headers_say_and_valid() -> Outcome {
    let bundle = fs::read_to_string(dist().join("aws-iot-ca.pem"))?;
    let mut subjects = Vec::new();
    for block in bundle.split_inclusive("-----END CERTIFICATE-----\n") {
        if block.trim().is_empty() {
            continue;
        }
        let header = |name: &str| {
            let line = block
                .lines()
                .find_map(|l| l.strip_prefix("# ")?.strip_prefix(name));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        let pem = &block[block
            .find("-----BEGIN")
            .ok_or("a block without a certificate")?..];
        let certificate = x509_cert::Certificate::from_pem(pem)?;
        let fields = certificate.tbs_certificate();
        assert_eq!(fields.subject(), fields.issuer(), "not a root");
        let subject = fields.subject().common_name()?.ok_or("no name")?;
        let subject = subject.value().into_owned();
        assert!(
            header("subject").starts_with(&format!("CN={subject},")),
            "{subject}: {}",
            header("subject")
        );
        assert_eq!(
            header("sha256"),
            sha256(&certificate.to_der()?)?,
            "{subject}"
        );
        let end = fields.validity().not_after;
        assert_eq!(
            end.to_date_time().to_string().split('T').next(),
            Some(header("notAfter").as_str()),
            "{subject}"
        );
        assert!(
            end.to_system_time() > SystemTime::now() + NOTICE,
            "{subject} ends in less than a year: ship its successor"
        );
        subjects.push(subject);
    }
    assert_eq!(
        subjects,
        [
            "Amazon Root CA 1",
            "Amazon Root CA 2",
            "Amazon Root CA 3",
            "Amazon Root CA 4",
            "Starfield Services Root Certificate Authority - G2",
        ]
    );
    Ok(())
}

fn dist() -> PathBuf {
    tools::root().join("dist")
}

/// The installer, as a build with a strict umask calls it.
fn installer(root: &Path, kind: &str) -> Outcome<Command> {
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$0\" \"$1\""])
        .arg(dist().join("install.sh"))
        .arg(kind)
        .env("DESTDIR", root)
        .env("BINARY", tools::edgerepl()?);
    Ok(command)
}

/// A root with everything that is installed, and nothing else.
fn stage(kind: &str) -> Outcome<TempDir> {
    let stage = TempDir::new()?;
    let installed = installer(stage.path(), kind)?.output()?;
    assert!(installed.status.success(), "{}", said(&installed));
    Ok(stage)
}

/// What the units name and others bring: targets, programs, a group.
fn surroundings(root: &Path) -> Outcome {
    for target in [
        "basic",
        "multi-user",
        "network",
        "paths",
        "shutdown",
        "sysinit",
    ] {
        let file = root.join(UNITS).join(format!("{target}.target"));
        fs::write(file, "[Unit]\nDescription=A stand-in\n")?;
    }
    let programs = root.join("usr/bin");
    for program in ["kill", "litestream", "sh", "systemctl", "systemd-tmpfiles"] {
        let file = programs.join(program);
        fs::write(&file, "#!/bin/sh\n")?;
        fs::set_permissions(file, Permissions::from_mode(0o755))?;
    }
    for folder in ["bin", "sbin"] {
        symlink("usr/bin", root.join(folder))?;
    }
    Ok(())
}

/// Puts a ready-made drop-in to use.
fn drop_in(root: &Path, unit: &str, name: &str) -> Outcome {
    let folder = root.join(UNITS).join(format!("{unit}.d"));
    fs::create_dir(&folder)?;
    let ready_made = root.join("usr/share/edgerepl/drop-ins").join(name);
    fs::copy(ready_made, folder.join(name))?;
    Ok(())
}

/// The names of our own units.
fn units(root: &Path) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(UNITS))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".service") || name.ends_with(".path") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Has systemd enable units, and start none.
fn enable(root: &Path, words: &[&str]) -> Outcome {
    let done = Command::new("systemctl")
        .arg(format!("--root={}", root.display()))
        .args(words)
        .output()?;
    assert!(done.status.success(), "{}", said(&done));
    Ok(())
}

/// What is enabled: the links in the folder of systemd that is the image's to fill.
fn links(root: &Path) -> Outcome<Vec<String>> {
    let listing = listing(&root.join("etc/systemd/system"))?;
    let links = listing
        .lines()
        .filter_map(|line| line.strip_prefix("link ")?.split(" -> ").next());
    Ok(links.map(str::to_owned).collect())
}

fn analyze(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("systemd-analyze");
    command
        .arg(format!("--root={}", root.display()))
        .arg("--no-pager")
        .args(arguments)
        // It would read the units of whoever runs this.
        .env_remove("SYSTEMD_UNIT_PATH");
    command
}

/// The overall exposure level, in tenths.
fn exposure(root: &Path, unit: &str) -> Outcome<u32> {
    let printed = analyze(root, &["security", "--offline=true", unit]).output()?;
    let text = String::from_utf8_lossy(&printed.stdout);
    let level = text
        .lines()
        .find_map(|line| line.split_once(&format!("level for {unit}: ")))
        .and_then(|(_, level)| level.split(' ').next())
        .ok_or_else(|| format!("no level in {text}{}", said(&printed)))?;
    let (whole, tenth) = level.split_once('.').ok_or("no tenths")?;
    Ok(whole.parse::<u32>()? * 10 + tenth.parse::<u32>()?)
}

fn edgerepl_check(config: &Path) -> Outcome<Output> {
    Ok(Command::new(tools::edgerepl()?)
        .args(["check", "--json", "--config"])
        .arg(config)
        .output()?)
}

/// The configuration with each of its keys in force. A comment begins with `# `, a key with `#`.
fn uncommented() -> Outcome<String> {
    let shipped = fs::read_to_string(dist().join("edgerepl.toml"))?;
    let mut text = String::new();
    for line in shipped.lines() {
        let key = line
            .strip_prefix('#')
            .filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase()));
        writeln!(text, "{}", key.unwrap_or(line))?;
    }
    Ok(text)
}

/// Mode, path and, of a link, where to: one line each, sorted by path.
fn listing(root: &Path) -> Outcome<String> {
    let mut lines = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let kind = path.symlink_metadata()?;
            let name = format!("/{}", path.strip_prefix(root)?.display());
            let mode = kind.permissions().mode() & 0o7777;
            let line = if kind.is_symlink() {
                format!("link {name} -> {}", fs::read_link(&path)?.display())
            } else if kind.is_dir() {
                folders.push(path);
                format!("{mode:04o} {name}/")
            } else {
                format!("{mode:04o} {name}")
            };
            lines.insert((name, line));
        }
    }
    Ok(lines.into_iter().map(|(_, line)| line + "\n").collect())
}

fn sha256(bytes: &[u8]) -> Outcome<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(bytes)?;
    let printed = String::from_utf8(child.wait_with_output()?.stdout)?;
    Ok(printed.split(' ').next().unwrap_or_default().to_owned())
}

/// What a program had to say, on either of its streams.
fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}
