use std::path::PathBuf;

use super::*;
use crate::litestream::config_file::{Configuration, Surroundings, Variables};

/// A folder with edgerepl's configuration.
struct Device(PathBuf);

impl Device {
    fn new(name: &str) -> Self {
        let name = format!("edgerepl-own-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// The settings with this as `[replication]` and these databases.
    fn settings(&self, replication: &str, databases: &[&str]) -> Result<Settings, String> {
        let databases: String = databases
            .iter()
            .map(|path| format!("[[database]]\npath = {path:?}\n"))
            .collect();
        let text = format!(
            "[identity]\ncertificate = \"/c\"\nprivate_key = \"/k\"\n\
             [credentials]\nendpoint = \"e.example\"\nrole_alias = \"r\"\nregion = \"ap-northeast-1\"\n\
             [replication]\n{replication}\n{databases}"
        );
        let main = self.0.join("edgerepl.toml");
        fs::write(&main, text).expect("the file");
        let runtime = RuntimeDirectory::new(&self.0);
        Settings::load(&main, &runtime).map_err(|cause| cause.to_string())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const TWO: [&str; 2] = ["/data/app.db", "/data/a \"b\": #{c}.db"];

#[test]
fn the_text_is_what_the_documentation_shows() {
    let device = Device::new("text");
    let settings = device.settings(
        "bucket = \"my-fleet\"\nprefix = \"eu/{thing_name}\"\ncontrol_socket = \"/run/s\"\n\
         endpoint = \"https://s3.example/\"\nretention = \"7d\"\nrpo = \"15m\"",
        &TWO,
    );
    let text = text(&settings.expect("settings")).expect("a text");
    assert_eq!(text, include_str!("tests/whole.yml"));
}

#[test]
fn it_is_written_once_and_read_as_it_is_meant() {
    let device = Device::new("read");
    let settings = device.settings("bucket = \"my-fleet\"", &TWO);
    let settings = settings.expect("settings");
    write(&settings).expect("a file");
    let path = device.0.join("litestream.yml");
    let there = fs::metadata(&path).expect("the file");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&there) & 0o777, 0o600);
    write(&settings).expect("the same");
    let again = fs::metadata(&path).expect("the file");
    let number = |file: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(file);
    assert_eq!(number(&there), number(&again));

    let variables = Variables::of_litestream("thing-1", &settings.region, false);
    let read = Configuration::of(&settings.replication.command, &variables).expect("a file");
    for (database, name) in TWO.iter().zip(["app.db", "a \"b\": #{c}.db"]) {
        let place = read.place(Path::new(database));
        assert_eq!(place, Some(format!("s3://my-fleet/thing-1/{name}")));
    }
    let told = read.intervals(Path::new(TWO[1]));
    assert_eq!(told, intervals(&settings));
    let databases: Vec<&Path> = TWO.iter().map(Path::new).collect();
    let findings = read.lint(Surroundings {
        databases: &databases,
        control_socket: &settings.replication.control_socket,
        thing_name: Some("thing-1"),
        version: Some((0, 5, 17)),
    });
    assert_eq!(findings, []);
}

#[test]
fn a_command_has_a_file_of_its_own() {
    let device = Device::new("lent");
    let mut settings = device
        .settings("bucket = \"my-fleet\"", &TWO)
        .expect("settings");
    let runtime = RuntimeDirectory::new(device.0.join("missing"));
    let lent = Lent::to(&mut settings, &runtime).expect("a file");
    let file = command::configuration(&settings.replication.command);
    assert_eq!(fs::read_to_string(&file).ok(), text(&settings));
    drop(lent);
    assert!(!file.exists());
}

#[test]
fn what_can_not_work_is_refused() {
    let device = Device::new("refused");
    let one = ["/data/app.db"];
    for (replication, cause) in [
        ("bucket = \"My_Fleet\"", "bucket must be a bucket's name"),
        ("bucket = \"b-\"", "bucket must be a bucket's name"),
        ("prefix = \"x\"", "prefix needs bucket beside it"),
        ("retention = \"2d\"", "retention needs bucket beside it"),
        (
            "bucket = \"b-1\"\ncommand = [\"litestream\"]",
            "remove one of the two",
        ),
        (
            "bucket = \"b-1\"\nsupervisor = \"systemd\"",
            "must be \"child\" beside bucket",
        ),
        ("bucket = \"b-1\"\nprefix = \"\"", "prefix must be words"),
        ("bucket = \"b-1\"\nprefix = \"/x\"", "prefix must be words"),
        (
            "bucket = \"b-1\"\nprefix = \"x/../y\"",
            "prefix must be words",
        ),
        (
            "bucket = \"b-1\"\nprefix = \"{thing}\"",
            "prefix must be words",
        ),
        (
            "bucket = \"b-1\"\nprefix = \"$HOME\"",
            "prefix must be words",
        ),
        (
            "bucket = \"b-1\"\nendpoint = \"s3.example\"",
            "must begin with \"https://\"",
        ),
        (
            "bucket = \"b-1\"\nendpoint = \"http://s3.example\"",
            "must be reached by https",
        ),
        (
            "bucket = \"b-1\"\nendpoint = \"https://a/b\"",
            "is not host[:port]",
        ),
    ] {
        let refusal = device.settings(replication, &one).expect_err(replication);
        assert!(refusal.contains(cause), "{replication} gives {refusal}");
    }
    for local in [
        "http://127.0.0.1:9000",
        "http://[::1]:9000",
        "http://localhost",
    ] {
        let replication = format!("bucket = \"b-1\"\nendpoint = {local:?}");
        assert!(device.settings(&replication, &one).is_ok(), "{local}");
    }
    for (databases, cause) in [
        (
            ["/data/$HOME.db", "/data/b.db"],
            "[[database]] 1, path must have no \"$\"",
        ),
        (
            ["/data/a.db", "/other/a.db"],
            "[[database]] 2, path must have another file name",
        ),
    ] {
        let refusal = device.settings("bucket = \"b-1\"", &databases);
        assert!(refusal.expect_err(cause).contains(cause));
        assert!(device.settings("", &databases).is_ok(), "{cause}");
    }
}
