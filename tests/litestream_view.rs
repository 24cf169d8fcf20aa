//! What edgerepl reads in Litestream's configuration is what the real Litestream reads in it.

use std::error::Error;
use std::fs;
use std::process::Command;

use edgerepl::replication::configuration::{Configuration, Variables};
use edgerepl_lab::tools;

type Outcome = Result<(), Box<dyn Error>>;

const REPLICA: &str = "replica: { type: s3, bucket: b }";

#[test]
fn the_databases_are_those_that_litestream_names() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("litestream.yml");
    let litestream = tools::litestream("0.5.17")?;
    let name = file.to_str().ok_or("a path without UTF-8")?.to_owned();
    let words = ["litestream", "replicate", "-config", &name].map(str::to_owned);
    let variables = [("X", "/v"), ("EMPTY", "")];
    let known = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for text in [
        "dbs: [{path: /a, REPLICA}, {path: /b, REPLICA}]",
        "dbs: [{path: /a, REPLICA, path: /b}]",
        "dbs: [{path: /a, REPLICA}]\ndbs: [{path: /b, REPLICA}]",
        "d: &d {path: /m}\ndbs: [{<<: *d, path: /a, REPLICA}]",
        "d: &d {path: /m}\ndbs: [{path: /a, REPLICA, <<: *d}]",
        "d: &d {path: /m}\ne: &e {path: /e}\ndbs: [{REPLICA, <<: [*d, *e]}]",
        "dbs: [{path: /a, REPLICA, \"<<\": {path: /q}}]",
        "\u{feff}dbs: [{path: /a, REPLICA}]",
        "dbs: [{path: //a/./b/../c/, REPLICA}]",
        "dbs: [{path: sqlite:///a, REPLICA}, {path: 'sqlite3:///b', REPLICA}]",
        "dbs: [{path: /n/7, REPLICA}, {path: \"/q\\x41\", REPLICA}]",
        "dbs: [{path: ${X}/a, REPLICA}]\n---\ndbs: [{path: /second, REPLICA}]",
        "dbs: [{path: $X/a${EMPTY}${UNSET}$Y.b$, REPLICA}]",
        "\"dbs\": [{path: /a, replica: &r {type: s3, bucket: b}}, {path: /b, replica: *r}]",
        "dbs:\n- path: |-\n    /folded\n  REPLICA\n- path: >-\n    /other\n  REPLICA\n",
        "# $X {\ndbs:\n  - path: /a # here\n    REPLICA\nanchor: [1, 0x10, 1e3, ~, no]\n",
    ] {
        let text = text.replace("REPLICA", REPLICA);
        fs::write(&file, &text)?;
        let printed = Command::new(&litestream)
            .args(["databases", "-config", &name])
            .env_clear()
            .envs(variables)
            .output()?;
        let said = String::from_utf8_lossy(&printed.stderr);
        assert!(printed.status.success(), "{text}: {said}");
        let printed = String::from_utf8(printed.stdout)?;
        let theirs: Vec<&str> = printed
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let ours = Configuration::of(&words, &Variables::closed(known.clone()))?;
        assert_eq!(ours.unwatched("/nowhere".as_ref()), theirs, "{text}");
    }
    Ok(())
}
