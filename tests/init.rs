//! `edgerepl init` writes what the configuration lacks, checks it, and overwrites nothing.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::{Outcome, lab, site};
use edgerepl_lab::{KeyKind, Lab, Site};

#[test]
fn what_is_missing_is_written_into_a_layer_and_checked() -> Outcome {
    let (lab, site) = bare("init-layer")?;
    let main = format!(
        "[credentials]\nca_file = {:?}\n[replication]\nendpoint = {:?}\n",
        lab.ca_file(),
        lab.s3().endpoint()
    );
    fs::write(site.config(), &main)?;
    let options = options(&lab, &site);
    let output = init(&site, &options)?;
    let (checked, said) = texts(&output);
    assert!(output.status.success(), "{checked}\n{said}");
    assert!(checked.contains("ok    fetch"), "{checked}");
    assert!(!checked.contains("FAIL"), "{checked}");
    assert!(said.contains("\nNext: "), "{said}");
    let layer = layer(&site);
    let written = fs::read_to_string(&layer)?;
    assert!(
        written.contains("\n[replication]\nbucket = \"edge\"\n"),
        "{written}"
    );
    assert_eq!(fs::read_to_string(site.config())?, main);
    assert_eq!(fs::metadata(&layer)?.permissions().mode() & 0o777, 0o644);

    // All is there now.
    let output = init(&site, &options)?;
    let (_, said) = texts(&output);
    assert!(!output.status.success());
    assert!(said.contains("has all that it needs"), "{said}");
    assert_eq!(fs::read_to_string(&layer)?, written);

    // Something is missing again, and the layer is somebody's.
    fs::write(&layer, "[identity]\nthing_name = \"x\"\n")?;
    let output = init(&site, &options)?;
    let (_, said) = texts(&output);
    assert!(!output.status.success());
    assert!(said.contains("is never overwritten"), "{said}");
    assert!(fs::read_to_string(&layer)?.contains("thing_name"));
    Ok(())
}

#[test]
fn where_there_is_no_file_at_all_the_main_one_is_written() -> Outcome {
    let (lab, site) = bare("init-main")?;
    let output = init(&site, &options(&lab, &site))?;
    let (checked, said) = texts(&output);
    assert!(output.status.success(), "{checked}\n{said}");
    // The lab's root is not Amazon's: the check says so, and what is next.
    assert!(checked.contains("FAIL"), "{checked}");
    assert!(
        said.contains("run `edgerepl check --online --config /"),
        "{said}"
    );
    assert!(fs::read_to_string(site.config())?.contains("[database]\npath = "));
    Ok(())
}

/// As root with umask 077 writes it, in the folder that it is in.
#[test]
fn the_daemons_user_can_read_what_is_written() -> Outcome {
    let (lab, site) = bare("init-umask")?;
    let program = edgerepl_lab::tools::edgerepl()?;
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]);
    command.arg(program).args(["--config", "bare.toml", "init"]);
    command.args(options(&lab, &site)).stdin(Stdio::null());
    let output = command.current_dir(site.root()).output()?;
    let (checked, said) = texts(&output);
    assert!(output.status.success(), "{checked}\n{said}");
    let written = fs::metadata(site.root().join("bare.toml"))?;
    assert_eq!(written.permissions().mode() & 0o777, 0o644);
    Ok(())
}

#[test]
fn what_is_not_given_or_can_not_work_is_named_and_nothing_is_written() -> Outcome {
    let (lab, site) = bare("init-refused")?;
    let all = options(&lab, &site);
    let without = |name: &str| -> Vec<String> {
        let kept = all.chunks(2).filter(|pair| pair[0] != name);
        kept.flatten().cloned().collect()
    };
    let with = |name: &str, value: &str| {
        let mut options = without(name);
        options.extend([name.to_owned(), value.to_owned()]);
        options
    };
    for (options, cause) in [
        (without("--bucket"), "give --bucket as well"),
        (Vec::new(), "give --certificate --private-key --endpoint"),
        (
            with("--bucket", "My_Fleet"),
            "--bucket must be a bucket's name",
        ),
        (with("--database", "app.db"), "--database must be a path"),
        (
            with("--endpoint", "http://x"),
            "--endpoint must be reached by https",
        ),
    ] {
        let output = init(&site, &options)?;
        let (_, said) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(cause), "{said}");
        assert!(!site.config().exists() && !layer(&site).exists());
    }
    Ok(())
}

#[test]
fn on_a_terminal_it_asks_again_and_suggests_what_is_usual() -> Outcome {
    let (_lab, site) = bare("init-terminal")?;
    let program = site.command(&[]).get_program().to_owned();
    let line = format!(
        "{} init --config {}",
        program.display(),
        site.config().display()
    );
    let mut terminal = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let answers = "\n\nabc.credentials.iot.eu-west-1.amazonaws.com\n\n\nNo Bucket\nmy-fleet\n\n";
    let mut stdin = terminal.stdin.take().ok_or("no stdin")?;
    stdin.write_all(answers.as_bytes())?;
    let output = terminal.wait_with_output()?;
    drop(stdin);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        shown.contains("--bucket must be a bucket's name"),
        "{shown}"
    );
    let written = fs::read_to_string(site.config()).map_err(|e| format!("{e}: {shown}"))?;
    let wanted = "# Written by `edgerepl init`.\n\n\
        [identity]\ncertificate = \"/data/edgerepl/device.crt\"\n\
        private_key = \"/data/edgerepl/device.key\"\n\n\
        [credentials]\nendpoint = \"abc.credentials.iot.eu-west-1.amazonaws.com\"\n\
        role_alias = \"edgerepl\"\nregion = \"eu-west-1\"\n\n\
        [replication]\nbucket = \"my-fleet\"\n\n\
        [database]\npath = \"/data/app/app.db\"\n";
    assert_eq!(written, wanted);
    Ok(())
}

/// A device without a configuration.
fn bare(name: &str) -> Outcome<(Lab, Site)> {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, name)?;
    let mut site = site(&lab, &device)?;
    site.use_one_file(&lab)?;
    Ok((lab, site))
}

fn options(lab: &Lab, site: &Site) -> Vec<String> {
    let path = |path: PathBuf| path.display().to_string();
    [
        ("--certificate", path(site.device.certificate.clone())),
        ("--private-key", site.device.private_key.clone()),
        ("--endpoint", lab.provider().endpoint().to_string()),
        ("--role-alias", lab.provider().role_alias().to_owned()),
        ("--region", "us-east-1".to_owned()),
        ("--bucket", "edge".to_owned()),
        ("--database", path(site.database())),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

fn init(site: &Site, options: &[String]) -> Outcome<Output> {
    let mut command = site.command(&["init"]);
    Ok(command.args(options).stdin(Stdio::null()).output()?)
}

fn layer(site: &Site) -> PathBuf {
    PathBuf::from(format!("{}.d/10-init.toml", site.config().display()))
}

/// What it said to programs, and what to a person.
fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
